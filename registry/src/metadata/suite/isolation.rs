//! Tenants do not see, change or count each other's anything.

use std::sync::Arc;

use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::Digest;
use crate::metadata::*;

on_both_stores! {
    no_read_shows_another_tenant_s_anything
    no_write_touches_another_tenant_s_anything
}

/// What a tenant has, the same in every tenant.
struct Content {
    blob: Digest,
    manifest: Digest,
    upload: Uuid,
}

async fn fill(store: &TestStore, place: &Repository) -> Content {
    let blob = push_blob(store, place, "layer").await;
    let manifest = put(
        store,
        place,
        image(&[blob]).about(digest("subject")).push_as("v1"),
    )
    .await;
    Content {
        blob,
        manifest,
        upload: begin(store, place).await,
    }
}

/// The answers of every method that reads, each under its name; `None` for nothing.
async fn everything(
    store: &TestStore,
    place: &Repository,
    content: &Content,
) -> Vec<(&'static str, Option<String>)> {
    let query = ReferrersQuery {
        subject: digest("subject").to_string(),
        artifact_types: Vec::new(),
        after: None,
        limit: 10,
        bytes: 1 << 20,
    };
    let referrers = store.referrers(place, &query).await.unwrap().descriptors;
    let repositories = store.repositories(place.tenant, None, 10).await.unwrap();
    let open = store.open_uploads(place.tenant).await.unwrap();
    let (tag, digest) = (by_tag("v1"), by_digest(content.manifest));
    vec![
        (
            "tag",
            store
                .manifest(place, &tag)
                .await
                .unwrap()
                .map(|row| format!("{row:?}")),
        ),
        (
            "digest",
            store
                .manifest(place, &digest)
                .await
                .unwrap()
                .map(|row| format!("{row:?}")),
        ),
        (
            "bytes",
            store
                .manifest_payload(place, &content.manifest)
                .await
                .unwrap()
                .map(|b| format!("{b:?}")),
        ),
        (
            "blob",
            store
                .blob(place, &content.blob)
                .await
                .unwrap()
                .map(|row| format!("{row:?}")),
        ),
        (
            "tags",
            store
                .tags(place, None, 10)
                .await
                .unwrap()
                .map(|tags| tags.join(" ")),
        ),
        (
            "repositories",
            Some(repositories.join(" ")).filter(|names| !names.is_empty()),
        ),
        (
            "referrers",
            Some(format!("{referrers:?}")).filter(|_| !referrers.is_empty()),
        ),
        ("open uploads", Some(open.to_string()).filter(|_| open > 0)),
        (
            "upload",
            store
                .upload(place, content.upload)
                .await
                .unwrap()
                .map(|row| format!("{row:?}")),
        ),
    ]
}

async fn no_read_shows_another_tenant_s_anything(store: Arc<TestStore>) {
    let (mine, other) = (repository_of(1, "app"), repository_of(2, "app"));
    let content = fill(&store, &mine).await;

    for (what, answer) in everything(&store, &mine, &content).await {
        assert!(answer.is_some(), "{what}");
    }
    for (what, answer) in everything(&store, &other, &content).await {
        assert_eq!(answer, None, "{what}");
    }
}

async fn no_write_touches_another_tenant_s_anything(store: Arc<TestStore>) {
    let (mine, other) = (repository_of(1, "app"), repository_of(2, "app"));
    let content = fill(&store, &mine).await;
    let before = everything(&store, &mine, &content).await;

    // The other tenant does everything that can be done to these names, then has the same and loses it all.
    let (blob, manifest, upload) = (content.blob, content.manifest, content.upload);
    for filled in [false, true] {
        if filled {
            fill(&store, &other).await;
        }
        assert!(store.cancel_upload(&other, upload).await.unwrap().is_none());
        assert!(matches!(
            store.take_upload(&other, upload, take()).await.unwrap(),
            Taken::Gone
        ));
        assert_eq!(
            store.lease_blob(&other, &blob, after(99_999)).await.unwrap(),
            filled
        );
        assert_eq!(
            store
                .lease_manifest(&other, &manifest, after(99_999))
                .await
                .unwrap(),
            filled
        );
        assert_eq!(store.mount_blob(&other, mount(blob)).await.unwrap(), filled);
        assert_eq!(
            store.delete_tag(&other, &tag("v1"), deletion()).await.unwrap(),
            filled
        );
        assert_eq!(
            store
                .delete_manifest(&other, &manifest, deletion())
                .await
                .unwrap(),
            filled
        );
        let unlinked = if filled { Unlinked::Done } else { Unlinked::Absent };
        assert_eq!(store.unlink_blob(&other, &blob, NOW).await.unwrap(), unlinked);
    }

    assert_eq!(everything(&store, &mine, &content).await, before);
}
