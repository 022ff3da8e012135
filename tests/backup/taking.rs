//! Backups of a server that is at work, and what they bring back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use harness::content::blob;
use harness::http::Repository;
use harness::{Backend, Berth, Dice, Image, eventually};
use reqwest::Method;
use serde_json::json;

use super::running::{Running, past};
use super::{Vault, WAIT, assert_sound, command, done, elsewhere, on, refused, text};
use crate::faults::history::History;
use crate::faults::writers::Writers;

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_under_load_comes_back_byte_for_byte() {
    let (vault, mut dice) = (Vault::new(), Dice::new());
    let mut berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "team/app");
    let acknowledged = pushed(&repository, &mut dice, 12).await;
    let open = repository.start_upload().await;
    repository
        .patch(&open, Some("0-999"), blob(1000, 1))
        .await
        .expect(202);

    // 1. Others push all the time.
    let beside = Repository::new(&berth.url(""), "team/beside");
    let load = Arc::new(History::default());
    let writers = Writers::start(&beside, &load, &mut dice);
    eventually("some pushes", WAIT, async || {
        (load.acknowledged().1 >= 4).then_some(())
    })
    .await;
    let first = done(&berth, &["backup", "create", &vault.text()]).await;
    let second = done(&berth, &["backup", "create", &vault.text()]).await;
    writers.stop().await;
    assert!(
        second["newObjects"].as_u64() < second["objects"].as_u64(),
        "{first} {second}"
    );
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["faults"]["count"], 0, "{verified}");
    assert_eq!(verified["generations"].as_array().map(Vec::len), Some(2));
    assert_eq!(verified["objects"], second["objects"], "an object is read once");

    // 2. The machine is lost.
    let keys = keys_of(&berth);
    berth.kill9();
    fs::remove_dir_all(berth.data()).expect("the data folder goes");
    drop(berth);

    // 3. Another one is what it was.
    let storage = elsewhere(Backend::Embedded);
    let spare = on(&storage);
    let data = text(&storage.data(0));
    let generation = first["generation"].as_str().expect("a name");
    let restored = Berth::start(Backend::Embedded).await;
    let words = [
        "restore",
        &vault.text(),
        "--data",
        &data,
        "--generation",
        generation,
    ];
    let outcome = done(&restored, &words).await;
    assert_eq!(outcome["objects"], first["objects"]);
    let berth = spare.start().await;
    assert_sound(&berth).await;
    assert_eq!(keys_of(&berth), keys);
    let repository = Repository::new(&berth.url(""), "team/app");
    acknowledged.check_all(&repository).await;
    let path = open.split_once("/v2/").expect("a path").1;
    let gone = repository.at(Method::PATCH, &berth.url(&format!("/v2/{path}")));
    let gone = harness::http::send(gone.body(blob(10, 2))).await.expect(404);
    assert_eq!(gone.error_code(), "BLOB_UPLOAD_UNKNOWN");
    Image::new(77, 5000).push(&repository, "afterwards").await;
    assert_sound(&berth).await;
}

/// Pushes until so many images are acknowledged.
async fn pushed(repository: &Repository, dice: &mut Dice, images: usize) -> Arc<History> {
    let history = Arc::new(History::default());
    let writers = Writers::start(repository, &history, dice);
    eventually("pushes", WAIT, async || {
        (history.acknowledged().1 >= images).then_some(())
    })
    .await;
    writers.stop().await;
    history
}

/// Names, modes and contents of the keys.
fn keys_of(berth: &Berth) -> Vec<(String, u32, Vec<u8>)> {
    let files = fs::read_dir(berth.data().join("keys")).expect("keys");
    let mut keys: Vec<_> = files
        .map(|file| {
            let file = file.expect("a key");
            let mode = file.metadata().expect("a mode").permissions().mode();
            let content = fs::read(file.path()).expect("a key");
            (file.file_name().to_string_lossy().into_owned(), mode, content)
        })
        .collect();
    keys.sort();
    assert!(keys.iter().all(|(_, mode, _)| mode & 0o077 == 0), "{keys:?}");
    keys
}

#[tokio::test]
async fn a_second_backup_copies_what_is_new_and_old_generations_go_with_what_only_they_name() {
    let vault = Vault::new();
    let berth = Berth::builder()
        .flag("--lease", "2s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1ms")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "team/app");
    let (kept, dropped) = (Image::new(1, 3000), Image::new(2, 3000));
    kept.push(&repository, "kept").await;
    dropped.push(&repository, "dropped").await;
    let first = done(&berth, &["backup", "create", &vault.text()]).await;
    let before: Vec<_> = vault.objects();
    let inode = |path: &std::path::PathBuf| fs::metadata(path).expect("an object").ino();
    let inodes: Vec<u64> = before.iter().map(inode).collect();
    assert_eq!(first["newObjects"], before.len());

    repository
        .delete(&format!("manifests/{}", dropped.digest()))
        .await
        .expect(202);
    let admin = harness::Admin::of(&berth);
    eventually("the image is collected", WAIT, async || {
        let state = admin.ask(Method::GET, "gc", None).await.expect(200).json();
        (state["collected"]["blobs"] == dropped.blobs().count()).then_some(())
    })
    .await;
    let added = Image::new(3, 3000);
    added.push(&repository, "added").await;

    let second = done(&berth, &["backup", "create", &vault.text()]).await;
    assert_eq!(second["newObjects"], added.blobs().count());
    let still: Vec<u64> = before.iter().map(inode).collect();
    assert_eq!(still, inodes, "nothing was copied again");
    let third = done(&berth, &["backup", "create", &vault.text(), "--keep", "1"]).await;
    assert_eq!(third["removedGenerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(third["removedObjects"], dropped.blobs().count());
    assert_eq!(third["newObjects"], 0);
    let listed = done(&berth, &["backup", "list", &vault.text()]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["generation"], third["generation"]);
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["faults"]["count"], 0);
    assert_eq!(
        vault.objects().len() as u64,
        third["objects"].as_u64().expect("a number")
    );
}

#[tokio::test]
async fn what_is_collected_during_a_backup_stays_until_it_is_copied() {
    let vault = Vault::new();
    let berth = Berth::builder()
        .flag("--lease", "2s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1ms")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "team/app");
    let images: Vec<Image> = (1..11).map(|seed| Image::new(seed, 60_000)).collect();
    for (number, image) in images.iter().enumerate() {
        image.push(&repository, &format!("v{number}")).await;
    }

    // 1. The backup is slow, and while it copies everything is deleted and collected.
    let mut backup = Running::start(command(
        &berth,
        &["backup", "create", &vault.text(), "--rate", "60KiB"],
    ));
    backup.until(past(1));
    for image in &images {
        repository
            .delete(&format!("manifests/{}", image.digest()))
            .await
            .expect(202);
    }
    let admin = harness::Admin::of(&berth);
    let gc = async || admin.ask(Method::GET, "gc", None).await.expect(200).json();
    eventually("all blobs are collected, and no object", WAIT, async || {
        let state = gc().await;
        let all = images.iter().map(|image| image.blobs().count()).sum::<usize>() as u64;
        assert_eq!(state["collected"]["objects"], 0, "{state}");
        (state["collected"]["blobs"].as_u64() >= Some(all)).then_some(())
    })
    .await;
    assert!(gc().await["heldUntil"].is_string());
    let end = backup.until(|line| line["event"] == "done");
    assert!(backup.ended());
    assert_eq!(end["faults"], 0);
    let verified = done(&berth, &["backup", "verify", &vault.text()]).await;
    assert_eq!(verified["faults"]["count"], 0, "{verified}");

    // 2. Then the objects go.
    eventually("the objects are deleted", WAIT, async || {
        (gc().await["queues"]["objects"] == 0).then_some(())
    })
    .await;
    let storage = admin.ask(Method::GET, "storage", None).await.expect(200).json();
    assert_eq!(storage["storedBytes"], 0);

    // 3. And the backup still has the images.
    let storage = elsewhere(Backend::Embedded);
    done(
        &berth,
        &["restore", &vault.text(), "--data", &text(&storage.data(0))],
    )
    .await;
    let restored = on(&storage).start().await;
    assert_sound(&restored).await;
    let repository = Repository::new(&restored.url(""), "team/app");
    for (number, image) in images.iter().enumerate() {
        image.assert_pullable(&repository, &format!("v{number}")).await;
    }
}

#[tokio::test]
async fn a_stopped_installation_is_backed_up_too_and_another_one_is_not_mixed_with_it() {
    let vault = Vault::new();
    let mut berth = Berth::start(Backend::Embedded).await;
    Image::new(1, 3000)
        .push(&Repository::new(&berth.url(""), "app"), "v1")
        .await;
    berth.kill9();
    let offline = done(&berth, &["backup", "create", &vault.text(), "--without-keys"]).await;
    assert_eq!((&offline["keys"], &offline["faults"]), (&json!(false), &json!(0)));

    let other = Berth::start(Backend::Embedded).await;
    Image::new(2, 3000)
        .push(&Repository::new(&other.url(""), "app"), "v1")
        .await;
    let said = refused(&other, &["backup", "create", &vault.text()]).await;
    assert!(said.contains("another installation"), "{said}");

    // The admin listener is another server's, and the one that holds the folder is not asked.
    berth.restart().await;
    let mut words = command(&other, &["backup", "create", &vault.text()]);
    words.arg("--data").arg(berth.data());
    words.arg("--admin-key-file").arg(other.data().join("keys/admin"));
    let output = super::output(words).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("--admin-listen"),
        "{said}"
    );
    let listed = done(&berth, &["backup", "list", &vault.text()]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
}
