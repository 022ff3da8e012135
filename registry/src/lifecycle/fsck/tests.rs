//! Whole runs over a store of the test's own: what is wrong is found, what is not is not.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use uuid::Uuid;

use super::*;
use crate::blobs::{ObjectKey, budget::Budget};
use crate::domain::manifest::Manifest;
use crate::domain::media_type::OCI_MANIFEST;
use crate::domain::{Algorithm, Digest};
use crate::metadata::configuration::FirstTenant;
use crate::metadata::{
    self, CommitUpload, Limits, Linked, NewUpload, Opened, Precondition, PutManifest, PutOutcome, Repository,
    SessionKey, Sparse, TakeUpload, Taken, TenantId, row_id,
};

/// SQLite and a folder, and a look behind both.
struct Place {
    opened: Opened,
    parts: Parts,
    tables: SqlitePool,
    tenant: TenantId,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new(spec: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("berth.db");
        let opened = metadata::open(
            &format!("sqlite:{}", file.display()),
            &metadata::Options::default(),
        )
        .await
        .unwrap();
        let blobs = format!("folder:{}", folder.path().join("blobs").display());
        let blobs = crate::blobs::open::open(&blobs, Budget::new(64 << 20))
            .await
            .unwrap();
        let first = FirstTenant {
            name: "acme".parse().unwrap(),
            spec: spec.to_owned(),
            now: Time::now(),
        };
        opened.configuration.first_tenant(first).await.unwrap();
        let directory = Directory::open(opened.configuration.clone(), Arc::new(Vec::new))
            .await
            .unwrap();
        let tenant = directory.now().by_name("acme").unwrap().id;
        let tables = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file))
            .await
            .unwrap();
        let parts = Parts {
            inspection: opened.inspection.clone(),
            lifecycle: opened.lifecycle.clone(),
            blobs,
            directory,
        };
        Self {
            opened,
            parts,
            tables,
            tenant,
            folder,
        }
    }

    fn fsck(&self) -> Fsck {
        self.fsck_of("one")
    }

    fn fsck_of(&self, by: &str) -> Fsck {
        Fsck::with(self.parts.clone(), by.to_owned(), Duration::from_millis(50))
    }

    fn repository(&self, name: &str) -> Repository {
        Repository {
            tenant: self.tenant,
            name: name.parse().unwrap(),
        }
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.tables).await.unwrap();
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.tables).await.unwrap()
    }

    /// Where an object lies.
    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.folder.path().join("blobs").join(key.path())
    }

    /// Puts an object into the blob store alone.
    async fn store(&self, id: Uuid, content: &[u8]) {
        let blobs = &self.parts.blobs;
        let mut writer = blobs.resume(id, 1, blobs.begin(), None).await.unwrap();
        writer.write(Bytes::copy_from_slice(content)).await.unwrap();
        writer.finish().await.unwrap();
    }

    /// Pushes a blob as a client does.
    async fn push(&self, repository: &Repository, content: &[u8]) -> (Digest, ObjectKey) {
        let (store, id, now) = (&self.opened.store, Uuid::now_v7(), Time::now());
        let digest = Digest::of(Algorithm::Sha256, content);
        let upload = NewUpload {
            repository: repository.clone(),
            id,
            principal: "ci".into(),
            hash_states: vec![1, 0],
            state: self.parts.blobs.begin(),
            now,
        };
        store.create_upload(upload).await.unwrap();
        let key = SessionKey {
            repository: repository.clone(),
            id,
            principal: "ci".into(),
        };
        let take = TakeUpload {
            now,
            until: now.plus(LEASE),
            closing: Some(digest),
        };
        let taken = store.take_upload(&key, take).await.unwrap();
        assert!(matches!(taken, Taken::Yours(_)));
        self.store(id, content).await;
        let commit = CommitUpload {
            id,
            epoch: 1,
            digest,
            size: content.len() as u64,
            now,
            leased_until: now.plus(LEASE),
            repository_id: row_id(),
            limits: Limits::default(),
            spare_due: now,
        };
        let linked = store.commit_upload(repository, commit).await.unwrap();
        assert!(matches!(linked, Linked::Done(_)));
        (digest, ObjectKey::of_upload(id))
    }

    /// Pushes an image of blobs that need not be there.
    async fn put(&self, repository: &Repository, tag: &str, blobs: &[Digest]) -> Digest {
        let descriptor =
            |digest: &Digest| json!({ "mediaType": "application/x", "digest": digest, "size": 1 });
        let layers: Vec<_> = blobs[1..].iter().map(descriptor).collect();
        let document = json!({ "schemaVersion": 2, "config": descriptor(&blobs[0]), "layers": layers });
        let payload = Bytes::from(document.to_string());
        let now = Time::now();
        let put = PutManifest {
            digest: Digest::of(Algorithm::Sha256, &payload),
            manifest: Manifest::read(&payload, Some(OCI_MANIFEST)).unwrap(),
            payload,
            tags: vec![tag.parse().unwrap()],
            precondition: Precondition::None,
            sparse: Sparse::Always,
            principal: "ci".into(),
            now,
            leased_until: now.plus(LEASE),
            review_at: now,
            lifetime: None,
            repository_id: row_id(),
            immutable: Vec::new(),
            limits: Limits::default(),
            announce: None,
        };
        let digest = put.digest;
        let outcome = self.opened.store.put_manifest(repository, put).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Stored(_)));
        digest
    }

    /// Puts something among the objects, as if it had been there for long.
    fn age(&self, key: &ObjectKey) {
        let file = File::options().write(true).open(self.file(key)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200))
            .unwrap();
    }
}

/// The run after its end.
async fn ended(fsck: &Fsck) -> Run {
    let patience = std::time::Instant::now();
    loop {
        let Standing { run, .. } = fsck.standing().await.unwrap().expect("a run");
        if run.end.is_some() {
            return run;
        }
        assert!(patience.elapsed() < Duration::from_secs(30), "{run:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn checked(place: &Place, options: Options) -> Run {
    let fsck = place.fsck();
    fsck.start(options).await.unwrap();
    ended(&fsck).await
}

const PLAIN: Options = Options {
    rehash: false,
    repair: false,
    forget_lost: false,
    rate: None,
};
const REHASH: Options = Options {
    rehash: true,
    ..PLAIN
};
const REPAIR: Options = Options {
    repair: true,
    ..PLAIN
};

fn kinds(run: &Run) -> Vec<Kind> {
    run.findings.iter().map(|finding| finding.kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_installation_yields_nothing() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    let (config, _) = place.push(&here, b"config").await;
    let (layer, _) = place.push(&here, &[7; 300_000]).await;
    place.push(&place.repository("other"), &[7; 300_000]).await;
    place.put(&here, "v1", &[config, layer]).await;

    let run = checked(
        &place,
        Options {
            repair: true,
            ..REHASH
        },
    )
    .await;

    assert_eq!(
        (run.end, run.found, run.absent),
        (Some(End::Done), 0, 0),
        "{:?}",
        run.findings
    );
    assert_eq!((run.checked.blobs, run.checked.objects), (2, 3));
    assert!(run.checked.bytes_rehashed > 300_006);
    assert_eq!(run.progress().percent, Some(100.0));
    assert_eq!(
        place.count("SELECT count(*) FROM object_deletion").await,
        1,
        "the spare one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_cut_and_changed_objects_are_told_with_their_repositories() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    let (lost, lost_key) = place.push(&here, b"lost").await;
    place.push(&place.repository("other"), b"lost").await;
    let (_, cut_key) = place.push(&here, b"cut down").await;
    let (changed, changed_key) = place.push(&here, b"changed").await;
    place.push(&here, b"sound").await;
    fs::remove_file(place.file(&lost_key)).unwrap();
    fs::write(place.file(&cut_key), b"cut").unwrap();
    fs::write(place.file(&changed_key), b"chaNged").unwrap();

    let run = checked(&place, PLAIN).await;
    let mut found = kinds(&run);
    found.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(
        found,
        [Kind::MissingObject, Kind::SizeDiffers],
        "a changed byte shows in the digest alone"
    );
    let missing = run
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::MissingObject)
        .unwrap();
    assert_eq!(missing.digest, Some(lost.to_string()));
    assert_eq!(missing.object, Some(lost_key.path()));
    assert_eq!(missing.tenant.as_deref(), Some("acme"));
    let mut repositories = missing.repositories.clone();
    repositories.sort();
    assert_eq!(repositories, ["other", "team/app"]);

    let run = checked(
        &place,
        Options {
            repair: true,
            ..REHASH
        },
    )
    .await;
    assert_eq!(
        (run.found, run.repaired, run.remaining()),
        (3, 0, 3),
        "{:?}",
        run.findings
    );
    let differs = run
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::DigestDiffers)
        .unwrap();
    assert_eq!(differs.digest, Some(changed.to_string()));
    let other = Digest::of(Algorithm::Sha256, b"chaNged").to_string();
    assert!(differs.detail.contains(&other), "{}", differs.detail);
    assert_eq!(
        place.count("SELECT count(*) FROM blob").await,
        4,
        "nothing is ever deleted for that"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_blobs_are_forgotten_if_that_is_asked_for_and_most_are_there() {
    const FORGET: Options = Options {
        forget_lost: true,
        ..PLAIN
    };
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    let (lost, lost_key) = place.push(&here, b"lost").await;
    let (kept, kept_key) = place.push(&here, b"kept").await;
    let (cut, cut_key) = place.push(&here, b"cut down").await;
    place.put(&here, "v1", &[lost, kept, cut]).await;
    fs::remove_file(place.file(&lost_key)).unwrap();
    fs::write(place.file(&cut_key), b"cut").unwrap();

    let run = checked(&place, FORGET).await;
    assert_eq!((run.found, run.repaired), (2, 1), "{:?}", run.findings);
    let forgotten: Vec<&Finding> = run.findings.iter().filter(|finding| finding.repaired).collect();
    assert_eq!(forgotten[0].kind, Kind::MissingObject);
    assert_eq!(forgotten[0].digest, Some(lost.to_string()));
    assert!(place.opened.store.blob(&here, &lost).await.unwrap().is_none());
    assert!(place.opened.store.blob(&here, &cut).await.unwrap().is_some());

    // Its image is told to lack it, and a push brings it.
    let run = checked(&place, PLAIN).await;
    let mut found = kinds(&run);
    found.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(found, [Kind::MissingBlob, Kind::SizeDiffers]);
    place.push(&here, b"lost").await;
    assert_eq!(kinds(&checked(&place, PLAIN).await), [Kind::SizeDiffers]);

    // Where most objects are gone, it is the store that is wrong.
    let again = place.opened.store.blob(&here, &lost).await.unwrap().unwrap();
    for key in [&again.key, &kept_key] {
        fs::remove_file(place.file(key)).unwrap();
    }
    let run = checked(&place, FORGET).await;
    assert_eq!((run.found, run.repaired), (3, 0), "{:?}", run.findings);
    assert!(run.warning.unwrap().contains("more than half"));
    assert!(place.opened.store.blob(&here, &kept).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_tables_are_told_and_leaks_are_repaired() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    let (config, _) = place.push(&here, b"config").await;
    let (layer, _) = place.push(&here, b"layer").await;
    let (gone, _) = place.push(&here, b"goner!!").await;
    let lost = place.put(&here, "lost", &[config]).await;
    place.put(&here, "needy", &[config, layer, gone]).await;
    place
        .execute("DELETE FROM manifest WHERE digest = (SELECT digest FROM tag WHERE name = 'lost')")
        .await;
    place
        .execute("DELETE FROM repository_blob WHERE digest = (SELECT digest FROM blob WHERE size = 5)")
        .await;
    place.execute("DELETE FROM review_blob").await;
    place
        .execute("DELETE FROM repository_blob WHERE digest = (SELECT digest FROM blob WHERE size = 7)")
        .await;
    place.execute("DELETE FROM blob WHERE size = 7").await;
    place
        .execute("UPDATE blob SET created_at = 0, leased_until = 0")
        .await;

    let run = checked(&place, REPAIR).await;

    let mut found = kinds(&run);
    found.retain(|kind| *kind != Kind::OrphanObject);
    found.sort_by_key(|kind| format!("{kind:?}"));
    let expected = [
        Kind::DanglingTag,
        Kind::ForgottenBlob,
        Kind::MissingBlob,
        Kind::MissingLink,
        Kind::MissingManifest,
    ];
    assert_eq!(found, expected, "{:?}", run.findings);
    let tag = run
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::DanglingTag)
        .unwrap();
    assert_eq!(
        (tag.tag.as_deref(), &tag.digest),
        (Some("lost"), &Some(lost.to_string()))
    );
    assert_eq!(tag.repository.as_deref(), Some("team/app"));
    let needed = run
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::MissingBlob)
        .unwrap();
    assert_eq!(needed.digest, Some(gone.to_string()));
    let repaired: Vec<Kind> = run
        .findings
        .iter()
        .filter(|finding| finding.repaired)
        .map(|finding| finding.kind)
        .collect();
    assert_eq!(repaired, [Kind::ForgottenBlob]);
    assert_eq!(place.count("SELECT count(*) FROM review_blob").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_a_sparse_tenant_lacks_are_counted_only() {
    let place = Place::new(r#"{"repositories":{"sparse":"Always"}}"#).await;
    let here = place.repository("team/app");
    place
        .put(&here, "v1", &[Digest::of(Algorithm::Sha256, b"elsewhere")])
        .await;

    let run = checked(&place, REHASH).await;

    assert_eq!((run.found, run.absent), (0, 1), "{:?}", run.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_rehashed_too() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    let (config, _) = place.push(&here, b"config").await;
    let manifest = place.put(&here, "v1", &[config]).await;
    place
        .execute(
            "UPDATE manifest SET payload = CAST(replace(CAST(payload AS TEXT), 'schema', 'sch_ma') AS BLOB)",
        )
        .await;

    assert_eq!(checked(&place, PLAIN).await.found, 0);
    let run = checked(&place, REHASH).await;

    assert_eq!(kinds(&run), [Kind::ManifestDiffers]);
    assert_eq!(run.findings[0].digest, Some(manifest.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_told_with_their_digests_and_queued() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    for content in [b"a", b"b", b"c"] {
        place.push(&here, content).await;
    }
    let [old, young] = [Uuid::now_v7(), Uuid::now_v7()];
    place.store(old, b"orphan").await;
    place.store(young, b"on its way").await;
    place.age(&ObjectKey::of_upload(old));
    fs::write(place.folder.path().join("blobs/blobs/00/stranger"), "x").unwrap();

    let run = checked(&place, REHASH).await;
    let mut found = kinds(&run);
    found.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(
        found,
        [Kind::ForeignFile, Kind::OrphanObject],
        "{:?}",
        run.findings
    );
    let orphan = run
        .findings
        .iter()
        .find(|finding| finding.kind == Kind::OrphanObject)
        .unwrap();
    assert_eq!(orphan.object, Some(ObjectKey::of_upload(old).path()));
    assert_eq!(
        orphan.digest,
        Some(Digest::of(Algorithm::Sha256, b"orphan").to_string())
    );
    assert_eq!(place.count("SELECT count(*) FROM object_deletion").await, 0);

    let run = checked(&place, REPAIR).await;
    assert_eq!((run.found, run.repaired), (2, 1), "{:?}", run.findings);
    assert!(
        run.findings
            .iter()
            .any(|finding| finding.kind == Kind::OrphanObject && finding.repaired)
    );
    assert_eq!(
        place
            .count("SELECT count(*) FROM object_deletion WHERE tenant_id = 0")
            .await,
        1
    );
    let due = Time(place.count("SELECT due_at FROM object_deletion").await);
    assert!(due > Time::now().plus(Duration::from_secs(3500)));
    assert!(place.file(&ObjectKey::of_upload(old)).exists());

    let run = checked(&place, PLAIN).await;
    assert_eq!(
        kinds(&run),
        [Kind::ForeignFile],
        "what waits for its deletion is known"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_queued_where_most_objects_are_orphans() {
    let place = Place::new("{}").await;
    place.push(&place.repository("team/app"), b"known").await;
    for _ in 0..3 {
        let id = Uuid::now_v7();
        place.store(id, b"orphan").await;
        place.age(&ObjectKey::of_upload(id));
    }

    let run = checked(&place, REPAIR).await;

    assert_eq!((run.found, run.repaired), (3, 0));
    assert!(run.warning.unwrap().contains("metadata store"));
    assert_eq!(place.count("SELECT count(*) FROM object_deletion").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_again_a_moment_later_is_not_told() {
    let place = Place::new("{}").await;
    let (_, key) = place.push(&place.repository("team/app"), b"content").await;
    let aside = place.folder.path().join("aside");
    fs::rename(place.file(&key), &aside).unwrap();
    let fsck = Fsck::with(place.parts.clone(), "one".into(), Duration::from_secs(2));
    fsck.start(PLAIN).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let Standing { run, .. } = fsck.standing().await.unwrap().unwrap();
    assert!(run.end.is_none(), "it waits for its second look");
    fs::rename(&aside, place.file(&key)).unwrap();

    assert_eq!(ended(&fsck).await.found, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_at_a_time_whoever_asks() {
    let place = Place::new("{}").await;
    place.push(&place.repository("team/app"), &[1; 500_000]).await;
    let slow = Options {
        rate: Some(100_000),
        ..REHASH
    };
    let (one, two) = (place.fsck(), place.fsck_of("two"));
    assert!(one.standing().await.unwrap().is_none());
    one.start(slow).await.unwrap();

    for fsck in [&one, &two] {
        for options in [slow, PLAIN] {
            let refused = fsck.start(options).await.unwrap_err().to_string();
            assert!(
                refused.contains("since 20") && refused.contains("with rehash"),
                "{refused}"
            );
        }
        assert_eq!(
            fsck.standing().await.unwrap().unwrap().worker.as_deref(),
            Some("one")
        );
        fsck.round().await.unwrap();
    }
    // Whoever stops it.
    let stopped = two.stop().await.unwrap().unwrap();
    assert_eq!(stopped.run.end, Some(End::Stopped));
    let patience = std::time::Instant::now();
    while is_working(&*one.0.task.lock().await) {
        assert!(
            patience.elapsed() < Duration::from_secs(10),
            "the worker does not notice"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(two.stop().await.unwrap().unwrap().run.end, Some(End::Stopped));
    two.start(PLAIN).await.unwrap();
    assert_eq!(ended(&one).await.end, Some(End::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_worker_died_goes_on_where_it_was() {
    let place = Place::new("{}").await;
    let here = place.repository("team/app");
    place.push(&here, b"one").await;
    place.push(&here, b"two").await;
    // As it was stored in the step of objects, under a lease that has ended.
    let mut run = Run::new(REHASH, Time::now().minus(Duration::from_secs(100)));
    run.begin(Step::Objects);
    run.checked.blobs = 1234;
    let lifecycle = &place.parts.lifecycle;
    lifecycle
        .put_job(&key(), Time::now(), run.to_stored())
        .await
        .unwrap();
    let past = Time::now().minus(Duration::from_secs(5));
    lifecycle
        .claim_job(&key(), "dead", Time::now(), past)
        .await
        .unwrap()
        .unwrap();

    let fsck = place.fsck();
    assert_eq!(fsck.standing().await.unwrap().unwrap().worker, None);
    fsck.round().await.unwrap();

    let run = ended(&fsck).await;
    assert_eq!(
        (run.checked.blobs, run.checked.objects, run.checked.rows),
        (1234, 2, 0)
    );
    assert!(Time::now().minus(Duration::from_secs(99)) > run.started_at());
    // And nobody takes it up again.
    fsck.round().await.unwrap();
    assert!(!is_working(&*fsck.0.task.lock().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_a_run_that_was_cut_off_goes_on_with_it_if_it_is_the_same() {
    let place = Place::new("{}").await;
    place.push(&place.repository("team/app"), b"one").await;
    for (options, blobs) in [(REHASH, 1234), (PLAIN, 1)] {
        let mut run = Run::new(REHASH, Time::now());
        run.begin(Step::Objects);
        run.checked.blobs = 1234;
        let lifecycle = &place.parts.lifecycle;
        lifecycle
            .put_job(&key(), Time::now(), run.to_stored())
            .await
            .unwrap();

        let run = checked(&place, options).await;

        assert_eq!(run.checked.blobs, blobs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_alone_takes_up_its_own_lease_at_once() {
    let place = Place::new("{}").await;
    place.push(&place.repository("team/app"), &[1; 500_000]).await;
    let slow = Options {
        rate: Some(100_000),
        ..REHASH
    };
    let before = Fsck::new(place.parts.clone(), true);
    before.start(slow).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    before.0.task.lock().await.take().unwrap().abort();

    let after = Fsck::new(place.parts.clone(), true);
    assert_eq!(after.standing().await.unwrap().unwrap().worker, None);
    after.round().await.unwrap();
    assert!(after.standing().await.unwrap().unwrap().worker.is_some());
    after.stop().await.unwrap();
    // Where others work too, a name is not used twice.
    let (one, two) = (
        Fsck::new(place.parts.clone(), false),
        Fsck::new(place.parts.clone(), false),
    );
    assert_ne!(one.0.by, two.0.by);
}

#[test]
fn progress_grows_and_a_stored_run_is_read_again() {
    let mut run = Run::new(
        Options {
            rehash: true,
            repair: true,
            forget_lost: true,
            rate: None,
        },
        Time(5),
    );
    assert_eq!(run.progress().percent, None, "nothing is counted yet");
    run.counted(&crate::metadata::inspection::Totals {
        rows: [1, 10, 10, 30, 0, 30],
        blobs: 20,
        bytes: 1 << 30,
    });
    let mut before = -1.0;
    loop {
        for done in [0, 1, 5] {
            run.done = done;
            let percent = run.progress().percent.unwrap();
            assert!(
                percent >= before && percent <= 100.0,
                "{percent} after {before} in {:?}",
                run.step
            );
            before = percent;
        }
        let Some(step) = run.next() else { break };
        run.begin(step);
    }
    run.note(Finding::new(Kind::OrphanObject));
    run.end(End::Done, Time(9));
    let read = Run::from_stored(&run.to_stored()).unwrap();
    assert_eq!(read.to_stored(), run.to_stored());
    assert_eq!(
        (read.duration(Time(50)), read.remaining()),
        (Duration::from_micros(4), 1)
    );
    // Of a release that knows less.
    assert_eq!(Run::from_stored("{}").unwrap().step, Step::Count);
}

#[test]
fn findings_are_bounded_and_counted_beyond() {
    let mut run = Run::new(PLAIN, Time(0));
    for number in 0..1500 {
        run.note(Finding {
            repositories: vec!["repository".to_owned(); 50],
            repaired: number % 2 == 0,
            ..Finding::new(Kind::MissingObject)
        });
    }
    assert_eq!((run.found, run.repaired, run.findings.len()), (1500, 750, 1000));
    assert!(run.to_stored().len() < 500_000, "{}", run.to_stored().len());
}
