//! Storing manifests: what they must find, what they leave, and what a refusal leaves.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::manifest::Manifest;
use crate::domain::{Algorithm, Digest};
use crate::metadata::*;

on_both_stores! {
    a_manifest_is_found_by_tag_and_digest_with_its_bytes
    a_manifest_whose_blobs_are_absent_is_refused_with_exactly_those
    an_index_whose_children_are_absent_is_refused_with_exactly_those
    a_refused_manifest_leaves_nothing_behind
    layers_that_may_be_elsewhere_are_not_required
    sparse_indexes_may_lack_children_but_sparse_images_no_blobs
    where_everything_may_be_sparse_nothing_is_missing
    a_manifest_pushed_again_is_one_manifest_with_the_later_lease
    a_child_is_an_edge_to_a_manifest_or_to_a_blob
    what_an_opaque_manifest_names_is_an_edge_whether_it_is_there_or_not
    a_type_that_is_not_known_does_not_take_the_place_of_one_that_is
    a_child_that_came_later_is_known_after_the_next_push
    the_lease_of_a_manifest_only_grows
    a_manifest_of_ten_thousand_layers_is_stored
}

async fn a_manifest_is_found_by_tag_and_digest_with_its_bytes(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let push = image(&[layer]).push_as("v1");
    let row = ManifestRow {
        digest: push.digest,
        media_type: push.manifest.media_type.to_string(),
        size: push.payload.len() as u64,
        leased_until: after(3600),
    };
    put(&store, &here, push.clone()).await;

    assert_eq!(
        store.manifest(&here, &by_tag("v1")).await.unwrap(),
        Some(row.clone())
    );
    assert_eq!(
        store.manifest(&here, &by_digest(push.digest)).await.unwrap(),
        Some(row)
    );
    assert_eq!(
        store.manifest_payload(&here, &push.digest).await.unwrap(),
        Some(push.payload)
    );
    assert!(store.manifest(&here, &by_tag("v2")).await.unwrap().is_none());
    assert!(
        store.manifest(&here, &by_digest(layer)).await.unwrap().is_none(),
        "a blob is no manifest"
    );
    assert!(store.manifest_payload(&here, &layer).await.unwrap().is_none());
}

async fn a_manifest_whose_blobs_are_absent_is_refused_with_exactly_those(store: Arc<TestStore>) {
    let here = repository("app");
    let present = push_blob(&store, &here, "present").await;
    let elsewhere = push_blob(&store, &repository("app2"), "elsewhere").await;
    let mut absent = vec![digest("absent"), digest("gone"), elsewhere];

    let push = image(&[absent[0], present, absent[1], elsewhere, absent[0]]).push_as("v1");

    let PutOutcome::Missing(mut missing) = store.put_manifest(&here, push).await.unwrap() else {
        panic!("it was stored");
    };
    missing.sort_unstable();
    absent.sort_unstable();
    assert_eq!(missing, absent);
}

async fn an_index_whose_children_are_absent_is_refused_with_exactly_those(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push()).await;
    let blob = push_blob(&store, &here, "a child that is a blob").await;
    let elsewhere = put(&store, &repository("app2"), note("elsewhere").push()).await;

    let push = index(&[child, blob, elsewhere]).push();

    assert_eq!(
        store.put_manifest(&here, push).await.unwrap(),
        PutOutcome::Missing(vec![elsewhere])
    );
}

async fn a_refused_manifest_leaves_nothing_behind(store: Arc<TestStore>) {
    let here = repository("new");
    let missing = image(&[digest("absent")]).push_as("v1");
    let unmet = PutManifest {
        precondition: Precondition::Present,
        ..note("n").about(digest("s")).push_as("v1")
    };

    assert!(matches!(
        store.put_manifest(&here, missing).await.unwrap(),
        PutOutcome::Missing(_)
    ));
    assert_eq!(
        store.put_manifest(&here, unmet).await.unwrap(),
        PutOutcome::PreconditionFailed
    );

    assert_eq!(store.tags(&here, None, 10).await.unwrap(), None);
    assert!(
        store
            .repositories(here.tenant, None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let everything = "SELECT (SELECT count(*) FROM repository) + (SELECT count(*) FROM manifest) \
        + (SELECT count(*) FROM manifest_blob) + (SELECT count(*) FROM manifest_child) \
        + (SELECT count(*) FROM referrer) + (SELECT count(*) FROM tag) + (SELECT count(*) FROM tag_history) \
        + (SELECT count(*) FROM review_manifest)";
    assert_eq!(store.count(everything).await, 0);
}

async fn layers_that_may_be_elsewhere_are_not_required(store: Arc<TestStore>) {
    let here = repository("app");
    let config = push_blob(&store, &here, "config").await;
    let mut push = image(&[config, digest("far away")]).push();
    for blob in &mut push.manifest.blobs {
        blob.required = blob.digest == config;
    }

    assert!(matches!(
        store.put_manifest(&here, push).await.unwrap(),
        PutOutcome::Stored(_)
    ));
}

async fn sparse_indexes_may_lack_children_but_sparse_images_no_blobs(store: Arc<TestStore>) {
    let here = repository("app");
    let sparse = |push: PutManifest| PutManifest {
        sparse: Sparse::Indexes,
        ..push
    };

    put(&store, &here, sparse(index(&[digest("absent")]).push_as("v1"))).await;

    let refused = store
        .put_manifest(&here, sparse(image(&[digest("absent")]).push()))
        .await
        .unwrap();
    assert_eq!(refused, PutOutcome::Missing(vec![digest("absent")]));
    assert_eq!(
        store
            .count("SELECT CAST(kind AS BIGINT) FROM manifest_child")
            .await,
        2
    );
}

async fn where_everything_may_be_sparse_nothing_is_missing(store: Arc<TestStore>) {
    let here = repository("app");
    let sparse = |push: PutManifest| PutManifest {
        sparse: Sparse::Always,
        ..push
    };

    put(&store, &here, sparse(image(&[digest("absent")]).push_as("image"))).await;
    put(&store, &here, sparse(index(&[digest("absent")]).push_as("index"))).await;

    assert_eq!(
        store.tags(&here, None, 10).await.unwrap().unwrap(),
        ["image", "index"]
    );
}

async fn a_manifest_pushed_again_is_one_manifest_with_the_later_lease(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let push = image(&[layer]).about(digest("subject")).push_as("v1");
    let again = PutManifest {
        leased_until: after(5000),
        now: after(9),
        ..push.clone()
    };
    let shorter = PutManifest {
        leased_until: after(10),
        now: after(11),
        ..push.clone()
    };

    let digest = put(&store, &here, push).await;
    put(&store, &here, again).await;
    put(&store, &here, shorter).await;

    let row = store
        .manifest(&here, &by_digest(digest))
        .await
        .unwrap()
        .expect("it is there");
    assert_eq!(row.leased_until, after(5000));
    for (count, query) in [
        (1, "SELECT count(*) FROM manifest"),
        (1, "SELECT count(*) FROM manifest_blob"),
        (1, "SELECT count(*) FROM referrer"),
        (1, "SELECT count(*) FROM tag"),
        (1, "SELECT count(*) FROM tag_history"),
        (0, "SELECT count(*) FROM review_manifest"),
    ] {
        assert_eq!(store.count(query).await, count, "{query}");
    }
    assert_eq!(store.count("SELECT pushed_at FROM tag").await, after(11).0);
    assert_eq!(store.count("SELECT created_at FROM tag").await, NOW.0);
}

async fn a_child_is_an_edge_to_a_manifest_or_to_a_blob(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("child").push()).await;
    let blob = push_blob(&store, &here, "a child that is a blob").await;

    put(&store, &here, index(&[manifest, blob]).push()).await;

    assert_eq!(
        store
            .count("SELECT count(*) FROM manifest_child WHERE kind = 0")
            .await,
        1
    );
    assert_eq!(
        store
            .count("SELECT count(*) FROM manifest_child WHERE kind = 1")
            .await,
        1
    );
    assert_eq!(store.count("SELECT count(*) FROM manifest_child").await, 2);
}

/// The type of an opaque manifest.
const BUNDLE: &str = "application/vnd.acme.bundle.v1+json";

async fn what_an_opaque_manifest_names_is_an_edge_whether_it_is_there_or_not(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("child").push()).await;
    let both = note("a manifest, and the same as a blob").push();
    let text = String::from_utf8(both.payload.to_vec()).unwrap();
    assert_eq!(push_blob(&store, &here, &text).await, both.digest);
    let both = put(&store, &here, both).await;
    let blob = push_blob(&store, &here, "a blob").await;
    let absent = index(&[]).push().digest;
    let named: Vec<String> = [manifest, both, blob, absent]
        .iter()
        .map(|digest| format!(r#"{{"digest":"{digest}"}}"#))
        .collect();
    let text = format!(r#"{{"parts":[{}]}}"#, named.join(","));
    let opaque = PutManifest {
        digest: Digest::of(Algorithm::Sha256, text.as_bytes()),
        manifest: Manifest::read_any(text.as_bytes(), Some(BUNDLE)).unwrap(),
        payload: text.into(),
        ..note("any").push()
    };
    assert_eq!(opaque.sparse, Sparse::Never);

    put(&store, &here, opaque).await;

    for (query, edges) in [
        ("SELECT count(*) FROM manifest_child", 4),
        ("SELECT count(*) FROM manifest_child WHERE kind = 2", 4),
    ] {
        assert_eq!(store.count(query).await, edges, "{query}");
    }
    for blob in [both, blob] {
        let unlinked = store.unlink_blob(&here, &blob, NOW).await.unwrap();
        assert!(matches!(unlinked, Unlinked::InUse(_)), "{unlinked:?}");
    }
}

async fn a_type_that_is_not_known_does_not_take_the_place_of_one_that_is(store: Arc<TestStore>) {
    let here = repository("app");
    let subject = put(&store, &here, note("subject").push()).await;
    let push = note("sbom").about(subject).of_type("application/x.sbom").push();
    let again = PutManifest {
        manifest: Manifest::read_any(&push.payload, Some(BUNDLE)).unwrap(),
        ..push.clone()
    };
    assert!(again.manifest.is_opaque());

    // But the other way round.
    put(&store, &here, again.clone()).await;
    put(&store, &here, push.clone()).await;
    put(&store, &here, again).await;

    let row = store
        .manifest(&here, &Reference::Digest(push.digest))
        .await
        .unwrap();
    assert_eq!(row.unwrap().media_type, push.manifest.media_type.as_str());
    assert_eq!(
        store
            .count("SELECT count(*) FROM referrer WHERE descriptor LIKE '%acme%'")
            .await,
        0
    );
    assert_eq!(store.count("SELECT count(*) FROM referrer").await, 1);
}

async fn a_child_that_came_later_is_known_after_the_next_push(store: Arc<TestStore>) {
    let here = repository("app");
    let child = note("child").push();
    let parent = PutManifest {
        sparse: Sparse::Indexes,
        ..index(&[child.digest]).push()
    };

    put(&store, &here, parent.clone()).await;
    assert_eq!(
        store
            .count("SELECT CAST(kind AS BIGINT) FROM manifest_child")
            .await,
        2
    );
    put(&store, &here, child).await;
    put(&store, &here, parent).await;

    assert_eq!(
        store
            .count("SELECT CAST(kind AS BIGINT) FROM manifest_child")
            .await,
        0
    );
}

async fn the_lease_of_a_manifest_only_grows(store: Arc<TestStore>) {
    let here = repository("app");
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    let until = async || {
        store
            .manifest(&here, &by_tag("v1"))
            .await
            .unwrap()
            .expect("it is there")
            .leased_until
    };

    assert_eq!(until().await, after(3600));
    assert!(store.lease_manifest(&here, &digest, after(9999)).await.unwrap());
    assert_eq!(until().await, after(9999), "the next lookup sees it");
    assert!(store.lease_manifest(&here, &digest, after(5)).await.unwrap());
    assert_eq!(until().await, after(9999));

    assert!(
        !store
            .lease_manifest(&repository("app2"), &digest, after(5))
            .await
            .unwrap()
    );
    assert!(
        !store
            .lease_manifest(&repository_of(2, "app"), &digest, after(5))
            .await
            .unwrap()
    );
    assert!(store.delete_manifest(&here, &digest, deletion()).await.unwrap());
    assert!(!store.lease_manifest(&here, &digest, after(5)).await.unwrap());
}

async fn a_manifest_of_ten_thousand_layers_is_stored(store: Arc<TestStore>) {
    let here = repository("app");
    let layers: Vec<Digest> = (0..10_000)
        .map(|layer| digest(&format!("layer {layer}")))
        .collect();
    let push = image(&layers).push_as("v1");

    let refused = store.put_manifest(&here, push.clone()).await.unwrap();
    assert!(matches!(refused, PutOutcome::Missing(missing) if missing.len() == 10_000));
    put(
        &store,
        &here,
        PutManifest {
            sparse: Sparse::Always,
            ..push
        },
    )
    .await;

    assert_eq!(store.count("SELECT count(*) FROM manifest_blob").await, 10_000);
}
