//! kill -9 in the middle of a backup and of a restore.

use std::fs;

use harness::http::Repository;
use harness::{Backend, Berth, Image};

use super::running::{Running, past};
use super::{Vault, assert_sound, command, done, elsewhere, on, output, refused, text};

/// Slow enough to be cut: each image has about 200 kB.
const RATE: &str = "300KiB";

async fn images(berth: &Berth, seeds: std::ops::Range<u64>) -> Vec<(String, Image)> {
    let repository = Repository::new(&berth.url(""), "team/app");
    let mut images = Vec::new();
    for seed in seeds {
        let image = Image::new(seed, 100_000);
        image.push(&repository, &format!("v{seed}")).await;
        images.push((format!("v{seed}"), image));
    }
    images
}

#[tokio::test]
async fn a_backup_that_is_killed_leaves_the_earlier_ones_and_the_next_goes_on() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    images(&berth, 1..3).await;
    let first = done(&berth, &["backup", "create", &vault.text()]).await;
    images(&berth, 3..13).await;

    let mut cut = Running::start(command(
        &berth,
        &["backup", "create", &vault.text(), "--rate", RATE],
    ));
    let copied = first["objects"].as_u64().expect("a number") + 3;
    cut.until(past(copied));
    let said = refused(&berth, &["backup", "create", &vault.text()]).await;
    assert!(said.contains("in use by another backup"), "{said}");
    cut.kill9();

    let listed = done(&berth, &["backup", "list", &vault.text()]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["generation"], first["generation"]);
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["objects"], first["objects"]);

    let resumed = done(&berth, &["backup", "create", &vault.text()]).await;
    let missing = resumed["objects"].as_u64().expect("a number") - copied;
    assert!(
        resumed["newObjects"].as_u64().expect("a number") <= missing,
        "{resumed}"
    );
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["objects"], resumed["objects"]);
    let left = fs::read_dir(vault.path().join("generations"))
        .expect("generations")
        .count();
    assert_eq!(left, 2, "what was cut is gone");
    assert_eq!(
        fs::read_dir(vault.path().join("tmp")).expect("a folder").count(),
        0
    );
}

#[tokio::test]
async fn a_restore_that_is_killed_is_not_served_and_goes_on() {
    let vault = Vault::new();
    let berth = Berth::start(Backend::Embedded).await;
    let first = done(&berth, &["backup", "create", &vault.text()]).await;
    let images = images(&berth, 1..11).await;
    done(&berth, &["backup", "create", &vault.text()]).await;

    let storage = elsewhere(Backend::Embedded);
    let data = text(&storage.data(0));
    let words = ["restore", &vault.text(), "--data", &data];
    let mut cut = Running::start(command(&berth, &[&words[..], &["--rate", RATE]].concat()));
    cut.until(past(3));
    cut.kill9();

    let mut serve = berth.command("serve");
    serve.args(["--data", &data]);
    let refusal = output(serve).await;
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert!(said.contains("has not ended"), "{said}");
    let older = first["generation"].as_str().expect("a name");
    let said = refused(&berth, &[&words[..], &["--generation", older]].concat()).await;
    assert!(said.contains("was begun and has not ended"), "{said}");

    done(&berth, &words).await;
    let restored = on(&storage).start().await;
    assert_sound(&restored).await;
    let repository = Repository::new(&restored.url(""), "team/app");
    for (tag, image) in &images {
        image.assert_pullable(&repository, tag).await;
    }
}
