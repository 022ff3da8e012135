//! GET and HEAD of blobs and manifests.

use harness::Image;
use harness::content::{blob, sha256};
use harness::http::send;
use harness::image::MANIFEST;
use reqwest::Method;

use super::registry;

const ZEROS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test]
async fn a_head_has_the_headers_of_its_get_and_no_body() {
    let (_berth, repository) = registry().await;
    let image = Image::new(1, 1000);
    let digest = image.push(&repository, "v1").await;
    let layer = sha256(&image.layers[0]);

    for (path, digest, kind, length) in [
        ("manifests/v1".to_owned(), &digest, MANIFEST, image.manifest.len()),
        (
            format!("manifests/{digest}"),
            &digest,
            MANIFEST,
            image.manifest.len(),
        ),
        (
            format!("blobs/{layer}"),
            &layer,
            "application/octet-stream",
            image.layers[0].len(),
        ),
    ] {
        let head = repository.head(&path).await.expect(200);
        let get = repository.get(&path).await.expect(200);
        assert!(head.body.is_empty() && get.body.len() == length, "{path}");
        for answer in [&head, &get] {
            assert_eq!(answer.header("content-length"), length.to_string(), "{path}");
            assert_eq!(answer.header("docker-content-digest"), digest.as_str(), "{path}");
            assert_eq!(answer.header("content-type"), kind, "{path}");
            assert_eq!(answer.header("etag"), format!("\"{digest}\""), "{path}");
            assert_eq!(
                answer.header("docker-distribution-api-version"),
                "registry/2.0",
                "{path}"
            );
            assert_eq!(answer.header("transfer-encoding"), "", "{path}");
        }
    }
}

#[tokio::test]
async fn what_never_changes_may_be_cached_for_ever_and_a_tag_must_be_asked_again() {
    let (_berth, repository) = registry().await;
    let image = Image::new(2, 10);
    let digest = image.push(&repository, "v1").await;
    let cache = async |path: &str| {
        repository
            .get(path)
            .await
            .expect(200)
            .header("cache-control")
            .to_owned()
    };

    assert_eq!(cache("manifests/v1").await, "no-cache");
    assert_eq!(
        cache(&format!("manifests/{digest}")).await,
        "private, max-age=31536000, immutable"
    );
    let layer = sha256(&image.layers[0]);
    assert_eq!(
        cache(&format!("blobs/{layer}")).await,
        "private, max-age=31536000, immutable"
    );
    let blob = repository.get(&format!("blobs/{layer}")).await.expect(200);
    assert_eq!(blob.header("accept-ranges"), "bytes");
    assert_eq!(blob.header("x-content-type-options"), "nosniff");
    assert_eq!(blob.header("content-disposition"), "attachment");
}

#[tokio::test]
async fn a_manifest_is_sent_as_it_was_pushed_whatever_accept_says() {
    let (_berth, repository) = registry().await;
    let image = Image::new(3, 10);
    image.push(&repository, "v1").await;

    for accept in [
        vec![],
        vec!["*/*"],
        vec!["application/json"],
        vec!["application/vnd.docker.distribution.manifest.v1+prettyjws"],
        vec![
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ],
        vec!["application/vnd.oci.image.manifest.v1+json;q=0"],
    ] {
        for method in [Method::GET, Method::HEAD] {
            let mut request = repository.request(method.clone(), "manifests/v1");
            for line in &accept {
                request = request.header("Accept", *line);
            }
            let answer = send(request).await.expect(200);
            assert_eq!(answer.header("content-type"), MANIFEST, "{accept:?}");
            assert!(
                method == Method::HEAD || answer.body == image.manifest,
                "{accept:?}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_compressed_on_the_way_out() {
    let (_berth, repository) = registry().await;
    let image = Image::new(4, 100_000);
    image.push(&repository, "v1").await;

    for path in [
        "manifests/v1".to_owned(),
        format!("blobs/{}", sha256(&image.layers[0])),
        "tags/list".into(),
    ] {
        let request = repository
            .request(Method::GET, &path)
            .header("Accept-Encoding", "zstd, gzip, br");
        let answer = send(request).await.expect(200);
        assert_eq!(answer.header("content-encoding"), "", "{path}");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_has_the_code_of_its_kind() {
    let (_berth, repository) = registry().await;
    Image::new(5, 10).push(&repository, "v1").await;
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let tag = "t".repeat(128);
    let too_long = "t".repeat(129);

    for (path, status, code) in [
        (format!("blobs/{ZEROS}"), 404, "BLOB_UNKNOWN"),
        (format!("blobs/{sha512}"), 404, "BLOB_UNKNOWN"),
        (format!("blobs/blake3:{}", "0".repeat(64)), 404, "BLOB_UNKNOWN"),
        ("blobs/sha256:totallywrong".into(), 400, "DIGEST_INVALID"),
        ("blobs/nodigest".into(), 400, "DIGEST_INVALID"),
        (
            format!("blobs/{}", ZEROS.replace("sha256", "SHA256")),
            400,
            "DIGEST_INVALID",
        ),
        (format!("manifests/{ZEROS}"), 404, "MANIFEST_UNKNOWN"),
        (format!("manifests/{sha512}"), 404, "MANIFEST_UNKNOWN"),
        (
            format!("manifests/blake3:{}", "0".repeat(64)),
            404,
            "MANIFEST_UNKNOWN",
        ),
        ("manifests/absent".into(), 404, "MANIFEST_UNKNOWN"),
        (format!("manifests/{tag}"), 404, "MANIFEST_UNKNOWN"),
        (format!("manifests/{too_long}"), 404, "MANIFEST_UNKNOWN"),
        ("manifests/-x".into(), 404, "MANIFEST_UNKNOWN"),
        ("manifests/sha256:totallywrong".into(), 400, "DIGEST_INVALID"),
    ] {
        let answer = repository.get(&path).await.expect(status);
        assert_eq!(answer.error_code(), code, "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0",
            "{path}"
        );
        let head = repository.head(&path).await.expect(status);
        assert!(head.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_repository_that_nobody_pushed_to_is_unknown_where_the_spec_says_so() {
    let (_berth, repository) = registry().await;
    let nobody = repository.sibling("nobody");

    for (path, code) in [
        (format!("blobs/{ZEROS}"), "BLOB_UNKNOWN"),
        ("manifests/v1".into(), "MANIFEST_UNKNOWN"),
        ("tags/list".into(), "NAME_UNKNOWN"),
    ] {
        let answer = nobody.get(&path).await.expect(404);
        assert!(
            [code, "NAME_UNKNOWN"].contains(&answer.error_code().as_str()),
            "{path}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_large_blob_has_a_length_and_is_whole() {
    let (_berth, repository) = registry().await;
    let content = blob(9_000_001, 6);
    let digest = repository.push_blob(&content).await;

    let answer = repository.get(&format!("blobs/{digest}")).await.expect(200);

    assert_eq!(answer.header("content-length"), "9000001");
    assert!(answer.body == content);
}
