//! The documented way back to a moment for PostgreSQL and S3, as docs/backup.md has it: the database from its archive,
//! the objects from the bucket's old versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use harness::content::sha256;
use harness::http::Repository;
use harness::image::MANIFEST;
use harness::{Admin, Archive, Backend, Berth, Builder, Dice, Image, OwnServer, Versions, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{WAIT, command, done, last, output};
use crate::faults::aftermath::stores_fit;
use crate::faults::history::History;
use crate::faults::writers::Writers;

/// Where the registry's objects lie in the bucket.
const PREFIX: &str = "registry/";
/// As PostgreSQL tells a moment, and reads it.
const NOW: &str = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')";

/// A registry in which what is deleted is gone after seconds, on these stores.
fn serving(database: &OwnServer, bucket: &Versions) -> Builder {
    Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_METADATA", &database.url())
        .variable("BERTH_BLOBS", &bucket.server().url())
        .flag("--redirect", "Never")
        .flag("--lease", "8s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1ms")
}

/// Path of the object of each blob, by digest.
fn objects(database: &OwnServer) -> BTreeMap<String, String> {
    let rows = database.sql("SELECT encode(substring(digest FROM 2), 'hex'), object_key FROM blob");
    rows.into_iter()
        .map(|row| {
            let id: uuid::Uuid = row[1].parse().expect("an object's key");
            let path = format!("blobs/{:02x}/{id}", id.as_bytes()[15]);
            (format!("sha256:{}", row[0]), path)
        })
        .collect()
}

/// Runs the check of the stores to its end; what it says.
async fn fsck(command: Command) -> Value {
    last(&String::from_utf8_lossy(&output(command).await.stdout))
}

/// What the check says of findings of one kind.
fn told(state: &Value, kind: &str, field: &str) -> BTreeSet<String> {
    let findings = state["findings"].as_array().expect("findings");
    let of_kind = findings.iter().filter(|finding| finding["kind"] == kind);
    of_kind
        .map(|finding| finding[field].as_str().expect("what it is").to_owned())
        .collect()
}

/// As if the objects had been there for hours: of younger ones nobody expects that anything refers to them.
fn age(folder: &Path) {
    let then = SystemTime::now() - Duration::from_secs(7200);
    for shard in std::fs::read_dir(folder).expect("the objects") {
        for object in std::fs::read_dir(shard.expect("a shard").path()).expect("a shard") {
            let file = File::options()
                .write(true)
                .open(object.expect("an object").path());
            file.and_then(|file| file.set_modified(then))
                .expect("an older object");
        }
    }
}

async fn pause(berth: &Berth, paused: bool) {
    let paused = Some(json!({ "paused": paused }));
    Admin::of(berth)
        .ask(Method::PUT, "gc/paused", paused)
        .await
        .expect(200);
}

async fn pushes(history: &History, count: usize) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", WAIT, async || {
        (history.acknowledged().1 >= before + count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_comes_back_under_load_with_what_was_deleted_since_and_without_what_was_pushed_since() {
    let mut dice = Dice::new();
    let mut database = OwnServer::postgres();
    let archive = Archive::of(&mut database);
    let bucket = Versions::start().await;
    let mut berth = serving(&database, &bucket).start().await;
    let repository = Repository::new(&berth.url(""), "team/app");
    // What was deleted before the moment stays deleted.
    let early = format!("{PREFIX}blobs/aa/early");
    bucket.put(&early, "gone for long").await;
    bucket.delete(&early).await;

    // 1. Pushes, a base backup meanwhile, and pushes.
    let beside = repository.sibling("team/beside");
    let load = Arc::new(History::default());
    let writers = Writers::start(&beside, &load, &mut dice);
    pushes(&load, 2).await;
    archive.take_base_backup(&database);
    let images: Vec<Image> = (0..4).map(|seed| Image::new(seed, 5000)).collect();
    for (number, image) in images.iter().enumerate() {
        image.push(&repository, &format!("v{number}")).await;
    }
    pushes(&load, 4).await;
    // One upload is open at the moment, and becomes a blob later.
    let later = Image::new(9, 5000);
    let open = repository.start_upload().await;
    let blob = later.blobs().next().expect("a blob").to_vec();
    repository.patch(&open, None, blob.clone()).await.expect(202);

    // 2. The moment. What has been acknowledged is in it, what has not begun is not.
    let acknowledged = load.so_far();
    let moment = database.sql(NOW)[0][0].clone();
    let acknowledged = acknowledged.or_anything_until(&load.so_far());
    pushes(&load, 4).await;
    writers.stop().await;

    // 3. The disaster: images are deleted, tags moved, and it takes a while until somebody notices.
    let deleted = &images[..3];
    for image in deleted {
        let manifest = format!("manifests/{}", image.digest());
        repository.delete(&manifest).await.expect(202);
    }
    repository.delete("manifests/v3").await.expect(202);
    repository
        .close(&open, &sha256(&blob), Vec::new())
        .await
        .expect(201);
    later.push(&repository, "later").await;
    for tag in ["v1", "v3"] {
        let put = repository.put_manifest(tag, MANIFEST, &later.manifest).await;
        put.expect(201);
    }
    let known = objects(&database);
    let lost: BTreeSet<String> = deleted
        .iter()
        .flat_map(Image::blobs)
        .map(|blob| known[&sha256(blob)].clone())
        .collect();
    let admin = Admin::of(&berth);
    eventually("the objects are deleted in the bucket", WAIT, async || {
        admin.ask(Method::POST, "gc/run", None).await.expect(200);
        let markers = bucket.delete_markers().await;
        let gone: BTreeSet<&str> = markers.iter().map(|marker| &marker.key[PREFIX.len()..]).collect();
        lost.iter()
            .all(|object| gone.contains(object.as_str()))
            .then_some(())
    })
    .await;

    // 4. Stop all replicas, and restore the database into a new one.
    assert!(berth.terminate(WAIT).await.success());
    archive.has_everything_of(&database);
    let since = objects(&database);
    database.stop();
    let restored = archive.restored_to(&moment);
    let ended = restored.sql("DELETE FROM upload WHERE committed_at IS NULL RETURNING id");
    assert!(!ended.is_empty(), "an upload was open");
    let there = objects(&restored);

    // Without the objects the check names what is missing, before any server runs.
    let mut alone = command(&berth, &["fsck"]);
    alone.env("BERTH_METADATA", restored.url());
    let state = fsck(alone).await;
    assert_eq!(told(&state, "MissingObject", "object"), lost, "{state:#}");
    assert_eq!(state["found"], lost.len(), "{state:#}");

    // 5. Delete markers that are younger than the moment.
    for marker in bucket.delete_markers().await {
        if marker.made.as_str() >= &moment[..19] {
            bucket.remove(&marker).await;
        }
    }
    let left = bucket.delete_markers().await;
    assert!(left.iter().any(|marker| marker.key == early), "{left:?}");

    // 6. One replica, whose collection is paused, and the check.
    let berth = serving(&restored, &bucket)
        .storage(berth.storage().clone(), 0)
        // Sessions of then are idle for long.
        .flag("--upload-expiry", "5s")
        .start()
        .await;
    pause(&berth, true).await;
    age(&bucket.server().data().join("bucket").join(PREFIX).join("blobs"));
    let state = fsck(command(&berth, &["fsck", "--rehash"])).await;
    let orphans = told(&state, "OrphanObject", "digest");
    assert_eq!(
        state["found"],
        orphans.len(),
        "orphans and nothing else: {state:#}"
    );
    for blob in later.blobs() {
        assert!(orphans.contains(&sha256(blob)), "it was pushed since: {state:#}");
    }
    for orphan in &orphans {
        assert!(
            !there.contains_key(orphan) && since.contains_key(orphan),
            "{orphan}"
        );
    }
    // What was pushed since is not wanted here.
    done(&berth, &["fsck", "--repair"]).await;
    pause(&berth, false).await;

    // 7. It is as it was.
    let repository = Repository::new(&berth.url(""), "team/app");
    for (number, image) in images.iter().enumerate() {
        image.assert_pullable(&repository, &format!("v{number}")).await;
    }
    for path in ["manifests/later", &format!("manifests/{}", later.digest())] {
        repository.get(path).await.expect(404);
    }
    for blob in later.blobs() {
        repository
            .get(&format!("blobs/{}", sha256(blob)))
            .await
            .expect(404);
    }
    let beside = repository.sibling("team/beside");
    acknowledged.check(&beside).await;
    let (blobs, manifests) = acknowledged.acknowledged();
    println!(
        "{} objects were deleted and came back, {} were pushed since; {manifests} manifests and {blobs} blobs under load",
        lost.len(),
        orphans.len()
    );
    // And goes on.
    later.push(&repository, "afterwards").await;
    later.assert_pullable(&repository, "afterwards").await;
    let admin = Admin::of(&berth);
    admin.ask(Method::POST, "gc/run", None).await.expect(200);
    images[0].assert_pullable(&repository, "v0").await;
    stores_fit(&berth, |statement| restored.sql(statement)).await;
}
