//! Mounting a blob into a repository, and unlinking it.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::*;

on_both_stores! {
    a_blob_is_mounted_from_the_repository_that_is_named
    a_blob_is_mounted_from_any_repository_when_none_is_named
    what_is_nowhere_cannot_be_mounted_and_leaves_no_repository
    no_blob_of_another_tenant_can_be_mounted
    a_blob_that_was_unlinked_everywhere_cannot_be_mounted
    an_unlinked_blob_is_gone_from_its_repository_alone
    a_blob_that_a_manifest_names_cannot_be_unlinked
    a_blob_that_is_child_of_an_index_cannot_be_unlinked
    a_blob_that_came_after_its_sparse_manifest_is_in_use
    an_unlinked_blob_is_reviewed_when_it_is_asked_for
}

async fn a_blob_is_mounted_from_the_repository_that_is_named(store: Arc<TestStore>) {
    let (from, into) = (repository("base"), repository("app"));
    let layer = push_blob(&store, &from, "layer").await;

    assert!(store.mount_blob(&into, mount_from(layer, "base")).await.unwrap());

    assert_eq!(
        store.blob(&into, &layer).await.unwrap(),
        store.blob(&from, &layer).await.unwrap()
    );
    assert!(store.blob(&into, &layer).await.unwrap().is_some());
    assert!(
        store.mount_blob(&into, mount_from(layer, "base")).await.unwrap(),
        "again is fine"
    );
    assert!(
        store.mount_blob(&into, mount_from(layer, "app")).await.unwrap(),
        "from itself as well"
    );
}

async fn a_blob_is_mounted_from_any_repository_when_none_is_named(store: Arc<TestStore>) {
    let layer = push_blob(&store, &repository("base"), "layer").await;

    let lasting = MountBlob {
        leased_until: after(9000),
        ..mount(layer)
    };
    assert!(store.mount_blob(&repository("app"), lasting).await.unwrap());

    let row = store
        .blob(&repository("app"), &layer)
        .await
        .unwrap()
        .expect("it is linked");
    assert_eq!(
        row.leased_until,
        after(9000),
        "the lease is there before the answer"
    );
}

async fn what_is_nowhere_cannot_be_mounted_and_leaves_no_repository(store: Arc<TestStore>) {
    let layer = push_blob(&store, &repository("base"), "layer").await;
    push_blob(&store, &repository("other"), "another").await;

    assert!(
        !store
            .mount_blob(&repository("app"), mount(digest("none")))
            .await
            .unwrap()
    );
    assert!(
        !store
            .mount_blob(&repository("app"), mount_from(layer, "other"))
            .await
            .unwrap()
    );
    assert!(
        !store
            .mount_blob(&repository("app"), mount_from(layer, "nowhere"))
            .await
            .unwrap()
    );

    assert_eq!(
        store.repositories(TenantId(1), None, 10).await.unwrap(),
        ["base", "other"]
    );
}

async fn no_blob_of_another_tenant_can_be_mounted(store: Arc<TestStore>) {
    let layer = push_blob(&store, &repository_of(1, "base"), "layer").await;
    push_blob(&store, &repository_of(2, "base"), "another").await;

    assert!(
        !store
            .mount_blob(&repository_of(2, "app"), mount(layer))
            .await
            .unwrap()
    );
    assert!(
        !store
            .mount_blob(&repository_of(2, "app"), mount_from(layer, "base"))
            .await
            .unwrap()
    );
    assert!(
        store
            .blob(&repository_of(2, "app"), &layer)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_blob_that_was_unlinked_everywhere_cannot_be_mounted(store: Arc<TestStore>) {
    let base = repository("base");
    let layer = push_blob(&store, &base, "layer").await;
    assert_eq!(
        store.unlink_blob(&base, &layer, NOW).await.unwrap(),
        Unlinked::Done
    );

    assert!(!store.mount_blob(&repository("app"), mount(layer)).await.unwrap());
}

async fn an_unlinked_blob_is_gone_from_its_repository_alone(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    let layer = push_blob(&store, &here, "layer").await;
    assert!(store.mount_blob(&there, mount(layer)).await.unwrap());
    assert!(store.blob(&here, &layer).await.unwrap().is_some());

    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::Done
    );

    assert!(store.blob(&here, &layer).await.unwrap().is_none());
    assert!(!store.lease_blob(&here, &layer, after(9)).await.unwrap());
    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::Absent
    );
    assert!(store.blob(&there, &layer).await.unwrap().is_some());
    let put = image(&[layer]).push();
    assert_eq!(
        store.put_manifest(&here, put).await.unwrap(),
        PutOutcome::Missing(vec![layer])
    );
    assert_eq!(
        store.unlink_blob(&repository("none"), &layer, NOW).await.unwrap(),
        Unlinked::Absent
    );
}

async fn a_blob_that_a_manifest_names_cannot_be_unlinked(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    let layer = push_blob(&store, &here, "layer").await;
    assert!(store.mount_blob(&there, mount(layer)).await.unwrap());
    let manifest = put(&store, &here, image(&[layer]).push()).await;

    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::InUse(manifest)
    );
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    assert_eq!(
        store.unlink_blob(&there, &layer, NOW).await.unwrap(),
        Unlinked::Done,
        "no manifest there"
    );

    assert!(store.delete_manifest(&here, &manifest, deletion()).await.unwrap());
    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::Done
    );
}

async fn a_blob_that_is_child_of_an_index_cannot_be_unlinked(store: Arc<TestStore>) {
    let here = repository("app");
    let child = push_blob(&store, &here, "a child that is a blob").await;
    let parent = put(&store, &here, index(&[child]).push()).await;

    assert_eq!(
        store.unlink_blob(&here, &child, NOW).await.unwrap(),
        Unlinked::InUse(parent)
    );
}

async fn a_blob_that_came_after_its_sparse_manifest_is_in_use(store: Arc<TestStore>) {
    let here = repository("app");
    let (layer, child) = (digest("layer"), digest("child"));
    let sparse = |put: PutManifest| PutManifest {
        sparse: Sparse::Always,
        ..put
    };
    let (of_layer, of_child) = (
        put(&store, &here, sparse(image(&[layer]).push())).await,
        put(&store, &here, sparse(index(&[child]).push())).await,
    );

    push_blob(&store, &here, "layer").await;
    push_blob(&store, &here, "child").await;

    assert_eq!(
        store.unlink_blob(&here, &layer, NOW).await.unwrap(),
        Unlinked::InUse(of_layer)
    );
    assert_eq!(
        store.unlink_blob(&here, &child, NOW).await.unwrap(),
        Unlinked::InUse(of_child)
    );
}

async fn an_unlinked_blob_is_reviewed_when_it_is_asked_for(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;

    assert_eq!(
        store.unlink_blob(&here, &layer, after(9000)).await.unwrap(),
        Unlinked::Done
    );

    assert_eq!(store.count("SELECT due_at FROM review_blob").await, after(9000).0);
}
