//! What the conformance suite of distribution-spec v1.1.1 checks more strictly than today's.

use harness::content::{blob, sha256};
use harness::http::{Repository, send, with_query};
use harness::{Berth, Image};
use reqwest::Method;

async fn registry() -> (Berth, Repository) {
    let berth = Berth::builder().start().await;
    let repository = Repository::new(&berth.url(""), "older/suite");
    (berth, repository)
}

async fn patch(repository: &Repository, location: &str, range: &str, chunk: &[u8]) -> harness::http::Answer {
    let request = repository
        .at(Method::PATCH, location)
        .header("Content-Range", range);
    send(
        request
            .header("Content-Type", "application/octet-stream")
            .body(chunk.to_vec()),
    )
    .await
}

#[tokio::test]
async fn a_name_that_can_be_no_tag_is_an_unknown_manifest() {
    let (_berth, repository) = registry().await;
    Image::new(1, 10).push(&repository, "v1").await;

    let answer = repository
        .get_manifest(".INVALID_MANIFEST_NAME")
        .await
        .expect(404);

    assert_eq!(answer.error_code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn the_first_location_of_an_upload_stays_good_to_its_end() {
    let (_berth, repository) = registry().await;
    let content = blob(5000, 2);
    let location = repository.start_upload().await;

    patch(&repository, &location, "0-2999", &content[..3000])
        .await
        .expect(202);
    let status = send(repository.at(Method::GET, &location)).await.expect(204);
    assert_eq!(status.header("range"), "0-2999");
    patch(&repository, &location, "3000-4999", &content[3000..])
        .await
        .expect(202);
    let digest = sha256(&content);
    send(repository.at(Method::PUT, &with_query(&location, &format!("digest={digest}"))))
        .await
        .expect(201);

    let pulled = repository.get(&format!("blobs/{digest}")).await.expect(200);
    assert!(pulled.body == content);
}

#[tokio::test]
async fn a_chunk_out_of_order_or_sent_twice_is_refused_with_where_to_go_on() {
    let (_berth, repository) = registry().await;
    let content = blob(5000, 3);
    let location = repository.start_upload().await;

    patch(&repository, &location, "3000-4999", &content[3000..])
        .await
        .expect(416);
    let first = patch(&repository, &location, "0-2999", &content[..3000])
        .await
        .expect(202);
    assert_eq!(first.header("range"), "0-2999");
    let again = patch(&repository, &location, "0-2999", &content[..3000])
        .await
        .expect(416);

    assert_eq!(again.header("range"), "0-2999");
    let next = again.header("location").to_owned();
    patch(&repository, &next, "3000-4999", &content[3000..])
        .await
        .expect(202);
    let digest = sha256(&content);
    send(repository.at(Method::PUT, &with_query(&next, &format!("digest={digest}"))))
        .await
        .expect(201);
}

#[tokio::test]
async fn tags_are_listed_in_pages_of_the_size_asked_for() {
    let (_berth, repository) = registry().await;
    let image = Image::new(4, 10);
    for tag in ["d", "B", "a", "c", "_e"] {
        image.push(&repository, tag).await;
    }

    let all = repository.get("tags/list").await.expect(200);
    assert_eq!(all.json()["tags"], serde_json::json!(["B", "_e", "a", "c", "d"]));
    assert_eq!(all.header("link"), "");
    let page = repository.get("tags/list?n=2").await.expect(200);
    assert_eq!(page.json()["tags"], serde_json::json!(["B", "_e"]));
    let link = page.header("link").to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap_or_default();
    let page = send(repository.at(Method::GET, next)).await.expect(200);
    assert_eq!(page.json()["tags"], serde_json::json!(["a", "c"]));
    let page = repository.get("tags/list?n=2&last=c").await.expect(200);
    assert_eq!(page.json()["tags"], serde_json::json!(["d"]));
    assert_eq!(page.header("link"), "");
}

#[tokio::test]
async fn deleting_a_tag_takes_that_tag_and_nothing_else() {
    let (_berth, repository) = registry().await;
    let image = Image::new(5, 10);
    image.push(&repository, "v1").await;
    image.push(&repository, "v2").await;

    repository.delete("manifests/v1").await.expect(202);

    assert_eq!(
        repository.get("tags/list").await.json()["tags"],
        serde_json::json!(["v2"])
    );
    repository.get_manifest("v1").await.expect(404);
    image.assert_pullable(&repository, "v2").await;
    repository
        .delete(&format!("manifests/{}", image.digest()))
        .await
        .expect(202);
    assert_eq!(
        repository.get("tags/list").await.expect(200).json()["tags"],
        serde_json::json!([])
    );
    repository.delete("manifests/v2").await.expect(404);
}
