//! Walks through the tables, and the repairs that they lead to.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::blobs::ObjectKey;
use crate::domain::Digest;
use crate::metadata::inspection::*;
use crate::metadata::*;

on_both_stores! {
    a_sound_store_has_no_fault
    a_tag_without_its_manifest_is_found
    what_is_left_of_a_lost_manifest_is_found
    edges_to_blobs_that_are_not_there_are_found
    an_index_of_a_blob_was_certain_of_it
    a_link_without_its_blob_is_found
    what_belongs_to_no_tenant_or_repository_is_found
    a_blob_that_nobody_would_collect_is_found_and_reviewed_once
    a_manifest_that_nobody_would_collect_is_found_and_reviewed_once
    what_is_young_leased_or_referred_to_is_not_forgotten
    a_walk_sees_each_row_once_whatever_its_pages
    payloads_are_paged_by_bytes
    an_object_is_known_by_blobs_uploads_and_deletions
    an_unknown_object_is_queued_once
    places_have_names_until_they_go
    everything_is_counted
}

const TABLES: [Table; 6] = [
    Table::Repositories,
    Table::Tags,
    Table::Manifests,
    Table::BlobEdges,
    Table::ChildEdges,
    Table::Links,
];

/// Long after the tests' pushes and leases.
fn later() -> (Time, Time) {
    (after(1_000_000), after(900_000))
}

async fn with_tenant(store: &TestStore) -> Repository {
    store
        .execute("INSERT INTO tenant (id, name, uid, created_at) VALUES (1, 'acme', 'u', 0)")
        .await;
    repository("app")
}

/// Every row of a table, and what is wrong.
async fn walk(store: &TestStore, table: Table) -> (Vec<Position>, Vec<Fault>) {
    let (now, settled) = later();
    let (mut rows, mut faults, mut last) = (Vec::new(), Vec::new(), Position::default());
    loop {
        let start = Start::After(last.clone());
        let walked = store.inspection().walk(table, start, now, settled).await.unwrap();
        let Some(next) = walked.last else {
            return (rows, faults);
        };
        assert!(walked.rows > 0);
        faults.extend(walked.faults);
        rows.push(next.clone());
        last = next;
    }
}

async fn problems(store: &TestStore, table: Table) -> Vec<Problem> {
    let (_, faults) = walk(store, table).await;
    faults.into_iter().map(|fault| fault.problem).collect()
}

async fn blobs(store: &TestStore) -> Vec<BlobSeen> {
    let (now, settled) = later();
    let start = Start::After(Position::default());
    store.inspection().blobs(start, now, settled).await.unwrap()
}

fn stored(digest: Digest) -> Vec<u8> {
    digest.to_bytes()
}

async fn a_sound_store_has_no_fault(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let config = push_blob(&store, &here, "config").await;
    let layer = push_blob(&store, &here, "layer").await;
    let child = put(&store, &here, image(&[config, layer]).push()).await;
    put(&store, &here, index(&[child]).push_as("v1")).await;
    put(&store, &here, note("about").about(child).push()).await;
    put(&store, &here, note("untagged").push()).await;
    let gone = put(&store, &here, image(&[config]).push_as("gone")).await;
    store.delete_manifest(&here, &gone, deletion()).await.unwrap();
    put(&store, &here, note("lost its tag").push_as("moved")).await;
    store.delete_tag(&here, &tag("moved"), deletion()).await.unwrap();
    let unlinked = push_blob(&store, &here, "unlinked").await;
    store.unlink_blob(&here, &unlinked, after(3600)).await.unwrap();
    begin(&store, &here).await;

    for table in TABLES {
        assert_eq!(problems(&store, table).await, [], "{table:?}");
    }
    for seen in blobs(&store).await {
        assert_eq!(seen.problem, None, "{:?}", seen.digest);
    }
}

async fn a_tag_without_its_manifest_is_found(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let lost = put(&store, &here, note("lost").push_as("v1")).await;
    put(&store, &here, note("kept").push_as("v2")).await;
    store
        .execute("DELETE FROM manifest WHERE digest = (SELECT digest FROM tag WHERE name = 'v1')")
        .await;

    let (_, faults) = walk(&store, Table::Tags).await;

    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].at.name, "v1");
    assert_eq!(faults[0].problem, Problem::NoManifest(stored(lost)));
    // The same again by its place alone, and the row behind it by its own.
    let (now, settled) = later();
    let look = async |at: &Position| {
        let start = Start::At(at.clone());
        store
            .inspection()
            .walk(Table::Tags, start, now, settled)
            .await
            .unwrap()
    };
    let again = look(&faults[0].at).await;
    assert_eq!((again.rows, again.faults), (1, faults.clone()));
    let sound = look(&Position {
        name: "v2".into(),
        ..faults[0].at.clone()
    })
    .await;
    assert_eq!((sound.rows, sound.faults), (1, vec![]));
}

async fn what_is_left_of_a_lost_manifest_is_found(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let config = push_blob(&store, &here, "config").await;
    let child = put(&store, &here, image(&[config]).push()).await;
    let parent = put(&store, &here, index(&[child]).push_as("v1")).await;
    store.execute("DELETE FROM manifest").await;

    for (table, manifest) in [(Table::BlobEdges, child), (Table::ChildEdges, parent)] {
        let (_, faults) = walk(&store, table).await;
        assert_eq!(faults.len(), 1, "{table:?}");
        assert_eq!(faults[0].problem, Problem::EdgeOfNothing);
        assert_eq!(faults[0].at.digest, stored(manifest));
    }
}

async fn edges_to_blobs_that_are_not_there_are_found(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let mut digests = Vec::new();
    for content in ["kept", "unlinked", "lost!"] {
        digests.push(push_blob(&store, &here, content).await);
    }
    let manifest = put(&store, &here, image(&digests).push_as("v1")).await;
    store
        .execute("DELETE FROM repository_blob WHERE digest = (SELECT digest FROM blob WHERE size = 8)")
        .await;
    store.execute("DELETE FROM blob WHERE size = 5").await;

    let (_, mut faults) = walk(&store, Table::BlobEdges).await;

    assert_eq!(faults.len(), 2);
    assert!(faults.iter().all(|fault| fault.at.digest == stored(manifest)));
    faults.sort_by_key(|fault| fault.at.other != stored(digests[1]));
    assert_eq!(faults[0].problem, Problem::NotLinked(Presence::Unknown));
    assert_eq!(faults[1].problem, Problem::NoBlob(Presence::Unknown));
    assert_eq!(faults[1].at.other, stored(digests[2]));
}

async fn an_index_of_a_blob_was_certain_of_it(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let blob = push_blob(&store, &here, "blob").await;
    let child = put(&store, &here, note("child").push()).await;
    put(&store, &here, index(&[blob, child]).push_as("v1")).await;
    store.execute("DELETE FROM repository_blob").await;

    let (_, faults) = walk(&store, Table::ChildEdges).await;
    assert_eq!(faults.len(), 1, "a child that is a manifest may be deleted");
    assert_eq!(faults[0].problem, Problem::NotLinked(Presence::Certain));
    assert_eq!(faults[0].at.other, stored(blob));

    store.execute("DELETE FROM blob").await;
    assert_eq!(
        problems(&store, Table::ChildEdges).await,
        [Problem::NoBlob(Presence::Certain)]
    );
}

async fn a_link_without_its_blob_is_found(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    push_blob(&store, &here, "kept").await;
    let lost = push_blob(&store, &here, "lost!").await;
    store.execute("DELETE FROM blob WHERE size = 5").await;

    let (_, faults) = walk(&store, Table::Links).await;

    assert_eq!(faults.len(), 1);
    assert_eq!(
        (&faults[0].problem, &faults[0].at.digest),
        (&Problem::LinkToNothing, &stored(lost))
    );
}

async fn what_belongs_to_no_tenant_or_repository_is_found(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    push_blob(&store, &here, "blob").await;
    put(&store, &here, note("n").push_as("v1")).await;
    store.execute("DELETE FROM tenant").await;
    assert_eq!(problems(&store, Table::Repositories).await, [Problem::NoTenant]);
    assert_eq!(blobs(&store).await[0].problem, Some(Problem::NoTenant));

    store.execute("DELETE FROM repository").await;
    for table in [Table::Tags, Table::Manifests, Table::Links] {
        assert_eq!(
            problems(&store, table).await,
            [Problem::NoRepository],
            "{table:?}"
        );
    }
}

async fn a_blob_that_nobody_would_collect_is_found_and_reviewed_once(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let object = push_object(&store, &here, "blob").await;
    store.execute("DELETE FROM repository_blob").await;
    store.execute("DELETE FROM review_blob").await;

    let seen = blobs(&store).await.remove(0);
    assert_eq!(seen.problem, Some(Problem::Forgotten));
    assert_eq!((seen.digest, seen.size), (Some(digest("blob")), 4));
    assert_eq!(seen.key, ObjectKey::of_upload(object));

    let inspection = store.inspection();
    assert!(inspection.review_blob(&seen.at, after(5)).await.unwrap());
    assert!(!inspection.review_blob(&seen.at, after(6)).await.unwrap());
    assert_eq!(store.count("SELECT due_at FROM review_blob").await, after(5).0);
    assert_eq!(blobs(&store).await[0].problem, None);
    // One that has found a repository meanwhile is left alone.
    store.execute("DELETE FROM review_blob").await;
    push_blob(&store, &here, "blob").await;
    store.execute("DELETE FROM review_blob").await;
    assert!(!inspection.review_blob(&seen.at, after(7)).await.unwrap());
}

async fn a_manifest_that_nobody_would_collect_is_found_and_reviewed_once(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let leaked = put(&store, &here, note("leaked").push()).await;
    put(&store, &here, note("about").about(digest("nobody")).push()).await;
    store.execute("DELETE FROM review_manifest").await;

    let (_, faults) = walk(&store, Table::Manifests).await;
    assert_eq!(faults.len(), 2, "the subject of one is not there");
    let fault = faults
        .iter()
        .find(|fault| fault.at.digest == stored(leaked))
        .unwrap();
    assert_eq!(fault.problem, Problem::Forgotten);

    let inspection = store.inspection();
    assert!(inspection.review_manifest(&fault.at, after(5)).await.unwrap());
    assert!(!inspection.review_manifest(&fault.at, after(6)).await.unwrap());
    assert_eq!(
        store.count("SELECT due_at FROM review_manifest").await,
        after(5).0
    );
    assert_eq!(store.count("SELECT since FROM review_manifest").await, NOW.0);
    assert_eq!(problems(&store, Table::Manifests).await, [Problem::Forgotten]);
}

async fn what_is_young_leased_or_referred_to_is_not_forgotten(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let child = put(&store, &here, note("child").push()).await;
    put(&store, &here, index(&[child]).push_as("v1")).await;
    put(&store, &here, note("about").about(child).push()).await;
    put(&store, &here, note("alone").push()).await;
    push_blob(&store, &here, "blob").await;
    store.execute("DELETE FROM review_manifest").await;
    store.execute("DELETE FROM review_blob").await;
    store.execute("DELETE FROM repository_blob").await;
    let forgotten = async |now: Time, settled: Time| {
        let start = || Start::After(Position::default());
        let inspection = store.inspection();
        let walked = inspection
            .walk(Table::Manifests, start(), now, settled)
            .await
            .unwrap();
        let blobs = inspection.blobs(start(), now, settled).await.unwrap();
        (
            walked.faults.len(),
            blobs.iter().filter(|seen| seen.problem.is_some()).count(),
        )
    };

    // Pushed at NOW, leased for an hour.
    assert_eq!(forgotten(after(1800), after(900)).await, (0, 0), "leased");
    assert_eq!(forgotten(after(7200), NOW).await, (0, 0), "young");
    assert_eq!(
        forgotten(after(7200), after(3600)).await,
        (1, 1),
        "the one that is alone"
    );
}

async fn a_walk_sees_each_row_once_whatever_its_pages(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    put(&store, &here, note("n").push_as("v1")).await;
    store
        .execute(
            "INSERT INTO repository (tenant_id, id, name, created_at) SELECT tenant_id, -5, 'other', 0 FROM repository",
        )
        .await;
    store
        .execute(
            "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
             SELECT m.tenant_id, CASE WHEN i % 2 = 0 THEN -5 ELSE m.repository_id END, 'w' || i, m.digest, 0, 0, 'ci' \
             FROM n CROSS JOIN manifest m",
        )
        .await;

    let (now, settled) = later();
    let (mut rows, mut faults, mut pages, mut last) = (0, 0, 0, Position::default());
    loop {
        let start = Start::After(last.clone());
        let walked = store
            .inspection()
            .walk(Table::Tags, start, now, settled)
            .await
            .unwrap();
        let Some(next) = walked.last else { break };
        assert!((next.repository, &next.name) > (last.repository, &last.name));
        rows += walked.rows;
        faults += walked.faults.len();
        pages += 1;
        last = next;
    }
    assert_eq!((rows, pages), (1201, 3));
    assert_eq!(faults, 600, "the other repository lacks the manifest");
}

async fn payloads_are_paged_by_bytes(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let mut pushed = BTreeSet::new();
    for number in 0..7 {
        pushed.insert(put(&store, &here, note(&format!("{number}")).push()).await);
    }
    let size = store.count("SELECT max(size) FROM manifest").await.unsigned_abs();

    let mut seen = BTreeSet::new();
    let mut last = Position::default();
    loop {
        let start = Start::After(last.clone());
        let page = store.inspection().payloads(start, 2 * size).await.unwrap();
        let Some(end) = page.last() else { break };
        assert!(page.len() <= 2);
        for payload in &page {
            let digest = Digest::from_bytes(&payload.at.digest).unwrap();
            assert_eq!(Digest::of(digest.algorithm(), &payload.payload), digest);
            assert!(!payload.media_type.is_empty());
            seen.insert(digest);
        }
        last = end.at.clone();
    }
    assert_eq!(seen, pushed);
    // One that is larger than the page is read nevertheless.
    let start = Start::After(Position::default());
    assert_eq!(store.inspection().payloads(start, 1).await.unwrap().len(), 1);
}

async fn an_object_is_known_by_blobs_uploads_and_deletions(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let blob = push_object(&store, &here, "blob").await;
    let spare = push_object(&store, &here, "blob").await;
    let open = begin(&store, &here).await;
    let cancelled = begin(&store, &here).await;
    store.cancel_upload(&here, cancelled).await.unwrap();
    let never = Uuid::now_v7();

    let asked = [blob, spare, open, cancelled, never];
    let mut unknown = store.inspection().unknown_objects(&asked).await.unwrap();

    unknown.sort_unstable();
    let mut expected = vec![cancelled, never];
    expected.sort_unstable();
    assert_eq!(unknown, expected);
    assert!(store.inspection().unknown_objects(&[]).await.unwrap().is_empty());
}

async fn an_unknown_object_is_queued_once(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let blob = push_object(&store, &here, "blob").await;
    let open = begin(&store, &here).await;
    let unknown = Uuid::now_v7();
    let inspection = store.inspection();

    for known in [blob, open] {
        assert!(!inspection.delete_unknown(known, after(5)).await.unwrap());
    }
    assert!(inspection.delete_unknown(unknown, after(5)).await.unwrap());
    assert!(!inspection.delete_unknown(unknown, after(5)).await.unwrap());

    assert_eq!(store.due_objects(after(4), after(9), 10).await.unwrap(), []);
    let due = store.due_objects(after(5), after(9), 10).await.unwrap();
    assert_eq!(due, [(TenantId(0), ObjectKey::of_upload(unknown))]);
    store.forget_object(TenantId(0), &due[0].1).await.unwrap();
    assert_eq!(store.count("SELECT count(*) FROM object_deletion").await, 0);
}

async fn places_have_names_until_they_go(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    put(&store, &here, note("n").push_as("v1")).await;
    let id = store.count("SELECT id FROM repository").await;
    let names = async |tenant, repository| store.inspection().names(tenant, repository).await.unwrap();
    let named = |tenant: Option<&str>, repository: Option<&str>, going| Names {
        tenant: tenant.map(str::to_owned),
        repository: repository.map(str::to_owned),
        going,
    };

    assert_eq!(names(1, Some(id)).await, named(Some("acme"), Some("app"), false));
    assert_eq!(names(1, None).await, named(Some("acme"), None, false));
    assert_eq!(names(1, Some(9)).await, named(Some("acme"), None, false));
    assert_eq!(names(2, None).await, named(None, None, false));

    store
        .execute("INSERT INTO purge (tenant_id, repository, due_at, requested_at) VALUES (1, 'app', 0, 0)")
        .await;
    assert!(names(1, Some(id)).await.going);
    assert!(names(1, Some(9)).await.going, "it may be the one that goes");
    assert!(!names(1, None).await.going);
    store.execute("UPDATE purge SET repository = ''").await;
    assert!(names(1, None).await.going && names(1, Some(id)).await.going);
}

async fn everything_is_counted(store: Arc<TestStore>) {
    let here = with_tenant(&store).await;
    let config = push_blob(&store, &here, "config").await;
    let layer = push_blob(&store, &repository("other"), "layer!!").await;
    store.mount_blob(&here, mount(layer)).await.unwrap();
    let child = put(&store, &here, image(&[config, layer]).push()).await;
    put(&store, &here, index(&[child]).push_as("v1")).await;

    let totals = store.inspection().totals().await.unwrap();

    assert_eq!(totals.rows, [2, 1, 2, 2, 1, 3]);
    assert_eq!((totals.blobs, totals.bytes), (2, 6 + 7));
    let (repositories, count) = store
        .inspection()
        .repositories_of(here.tenant, &layer, 1)
        .await
        .unwrap();
    assert_eq!((repositories.len(), count), (1, 2));
}
