//! SIGTERM: nothing new, nothing cut, exit code 0.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{Repository, send};
use harness::{Backend, Berth, Wire, eventually, within};
use reqwest::Method;
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(20);

/// An upload of which the first half has been sent, and the rest.
async fn half_an_upload(berth: &Berth) -> (Wire, Repository, Vec<u8>) {
    let repository = Repository::new(&berth.url(""), "app");
    let content = blob(1_000_000, 1);
    let mut wire = Wire::connect(&berth.address()).await;
    wire.send(format!(
        "POST /v2/app/blobs/uploads/?digest={} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        sha256(&content),
        content.len()
    ))
    .await;
    // The registry reads the body from here on.
    assert_eq!(wire.head().await.expect("an answer").status, 100);
    wire.send(&content[..500_000]).await;
    (wire, repository, content)
}

/// Waits until the drain shows.
async fn is_draining(berth: &Berth) {
    let http = harness::http::client();
    eventually("readiness fails", LIMIT, async || {
        let answer = send(http.get(berth.ops_url("/readyz"))).await;
        (answer.status.as_u16() == 503 && answer.text().contains("draining")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_in_flight_is_finished_before_the_server_ends() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let (mut wire, repository, content) = half_an_upload(&berth).await;
    // A connection without a request does not hold the drain up.
    let mut idle = Wire::connect(&berth.address()).await;
    idle.send("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.head().await.expect("an answer").status, 200);

    berth.signal(Signal::TERM);

    is_draining(&berth).await;
    let alive = send(harness::http::client().get(berth.ops_url("/livez"))).await;
    assert_eq!(alive.status.as_u16(), 200);
    within("the idle connection is closed", LIMIT, idle.rest()).await;
    let refused = tokio::net::TcpStream::connect(berth.address()).await;
    assert!(refused.is_err(), "a draining server takes new connections");
    assert!(wire.send(&content[500_000..]).await);
    assert_eq!(wire.head().await.expect("the answer").status, 201);
    assert_eq!(berth.ended(LIMIT).await.code(), Some(0));

    berth.restart().await;
    repository.assert_blob(&sha256(&content), &content).await;
}

#[tokio::test]
async fn a_download_in_flight_is_finished_before_the_server_ends() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "app");
    let content = blob(30_000_000, 2);
    let digest = repository.push_blob(&content).await;
    let response = repository
        .request(Method::GET, &format!("blobs/{digest}"))
        .send()
        .await
        .expect("the head of the answer");

    berth.signal(Signal::TERM);
    is_draining(&berth).await;

    assert!(response.bytes().await.expect("the whole body") == content);
    assert_eq!(berth.ended(LIMIT).await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_cut_and_its_upload_can_go_on() {
    let mut berth = Berth::builder().flag("--drain-timeout", "1s").start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let location = repository.start_upload().await;
    let mut wire = Wire::connect(&berth.address()).await;
    wire.send(format!(
        "PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.head().await.expect("an answer").status, 100);
    wire.send("a few bytes").await;

    let status = berth.terminate(LIMIT).await;

    assert_eq!(status.code(), Some(0));
    berth.restart().await;
    // An 11-byte beginning may or may not have been stored; the session stands either way.
    let progress = repository.progress(&location).await;
    assert!(["0--1", "0-10"].contains(&progress.as_str()), "{progress}");
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once_with_a_failure() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let (_wire, _repository, _content) = half_an_upload(&berth).await;
    berth.signal(Signal::TERM);
    is_draining(&berth).await;

    berth.signal(Signal::INT);

    assert_eq!(berth.ended(LIMIT).await.code(), Some(1));
}

#[tokio::test]
async fn a_server_without_requests_ends_at_once_on_either_signal() {
    for (backend, signal) in [
        (Backend::Embedded, Signal::INT),
        (Backend::Distributed, Signal::TERM),
    ] {
        let mut berth = Berth::start(backend).await;
        berth.signal(signal);
        assert_eq!(
            berth.ended(Duration::from_secs(10)).await.code(),
            Some(0),
            "{signal:?}"
        );
    }
}
