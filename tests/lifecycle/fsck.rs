//! The check of the stores: it finds what was damaged behind the registry's back, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Admin, Backend, Berth, Builder, Cluster, Image, Signal, eventually, program};
use reqwest::Method;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// For how long clients push and delete while checks run.
const LOAD_FOR: Duration = Duration::from_secs(30);
/// How long a check of a small registry may take.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);
/// A worker that has died is waited for by its lease, a minute.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(120);

/// A registry, and a hand behind its back.
struct Place<'a>(&'a Berth);

impl Place<'_> {
    /// Runs a statement in the metadata store; the rows as lines.
    fn sql(&self, statement: &str) -> Vec<String> {
        if let Some(database) = self.0.storage().database() {
            return database
                .query(statement)
                .into_iter()
                .map(|row| row.join("|"))
                .collect();
        }
        let output = Command::new(program("sqlite3"))
            .arg("-cmd")
            .arg(".timeout 10000")
            .arg(self.0.data().join("berth.db"))
            .arg(statement)
            .output()
            .expect("sqlite3 runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn is_embedded(&self) -> bool {
        self.0.storage().backend() == Backend::Embedded
    }

    /// A digest as a literal of SQL.
    fn literal(&self, digest: &str) -> String {
        let hash = digest.trim_start_matches("sha256:");
        if self.is_embedded() {
            format!("x'01{hash}'")
        } else {
            format!("'\\x01{hash}'")
        }
    }

    /// Path of a blob's object below the blob store's root.
    fn object(&self, digest: &str) -> String {
        let key = if self.is_embedded() {
            "lower(hex(object_key))"
        } else {
            "replace(object_key::text, '-', '')"
        };
        let rows = self.sql(&format!(
            "SELECT {key} FROM blob WHERE digest = {}",
            self.literal(digest)
        ));
        let id: uuid::Uuid = rows[0].parse().expect("an object's key");
        path(id)
    }

    /// Where the blob store keeps an object.
    fn file(&self, object: &str) -> PathBuf {
        let root = match self.0.storage().bucket() {
            Some(bucket) => bucket.folder(),
            None => self.0.data().join("blobs"),
        };
        root.join(object)
    }

    /// Puts an object there that is two hours old; its path.
    fn plant(&self, content: &[u8]) -> String {
        let object = path(uuid::Uuid::new_v4());
        let file = self.file(&object);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, content).expect("an object");
        let file = File::options().write(true).open(file).expect("the object");
        let then = SystemTime::now() - Duration::from_secs(7200);
        file.set_modified(then).expect("an older object");
        object
    }
}

fn path(id: uuid::Uuid) -> String {
    format!("blobs/{:02x}/{id}", id.as_bytes()[15])
}

fn command(berth: &Berth, arguments: &[&str]) -> Command {
    let mut command = berth.command("fsck");
    let admin = berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    command.args(arguments).args(["-o", "json"]);
    command
}

/// Runs the command to its end.
async fn fsck(berth: &Berth, arguments: &[&str]) -> (Output, Value) {
    let mut command = command(berth, arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    let output = output.await.expect("no panic");
    let state = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, state)
}

/// Findings as `kind what`, sorted.
fn findings(state: &Value) -> Vec<String> {
    let list = state["findings"]
        .as_array()
        .unwrap_or_else(|| panic!("findings in {state}"));
    let mut findings: Vec<String> = list
        .iter()
        .map(|finding| {
            let what = ["tag", "object", "digest"]
                .iter()
                .find_map(|field| finding[*field].as_str());
            format!(
                "{} {}",
                finding["kind"].as_str().expect("a kind"),
                what.expect("what it is")
            )
        })
        .collect();
    findings.sort();
    findings
}

fn finding<'a>(state: &'a Value, kind: &str) -> &'a Value {
    let list = state["findings"].as_array().expect("findings");
    let found = list.iter().find(|finding| finding["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {state:#}"))
}

/// The check that runs, or the last one.
async fn state(berth: &Berth) -> Value {
    state_of(&Admin::of(berth)).await
}

async fn state_of(admin: &Admin) -> Value {
    admin.ask(Method::GET, "fsck", None).await.expect(200).json()
}

async fn done(admin: &Admin, limit: Duration) -> Value {
    eventually("the check ends", limit, async || {
        let state = state_of(admin).await;
        (state["state"] == "Done").then_some(state)
    })
    .await
}

async fn damaged(backend: Backend) {
    let berth = Berth::start(backend).await;
    let place = Place(&berth);
    let repository = Repository::new(&berth.url(""), "team/app");
    let images: Vec<Image> = (0..6).map(|seed| Image::new(seed, 50_000)).collect();
    for (number, image) in images.iter().enumerate() {
        image.push(&repository, &format!("v{number}")).await;
    }
    let other = repository.sibling("team/other");
    images[0].push(&other, "v0").await;
    let (output, sound) = fsck(&berth, &["--rehash", "--repair"]).await;
    assert!(
        output.status.success(),
        "{sound:#}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(sound["found"], 0, "{sound:#}");
    assert_eq!(sound["checked"]["blobs"], 18);

    // 1. The damage.
    let digest = |image: &Image, blob: usize| sha256(image.blobs().nth(blob).expect("a blob"));
    let [lost, cut, flipped] = [
        digest(&images[0], 1),
        digest(&images[1], 1),
        digest(&images[2], 2),
    ];
    let [lost_object, cut_object, flipped_object] =
        [&lost, &cut, &flipped].map(|digest| place.object(digest));
    fs::remove_file(place.file(&lost_object)).expect("the object can be removed");
    let file = File::options()
        .write(true)
        .open(place.file(&cut_object))
        .expect("the object");
    file.set_len(1000).expect("the object can be cut");
    let mut bytes = fs::read(place.file(&flipped_object)).expect("the object");
    bytes[20_000] ^= 1;
    // In place: the S3 server keeps what it knows of an object beside its bytes.
    use std::os::unix::fs::FileExt as _;
    let file = File::options()
        .write(true)
        .open(place.file(&flipped_object))
        .expect("the object");
    file.write_all_at(&bytes, 0).expect("the object can be changed");
    let orphan = place.plant(b"nobody knows me");
    let manifest = images[3].digest();
    place.sql(&format!(
        "DELETE FROM manifest WHERE digest = {}",
        place.literal(&manifest)
    ));

    // 2. What can be seen without reading everything.
    let mut expected = vec![
        "DanglingTag v3".to_owned(),
        format!("MissingManifest {manifest}"),
        format!("MissingObject {lost_object}"),
        format!("OrphanObject {orphan}"),
        format!("SizeDiffers {cut_object}"),
    ];
    expected.sort();
    let (output, seen) = fsck(&berth, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("5 findings remain"));
    assert_eq!(findings(&seen), expected, "{seen:#}");
    let missing = finding(&seen, "MissingObject");
    assert_eq!(
        (&missing["digest"], &missing["tenant"]),
        (&json!(lost), &json!("default"))
    );
    let mut names: Vec<&str> = missing["repositories"]
        .as_array()
        .expect("their names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["team/app", "team/other"]);

    // 3. What reading shows besides.
    let (_, read) = fsck(&berth, &["--rehash"]).await;
    expected.push(format!("DigestDiffers {flipped_object}"));
    expected.sort();
    assert_eq!(findings(&read), expected, "{read:#}");
    assert_eq!(
        finding(&read, "OrphanObject")["digest"],
        sha256(b"nobody knows me")
    );
    assert_eq!(
        finding(&read, "DigestDiffers")["detail"],
        format!("its bytes are {}", sha256(&bytes))
    );

    // 4. What can be repaired.
    let (output, repaired) = fsck(&berth, &["--repair"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&repaired["repaired"], &repaired["remaining"]),
        (&json!(1), &json!(4)),
        "{repaired:#}"
    );
    assert_eq!(finding(&repaired, "OrphanObject")["repaired"], true);
    assert!(place.file(&orphan).exists(), "it waits for its deletion");
    let (_, after) = fsck(&berth, &[]).await;
    assert!(
        !findings(&after).iter().any(|finding| finding.contains(&orphan)),
        "{after:#}"
    );

    // 5. Pushing again heals the manifest; the rest is as it was.
    images[3].push(&repository, "v3").await;
    let (_, healed) = fsck(&berth, &[]).await;
    assert_eq!(
        findings(&healed),
        [
            format!("MissingObject {lost_object}"),
            format!("SizeDiffers {cut_object}")
        ]
    );
    for sound in [3, 4, 5] {
        images[sound]
            .assert_pullable(&repository, &format!("v{sound}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_on_embedded_stores() {
    damaged(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_on_distributed_stores() {
    damaged(Backend::Distributed).await;
}

/// Pushes, moves and deletes tags, manifests and blobs without a pause.
async fn churn(repository: Repository, worker: u64, over: Arc<AtomicBool>) -> u64 {
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        rounds += 1;
        let image = Image::new(worker << 32 | rounds, 3_000);
        image.push(&repository, "latest").await;
        let name = format!("v{rounds}");
        image.push(&repository, &name).await;
        let stray = blob(2_000, worker << 40 | rounds);
        let stray = repository.push_blob(&stray).await;
        // An upload that is never closed.
        repository.start_upload().await;
        match rounds % 3 {
            0 => drop(repository.delete(&format!("manifests/{name}")).await),
            1 => drop(repository.delete(&format!("manifests/{}", image.digest())).await),
            _ => drop(repository.delete(&format!("blobs/{stray}")).await),
        }
    }
    rounds
}

/// Makes every object look as if it had been there for hours, again and again: none of them is spared for its age.
fn keep_aging(root: PathBuf, over: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut aged = 0;
        let then = SystemTime::now() - Duration::from_secs(7200);
        while !over.load(Ordering::Relaxed) {
            for shard in fs::read_dir(&root).into_iter().flatten().flatten() {
                for object in fs::read_dir(shard.path()).into_iter().flatten().flatten() {
                    // It may have gone, or not be whole yet.
                    let file = File::options().write(true).open(object.path());
                    aged += u64::from(file.is_ok_and(|file| file.set_modified(then).is_ok()));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        aged
    })
}

/// A registry in which sessions, leases and what is deleted live for seconds.
fn collecting() -> Builder {
    Berth::builder()
        .flag("--lease", "8s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1s")
        .flag("--upload-expiry", "4s")
}

async fn busy(berth: &Berth, base: &str) {
    let over = Arc::new(AtomicBool::default());
    let aging = keep_aging(Place(berth).file("blobs"), over.clone());
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let repository = Repository::new(base, &format!("busy/{}", worker % 2));
        workers.spawn(churn(repository, worker, over.clone()));
    }
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < LOAD_FOR {
        rounds += 1;
        // Nor is a row. On the other stores this would deadlock with the clients now and then.
        if Place(berth).is_embedded() {
            Place(berth).sql(
                "UPDATE blob SET created_at = 0 WHERE created_at <> 0; \
                 UPDATE manifest SET pushed_at = 0 WHERE pushed_at <> 0",
            );
        }
        let (_, state) = fsck(berth, &["--rehash", "--repair"]).await;
        assert_eq!(state["state"], "Done", "{state:#}");
        assert_eq!(state["found"], 0, "in round {rounds}: {state:#}");
        if rounds % 10 == 1 {
            println!("after {:?}: {}", begun.elapsed(), state["checked"]);
        }
    }
    over.store(true, Ordering::Relaxed);
    while let Some(rounds) = workers.join_next().await {
        assert!(rounds.expect("the clients' requests succeed") > 0);
    }
    println!(
        "{rounds} checks, {} times an object was aged",
        aging.join().expect("no panic")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_registry_under_load_yields_nothing() {
    let berth = collecting().start().await;
    busy(&berth, &berth.url("")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_replicas_under_load_yield_nothing() {
    let mut cluster = Cluster::start_with(2, collecting()).await;
    let base = format!("http://{}", cluster.address());
    busy(cluster.replica(0), &base).await;
}

/// Blobs of a mebibyte each, and their digests.
async fn filled(repository: &Repository, count: u64) -> u64 {
    for seed in 0..count {
        repository.push_blob(&blob(1 << 20, seed)).await;
    }
    count << 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_goes_on_where_it_was() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let bytes = filled(&Repository::new(&berth.url(""), "team/app"), 12).await;
    let slow = json!({ "rehash": true, "rate": 2 << 20 });
    let admin = Admin::of(&berth);
    let started = admin
        .ask(Method::POST, "fsck", Some(slow.clone()))
        .await
        .expect(202)
        .json();
    assert_eq!(started["state"], "Running");
    // Another one is refused, in whatever words.
    admin.ask(Method::POST, "fsck", Some(slow)).await.expect(409);
    admin.ask(Method::POST, "fsck", Some(json!({}))).await.expect(409);
    admin
        .ask(Method::POST, "fsck", Some(json!({ "fast": true })))
        .await
        .expect(400);

    let before = eventually("a third of it", CHECKED_WITHIN, async || {
        let state = state(&berth).await;
        (state["phase"] == "contents of blobs" && state["done"].as_u64() > Some(bytes / 3)).then_some(state)
    })
    .await;
    assert!(
        before["percent"].as_f64() > Some(20.0) && before["percent"].as_f64() < Some(90.0),
        "{before:#}"
    );
    berth.kill9();
    berth.restart().await;

    let ended = done(&admin, CHECKED_WITHIN).await;
    assert_eq!(ended["startedAt"], started["startedAt"], "it is the same run");
    assert_eq!(ended["checked"]["blobs"], 12);
    let read = ended["checked"]["bytesRehashed"].as_u64().expect("bytes");
    // A blob that was being read is read again, and two seconds may not have been stored.
    assert!(read >= bytes && read < bytes + (6 << 20), "{read} of {bytes}");
    assert_eq!((&ended["found"], &ended["percent"]), (&json!(0), &json!(100.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_is_stopped_by_the_command() {
    let berth = Berth::start(Backend::Embedded).await;
    filled(&Repository::new(&berth.url(""), "team/app"), 4).await;
    assert_eq!(state(&berth).await, json!({ "state": "Never" }));
    let (output, started) = fsck(&berth, &["--rehash", "--rate", "100KiB", "--detach"]).await;
    assert!(output.status.success());
    assert_eq!(started["state"], "Running");
    let (output, _) = fsck(&berth, &["--repair"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("other options"));

    let (output, stopped) = fsck(&berth, &["--stop"]).await;

    assert!(output.status.success());
    assert_eq!(stopped["state"], "Stopped");
    let (output, _) = fsck(&berth, &[]).await;
    assert!(output.status.success(), "the next one runs");
    let trail = Admin::of(&berth)
        .ask(Method::GET, "audit?limit=50", None)
        .await
        .expect(200)
        .text();
    assert!(
        trail.contains("fsck.start") && trail.contains("fsck.stop"),
        "{trail}"
    );
}

/// Interrupts the command as a person does.
fn interrupt(child: &std::process::Child) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
    kill_process(pid, Signal::INT).expect("it takes signals");
}

async fn wait(child: std::process::Child) -> Output {
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().expect("its output"));
    waited.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_leaves_the_servers_check_going() {
    let berth = Berth::start(Backend::Embedded).await;
    filled(&Repository::new(&berth.url(""), "team/app"), 6).await;
    let mut command = command(&berth, &["--rehash", "--rate", "512KiB"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    eventually("it runs", CHECKED_WITHIN, async || {
        (state(&berth).await["state"] == "Running").then_some(())
    })
    .await;
    interrupt(&child);
    let output = wait(child).await;

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("goes on in the server"), "{said}");
    // The same command follows it to its end.
    let before = state(&berth).await;
    assert_eq!(before["state"], "Running");
    let (output, ended) = fsck(&berth, &["--rehash", "--rate", "512KiB"]).await;
    assert!(output.status.success());
    assert_eq!(ended["startedAt"], before["startedAt"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("a check runs since"));
}

async fn without_a_server(backend: Backend) {
    let mut berth = Berth::start(backend).await;
    filled(&Repository::new(&berth.url(""), "team/app"), 8).await;
    let place = Place(&berth);
    place.plant(b"orphan");
    assert!(berth.terminate(Duration::from_secs(20)).await.success());

    // Its lines say how far it is.
    let slow = ["--rehash", "--rate", "512KiB"];
    let mut child = command(&berth, &slow)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let lines = BufReader::new(child.stderr.take().expect("its errors")).lines();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        for line in lines {
            let line = line.expect("text");
            if line.contains("contents of blobs") {
                interrupt(&child);
            }
            said.push(line);
        }
        assert_eq!(child.wait().expect("its end").code(), Some(1));
        said.join("\n")
    });
    let said = said.await.expect("no panic");
    assert!(said.contains("the same command goes on from there"), "{said}");

    let begun = Instant::now();
    let (output, state) = fsck(&berth, &slow).await;
    println!("the rest took {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(state["found"], 1, "{state:#}");
    assert_eq!(state["checked"]["blobs"], 8);
    let read = state["checked"]["bytesRehashed"].as_u64().expect("bytes");
    assert!(read < 12 << 20, "it does not begin anew: {read}");
    let (output, state) = fsck(&berth, &["--repair"]).await;
    assert!(
        output.status.success(),
        "what was repaired does not remain: {state:#}"
    );
    let (output, _) = fsck(&berth, &["--detach"]).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_command_checks_embedded_stores_itself() {
    without_a_server(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_see_and_start_checks() {
    let berth = Berth::start(Backend::Embedded).await;
    let http = harness::http::client();
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = http
            .request(method, berth.admin_url("/admin/v1/fsck"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 401);
    }
    let document = Admin::of(&berth)
        .ask(Method::GET, "openapi.json", None)
        .await
        .expect(200)
        .json();
    let operations = document["paths"]["/admin/v1/fsck"].as_object().expect("the path");
    let statuses: BTreeMap<&str, bool> = operations
        .iter()
        .map(|(method, operation)| (method.as_str(), operation["responses"]["202"].is_object()))
        .collect();
    assert_eq!(
        statuses,
        BTreeMap::from([("delete", false), ("get", false), ("post", true)])
    );
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_a_server_the_command_checks_distributed_stores_itself() {
        without_a_server(Backend::Distributed).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_replica_goes_on_where_a_killed_one_was() {
        let mut cluster = Cluster::start().await;
        let repository = Repository::new(&format!("http://{}", cluster.address()), "team/app");
        let bytes = filled(&repository, 12).await;
        let slow = json!({ "rehash": true, "rate": 1 << 20 });
        let [watching, working] = [0, 1].map(|number| Admin::of(cluster.replica(number)));
        let started = working.ask(Method::POST, "fsck", Some(slow.clone())).await;
        let started = started.expect(202).json();
        watching.ask(Method::POST, "fsck", Some(slow)).await.expect(409);
        eventually("a part of it", CHECKED_WITHIN, async || {
            let state = state_of(&watching).await;
            (state["phase"] == "contents of blobs" && state["done"].as_u64() > Some(bytes / 4)).then_some(())
        })
        .await;
        cluster.replica(1).kill9();

        let ended = done(&watching, TAKEN_OVER_WITHIN).await;

        assert_eq!(ended["startedAt"], started["startedAt"]);
        assert_eq!(
            (&ended["found"], &ended["checked"]["blobs"]),
            (&json!(0), &json!(12))
        );
        let read = ended["checked"]["bytesRehashed"].as_u64().expect("bytes");
        assert!(read >= bytes && read < bytes + (5 << 20), "{read} of {bytes}");
    }
}
