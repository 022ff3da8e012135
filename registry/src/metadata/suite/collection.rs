//! Collection: what goes, what stays, and when.

use std::sync::Arc;
use std::time::Duration;

use super::builders::*;
use super::fixture::TestStore;
use super::usage::recount;
use crate::domain::Digest;
use crate::domain::attachment;
use crate::metadata::events::Announce;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

/// Long after every lease and delay of a test.
pub(super) const LATE: u64 = 10_000_000;

pub(super) fn judgement(now: Time) -> Judgement {
    Judgement {
        now,
        claimed: PARKED,
        untagged_after: None,
        pulls_count: false,
        immutable: Vec::new(),
        review_at: now,
    }
}

/// Looks at everything that is due at `now`, until nothing is.
pub(super) async fn collect(store: &TestStore, now: Time, untagged_after: Option<Duration>) {
    let lifecycle = store.lifecycle();
    loop {
        let candidates = lifecycle
            .candidates(now, now.plus(Duration::from_secs(60)), 50)
            .await
            .unwrap();
        if candidates.is_empty() {
            return;
        }
        for candidate in candidates {
            let here = |tenant: TenantId, name: &str| repository_of(tenant.0, name);
            let judged = Judgement {
                untagged_after,
                ..judgement(now)
            };
            match candidate {
                Candidate::Manifest(tenant, name, digest) => {
                    lifecycle
                        .collect_manifest(&here(tenant, &name), &digest, judged)
                        .await
                        .unwrap();
                }
                Candidate::Deleted(tenant, name, digest) => {
                    lifecycle
                        .forget_deleted(&here(tenant, &name), &digest, judged)
                        .await
                        .unwrap();
                }
                Candidate::Blob(tenant, digest) => {
                    let among = lifecycle.unused_links(tenant, &digest, 100).await.unwrap();
                    let blob = CollectBlob {
                        tenant,
                        digest,
                        among,
                        now,
                        claimed: PARKED,
                        object_due: now.plus(Duration::from_secs(3600)),
                    };
                    lifecycle.collect_blob(blob).await.unwrap();
                }
            }
        }
    }
}

/// Deletes tags as retention does, to be brought back for `window` seconds.
pub(super) async fn retire(
    store: &TestStore,
    here: &Repository,
    names: &[&str],
    now: u64,
    window: u64,
) -> u64 {
    let drop = doomed(store, here, names, now, window).await;
    store.lifecycle().drop_tags(here, drop).await.unwrap()
}

/// The same, for all who want to hear of it.
pub(super) async fn retire_telling(
    store: &TestStore,
    here: &Repository,
    names: &[&str],
    announce: Option<Announce>,
) -> u64 {
    let drop = DropTags {
        announce,
        ..doomed(store, here, names, 20, 0).await
    };
    store.lifecycle().drop_tags(here, drop).await.unwrap()
}

async fn doomed(store: &TestStore, here: &Repository, names: &[&str], now: u64, window: u64) -> DropTags {
    let mut tags = Vec::new();
    for name in names {
        tags.extend(tag_row(store, here, name).await);
    }
    DropTags {
        tags,
        principal: "retention ci".into(),
        now: after(now),
        until: after(now + window),
        announce: None,
    }
}

pub(super) async fn there(store: &TestStore, here: &Repository, digest: Digest) -> bool {
    store.manifest(here, &by_digest(digest)).await.unwrap().is_some()
}

on_both_stores! {
    an_untagged_child_of_a_tagged_index_stays_and_goes_with_it
    a_child_that_is_tagged_elsewhere_outlives_its_index
    of_two_tags_on_one_digest_one_can_go
    signatures_stay_with_their_image_and_go_with_it
    a_signature_without_its_image_here_is_a_tag_like_any_other
    a_tag_set_anew_cancels_the_deletion
    a_lease_puts_a_deletion_off
    a_manifest_pushed_without_a_tag_waits_for_a_rule
    a_manifest_that_a_person_untags_stays
    an_annotated_manifest_without_a_tag_goes_after_its_time
    a_blob_goes_from_where_nothing_uses_it_and_then_altogether
    an_index_about_its_own_child_is_no_reason_for_itself
    blobs_that_are_children_of_an_index_are_in_use
    a_repository_that_was_not_named_keeps_its_link
    what_waits_is_counted
    tags_that_changed_since_they_were_seen_stay
    what_was_asked_for_anew_since_it_was_taken_waits
    a_candidate_is_handed_out_once_and_can_be_put_off
}

async fn an_untagged_child_of_a_tagged_index_stays_and_goes_with_it(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let child = put(&store, &here, image(&[layer]).push_as("amd64")).await;
    let inner = put(&store, &here, index(&[child]).push()).await;
    let parent = put(&store, &here, index(&[inner]).push_as("v1")).await;

    assert_eq!(retire(&store, &here, &["amd64"], 10, 100).await, 1);
    collect(&store, after(LATE), Some(Duration::ZERO)).await;
    for digest in [child, inner, parent] {
        assert!(there(&store, &here, digest).await);
    }

    assert_eq!(retire(&store, &here, &["v1"], LATE, 100).await, 1);
    collect(&store, after(LATE + 99), None).await;
    assert!(there(&store, &here, parent).await, "it can be brought back");
    collect(&store, after(LATE + 100), None).await;
    for digest in [child, inner, parent] {
        assert!(!there(&store, &here, digest).await);
    }
    assert!(store.blob(&here, &layer).await.unwrap().is_none());
    recount(&store).await;
}

async fn a_child_that_is_tagged_elsewhere_outlives_its_index(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let child = put(&store, &here, image(&[layer]).push_as("amd64")).await;
    let parent = put(&store, &here, index(&[child]).push_as("v1")).await;

    retire(&store, &here, &["v1"], 10, 0).await;
    collect(&store, after(LATE), None).await;

    assert!(!there(&store, &here, parent).await);
    assert_eq!(target(&store, &here, "amd64").await, Some(child));
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    recount(&store).await;
}

async fn of_two_tags_on_one_digest_one_can_go(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push_as("v1")).await;
    put(&store, &here, note("n").push_as("latest")).await;

    assert_eq!(retire(&store, &here, &["v1"], 10, 0).await, 1);
    collect(&store, after(LATE), Some(Duration::ZERO)).await;

    assert_eq!(target(&store, &here, "v1").await, None);
    assert_eq!(target(&store, &here, "latest").await, Some(manifest));
}

/// An image with a referrer, a referrer of that, a signature by tag, and an index under the fallback tag.
async fn signed(store: &TestStore, here: &Repository) -> Vec<Digest> {
    let image = put(store, here, note("image").push_as("v1")).await;
    let attestation = put(store, here, note("attestation").about(image).push()).await;
    let signature = put(store, here, note("signature").about(attestation).push()).await;
    let [name, ..] = attachment::tags(&image);
    let by_tag = put(store, here, note("cosign").push_as(&format!("{name}.sig"))).await;
    let fallback = put(store, here, index(&[attestation]).push_as(&name)).await;
    vec![image, attestation, signature, by_tag, fallback]
}

async fn signatures_stay_with_their_image_and_go_with_it(store: Arc<TestStore>) {
    let here = repository("app");
    let all = signed(&store, &here).await;
    collect(&store, after(LATE), Some(Duration::ZERO)).await;
    for digest in &all {
        assert!(there(&store, &here, *digest).await);
    }
    let [name, ..] = attachment::tags(&all[0]);
    let row = tag_row(&store, &here, &format!("{name}.sig")).await;
    assert!(row.expect("the tag").attached);

    retire(&store, &here, &["v1"], LATE, 0).await;
    collect(&store, after(2 * LATE), None).await;

    for digest in &all {
        assert!(!there(&store, &here, *digest).await);
    }
    assert_eq!(store.count("SELECT count(*) FROM tag").await, 0);
    recount(&store).await;
}

async fn a_signature_without_its_image_here_is_a_tag_like_any_other(store: Arc<TestStore>) {
    let (here, elsewhere) = (repository("signatures"), repository("app"));
    let image = put(&store, &elsewhere, note("image").push_as("v1")).await;
    let [name, ..] = attachment::tags(&image);
    let signature = put(&store, &here, note("cosign").push_as(&format!("{name}.sig"))).await;
    let alike = put(&store, &here, note("alike").push_as("sha256-abc")).await;
    // Asked for by a deletion that never was.
    store
        .execute("INSERT INTO review_manifest SELECT tenant_id, repository_id, digest, 0, 0, 1 FROM manifest")
        .await;

    collect(&store, after(LATE), Some(Duration::ZERO)).await;

    assert!(there(&store, &here, signature).await && there(&store, &here, alike).await);
    let row = tag_row(&store, &here, &format!("{name}.sig")).await;
    assert!(!row.expect("the tag").attached);
}

async fn a_tag_set_anew_cancels_the_deletion(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 100).await;

    put(&store, &here, note("n").push_as("again")).await;
    collect(&store, after(LATE), Some(Duration::ZERO)).await;
    assert!(there(&store, &here, manifest).await);

    // A person's deletion of that tag does not condemn it either.
    store.delete_tag(&here, &tag("again"), deletion()).await.unwrap();
    collect(&store, after(LATE), None).await;
    assert!(there(&store, &here, manifest).await);
}

async fn a_lease_puts_a_deletion_off(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let manifest = put(&store, &here, image(&[layer]).push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 0).await;
    assert!(
        store
            .lease_manifest(&here, &manifest, after(50_000))
            .await
            .unwrap()
    );
    assert!(store.lease_blob(&here, &layer, after(80_000)).await.unwrap());

    collect(&store, after(49_999), None).await;
    assert!(there(&store, &here, manifest).await);
    collect(&store, after(79_999), None).await;
    assert!(!there(&store, &here, manifest).await);
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    collect(&store, after(80_000), None).await;
    assert!(store.blob(&here, &layer).await.unwrap().is_none());
}

async fn a_manifest_pushed_without_a_tag_waits_for_a_rule(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push()).await;
    collect(&store, after(LATE), None).await;
    assert!(there(&store, &here, manifest).await);
    assert_eq!(store.count("SELECT due_at FROM review_manifest").await, PARKED.0);

    assert_eq!(store.lifecycle().unpark(&here, after(LATE)).await.unwrap(), 1);
    let longer = Duration::from_secs(LATE + 500);
    collect(&store, after(LATE), Some(longer)).await;
    assert!(
        there(&store, &here, manifest).await,
        "its age counts from the push"
    );
    collect(&store, after(LATE + 499), Some(longer)).await;
    assert!(there(&store, &here, manifest).await);
    collect(&store, after(LATE + 500), Some(longer)).await;
    assert!(!there(&store, &here, manifest).await);
}

async fn a_manifest_that_a_person_untags_stays(store: Arc<TestStore>) {
    let here = repository("app");
    let first = put(&store, &here, note("first").push_as("v1")).await;
    let second = put(&store, &here, note("second").push_as("v1")).await;
    store.delete_tag(&here, &tag("v1"), deletion()).await.unwrap();

    collect(&store, after(LATE), None).await;
    assert!(there(&store, &here, first).await && there(&store, &here, second).await);

    store.lifecycle().unpark(&here, after(LATE)).await.unwrap();
    collect(&store, after(LATE), Some(Duration::from_secs(LATE / 2))).await;
    assert!(!there(&store, &here, first).await && !there(&store, &here, second).await);
    recount(&store).await;
}

async fn an_annotated_manifest_without_a_tag_goes_after_its_time(store: Arc<TestStore>) {
    let here = repository("app");
    let push = PutManifest {
        lifetime: Some(Duration::from_secs(5000)),
        ..note("n").push()
    };
    let manifest = put(&store, &here, push).await;
    collect(&store, after(4999), None).await;
    assert!(there(&store, &here, manifest).await);
    collect(&store, after(5000), None).await;
    assert!(!there(&store, &here, manifest).await);
}

async fn a_blob_goes_from_where_nothing_uses_it_and_then_altogether(store: Arc<TestStore>) {
    let (one, two) = (repository("one"), repository("two"));
    let layer = push_blob(&store, &one, "12345").await;
    push_blob(&store, &two, "12345").await;
    put(&store, &one, image(&[layer]).push_as("v1")).await;
    assert_eq!(
        store.count("SELECT count(*) FROM object_deletion").await,
        1,
        "a spare copy"
    );
    assert_eq!(
        store
            .count("SELECT stored FROM usage WHERE repository_id = 0")
            .await,
        10
    );

    collect(&store, after(LATE), None).await;
    assert!(store.blob(&one, &layer).await.unwrap().is_some());
    assert!(
        store.blob(&two, &layer).await.unwrap().is_none(),
        "nothing uses it there"
    );
    recount(&store).await;

    retire(&store, &one, &["v1"], LATE, 0).await;
    collect(&store, after(2 * LATE), None).await;
    assert!(store.blob(&one, &layer).await.unwrap().is_none());
    assert_eq!(store.count("SELECT count(*) FROM blob").await, 0);
    recount(&store).await;

    let due = store
        .due_objects(after(3 * LATE), after(4 * LATE), 10)
        .await
        .unwrap();
    assert_eq!(due.len(), 2);
    for (tenant, key) in due {
        store.forget_object(tenant, &key).await.unwrap();
        store.forget_object(tenant, &key).await.unwrap();
    }
    assert_eq!(
        store
            .count("SELECT stored FROM usage WHERE repository_id = 0")
            .await,
        0
    );
    recount(&store).await;
}

async fn an_index_about_its_own_child_is_no_reason_for_itself(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push()).await;
    let parent = put(&store, &here, index(&[child]).about(child).push_as("v1")).await;
    collect(&store, after(LATE), Some(Duration::ZERO)).await;
    assert!(there(&store, &here, parent).await && there(&store, &here, child).await);

    retire(&store, &here, &["v1"], LATE, 0).await;
    collect(&store, after(2 * LATE), None).await;
    assert!(!there(&store, &here, parent).await && !there(&store, &here, child).await);
}

async fn blobs_that_are_children_of_an_index_are_in_use(store: Arc<TestStore>) {
    let here = repository("cache");
    let layer = push_blob(&store, &here, "layer").await;
    put(&store, &here, index(&[layer]).push_as("buildcache")).await;
    collect(&store, after(LATE), Some(Duration::ZERO)).await;
    assert!(store.blob(&here, &layer).await.unwrap().is_some());

    retire(&store, &here, &["buildcache"], LATE, 0).await;
    collect(&store, after(2 * LATE), None).await;
    assert!(store.blob(&here, &layer).await.unwrap().is_none());
    recount(&store).await;
}

async fn a_repository_that_was_not_named_keeps_its_link(store: Arc<TestStore>) {
    let (one, two) = (repository("one"), repository("two"));
    let layer = push_blob(&store, &one, "layer").await;
    push_blob(&store, &two, "layer").await;
    let look = |among: &[&str]| CollectBlob {
        tenant: TenantId(1),
        digest: layer,
        among: among.iter().map(|name| (*name).to_owned()).collect(),
        now: after(LATE),
        claimed: PARKED,
        object_due: after(LATE),
    };

    let outcome = store.lifecycle().collect_blob(look(&["one"])).await.unwrap();
    assert_eq!(outcome, Collected::Later, "another one does not use it either");
    assert!(store.blob(&one, &layer).await.unwrap().is_none());
    assert!(store.blob(&two, &layer).await.unwrap().is_some());
    let outcome = store.lifecycle().collect_blob(look(&["two"])).await.unwrap();
    assert_eq!(outcome, Collected::Done(5));
    assert_eq!(
        store.lifecycle().collect_blob(look(&["two"])).await.unwrap(),
        Collected::Absent
    );
    recount(&store).await;
}

async fn what_waits_is_counted(store: Arc<TestStore>) {
    let here = repository("app");
    push_blob(&store, &here, "12345").await;
    push_blob(&store, &here, "12345").await;
    put(&store, &here, note("n").push()).await;
    let queues = store.lifecycle().queues(after(61)).await.unwrap();
    let spare = after(60);
    assert_eq!(
        queues,
        Queues {
            manifests: 1,
            blobs: 1,
            objects: 1,
            object_bytes: 5,
            oldest_due: Some(spare)
        }
    );
    assert_eq!(
        store.lifecycle().queues(after(59)).await.unwrap().oldest_due,
        None
    );
}

async fn tags_that_changed_since_they_were_seen_stay(store: Arc<TestStore>) {
    let here = repository("app");
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    let seen = async || tag_row(&store, &here, "v1").await.expect("the tag");
    let drop = |seen: TagRow| DropTags {
        tags: vec![seen],
        principal: "retention".into(),
        now: after(10),
        until: after(20),
        announce: None,
    };
    let before = seen().await;
    let again = PutManifest {
        now: after(5),
        ..note("n").push_as("v1")
    };
    put(&store, &here, again).await;
    assert_eq!(store.lifecycle().drop_tags(&here, drop(before)).await.unwrap(), 0);

    let before = seen().await;
    assert!(
        store
            .lifecycle()
            .renew_tag(&here, &tag("v1"), &digest, after(6))
            .await
            .unwrap()
    );
    assert_eq!(store.lifecycle().drop_tags(&here, drop(before)).await.unwrap(), 0);
    assert_eq!(target(&store, &here, "v1").await, Some(digest));

    assert_eq!(
        store
            .lifecycle()
            .drop_tags(&here, drop(seen().await))
            .await
            .unwrap(),
        1
    );
    assert_eq!(target(&store, &here, "v1").await, None);
}

async fn what_was_asked_for_anew_since_it_was_taken_waits(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let manifest = put(&store, &here, image(&[layer]).push()).await;
    let (now, claimed) = (after(LATE), after(LATE + 60));
    let taken = store.lifecycle().candidates(now, claimed, 10).await.unwrap();
    assert_eq!(taken.len(), 2);
    // Meanwhile it is tagged, and deleted so that it can be brought back for long.
    put(&store, &here, image(&[layer]).push_as("v1")).await;
    retire(&store, &here, &["v1"], LATE, 1000).await;

    let judged = Judgement {
        claimed,
        untagged_after: Some(Duration::ZERO),
        pulls_count: false,
        ..judgement(now)
    };
    let outcome = store
        .lifecycle()
        .collect_manifest(&here, &manifest, judged)
        .await
        .unwrap();
    assert_eq!(outcome, Collected::Later);
    store
        .execute("UPDATE review_blob SET due_at = 9000000000000000000")
        .await;
    let look = CollectBlob {
        tenant: TenantId(1),
        digest: layer,
        among: vec!["app".into()],
        now,
        claimed,
        object_due: now,
    };
    assert_eq!(
        store.lifecycle().collect_blob(look).await.unwrap(),
        Collected::Later
    );
    assert!(there(&store, &here, manifest).await);
}

async fn a_candidate_is_handed_out_once_and_can_be_put_off(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let deleted = put(&store, &here, image(&[layer]).push_as("v1")).await;
    let aside = Deletion {
        until: after(20),
        ..deletion()
    };
    assert!(store.delete_manifest(&here, &deleted, aside).await.unwrap());
    put(&store, &here, note("n").push()).await;
    let (now, claimed) = (after(LATE), after(LATE + 60));
    let take = async |at: Time| store.lifecycle().candidates(at, claimed, 10).await.unwrap();

    let taken = take(now).await;
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert!(take(now).await.is_empty(), "another replica gets none of them");
    for candidate in &taken {
        store
            .lifecycle()
            .put_off(candidate, claimed, after(LATE + 500))
            .await
            .unwrap();
    }
    assert!(take(after(LATE + 499)).await.is_empty());
    let again = store
        .lifecycle()
        .candidates(after(LATE + 500), after(LATE + 900), 10)
        .await
        .unwrap();
    assert_eq!(again.len(), 3);
    // What has been asked for anew for later is not drawn forward.
    for candidate in &again {
        store
            .lifecycle()
            .put_off(candidate, after(LATE + 500), after(LATE + 501))
            .await
            .unwrap();
    }
    assert!(take(after(LATE + 899)).await.is_empty());
}
