//! `berth-registry doctor`: what works is said to work, and what does not is said with what mends it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Admin, Backend, Berth, TlsFiles, eventually, setting};
use http::Method;
use serde_json::{Value, json};

use super::{Ended, program};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it to its end beside a server, and reads what it found.
async fn doctor(berth: &Berth, arguments: &[&str]) -> (Ended, Value) {
    let mut command = berth.command("doctor");
    for (flag, url) in [
        ("listen", berth.url("")),
        ("admin-listen", berth.admin_url("")),
        ("ops-listen", berth.ops_url("")),
    ] {
        let address = url.split("://").nth(1).expect("an address");
        command.arg(format!("--{flag}={address}"));
    }
    command.args(arguments).args(["-o", "json"]);
    run(command).await
}

async fn run(command: Command) -> (Ended, Value) {
    let ended = tokio::task::spawn_blocking(move || Ended::of(command))
        .await
        .expect("no panic");
    let found = serde_json::from_str(&ended.output).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, found)
}

/// The findings of a status, as `part: check`.
fn of_status(found: &Value, status: &str) -> Vec<String> {
    let findings = found["findings"].as_array().expect("findings");
    findings
        .iter()
        .filter(|finding| finding["status"] == status)
        .map(|finding| format!("{}: {}", text(&finding["part"]), text(&finding["check"])))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// The one finding of a check that begins so.
fn finding<'a>(found: &'a Value, check: &str) -> &'a Value {
    let findings = found["findings"].as_array().expect("findings");
    let mut of = findings
        .iter()
        .filter(|finding| text(&finding["check"]).starts_with(check));
    of.next()
        .unwrap_or_else(|| panic!("nothing is said of {check}: {found:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_installation_of_files_is_found_sound_while_it_runs_and_after() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let (ended, found) = doctor(&berth, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // How full the disk of the tests is, is nobody's fault; whether that is told rightly is another matter.
    let disk = rustix::fs::statvfs(berth.data()).expect("a disk");
    let disk_said = match disk.f_bavail < disk.f_blocks / 10 {
        true => "warning",
        false => "ok",
    };
    assert_eq!(finding(&found, "disk")["status"], disk_said, "{found:#}");
    let mut warned = of_status(&found, "warning");
    warned.retain(|check| !check.ends_with(": disk"));
    assert_eq!(warned, [] as [String; 0], "{found:#}");
    assert_eq!(found["failed"], 0, "{found:#}");
    for check in [
        "admin API",
        "readiness",
        "configuration",
        "collection",
        "schema",
        "http://localhost",
    ] {
        assert_eq!(finding(&found, check)["status"], "ok", "{check}");
    }
    berth.terminate(PATIENCE).await;
    let (ended, found) = doctor(&berth, &["--skip", "hosts", "--thorough"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(finding(&found, "admin API")["status"], "skipped");
    // Now that nobody holds the folder it is tried out.
    assert_eq!(finding(&found, "deleting an object")["status"], "ok");
    let left = walk(&berth.data().join("blobs"));
    assert_eq!(left, [] as [String; 0], "the doctor's own object is gone");
}

/// Files below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => files.extend(walk(&entry.path())),
            false if entry.file_name() == "lock" => {}
            false => files.push(entry.path().display().to_string()),
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_the_bucket_and_each_setting_of_the_database_is_tried() {
    let berth = Berth::start(Backend::Distributed).await;
    let (ended, found) = doctor(&berth, &[]).await;
    assert_eq!(ended.code, Some(0), "{found:#}");
    for check in [
        "multipart upload",
        "size of an object",
        "range of an object",
        "a client's download by a signed URL",
        "listing objects",
        "listing unfinished uploads",
        "giving an upload up",
        "deleting an object",
        "clock",
        "round trip",
        "schema",
    ] {
        assert_eq!(finding(&found, check)["status"], "ok", "{check}");
    }
    let bucket = berth.storage().bucket().expect("a bucket").folder();
    let left: Vec<String> = walk(&bucket.join("blobs"));
    assert_eq!(left, [] as [String; 0], "the doctor's own objects are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_cannot_be_used_are_named_with_what_to_do() {
    let berth = Berth::start(Backend::Distributed).await;
    let bucket = berth.storage().bucket().expect("a bucket").url();
    let missing = bucket.replacen("s3://", "s3://no-", 1);
    let (ended, found) = doctor(&berth, &["--blobs", &missing, "--skip", "hosts"]).await;
    assert_eq!(ended.code, Some(1));
    let blobs = finding(&found, "s3://");
    assert_eq!(blobs["status"], "failed");
    assert!(text(&blobs["remedy"]).contains("endpoint="), "{blobs}");

    let mut wrong = berth.command("doctor");
    wrong.env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    wrong.args(["--skip=server", "--skip=hosts", "-o", "json"]);
    let (_, found) = run(wrong).await;
    assert!(text(&finding(&found, "s3://")["remedy"]).contains("AWS_SECRET_ACCESS_KEY"));

    // A database that has no schema, and that nobody is to migrate.
    let postgres = setting("BERTH_TEST_POSTGRES");
    let (server, _) = postgres.rsplit_once('/').expect("a database");
    let empty = format!("{server}/template1");
    let (ended, found) = doctor(&berth, &["--metadata", &empty, "--migrate=false", "--skip=hosts"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        text(&finding(&found, "schema")["remedy"]).contains("berth-registry migrate"),
        "{found:#}"
    );

    let nobody = "postgres://nobody@127.0.0.1:1/none";
    let (_, found) = doctor(&berth, &["--metadata", nobody, "--skip=hosts", "--skip=blobs"]).await;
    assert_eq!(finding(&found, "postgres://")["status"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_looked_for_as_clients_find_them() {
    let files = TlsFiles::new();
    let (certificate, key) = (files.certificate(), files.key());
    let (certificate, key) = (certificate.to_str().expect("plain"), key.to_str().expect("plain"));
    let berth = Berth::builder()
        .flag("--tls-cert", certificate)
        .flag("--tls-key", key)
        .flag("--domain", "localhost")
        .start()
        .await;
    let tls = ["--tls-cert", certificate, "--tls-key", key];
    let with = |more: &[&'static str]| -> Vec<String> {
        tls.iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    let look = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        doctor(&berth, &arguments).await.1
    };
    // Nobody on this machine has signed it.
    let found = look(with(&[])).await;
    let host = finding(&found, "https://localhost");
    assert_eq!(host["status"], "failed");
    assert!(text(&host["remedy"]).contains("--ca-file"), "{host}");
    // Signed, and good for two days more.
    let mut trusted = with(&[]);
    trusted.extend(["--ca-file".to_owned(), certificate.to_owned()]);
    let found = look(trusted.clone()).await;
    assert_eq!(finding(&found, "https://localhost")["status"], "ok", "{found:#}");
    let lasts = finding(&found, "certificate of localhost");
    assert_eq!(lasts["status"], "warning");
    assert!(text(&lasts["detail"]).contains("3 days"), "{lasts}");
    // Another host that the certificate is not for, at the same place.
    let at = berth.address();
    trusted.extend([
        "--host".to_owned(),
        "registry.test".to_owned(),
        "--at".to_owned(),
        at,
    ]);
    let found = look(trusted).await;
    assert_eq!(finding(&found, "https://registry.test")["status"], "failed");
    // A name that stands for nothing.
    let mut nowhere = with(&[]);
    nowhere.extend(["--host".to_owned(), "registry.invalid".to_owned()]);
    let found = look(nowhere).await;
    assert!(text(&finding(&found, "https://registry.invalid")["remedy"]).contains("DNS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_the_registry_does_not_know_and_an_upstream_that_is_gone_are_told() {
    let berth = Berth::builder().flag("--egress-allow", "127.0.0.1").start().await;
    let admin = Admin::of(&berth);
    admin
        .put_tenant("acme", json!({ "hosts": ["images.acme.test"] }))
        .await;
    let cache = json!({ "upstream": { "url": "http://127.0.0.1:1" }, "prefix": "hub" });
    admin.put("tenants/acme/caches/ns/hub", cache).await;
    let token = admin.token("acme", &["**"], &["pull"]).await;
    let pull = harness::http::client()
        .get(berth.url("/v2/hub/app/manifests/v1"))
        .header("host", "acme.localhost")
        .basic_auth("x-token", Some(token));
    let _ = harness::http::send(pull).await;
    eventually("the upstream's state is told", PATIENCE, async || {
        let caches = admin
            .ask(Method::GET, "tenants/acme/pull-through", None)
            .await
            .expect(200)
            .json();
        (caches[0]["reachable"] == false).then_some(())
    })
    .await;
    let paused = json!({ "paused": true });
    admin
        .ask(Method::PUT, "gc/paused", Some(paused))
        .await
        .expect(200);

    let (ended, found) = doctor(&berth, &["--host", "other.test", "--at", &berth.address()]).await;
    assert_eq!(ended.code, Some(1));
    let failed = of_status(&found, "failed");
    assert!(
        failed.contains(&"Hosts: http://other.test/v2/".to_owned()),
        "{failed:?}"
    );
    assert!(text(&finding(&found, "http://other.test")["remedy"]).contains("Host header"));
    assert_eq!(
        finding(&found, "http://images.acme.test")["status"],
        "ok",
        "{found:#}"
    );
    assert_eq!(
        finding(&found, "http://acme.localhost")["status"],
        "ok",
        "{found:#}"
    );
    let (cache, collection) = (
        finding(&found, "cache acme/ns/hub"),
        finding(&found, "collection"),
    );
    assert_eq!(cache["status"], "failed", "{found:#}");
    assert_eq!(collection["remedy"], "berth-registry gc resume");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_others_may_read_are_a_warning() {
    let berth = Berth::start(Backend::Embedded).await;
    let key = berth.data().join("keys/admin");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (ended, found) = doctor(&berth, &["--skip", "hosts"]).await;
    assert_eq!(ended.code, Some(0), "a warning is no failure");
    let told = finding(&found, key.to_str().expect("plain"));
    assert_eq!(told["remedy"], format!("chmod 0600 {}", key.display()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_holds_what_was_found_and_no_secret() {
    let berth = Berth::start(Backend::Distributed).await;
    let admin = Admin::of(&berth);
    let upstream = json!({ "url": "https://192.0.2.1", "username": "u", "password": "upstream-secret" });
    admin
        .put(
            "tenants/default/caches/ns/hub",
            json!({ "upstream": upstream, "prefix": "hub" }),
        )
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("support.tar.gz");
    let path = bundle.to_str().expect("plain");
    let metadata = setting("BERTH_TEST_POSTGRES").replacen("://", "://someone:database-secret@", 1);
    let (_, _) = doctor(
        &berth,
        &["--bundle", path, "--skip", "hosts", "--metadata", &metadata],
    )
    .await;
    let listed = Command::new("tar")
        .args(["-xzOf", path])
        .output()
        .expect("tar runs");
    let content = String::from_utf8_lossy(&listed.stdout);
    for part in [
        "berth_build_info",
        "\"check\": \"readiness\"",
        "\"external-scheme\"",
        "\"kernel\"",
    ] {
        assert!(content.contains(part), "{part} is missing: {content}");
    }
    let key = std::fs::read_to_string(berth.data().join("keys/admin")).expect("the key");
    let own = setting("AWS_SECRET_ACCESS_KEY");
    for secret in ["upstream-secret", "database-secret", key.trim(), own.as_str()] {
        assert!(!content.contains(secret), "it holds {secret}");
    }
    let mode = std::fs::metadata(&bundle)
        .expect("the bundle")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0);
    // It is not overwritten.
    let mut again = berth.command("doctor");
    again.args(["--bundle", path]);
    again.args(["--skip=server", "--skip=hosts", "--skip=blobs", "--skip=metadata"]);
    Ended::of(again).expect(1, &["--bundle"]);
}

#[test]
fn an_unknown_part_is_wrong_usage() {
    let mut command = program();
    command.args(["doctor", "--skip", "everything"]);
    Ended::of(command).expect(2, &["files, metadata, blobs, server, hosts"]);
}
