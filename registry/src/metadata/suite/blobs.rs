//! Published blobs: links, copies, leases and their objects.

use std::sync::Arc;

use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::blobs::ObjectKey;
use crate::metadata::*;

on_both_stores! {
    a_published_blob_is_linked_where_it_was_pushed
    a_second_copy_is_queued_for_deletion_and_the_first_kept
    a_repeated_commit_publishes_nothing
    a_blob_that_was_never_seen_before_has_no_lease_to_extend
    the_lease_of_a_blob_only_grows
    an_object_to_delete_is_handed_out_when_due_and_put_off_until_it_is_forgotten
    objects_that_blobs_refer_to_are_live
    a_review_waits_for_the_latest_of_its_reasons
    several_workers_share_the_objects_to_delete
}

async fn a_published_blob_is_linked_where_it_was_pushed(store: Arc<TestStore>) {
    let here = repository("app");
    let id = push_object(&store, &here, "layer").await;

    let row = store
        .blob(&here, &digest("layer"))
        .await
        .unwrap()
        .expect("it is linked");
    assert_eq!(
        row,
        BlobRow {
            key: ObjectKey::of_upload(id),
            size: 5,
            leased_until: after(3600)
        }
    );
    assert!(store.blob(&here, &digest("other")).await.unwrap().is_none());
    assert!(
        store
            .blob(&repository("app2"), &digest("layer"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(store.repositories(here.tenant, None, 10).await.unwrap(), ["app"]);
    assert_eq!(
        store.count("SELECT count(*) FROM review_blob").await,
        1,
        "unused, it is reviewed some day"
    );
    assert_eq!(store.count("SELECT count(*) FROM object_deletion").await, 0);
}

async fn a_second_copy_is_queued_for_deletion_and_the_first_kept(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    let first = push_object(&store, &here, "layer").await;
    let (second, third) = (
        push_object(&store, &here, "layer").await,
        push_object(&store, &there, "layer").await,
    );

    for place in [&here, &there] {
        let row = store
            .blob(place, &digest("layer"))
            .await
            .unwrap()
            .expect("it is linked");
        assert_eq!(row.key, ObjectKey::of_upload(first));
    }
    let mut due: Vec<Uuid> = Vec::new();
    for (tenant, key) in store.due_objects(after(60), after(90), 10).await.unwrap() {
        assert_eq!(tenant, here.tenant);
        due.push(key.upload());
    }
    due.sort_unstable();
    let mut spare = vec![second, third];
    spare.sort_unstable();
    assert_eq!(due, spare);
}

async fn a_repeated_commit_publishes_nothing(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    taken(&store, &here, id, closing(digest("layer"))).await;

    assert!(
        store
            .commit_upload(&here, commit(id, digest("layer"), 5))
            .await
            .unwrap()
    );
    assert!(
        !store
            .commit_upload(&here, commit(id, digest("layer"), 5))
            .await
            .unwrap()
    );
    assert!(
        !store
            .commit_upload(&here, commit(Uuid::new_v4(), digest("layer"), 5))
            .await
            .unwrap()
    );

    assert_eq!(store.count("SELECT count(*) FROM blob").await, 1);
    assert_eq!(
        store.count("SELECT count(*) FROM object_deletion").await,
        0,
        "its object is in use"
    );
}

async fn a_blob_that_was_never_seen_before_has_no_lease_to_extend(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    push_blob(&store, &here, "layer").await;
    push_blob(&store, &there, "another").await;

    assert!(
        !store
            .lease_blob(&here, &digest("none"), after(9999))
            .await
            .unwrap()
    );
    assert!(
        !store
            .lease_blob(&there, &digest("layer"), after(9999))
            .await
            .unwrap(),
        "not linked there"
    );
    assert!(
        !store
            .lease_blob(&repository_of(2, "app"), &digest("layer"), after(9999))
            .await
            .unwrap()
    );

    let row = store
        .blob(&here, &digest("layer"))
        .await
        .unwrap()
        .expect("it is linked");
    assert_eq!(row.leased_until, after(3600));
}

async fn the_lease_of_a_blob_only_grows(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let until = async || {
        store
            .blob(&here, &layer)
            .await
            .unwrap()
            .expect("it is linked")
            .leased_until
    };

    assert_eq!(until().await, after(3600));
    assert!(store.lease_blob(&here, &layer, after(9999)).await.unwrap());
    assert_eq!(until().await, after(9999), "the next lookup sees it");
    assert!(store.lease_blob(&here, &layer, after(5)).await.unwrap());
    push_blob(&store, &here, "layer").await;
    assert_eq!(until().await, after(9999));
}

async fn an_object_to_delete_is_handed_out_when_due_and_put_off_until_it_is_forgotten(store: Arc<TestStore>) {
    let here = repository("app");
    push_blob(&store, &here, "layer").await;
    let spare = ObjectKey::of_upload(push_object(&store, &here, "layer").await);

    assert!(
        store
            .due_objects(after(59), after(90), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.due_objects(after(60), after(90), 10).await.unwrap(),
        [(here.tenant, spare.clone())]
    );
    assert!(
        store
            .due_objects(after(89), after(120), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.due_objects(after(90), after(120), 10).await.unwrap(),
        [(here.tenant, spare.clone())]
    );
    assert_eq!(store.count("SELECT attempts FROM object_deletion").await, 2);
    store.forget_object(TenantId(2), &spare).await.unwrap();
    assert_eq!(
        store.count("SELECT count(*) FROM object_deletion").await,
        1,
        "another tenant's word does not count"
    );
    store.forget_object(here.tenant, &spare).await.unwrap();
    assert_eq!(store.count("SELECT count(*) FROM object_deletion").await, 0);
}

async fn objects_that_blobs_refer_to_are_live(store: Arc<TestStore>) {
    let here = repository("app");
    let used = push_object(&store, &here, "layer").await;
    let spare = push_object(&store, &here, "layer").await;
    let elsewhere = push_object(&store, &repository_of(2, "app"), "layer").await;

    let mut live = store
        .live_objects(&[used, spare, elsewhere, Uuid::new_v4()])
        .await
        .unwrap();
    live.sort_unstable();
    let mut expected = vec![used, elsewhere];
    expected.sort_unstable();
    assert_eq!(live, expected);
    assert!(store.live_objects(&[]).await.unwrap().is_empty());
}

async fn a_review_waits_for_the_latest_of_its_reasons(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let lasting = MountBlob {
        leased_until: after(9999),
        ..mount(layer)
    };
    assert!(store.mount_blob(&repository("app2"), lasting).await.unwrap());
    assert_eq!(store.count("SELECT due_at FROM review_blob").await, after(9999).0);
    assert!(store.mount_blob(&repository("app3"), mount(layer)).await.unwrap());
    assert_eq!(store.count("SELECT due_at FROM review_blob").await, after(9999).0);
}

async fn several_workers_share_the_objects_to_delete(store: Arc<TestStore>) {
    let here = repository("app");
    push_blob(&store, &here, "layer").await;
    for _ in 0..40 {
        push_object(&store, &here, "layer").await;
    }

    let worker = || async { store.due_objects(after(60), after(9999), 7).await.unwrap() };
    let mut handed_out: Vec<Uuid> = Vec::new();
    while handed_out.len() < 40 {
        let (a, b, c) = tokio::join!(worker(), worker(), worker());
        for batch in [a, b, c] {
            assert!(batch.len() <= 7);
            handed_out.extend(batch.iter().map(|(_, key)| key.upload()));
        }
    }

    handed_out.sort_unstable();
    handed_out.dedup();
    assert_eq!(handed_out.len(), 40, "none was handed out twice");
}
