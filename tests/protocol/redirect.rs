//! Blob reads that are answered by the object store.

use harness::content::{blob, sha256};
use harness::http::{Repository, send};
use harness::{Backend, Berth, Image};
use reqwest::Method;

async fn registry(redirect: &str) -> (Berth, Repository) {
    let berth = Berth::builder()
        .backend(Backend::Distributed)
        .flag("--redirect", redirect)
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "app");
    (berth, repository)
}

#[tokio::test]
async fn a_blob_is_redirected_to_a_url_that_gives_its_bytes() {
    let (_berth, repository) = registry("Always").await;
    let content = blob(100_000, 1);
    let digest = repository.push_blob(&content).await;

    let answer = repository.get(&format!("blobs/{digest}")).await.expect(307);

    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    let pulled = send(repository.at(Method::GET, answer.header("location")))
        .await
        .expect(200);
    assert_eq!(pulled.header("content-type"), "application/octet-stream");
    assert_eq!(sha256(&pulled.body), digest);
}

#[tokio::test]
async fn nothing_but_the_read_of_a_blob_is_redirected() {
    let (_berth, repository) = registry("Always").await;
    let image = Image::new(2, 1000);
    image.push(&repository, "v1").await;

    repository.get_manifest("v1").await.expect(200);
    let layer = &image.layers[0];
    let head = repository
        .head(&format!("blobs/{}", sha256(layer)))
        .await
        .expect(200);
    assert_eq!(head.header("content-length"), layer.len().to_string());
    assert!(repository.start_upload().await.starts_with("/v2/"));
}

#[tokio::test]
async fn without_redirects_the_registry_streams() {
    let (_berth, repository) = registry("Never").await;
    let content = blob(100_000, 3);
    let digest = repository.push_blob(&content).await;

    let answer = repository.get(&format!("blobs/{digest}")).await.expect(200);

    assert!(answer.body == content);
}

#[tokio::test]
async fn by_default_only_clients_that_are_known_to_follow_well_are_redirected() {
    let (_berth, repository) = registry("Auto").await;
    let digest = repository.push_blob(&blob(1000, 4)).await;
    let path = format!("blobs/{digest}");
    let read = async |agent: &str| {
        send(repository.request(Method::GET, &path).header("User-Agent", agent))
            .await
            .status
            .as_u16()
    };

    for agent in [
        "containerd/v2.4.2",
        "docker/29.0.0 go/go1.26",
        "skopeo/1.9.3",
        "oras/1.3.3",
    ] {
        assert_eq!(read(agent).await, 307, "{agent}");
    }
    for agent in ["Java/21.0.1", "curl/8.5.0", ""] {
        assert_eq!(read(agent).await, 200, "{agent}");
    }
}
