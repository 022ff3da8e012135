//! A first start, and one holder a data folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use harness::{Backend, Berth};

use super::{ANY_PORTS, Ended};

#[tokio::test]
async fn a_second_server_on_a_folder_is_refused_with_the_holder_s_process_id() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let pid = berth.pid().to_string();

    let mut second = berth.command("serve");
    second.args(ANY_PORTS);
    let started = Instant::now();
    Ended::of(second).expect(1, &["--data", &pid]);
    let mut migrate = berth.command("migrate");
    migrate.args(["-o", "json"]);
    Ended::of(migrate).expect(1, &["--data", &pid]);
    assert!(started.elapsed() < Duration::from_secs(10));

    // A holder that was killed holds nothing.
    berth.kill9();
    Ended::of(berth.command("migrate")).expect(0, &[]);
    berth.restart().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let berth = Berth::start(Backend::Embedded).await;
    let data = tempfile::tempdir().expect("a temporary folder");

    for flag in ["listen", "admin-listen", "ops-listen"] {
        let mut second = berth.command("serve");
        let taken = format!("--{flag}={}", berth.address());
        let others = ANY_PORTS
            .iter()
            .filter(|any| !any.starts_with(&format!("--{flag}=")));
        second.env("BERTH_DATA", data.path()).args(others).arg(taken);
        Ended::of(second).expect(1, &[&format!("--{flag}"), &berth.address()]);
    }
}

#[tokio::test]
async fn a_first_start_makes_a_folder_and_keys_that_only_their_owner_reads() {
    let berth = Berth::start(Backend::Embedded).await;
    let mode = |path: &str| {
        let path = berth.data().join(path);
        fs::metadata(&path).expect("it was made").permissions().mode() & 0o777
    };

    assert_eq!(
        (mode(""), mode("keys"), mode("keys/admin")),
        (0o700, 0o700, 0o600)
    );
    let key = fs::read_to_string(berth.data().join("keys/admin")).expect("the key");
    assert!(key.trim().len() >= 32);
    assert!(!berth.log().contains(key.trim()), "the log shows the admin key");
}

#[tokio::test]
async fn stores_that_cannot_be_had_end_the_start_with_a_reason() {
    let berth = Berth::start(Backend::Embedded).await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let file = data.path().join("file");
    fs::write(&file, "").expect("a file");
    let file = file.to_str().expect("a plain name");

    for (flag, named) in [
        (format!("--data={file}/data"), "--data"),
        (format!("--metadata=sqlite:{file}/berth.db"), "metadata"),
        (format!("--blobs=folder:{file}/blobs"), file),
        ("--admin-key-file=/nonexistent/key".to_owned(), "--admin-key-file"),
    ] {
        let mut serve = berth.command("serve");
        serve
            .env("BERTH_DATA", data.path().join("data"))
            .args(ANY_PORTS)
            .arg(&flag);
        Ended::of(serve).expect(1, &[named]);
    }
}
