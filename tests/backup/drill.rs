//! The documented way for PostgreSQL and S3, as docs/backup.md has it: metadata first, the bucket second, collection
//! paused meanwhile.

use std::process::Command;
use std::sync::Arc;

use harness::http::Repository;
use harness::{Admin, Backend, Berth, Dice, Image, eventually};
use reqwest::Method;
use serde_json::json;

use super::{WAIT, assert_sound, elsewhere, on, text};
use crate::faults::history::History;
use crate::faults::writers::Writers;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_dump_and_a_copy_of_the_bucket_under_load_bring_everything_acknowledged_back() {
    let mut dice = Dice::new();
    let berth = Berth::start(Backend::Distributed).await;
    let admin = Admin::of(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    let acknowledged = Arc::new(History::default());
    let writers = Writers::start(&repository, &acknowledged, &mut dice);
    eventually("pushes", WAIT, async || {
        (acknowledged.acknowledged().1 >= 12).then_some(())
    })
    .await;
    writers.stop().await;
    let load = Arc::new(History::default());
    let beside = Repository::new(&berth.url(""), "team/beside");
    let writers = Writers::start(&beside, &load, &mut dice);
    eventually("load", WAIT, async || (load.acknowledged().1 >= 4).then_some(())).await;

    // 1. Pause, the database, the bucket, resume.
    let pause = |paused: bool| json!({ "paused": paused });
    admin
        .ask(Method::PUT, "gc/paused", Some(pause(true)))
        .await
        .expect(200);
    let vault = tempfile::tempdir().expect("a folder");
    let dump = text(&vault.path().join("berth.sql"));
    let copy = text(&vault.path().join("bucket"));
    let storage = berth.storage().clone();
    let (database, bucket) = (
        storage.database().expect("a database"),
        storage.bucket().expect("a bucket"),
    );
    run("pg_dump", &["--no-owner", "--file", &dump, &database.url()]);
    let (_, after_dump) = load.acknowledged();
    eventually("pushes between the two copies", WAIT, async || {
        (load.acknowledged().1 > after_dump).then_some(())
    })
    .await;
    // What lies beside the objects belongs to uploads that are open, and comes and goes.
    run("cp", &["-a", &text(&bucket.folder().join("blobs")), &copy]);
    admin
        .ask(Method::PUT, "gc/paused", Some(pause(false)))
        .await
        .expect(200);
    writers.stop().await;
    let keys = text(&berth.data().join("keys"));

    // 2. Another database, another place in a bucket, the same keys.
    let other = elsewhere(Backend::Distributed);
    let url = other.database().expect("a database").url();
    run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &dump, &url]);
    let folder = other.bucket().expect("a bucket").folder();
    std::fs::create_dir_all(&folder).expect("a folder");
    run("cp", &["-a", &copy, &text(&folder.join("blobs"))]);
    let restored = on(&other).flag("--keys", &keys).start().await;
    assert_sound(&restored).await;
    let again = Repository::new(&restored.url(""), "team/app");
    acknowledged.check_all(&again).await;
    let paused = Admin::of(&restored)
        .ask(Method::GET, "gc", None)
        .await
        .expect(200)
        .json();
    assert_eq!(paused["paused"], true, "as it was when the database was copied");
    Image::new(5, 3000).push(&again, "afterwards").await;
    assert_sound(&restored).await;
}
