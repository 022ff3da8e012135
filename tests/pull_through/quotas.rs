//! A tenant whose quota is exhausted goes on pulling; what is fetched is not kept then.

use harness::content::blob;
use harness::eventually;
use harness::http::Repository;
use serde_json::json;

use super::{KIB, Place, WAIT, push_layer};

/// Bytes of a repository's one manifest.
async fn manifest_bytes(repository: &Repository) -> u64 {
    repository.get_manifest("v1").await.expect(200).body.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_go_on_when_a_quota_leaves_no_room_and_nothing_is_kept() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    place
        .admin
        .put_tenant(
            "default",
            json!({ "quota": { "storage": "100Ki" }, "repositories": { "visibility": "Public" } }),
        )
        .await;
    let here = place.here("app");
    here.get_manifest("v1").await.expect(200);
    here.assert_blob(&digest, &layer).await;
    // As long as the fetch is on its way to nowhere, others share it.
    eventually("the upstream is asked again", WAIT, async || {
        here.assert_blob(&digest, &layer).await;
        let asked = place.way.count("GET", &format!("/blobs/{digest}"));
        (asked > 1).then_some(())
    })
    .await;
    assert_eq!(
        place.figures().await["bytes"].as_u64(),
        Some(manifest_bytes(&here).await)
    );

    // Without room for a manifest too.
    let image = place.pushed("other", "v1", 5).await;
    place
        .admin
        .put_tenant(
            "default",
            json!({ "quota": { "storage": "1" }, "repositories": { "visibility": "Public" } }),
        )
        .await;
    let answer = place.here("other").get_manifest("v1").await.expect(200);
    assert_eq!(answer.body, image.manifest);
    let head = place.here("other").head("manifests/v1").await.expect(200);
    assert_eq!(head.header("docker-content-digest"), image.digest());
}
