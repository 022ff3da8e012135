//! POST: sessions, blobs pushed whole, mounts.

use harness::content::{blob, sha256, sha512};
use harness::http::{Answer, Repository, send, streamed};
use reqwest::Method;

use super::registry;

async fn post(repository: &Repository, query: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(
        repository
            .request(Method::POST, &format!("blobs/uploads/?{query}"))
            .body(body),
    )
    .await
}

#[tokio::test]
async fn a_blob_can_be_pushed_by_one_post() {
    let (_berth, repository) = registry().await;
    let content = blob(100_000, 1);

    for digest in [sha256(&content), sha512(&content)] {
        let answer = post(&repository, &format!("digest={digest}"), content.clone())
            .await
            .expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(
            answer.header("location"),
            format!("/v2/team-a/app/blobs/{digest}")
        );
        repository.assert_blob(&digest, &content).await;
    }
    let other = blob(1000, 2);
    let pieces = other.chunks(100).map(<[u8]>::to_vec).collect();
    post(
        &repository,
        &format!("digest={}", sha256(&other)),
        streamed(pieces),
    )
    .await
    .expect(201);
    repository.assert_blob(&sha256(&other), &other).await;
}

#[tokio::test]
async fn a_post_whose_body_is_not_its_digest_stores_nothing() {
    let (_berth, repository) = registry().await;

    for (query, what) in [
        (format!("digest={}", sha256(b"a")), "other"),
        ("digest=sha256:xyz".into(), "a"),
    ] {
        let refused = post(&repository, &query, what).await.expect(400);
        assert_eq!(refused.error_code(), "DIGEST_INVALID");
    }

    repository
        .head(&format!("blobs/{}", sha256(b"a")))
        .await
        .expect(404);
    repository
        .head(&format!("blobs/{}", sha256(b"other")))
        .await
        .expect(404);
}

#[tokio::test]
async fn the_empty_blob_can_be_posted_and_an_absent_body_means_a_session() {
    let (_berth, repository) = registry().await;

    post(&repository, &format!("digest={}", sha256(b"")), "")
        .await
        .expect(201);
    repository.assert_blob(&sha256(b""), b"").await;

    let digest = sha256(b"later");
    let request = repository.request(Method::POST, &format!("blobs/uploads/?digest={digest}"));
    let answer = send(request.header("Content-Length", "0")).await.expect(202);
    repository
        .close(answer.header("location"), &digest, "later")
        .await
        .expect(201);
}

#[tokio::test]
async fn a_digest_algorithm_that_is_not_computed_is_refused_at_once() {
    let (_berth, repository) = registry().await;

    post(&repository, "digest-algorithm=sha256", "").await.expect(202);
    for algorithm in ["md5", "", "sha3"] {
        let refused = post(&repository, &format!("digest-algorithm={algorithm}"), "")
            .await
            .expect(400);
        assert_eq!(refused.error_code(), "DIGEST_INVALID", "{algorithm}");
    }
}

#[tokio::test]
async fn a_session_starts_without_the_last_slash_and_with_any_content_type() {
    let (_berth, repository) = registry().await;

    for path in ["blobs/uploads", "blobs/uploads/"] {
        let request = repository
            .request(Method::POST, path)
            .header("Content-Type", "application/json");
        send(request).await.expect(202);
    }
}

#[tokio::test]
async fn a_blob_is_mounted_from_the_named_repository_from_any_and_from_itself() {
    let (_berth, repository) = registry().await;
    let content = blob(5000, 3);
    let digest = repository.push_blob(&content).await;
    let escaped = digest.replace(':', "%3A");

    for (number, query) in [
        format!("mount={digest}&from=team-a/app"),
        format!("mount={escaped}&from=team-a%2Fapp"),
        format!("mount={digest}&from=team-a/app&origin=https%3A%2F%2Felsewhere"),
        format!("from=team-a/app&mount={digest}"),
        format!("mount={digest}"),
    ]
    .iter()
    .enumerate()
    {
        let target = repository.sibling(&format!("target-{number}"));
        let answer = post(&target, query, "").await.expect(201);
        assert_eq!(
            answer.header("location"),
            format!("/v2/target-{number}/blobs/{digest}"),
            "{query}"
        );
        assert_eq!(answer.header("docker-content-digest"), digest, "{query}");
        target.assert_blob(&digest, &content).await;
    }
    post(&repository, &format!("mount={digest}&from=team-a/app"), "")
        .await
        .expect(201);
}

#[tokio::test]
async fn every_mount_that_cannot_be_is_the_same_session() {
    let (_berth, repository) = registry().await;
    let digest = repository.push_blob(b"there").await;
    repository.sibling("other").push_blob(b"elsewhere").await;
    let absent = sha256(b"absent");
    let target = repository.sibling("target");

    let mut shapes = Vec::new();
    for query in [
        format!("mount={absent}&from=team-a/app"),
        format!("mount={absent}"),
        format!("mount={digest}&from=other"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=..%2F..%2Fetc"),
        format!("mount={digest}&from="),
        "mount=nonsense&from=team-a/app".to_owned(),
        "mount=&from=team-a/app".to_owned(),
        format!("mount=md5:00&from=team-a/app&digest={digest}"),
    ] {
        let answer = post(&target, &query, "").await.expect(202);
        assert_eq!(
            (answer.header("range"), answer.text().as_str()),
            ("0-0", ""),
            "{query}"
        );
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        shapes.push(names);
        let location = answer.header("location");
        assert!(location.starts_with("/v2/target/blobs/uploads/"), "{location}");
        send(target.at(Method::DELETE, location)).await.expect(204);
    }

    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    target.head(&format!("blobs/{digest}")).await.expect(404);
}
