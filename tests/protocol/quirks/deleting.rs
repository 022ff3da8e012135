//! DELETE: what goes, what stays, what may come again.

use harness::Image;
use harness::content::sha256;
use harness::image::{MANIFEST, descriptor};
use serde_json::json;

use super::{EMPTY, push_artifact, registry};

#[tokio::test]
async fn deleting_by_digest_takes_every_tag_and_leaves_the_blobs() {
    let (_berth, repository) = registry().await;
    let image = Image::new(1, 100);
    for tag in ["v1", "v2"] {
        image.push(&repository, tag).await;
    }

    repository
        .delete(&format!("manifests/{}", image.digest()))
        .await
        .expect(202);

    for reference in ["v1", "v2", &image.digest()] {
        let answer = repository.get_manifest(reference).await.expect(404);
        assert_eq!(answer.error_code(), "MANIFEST_UNKNOWN");
        repository
            .head(&format!("manifests/{reference}"))
            .await
            .expect(404);
    }
    for blob in image.blobs() {
        repository
            .head(&format!("blobs/{}", sha256(blob)))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_blob_that_a_manifest_needs_is_not_deleted() {
    let (_berth, repository) = registry().await;
    let image = Image::new(2, 100);
    image.push(&repository, "v1").await;
    let layer = sha256(&image.layers[0]);

    let refused = repository.delete(&format!("blobs/{layer}")).await.expect(405);
    assert_eq!(refused.error_code(), "UNSUPPORTED");
    assert!(
        !refused.json()["errors"][0]["detail"].is_null(),
        "{}",
        refused.text()
    );
    image.assert_pullable(&repository, "v1").await;

    repository
        .delete(&format!("manifests/{}", image.digest()))
        .await
        .expect(202);
    repository.delete(&format!("blobs/{layer}")).await.expect(202);
    repository.head(&format!("blobs/{layer}")).await.expect(404);
    repository.get(&format!("blobs/{layer}")).await.expect(404);
}

#[tokio::test]
async fn deleting_twice_is_unknown_the_second_time() {
    let (_berth, repository) = registry().await;
    let image = Image::new(3, 100);
    image.push(&repository, "v1").await;
    let blob = repository.push_blob(b"loose").await;

    for (path, code) in [
        ("manifests/v1".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("manifests/{}", image.digest()), "MANIFEST_UNKNOWN"),
        (format!("blobs/{blob}"), "BLOB_UNKNOWN"),
    ] {
        repository.delete(&path).await.expect(202);
        let again = repository.delete(&path).await.expect(404);
        assert_eq!(again.error_code(), code);
    }
}

#[tokio::test]
async fn a_delete_of_what_cannot_exist_is_unknown_or_malformed() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;

    repository.delete("manifests/.not-a-tag").await.expect(404);
    repository.delete("manifests/sha256:abc").await.expect(400);
    repository.delete("blobs/sha256:abc").await.expect(400);
    repository
        .sibling("nobody")
        .delete("manifests/v1")
        .await
        .expect(404);
    repository
        .sibling("nobody")
        .delete(&format!("blobs/{}", sha256(EMPTY)))
        .await
        .expect(404);
}

#[tokio::test]
async fn what_was_deleted_can_be_pushed_again_at_once() {
    let (_berth, repository) = registry().await;
    let image = Image::new(4, 100);

    for _ in 0..5 {
        image.push(&repository, "v1").await;
        image.assert_pullable(&repository, "v1").await;
        repository
            .delete(&format!("manifests/{}", image.digest()))
            .await
            .expect(202);
        for blob in image.blobs() {
            repository
                .delete(&format!("blobs/{}", sha256(blob)))
                .await
                .expect(202);
        }
    }

    for everyday in [b"".as_slice(), b"{}"] {
        for _ in 0..3 {
            let digest = repository.push_blob(everyday).await;
            repository.assert_blob(&digest, everyday).await;
            repository.delete(&format!("blobs/{digest}")).await.expect(202);
            repository.head(&format!("blobs/{digest}")).await.expect(404);
        }
    }
}

#[tokio::test]
async fn a_blob_deleted_here_stays_elsewhere() {
    let (_berth, repository) = registry().await;
    let other = repository.sibling("other");
    let digest = repository.push_blob(b"shared").await;
    other.push_blob(b"shared").await;

    repository.delete(&format!("blobs/{digest}")).await.expect(202);

    repository.head(&format!("blobs/{digest}")).await.expect(404);
    other.assert_blob(&digest, b"shared").await;
}

#[tokio::test]
async fn deleting_an_index_leaves_its_children() {
    let (_berth, repository) = registry().await;
    let image = Image::new(5, 100);
    image.push(&repository, &image.digest()).await;
    let index = harness::Index::new(vec![image.clone()]);
    repository
        .put_manifest("all", harness::image::INDEX, &index.manifest)
        .await
        .expect(201);

    repository
        .delete(&format!("manifests/{}", index.digest()))
        .await
        .expect(202);

    image.assert_pullable(&repository, &image.digest()).await;
}

#[tokio::test]
async fn the_referrers_of_a_deleted_subject_stay_listed_and_a_deleted_referrer_does_not() {
    let (_berth, repository) = registry().await;
    let subject = push_artifact(&repository, "subject", "application/x", None).await;
    let descriptor = descriptor(MANIFEST, &subject);
    let referrer = push_artifact(&repository, "referrer", "application/y", Some(descriptor)).await;
    let path = format!("referrers/{}", sha256(&subject));

    repository
        .delete(&format!("manifests/{}", sha256(&subject)))
        .await
        .expect(202);
    let listed = repository.get(&path).await.expect(200).json();
    assert_eq!(listed["manifests"][0]["digest"], sha256(&referrer));

    repository
        .delete(&format!("manifests/{}", sha256(&referrer)))
        .await
        .expect(202);
    assert_eq!(
        repository.get(&path).await.expect(200).json()["manifests"],
        json!([])
    );
}

#[tokio::test]
async fn a_repository_without_tags_is_known() {
    let (_berth, repository) = registry().await;
    push_artifact(&repository, "v1", "application/x", None).await;

    repository.delete("manifests/v1").await.expect(202);

    let tags = repository.get("tags/list").await.expect(200);
    assert_eq!(tags.json(), json!({"name": "team-a/app", "tags": []}));
}
