//! Deleting manifests: what goes with them, what stays, and what is reviewed.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::*;

on_both_stores! {
    a_deleted_manifest_is_gone_with_all_its_tags
    children_and_referrers_of_a_deleted_manifest_stay
    what_a_deleted_manifest_referred_to_is_reviewed
    a_manifest_that_does_not_exist_cannot_be_deleted
    a_deleted_manifest_can_be_pushed_again
    children_that_were_absent_are_reviewed_in_case_they_came
}

async fn a_deleted_manifest_is_gone_with_all_its_tags(store: Arc<TestStore>) {
    let here = repository("app");
    let push = PutManifest {
        tags: vec![tag("v1"), tag("v2")],
        ..note("n").push()
    };
    let gone = put(&store, &here, push).await;
    let kept = put(&store, &here, note("kept").push_as("v3")).await;
    for name in ["v1", "v2"] {
        assert_eq!(target(&store, &here, name).await, Some(gone));
    }

    assert!(store.delete_manifest(&here, &gone, deletion()).await.unwrap());

    for reference in [by_tag("v1"), by_tag("v2"), by_digest(gone)] {
        assert!(store.manifest(&here, &reference).await.unwrap().is_none());
    }
    assert!(store.manifest_payload(&here, &gone).await.unwrap().is_none());
    assert_eq!(store.tags(&here, None, 10).await.unwrap().unwrap(), ["v3"]);
    assert_eq!(target(&store, &here, "v3").await, Some(kept));
    assert_eq!(
        store
            .count("SELECT count(*) FROM tag_history WHERE action = 1 AND principal = 'admin'")
            .await,
        2
    );
}

async fn children_and_referrers_of_a_deleted_manifest_stay(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push()).await;
    let parent = put(&store, &here, index(&[child]).push()).await;
    let referrer = put(&store, &here, note("signature").about(parent).push()).await;
    let query = |subject: crate::domain::Digest| ReferrersQuery {
        subject: subject.to_string(),
        artifact_types: Vec::new(),
        after: None,
        limit: 10,
        bytes: 1 << 20,
    };

    assert!(store.delete_manifest(&here, &parent, deletion()).await.unwrap());

    assert!(store.manifest(&here, &by_digest(child)).await.unwrap().is_some());
    assert!(
        store
            .manifest(&here, &by_digest(referrer))
            .await
            .unwrap()
            .is_some()
    );
    let listed = store.referrers(&here, &query(parent)).await.unwrap();
    assert_eq!(
        listed
            .descriptors
            .iter()
            .map(|(digest, _)| *digest)
            .collect::<Vec<_>>(),
        [referrer]
    );

    assert!(store.delete_manifest(&here, &referrer, deletion()).await.unwrap());
    assert!(
        store
            .referrers(&here, &query(parent))
            .await
            .unwrap()
            .descriptors
            .is_empty()
    );
}

async fn what_a_deleted_manifest_referred_to_is_reviewed(store: Arc<TestStore>) {
    let here = repository("app");
    let (layer, blob) = (
        push_blob(&store, &here, "layer").await,
        push_blob(&store, &here, "blob").await,
    );
    let child = put(&store, &here, image(&[layer]).push()).await;
    let parent = put(&store, &here, index(&[child, blob]).push()).await;
    store.execute("DELETE FROM review_blob").await;

    assert!(store.delete_manifest(&here, &parent, deletion()).await.unwrap());
    assert_eq!(
        store.count("SELECT due_at FROM review_manifest").await,
        after(7200).0
    );
    assert_eq!(
        store.count("SELECT count(*) FROM review_blob").await,
        1,
        "the blob that was a child"
    );
    assert_eq!(store.count("SELECT count(*) FROM manifest_child").await, 0);

    let later = Deletion {
        review_at: after(8000),
        ..deletion()
    };
    assert!(store.delete_manifest(&here, &child, later).await.unwrap());
    assert_eq!(
        store.count("SELECT count(*) FROM review_blob").await,
        2,
        "the layer"
    );
    assert_eq!(
        store.count("SELECT max(due_at) FROM review_blob").await,
        after(8000).0
    );
    assert_eq!(store.count("SELECT count(*) FROM manifest_blob").await, 0);
    assert!(
        store.blob(&here, &layer).await.unwrap().is_some(),
        "it is linked until it is collected"
    );
}

async fn a_manifest_that_does_not_exist_cannot_be_deleted(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push_as("v1")).await;

    for place in [repository("app2"), repository_of(2, "app")] {
        assert!(
            !store
                .delete_manifest(&place, &manifest, deletion())
                .await
                .unwrap()
        );
    }
    assert!(
        !store
            .delete_manifest(&here, &digest("none"), deletion())
            .await
            .unwrap()
    );
    assert_eq!(target(&store, &here, "v1").await, Some(manifest));
    assert!(store.delete_manifest(&here, &manifest, deletion()).await.unwrap());
    assert!(!store.delete_manifest(&here, &manifest, deletion()).await.unwrap());
}

async fn a_deleted_manifest_can_be_pushed_again(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let push = image(&[layer]).push_as("v1");
    let manifest = put(&store, &here, push.clone()).await;
    assert!(store.delete_manifest(&here, &manifest, deletion()).await.unwrap());
    assert_eq!(target(&store, &here, "v1").await, None);

    put(&store, &here, push).await;

    assert_eq!(target(&store, &here, "v1").await, Some(manifest));
    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::InUse(manifest)
    );
}

async fn children_that_were_absent_are_reviewed_in_case_they_came(store: Arc<TestStore>) {
    let here = repository("app");
    let child = note("child").push();
    let parent = PutManifest {
        sparse: Sparse::Indexes,
        ..index(&[child.digest]).push()
    };
    let parent = put(&store, &here, parent).await;
    put(&store, &here, child).await;

    assert!(store.delete_manifest(&here, &parent, deletion()).await.unwrap());

    assert_eq!(
        store.count("SELECT due_at FROM review_manifest").await,
        after(7200).0
    );
}
