//! Tags: setting, moving and deleting them, one or many, under preconditions.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::TagName;
use crate::metadata::*;

on_both_stores! {
    a_moved_tag_leaves_a_history_and_a_review_of_what_it_left
    many_tags_are_set_by_one_push
    a_tag_named_twice_is_set_once
    tags_differ_by_case
    a_push_for_an_absent_tag_is_refused_when_it_exists
    a_push_for_an_expected_tag_is_refused_when_it_points_elsewhere
    a_precondition_holds_for_all_tags_of_a_push_or_none_is_set
    a_deleted_tag_is_gone_and_its_manifest_stays
    a_tag_that_does_not_exist_cannot_be_deleted
}

async fn a_moved_tag_leaves_a_history_and_a_review_of_what_it_left(store: Arc<TestStore>) {
    let here = repository("app");
    let first = put(&store, &here, note("1").push_as("v1")).await;
    assert_eq!(target(&store, &here, "v1").await, Some(first));
    let second = put(
        &store,
        &here,
        PutManifest {
            now: after(1),
            ..note("2").push_as("v1")
        },
    )
    .await;

    assert_eq!(target(&store, &here, "v1").await, Some(second));
    assert!(store.manifest(&here, &by_digest(first)).await.unwrap().is_some());
    assert_eq!(
        store
            .count("SELECT count(*) FROM tag_history WHERE action = 0 AND name = 'v1'")
            .await,
        2
    );
    assert_eq!(
        store
            .count("SELECT count(DISTINCT digest) FROM tag_history")
            .await,
        2
    );
    assert_eq!(
        store.count("SELECT max(at) - min(at) FROM tag_history").await,
        1_000_000
    );
    assert_eq!(
        store.count("SELECT due_at FROM review_manifest").await,
        after(7200).0
    );

    // A review that was due early waits for the later reason.
    let back = PutManifest {
        now: after(2),
        review_at: after(8000),
        ..note("1").push_as("v1")
    };
    put(&store, &here, back).await;
    let forth = PutManifest {
        now: after(3),
        review_at: after(9000),
        ..note("2").push_as("v1")
    };
    put(&store, &here, forth).await;
    assert_eq!(store.count("SELECT count(*) FROM review_manifest").await, 2);
    assert_eq!(
        store.count("SELECT min(due_at) FROM review_manifest").await,
        after(8000).0
    );
    assert_eq!(
        store.count("SELECT max(due_at) FROM review_manifest").await,
        after(9000).0
    );
}

async fn many_tags_are_set_by_one_push(store: Arc<TestStore>) {
    let here = repository("app");
    let names: Vec<TagName> = (0..500).map(|number| tag(&format!("v{number}"))).collect();
    let old = put(&store, &here, note("old").push_as("v7")).await;

    let push = PutManifest {
        tags: names.clone(),
        ..note("new").push()
    };
    let new = put(&store, &here, push.clone()).await;
    assert_ne!(new, old);

    for name in ["v0", "v7", "v499"] {
        assert_eq!(target(&store, &here, name).await, Some(new));
    }
    assert_eq!(store.tags(&here, None, 1000).await.unwrap().unwrap().len(), 500);
    assert_eq!(store.count("SELECT count(*) FROM tag_history").await, 501);
    put(&store, &here, push).await;
    assert_eq!(
        store.count("SELECT count(*) FROM tag_history").await,
        501,
        "nothing moved"
    );
}

async fn a_tag_named_twice_is_set_once(store: Arc<TestStore>) {
    let here = repository("app");
    let push = PutManifest {
        tags: vec![tag("b"), tag("a"), tag("b")],
        ..note("n").push()
    };

    put(&store, &here, push.clone()).await;
    put(
        &store,
        &here,
        PutManifest {
            precondition: Precondition::Present,
            ..push
        },
    )
    .await;

    assert_eq!(store.tags(&here, None, 10).await.unwrap().unwrap(), ["a", "b"]);
}

async fn tags_differ_by_case(store: Arc<TestStore>) {
    let here = repository("app");
    let lower = put(&store, &here, note("lower").push_as("latest")).await;
    let upper = put(&store, &here, note("upper").push_as("LATEST")).await;

    assert_eq!(target(&store, &here, "latest").await, Some(lower));
    assert_eq!(target(&store, &here, "LATEST").await, Some(upper));
    assert_eq!(target(&store, &here, "Latest").await, None);
}

async fn a_push_for_an_absent_tag_is_refused_when_it_exists(store: Arc<TestStore>) {
    let here = repository("app");
    let absent = |push: PutManifest| PutManifest {
        precondition: Precondition::Absent,
        ..push
    };

    let first = put(&store, &here, absent(note("1").push_as("v1"))).await;

    for again in [note("1"), note("2")] {
        let refused = store
            .put_manifest(&here, absent(again.push_as("v1")))
            .await
            .unwrap();
        assert_eq!(refused, PutOutcome::PreconditionFailed);
    }
    assert_eq!(target(&store, &here, "v1").await, Some(first));
    assert!(
        store
            .manifest(&here, &by_digest(note("2").push().digest))
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_push_for_an_expected_tag_is_refused_when_it_points_elsewhere(store: Arc<TestStore>) {
    let here = repository("app");
    let first = put(&store, &here, note("1").push_as("v1")).await;
    let expecting = |push: PutManifest, expected| PutManifest {
        precondition: expected,
        ..push
    };

    let wrong = expecting(note("2").push_as("v1"), Precondition::Is(vec![digest("x")]));
    assert_eq!(
        store.put_manifest(&here, wrong).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    let of_none = expecting(note("2").push_as("v2"), Precondition::Is(vec![first]));
    assert_eq!(
        store.put_manifest(&here, of_none).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    let none = expecting(note("2").push_as("v2"), Precondition::Present);
    assert_eq!(
        store.put_manifest(&here, none).await.unwrap(),
        PutOutcome::PreconditionFailed
    );

    let right = expecting(
        note("2").push_as("v1"),
        Precondition::Is(vec![digest("x"), first]),
    );
    let second = put(&store, &here, right).await;
    assert_eq!(target(&store, &here, "v1").await, Some(second));
    let third = put(
        &store,
        &here,
        expecting(note("3").push_as("v1"), Precondition::Present),
    )
    .await;
    assert_eq!(target(&store, &here, "v1").await, Some(third));
}

async fn a_precondition_holds_for_all_tags_of_a_push_or_none_is_set(store: Arc<TestStore>) {
    let here = repository("app");
    let first = put(&store, &here, note("1").push_as("old")).await;

    for precondition in [
        Precondition::Absent,
        Precondition::Present,
        Precondition::Is(vec![first]),
    ] {
        let push = PutManifest {
            tags: vec![tag("new"), tag("old")],
            precondition,
            ..note("2").push()
        };
        assert_eq!(
            store.put_manifest(&here, push).await.unwrap(),
            PutOutcome::PreconditionFailed
        );
    }

    assert_eq!(store.tags(&here, None, 10).await.unwrap().unwrap(), ["old"]);
    assert_eq!(target(&store, &here, "old").await, Some(first));
}

async fn a_deleted_tag_is_gone_and_its_manifest_stays(store: Arc<TestStore>) {
    let here = repository("app");
    let push = PutManifest {
        tags: vec![tag("v1"), tag("v2")],
        ..note("n").push()
    };
    let manifest = put(&store, &here, push).await;
    assert_eq!(target(&store, &here, "v1").await, Some(manifest));

    assert!(store.delete_tag(&here, &tag("v1"), deletion()).await.unwrap());

    assert_eq!(target(&store, &here, "v1").await, None);
    assert_eq!(target(&store, &here, "v2").await, Some(manifest));
    assert!(
        store
            .manifest(&here, &by_digest(manifest))
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(store.tags(&here, None, 10).await.unwrap().unwrap(), ["v2"]);
    let deleted = "SELECT count(*) FROM tag_history WHERE action = 1 AND name = 'v1' AND principal = 'admin'";
    assert_eq!(store.count(deleted).await, 1);
    assert_eq!(
        store.count("SELECT due_at FROM review_manifest").await,
        after(7200).0
    );
    put(&store, &here, note("n").push_as("v1")).await;
    assert_eq!(
        target(&store, &here, "v1").await,
        Some(manifest),
        "it can be set again"
    );
}

async fn a_tag_that_does_not_exist_cannot_be_deleted(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("n").push_as("v1")).await;

    for (place, name) in [
        (&here, "v2"),
        (&repository("app2"), "v1"),
        (&repository_of(2, "app"), "v1"),
    ] {
        assert!(!store.delete_tag(place, &tag(name), deletion()).await.unwrap());
    }
    assert!(target(&store, &here, "v1").await.is_some());
}
