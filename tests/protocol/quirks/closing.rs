//! The PUT that ends an upload, and cancelling one.

use harness::content::{blob, sha256, sha512};
use harness::http::{send, streamed, with_query};
use reqwest::Method;

use super::registry;

#[tokio::test]
async fn the_closing_put_may_bring_the_last_bytes() {
    let (_berth, repository) = registry().await;
    let content = blob(1000, 1);
    let digest = sha256(&content);

    for (range, rest) in [(None, false), (Some("600-999"), false), (None, true)] {
        let location = repository.start_upload().await;
        repository
            .patch(&location, None, content[..600].to_vec())
            .await
            .expect(202);
        let mut request = repository.at(Method::PUT, &with_query(&location, &format!("digest={digest}")));
        if let Some(range) = range {
            request = request.header("Content-Range", range);
        }
        let body = match rest {
            true => streamed(vec![content[600..700].to_vec(), content[700..].to_vec()]),
            false => content[600..].to_vec().into(),
        };
        let answer = send(request.body(body)).await.expect(201);
        assert_eq!(
            answer.header("location"),
            format!("/v2/team-a/app/blobs/{digest}")
        );
        assert_eq!(answer.header("docker-content-digest"), digest);
        repository.assert_blob(&digest, &content).await;
        repository.delete(&format!("blobs/{digest}")).await.expect(202);
    }
}

#[tokio::test]
async fn a_closing_put_out_of_order_says_where_to_go_on_and_the_session_lives() {
    let (_berth, repository) = registry().await;
    let content = blob(1000, 2);
    let digest = sha256(&content);
    let location = repository.start_upload().await;
    repository
        .patch(&location, None, content[..600].to_vec())
        .await
        .expect(202);
    let url = with_query(&location, &format!("digest={digest}"));

    let request = repository.at(Method::PUT, &url).header("Content-Range", "0-999");
    let refused = send(request.body(content.clone())).await.expect(416);

    assert_eq!(
        (refused.header("range"), refused.header("location")),
        ("0-599", location.as_str())
    );
    let request = repository
        .at(Method::PUT, &url)
        .header("Content-Range", "600-999");
    send(request.body(content[600..].to_vec())).await.expect(201);
    repository.assert_blob(&digest, &content).await;
}

#[tokio::test]
async fn a_chunked_body_without_bytes_closes_like_none() {
    let (_berth, repository) = registry().await;

    let empty = repository.start_upload().await;
    repository
        .close(&empty, &sha256(b""), streamed(Vec::new()))
        .await
        .expect(201);
    let filled = repository.start_upload().await;
    repository.patch(&filled, None, "filled").await.expect(202);
    repository
        .close(&filled, &sha256(b"filled"), streamed(Vec::new()))
        .await
        .expect(201);

    repository.assert_blob(&sha256(b""), b"").await;
    repository.assert_blob(&sha256(b"filled"), b"filled").await;
}

#[tokio::test]
async fn repeating_a_put_that_succeeded_is_a_success() {
    let (_berth, repository) = registry().await;
    let (location, digest) = (repository.start_upload().await, sha256(b"once"));

    for _ in 0..3 {
        let answer = repository.close(&location, &digest, "once").await.expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(
            answer.header("location"),
            format!("/v2/team-a/app/blobs/{digest}")
        );
    }

    let other = repository
        .close(&location, &sha256(b"twice"), "twice")
        .await
        .expect(404);
    assert_eq!(other.error_code(), "BLOB_UPLOAD_UNKNOWN");
    repository.patch(&location, None, "more").await.expect(404);
    repository.assert_blob(&digest, b"once").await;
}

#[tokio::test]
async fn a_missing_or_malformed_digest_is_refused_and_the_session_lives() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "kept").await.expect(202);

    let upper = sha256(b"kept").to_uppercase().replace("SHA256", "sha256");
    for query in [
        "",
        "digest=",
        "digest=sha256:abc",
        "digest=md5:00",
        "digest=kept",
        &format!("digest={upper}"),
    ] {
        let answer = send(repository.at(Method::PUT, &with_query(&location, query)))
            .await
            .expect(400);
        assert_eq!(answer.error_code(), "DIGEST_INVALID", "{query}");
    }

    assert_eq!(repository.progress(&location).await, "0-3");
    repository
        .close(&location, &sha256(b"kept"), "")
        .await
        .expect(201);
}

#[tokio::test]
async fn content_that_is_not_its_digest_is_dropped_with_its_session() {
    let (_berth, repository) = registry().await;
    let claimed = sha256(b"claimed");

    for chunked in [false, true] {
        let location = repository.start_upload().await;
        let refused = if chunked {
            repository.patch(&location, None, "sent").await.expect(202);
            repository.close(&location, &claimed, "").await.expect(400)
        } else {
            repository.close(&location, &claimed, "sent").await.expect(400)
        };
        assert_eq!(refused.error_code(), "DIGEST_INVALID");
        assert_eq!(repository.progress(&location).await, "");
        for digest in [&claimed, &sha256(b"sent")] {
            repository.head(&format!("blobs/{digest}")).await.expect(404);
        }
    }
}

#[tokio::test]
async fn a_sha512_digest_closes_any_session_and_is_echoed() {
    let (_berth, repository) = registry().await;
    for (seed, start, chunked) in [
        (1, "blobs/uploads/", true),
        (2, "blobs/uploads/", false),
        (3, "blobs/uploads/?digest-algorithm=sha512", true),
        (4, "blobs/uploads/?digest-algorithm=sha512", false),
    ] {
        let content = blob(300_000, seed);
        let digest = sha512(&content);
        let location = send(repository.request(Method::POST, start)).await.expect(202);
        let location = location.header("location");
        let sent = if chunked { 200_000 } else { 0 };
        if chunked {
            repository
                .patch(location, None, content[..sent].to_vec())
                .await
                .expect(202);
        }
        let answer = repository
            .close(location, &digest, content[sent..].to_vec())
            .await
            .expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        let head = repository.head(&format!("blobs/{digest}")).await.expect(200);
        assert_eq!(head.header("docker-content-digest"), digest);
        repository.assert_blob(&digest, &content).await;
        // The same bytes under another algorithm are another name, which nobody has pushed.
        repository
            .head(&format!("blobs/{}", sha256(&content)))
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn a_wrong_sha512_that_nobody_announced_leaves_nothing() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "sent").await.expect(202);

    let refused = repository
        .close(&location, &sha512(b"claimed"), "")
        .await
        .expect(400);

    assert_eq!(refused.error_code(), "DIGEST_INVALID");
    assert_eq!(repository.progress(&location).await, "");
    repository
        .head(&format!("blobs/{}", sha512(b"claimed")))
        .await
        .expect(404);
    repository
        .head(&format!("blobs/{}", sha512(b"sent")))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_cancelled_upload_is_gone_at_once() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "unwanted").await.expect(202);

    let answer = send(repository.at(Method::DELETE, &location)).await.expect(204);

    assert!(answer.body.is_empty());
    for method in [Method::DELETE, Method::GET, Method::PATCH] {
        let answer = send(repository.at(method, &location)).await.expect(404);
        assert_eq!(answer.error_code(), "BLOB_UPLOAD_UNKNOWN");
    }
    repository
        .close(&location, &sha256(b"unwanted"), "")
        .await
        .expect(404);
}

#[tokio::test]
async fn asking_for_progress_ignores_a_digest_in_the_query() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "12345").await.expect(202);

    for query in ["digest=sha256:abc", "digest=", "unknown=1"] {
        assert_eq!(repository.progress(&with_query(&location, query)).await, "0-4");
    }
}

#[tokio::test]
async fn the_colon_of_a_digest_may_be_encoded_in_path_and_query() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    let encoded = sha256(b"colon").replace(':', "%3A");

    repository.close(&location, &encoded, "colon").await.expect(201);

    let lower = encoded.replace("%3A", "%3a");
    for digest in [&encoded, &lower] {
        assert_eq!(
            repository.get(&format!("blobs/{digest}")).await.expect(200).body,
            b"colon"
        );
    }
}
