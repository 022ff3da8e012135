//! Home is lost: its database, its registry and its bucket. The reader's place becomes home, as docs/regions.md has it.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Backend, Berth, Bucket, Client, Image, Layout, OwnServer, eventually};
use serde_json::Value;

use super::WAIT;
use super::reading::reading;
use crate::faults::aftermath::stores_fit;

/// The check of the stores, with what the command is given besides.
async fn fsck(berth: &Berth, arguments: &[&str]) -> (Output, Value) {
    let mut command: Command = berth.command("fsck");
    let admin = berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    command.args(arguments).args(["-o", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    let output = output.await.expect("no panic");
    let state = serde_json::from_slice(&output.stdout).expect("a report");
    (output, state)
}

/// Digests of findings, all of which are of one kind.
fn digests(state: &Value, kind: &str) -> BTreeSet<String> {
    let findings = state["findings"].as_array().expect("findings");
    let digest = |finding: &Value| {
        assert_eq!(finding["kind"], kind, "{state:#}");
        finding["digest"].as_str().expect("a digest").to_owned()
    };
    findings.iter().map(digest).collect()
}

fn of(image: &Image) -> BTreeSet<String> {
    image.blobs().map(sha256).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_becomes_home_with_all_that_had_arrived_and_clients_bring_back_the_rest() {
    let mut database = OwnServer::postgres();
    let mut primary = Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", &database.url())
        .start()
        .await;
    let standby = database.follower();
    let near = Bucket::create();
    let mut reader = reading(&primary, &standby)
        .variable("BERTH_BLOBS", &near.url())
        .flag("--redirect", "Never")
        .start()
        .await;
    let there = Repository::new(&primary.url(""), "app");
    let here = Repository::new(&reader.url(""), "app");

    // 1. Some images have arrived, of two the rows alone, of one nothing.
    let arrived: Vec<Image> = (0..3).map(|seed| Image::new(seed, 3000)).collect();
    for (number, image) in arrived.iter().enumerate() {
        image.push(&there, &format!("v{number}")).await;
    }
    let home = primary.storage().bucket().expect("a bucket").folder();
    super::copy(&home, &near.folder());
    let rows = Image::new(10, 3000);
    rows.push(&there, "rows").await;
    let twin = Image::new(11, 3000);
    twin.push(&there, "twin").await;
    let stray = blob(2000, 13);
    let stray = there.sibling("other").push_blob(&stray).await;
    eventually("the rows have arrived", WAIT, async || {
        let found = here.get_manifest("rows").await.status.as_u16() == 200
            && here.sibling("other").head(&format!("blobs/{stray}")).await.status == 200;
        found.then_some(())
    })
    .await;
    standby.set("primary_conninfo", "");
    eventually("the standby hears nothing more", WAIT, async || {
        (database.sql("SELECT count(*) FROM pg_stat_replication") == [["0"]]).then_some(())
    })
    .await;
    let unknown = Image::new(12, 3000);
    unknown.push(&there, "unknown").await;

    // 2. Home is lost. The reader goes on.
    primary.kill9();
    database.kill9();
    std::fs::remove_dir_all(&home).expect("the bucket of home");
    for (number, image) in arrived.iter().enumerate() {
        image.assert_pullable(&here, &format!("v{number}")).await;
    }

    // 3. The standby is promoted, and the reader is started again as what writes, on its own bucket.
    standby.promote();
    assert!(reader.terminate(WAIT).await.success());
    let keys = primary.data().join("keys");
    let berth = Berth::builder()
        .storage(primary.storage().clone(), 1)
        .variable("BERTH_METADATA", &standby.url())
        .variable("BERTH_BLOBS", &near.url())
        .flag("--keys", keys.to_str().expect("a plain name"))
        .flag("--redirect", "Never")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "app");
    for (number, image) in arrived.iter().enumerate() {
        image.assert_pullable(&repository, &format!("v{number}")).await;
    }
    repository.get_manifest("unknown").await.expect(404);

    // 4. What the bucket lacks is named with who has it, and pulls of it fail.
    let needed: BTreeSet<String> = of(&rows).union(&of(&twin)).cloned().collect();
    let mut lost = needed.clone();
    lost.insert(stray.clone());
    let (output, state) = fsck(&berth, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(digests(&state, "MissingObject"), lost, "{state:#}");
    for finding in state["findings"].as_array().expect("findings") {
        let repository = if finding["digest"] == stray {
            "other"
        } else {
            "app"
        };
        assert_eq!(
            finding["repositories"],
            serde_json::json!([repository]),
            "{finding}"
        );
    }
    for digest in &needed {
        let answer = repository.get(&format!("blobs/{digest}")).await.expect(500);
        assert_eq!(answer.error_code(), "UNKNOWN");
        // This is why a client that pushes the image again would send nothing.
        repository.head(&format!("blobs/{digest}")).await.expect(200);
    }

    // 5. Forgotten, it is known to be absent.
    let (output, state) = fsck(&berth, &["--forget-lost"]).await;
    assert!(output.status.success(), "{state:#}");
    assert_eq!(state["repaired"], lost.len(), "{state:#}");
    for digest in &needed {
        let answer = repository.get(&format!("blobs/{digest}")).await.expect(404);
        assert_eq!(answer.error_code(), "BLOB_UNKNOWN");
    }
    let (_, state) = fsck(&berth, &[]).await;
    assert_eq!(digests(&state, "MissingBlob"), needed, "{state:#}");

    // 6. Clients that ask for blobs push the image again as they always do.
    let skopeo = Client::new("skopeo");
    let policy = skopeo.file(
        "policy.json",
        br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    );
    let layout = Layout::of_image(&skopeo.path("rows"), &rows, "rows");
    let (from, to) = (
        format!("oci:{}:rows", layout.path()),
        format!("docker://{}/app:rows", berth.address()),
    );
    skopeo
        .run(&[
            "--policy",
            &policy,
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ])
        .await;
    rows.assert_pullable(&repository, "rows").await;
    // One that asks for the manifest first has to find none.
    let crane = Client::new("crane");
    repository
        .delete(&format!("manifests/{}", twin.digest()))
        .await
        .expect(202);
    for (image, tag) in [(&twin, "twin"), (&unknown, "unknown")] {
        let layout = Layout::of_image(&crane.path(tag), image, tag);
        let to = format!("{}/app:{tag}", berth.address());
        crane.run(&["push", layout.path(), &to]).await;
        image.assert_pullable(&repository, tag).await;
    }
    stores_fit(&berth, |statement| standby.sql(statement)).await;
    for (number, image) in arrived.iter().enumerate() {
        image.assert_pullable(&repository, &format!("v{number}")).await;
    }
    repository.delete("manifests/v0").await.expect(202);
}
