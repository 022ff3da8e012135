//! HTTP itself: the base path, methods, `Expect`, both protocol versions.

use harness::content::{blob, sha256};
use harness::http::send;
use harness::{Image, Wire};
use reqwest::{Method, Version};

use super::registry;

#[tokio::test]
async fn the_base_is_there_with_and_without_its_slash() {
    let (_berth, repository) = registry().await;

    for path in ["/v2/", "/v2"] {
        for method in [Method::GET, Method::HEAD] {
            let answer = send(repository.at(method.clone(), path)).await.expect(200);
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
            assert!(!answer.headers.contains_key("x-registry-supports-signatures"));
            assert_eq!(answer.text(), if method == Method::GET { "{}" } else { "" });
        }
    }
    send(repository.at(Method::GET, "/v1/")).await.expect(404);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_answered_with_those_that_it_does() {
    let (_berth, repository) = registry().await;
    let zeros = format!("sha256:{}", "0".repeat(64));

    for (path, method, allowed) in [
        ("tags/list".to_owned(), Method::POST, "GET"),
        ("tags/list".to_owned(), Method::DELETE, "GET"),
        (format!("blobs/{zeros}"), Method::PUT, "GET"),
        (format!("blobs/{zeros}"), Method::POST, "DELETE"),
        ("manifests/v1".to_owned(), Method::PATCH, "PUT"),
        ("blobs/uploads/".to_owned(), Method::PUT, "POST"),
        ("blobs/uploads/x".to_owned(), Method::POST, "PATCH"),
        (format!("referrers/{zeros}"), Method::PUT, "GET"),
    ] {
        let answer = send(repository.request(method.clone(), &path)).await.expect(405);
        assert!(
            answer.header("allow").contains(allowed),
            "{method} {path}: {}",
            answer.header("allow")
        );
        assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    }
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_refused_before_it_has_sent() {
    let (berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "12345").await.expect(202);
    let gone = location.replace(char::is_numeric, "0");

    for (path, range, status) in [
        (&location, "0-999999", 416),
        (&location, "5-9", 400),
        (&gone, "0-999999", 404),
    ] {
        let mut wire = Wire::connect(&berth.address()).await;
        wire.send(format!(
            "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nContent-Range: {range}\r\n\
             Expect: 100-continue\r\n\r\n"
        ))
        .await;
        let head = wire.head().await.expect("an answer");
        assert_eq!(head.status, status, "{path} {range}");
    }

    assert_eq!(repository.progress(&location).await, "0-4");
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let (berth, repository) = registry().await;
    let content = blob(100_000, 1);
    let location = repository.start_upload().await;

    let mut wire = Wire::connect(&berth.address()).await;
    wire.send(format!(
        "PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        content.len()
    ))
    .await;
    assert_eq!(wire.head().await.expect("an answer").status, 100);
    wire.send(&content).await;
    assert_eq!(wire.head().await.expect("an answer").status, 202);

    repository
        .close(&location, &sha256(&content), "")
        .await
        .expect(201);
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused_before_it_is_sent() {
    let (berth, _repository) = registry().await;

    let mut wire = Wire::connect(&berth.address()).await;
    wire.send(
        "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\
         Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n",
    )
    .await;

    assert_eq!(wire.head().await.expect("an answer").status, 413);
}

#[tokio::test]
async fn a_push_and_a_pull_go_over_http_2_without_tls() {
    let (_berth, repository) = registry().await;
    let fast = repository.over_http2();
    let answer = fast.at(Method::GET, "/v2/").send().await.expect("an answer");
    assert_eq!(answer.version(), Version::HTTP_2);
    let image = Image::new(1, 3_000_000);

    image.push(&fast, "v1").await;
    image.assert_pullable(&fast, "v1").await;
    image.assert_pullable(&repository, "v1").await;

    let content = blob(5_000_000, 2);
    let location = fast.start_upload().await;
    let pieces = content.chunks(65_537).map(<[u8]>::to_vec).collect();
    fast.patch(&location, None, harness::http::streamed(pieces))
        .await
        .expect(202);
    let refused = fast.patch(&location, Some("0-4"), "again").await.expect(416);
    assert_eq!(refused.header("range"), "0-4999999");
    fast.close(&location, &sha256(&content), "").await.expect(201);
    let digest = sha256(&content);
    futures_util::future::join_all((0..8).map(|_| fast.assert_blob(&digest, &content))).await;
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let (berth, repository) = registry().await;
    let digest = repository.push_blob(b"kept alive").await;
    let mut wire = Wire::connect(&berth.address()).await;

    for _ in 0..50 {
        wire.send(format!(
            "HEAD /v2/team-a/app/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ))
        .await;
        let head = wire.head().await.expect("the connection lives");
        assert_eq!((head.status, head.header("content-length")), (200, "10"));
    }
}

#[tokio::test]
async fn requests_may_be_sent_before_the_answers_to_earlier_ones() {
    let (berth, _repository) = registry().await;
    let mut wire = Wire::connect(&berth.address()).await;

    wire.send("HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20))
        .await;

    for _ in 0..20 {
        assert_eq!(wire.head().await.expect("an answer").status, 200);
    }
}
