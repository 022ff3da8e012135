//! Blobs whose objects are gone: their rows go, and the next push brings them anew.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use super::usage::recount;
use crate::blobs::ObjectKey;
use crate::domain::Digest;
use crate::metadata::inspection::{BlobSeen, Position, Start};
use crate::metadata::lifecycle::{ForgetBlob, Forgotten};
use crate::metadata::*;

on_both_stores! {
    a_forgotten_blob_is_nowhere_and_is_pushed_anew
    a_blob_that_lies_in_another_object_by_now_is_not_forgotten
}

async fn seen(store: &TestStore) -> BlobSeen {
    let start = Start::After(Position::default());
    let page = store
        .inspection()
        .blobs(start, after(10), after(10))
        .await
        .unwrap();
    page.into_iter().next().expect("a blob")
}

fn forget(digest: Digest, object: &ObjectKey, among: &str) -> ForgetBlob {
    ForgetBlob {
        tenant: TenantId(1),
        digest,
        object: object.clone(),
        among: vec![among.to_owned()],
        object_due: after(5),
    }
}

async fn a_forgotten_blob_is_nowhere_and_is_pushed_anew(store: Arc<TestStore>) {
    let here = repository("app");
    let lost = push_blob(&store, &here, "lost").await;
    let manifest = put(&store, &here, image(&[lost]).push_as("v1")).await;
    let other = repository("other");
    assert!(store.mount_blob(&other, mount(lost)).await.unwrap());
    let key = seen(&store).await.key;
    for has_it in [&here, &other] {
        assert!(store.blob(has_it, &lost).await.unwrap().is_some());
    }
    let forget = async |among: &str| {
        let blob = forget(lost, &key, among);
        store.lifecycle().forget_blob(blob).await.unwrap()
    };

    assert_eq!(forget("other").await, Forgotten::InPart);
    recount(&store).await;
    assert!(store.blob(&other, &lost).await.unwrap().is_none());
    assert!(store.blob(&here, &lost).await.unwrap().is_some());
    assert_eq!(forget("app").await, Forgotten::Wholly);
    assert_eq!(forget("app").await, Forgotten::Changed);

    recount(&store).await;
    assert!(store.blob(&here, &lost).await.unwrap().is_none());
    assert_eq!(
        target(&store, &here, "v1").await,
        Some(manifest),
        "its image stays"
    );
    assert_eq!(store.count("SELECT count(*) FROM repository_blob").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM review_blob").await, 0);
    // Should the object turn up, it goes.
    let due = store.due_objects(after(5), after(9), 10).await.unwrap();
    assert_eq!(due, [(here.tenant, key.clone())]);

    push_blob(&store, &here, "lost").await;
    let found = store.blob(&here, &lost).await.unwrap().expect("the blob");
    assert_ne!(found.key, key);
    recount(&store).await;
}

async fn a_blob_that_lies_in_another_object_by_now_is_not_forgotten(store: Arc<TestStore>) {
    let here = repository("app");
    let blob = push_blob(&store, &here, "blob").await;
    let other = ObjectKey::of_upload(uuid::Uuid::now_v7());

    let forgotten = store.lifecycle().forget_blob(forget(blob, &other, "app")).await;
    let forgotten = forgotten.unwrap();

    assert_eq!(forgotten, Forgotten::Changed);
    assert!(store.blob(&here, &blob).await.unwrap().is_some());
    recount(&store).await;
}
