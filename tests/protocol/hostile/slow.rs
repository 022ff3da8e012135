//! Clients that hold on to what they have and send next to nothing.

use std::time::{Duration, Instant};

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Berth, Wire, within};
use reqwest::Method;

use super::Target;

/// The limit under test is a second; the connection is looked at four times within it.
const LIMIT: Duration = Duration::from_secs(8);

async fn impatient() -> Target {
    let builder = ["--header-timeout", "--body-timeout", "--idle-timeout"]
        .into_iter()
        .fold(Berth::builder(), |builder, flag| builder.flag(flag, "1s"));
    Target::of(builder).await
}

/// How long the server takes to close the connection, and what it said until then.
async fn until_closed(wire: &mut Wire) -> (Duration, String) {
    let started = Instant::now();
    let said = within("the server closes", LIMIT, wire.rest()).await;
    (started.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_head_that_never_ends_costs_a_second() {
    let target = impatient().await;

    for bytes in [
        "",
        "GET /v2/ HTTP/1.1\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: ",
        "G",
    ] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        wire.send(bytes).await;
        let (took, said) = until_closed(&mut wire).await;
        assert!(!said.contains("200 OK"), "{said}");
        assert!(took > Duration::from_millis(500), "{took:?}");
    }
    // A byte now and then does not buy time, on a fresh connection or a used one.
    for used in [false, true] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        if used {
            wire.send("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(wire.head().await.expect("an answer").status, 200);
        }
        let started = Instant::now();
        wire.send("GET /v2/ HTTP/1.1\r\nX: ").await;
        let trickle = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while wire.send("y").await {
                ticks.tick().await;
            }
        };
        within("the trickle is cut", LIMIT, trickle).await;
        assert!(started.elapsed() > Duration::from_millis(500));
    }
    target.survived().await;
}

#[tokio::test]
async fn a_body_that_stops_is_answered_with_408_and_what_came_is_kept() {
    let target = impatient().await;
    let location = target.repository.start_upload().await;

    for (head, body) in [
        (
            format!("PATCH {location}"),
            "Content-Length: 100\r\n\r\n0123456789",
        ),
        (
            "PUT /v2/team-a/app/manifests/slow".to_owned(),
            "Content-Length: 100\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n{",
        ),
        (
            format!("POST /v2/team-a/app/blobs/uploads/?digest={}", sha256(b"x")),
            "Transfer-Encoding: chunked\r\n\r\n1\r\n",
        ),
    ] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        wire.send(format!("{head} HTTP/1.1\r\nHost: localhost\r\n{body}"))
            .await;
        let (_, said) = until_closed(&mut wire).await;
        assert!(said.starts_with("HTTP/1.1 408"), "{head}: {said}");
    }
    assert_eq!(target.repository.progress(&location).await, "0-9");
    target
        .repository
        .close(&location, &sha256(b"0123456789"), "")
        .await
        .expect(201);
    target.survived().await;
}

#[tokio::test]
async fn a_client_that_is_slow_but_steady_is_served() {
    let target = impatient().await;
    let content = blob(30, 1);
    let mut wire = Wire::connect(&target.berth.address()).await;

    wire.send(format!(
        "POST /v2/team-a/app/blobs/uploads/?digest={} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n",
        sha256(&content)
    ))
    .await;
    // Three seconds in all: more than every limit, but no pause as long as one.
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for byte in &content {
        ticks.tick().await;
        assert!(wire.send([*byte]).await);
    }

    assert_eq!(wire.head().await.expect("an answer").status, 201);
    target.survived().await;
}

#[tokio::test]
async fn connections_without_work_are_closed() {
    let target = impatient().await;
    let mut idle = Wire::connect(&target.berth.address()).await;
    idle.send("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.head().await.expect("an answer").status, 200);
    let (_, rest) = until_closed(&mut idle).await;
    assert_eq!(rest, "{}");
    // Over HTTP/2 as well, after its preface and settings.
    let mut idle = Wire::connect(&target.berth.address()).await;
    idle.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await;
    until_closed(&mut idle).await;
    target.survived().await;
}

#[tokio::test]
async fn a_client_that_takes_no_byte_of_its_answer_is_cut() {
    let target = impatient().await;
    // More than the sockets' buffers hold.
    let digest = target.repository.push_blob(&blob(64 << 20, 2)).await;
    let mut wires = Vec::new();

    for _ in 0..8 {
        let mut wire = Wire::connect(&target.berth.address()).await;
        wire.send(format!(
            "GET /v2/team-a/app/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ))
        .await;
        wires.push(wire);
    }

    let http = harness::http::client();
    harness::eventually("the downloads that nobody takes are cut", LIMIT, async || {
        let metrics = harness::http::send(http.get(target.berth.ops_url("/metrics")))
            .await
            .text();
        metrics
            .contains("berth_http_requests_in_flight 0\n")
            .then_some(())
    })
    .await;
    for wire in &mut wires {
        assert!(wire.rest().await.len() < 64 << 20);
    }
    target.survived().await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The headers of a request without a body, in literals of HPACK (RFC 7541, section 6.2.2).
fn headers(stream: u32, method: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x86];
    for (name, value) in [(2, method), (4, path), (1, "localhost")] {
        block.extend([name, u8::try_from(value.len()).expect("a short value")]);
        block.extend(value.as_bytes());
    }
    frame(1, 0x5, stream, &block)
}

/// The next frame that a server sends: its kind and its stream.
async fn next_frame(wire: &mut Wire) -> Option<(u8, u32)> {
    let head = wire.exactly(9).await?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    wire.exactly(length).await?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

#[tokio::test]
async fn a_stream_of_http2_whose_window_never_opens_is_reset_and_its_connection_goes_on() {
    const RST_STREAM: u8 = 3;
    const HEADERS: u8 = 1;
    let target = impatient().await;
    let digest = target.repository.push_blob(&blob(1000, 2)).await;
    let path = format!("/v2/team-a/app/blobs/{digest}");
    let mut wire = Wire::connect(&target.berth.address()).await;
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);

    wire.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*no_window].concat())
        .await;
    let streams: Vec<u32> = (1..16).step_by(2).collect();
    for stream in &streams {
        wire.send(headers(*stream, "GET", &path)).await;
    }

    let resets = async {
        let mut reset = Vec::new();
        while reset.len() < streams.len() {
            let (kind, stream) = next_frame(&mut wire).await.expect("the connection goes on");
            reset.extend((kind == RST_STREAM).then_some(stream));
        }
        reset
    };
    let mut reset = within("the streams are reset", LIMIT, resets).await;
    reset.sort_unstable();
    assert_eq!(reset, streams);
    wire.send(headers(17, "HEAD", &path)).await;
    let answered =
        async { while next_frame(&mut wire).await.expect("the connection goes on") != (HEADERS, 17) {} };
    within("an answer on the same connection", LIMIT, answered).await;
    let metrics = harness::http::client().get(target.berth.ops_url("/metrics"));
    let metrics = harness::http::send(metrics).await.text();
    assert!(metrics.contains("berth_http_requests_in_flight 0\n"), "{metrics}");
    target.survived().await;
}

#[tokio::test]
async fn many_connections_that_say_nothing_leave_room_for_one_that_does() {
    let builder = Berth::builder()
        .flag("--max-connections", "64")
        .flag("--header-timeout", "1s");
    let target = Target::of(builder).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(
            tokio::net::TcpStream::connect(target.berth.address())
                .await
                .expect("a connection"),
        );
    }

    let fresh = Repository::new(&target.berth.url(""), "team-a/app");
    let request = fresh.request(Method::GET, "manifests/v1");
    let answer = within(
        "a served request",
        Duration::from_secs(20),
        harness::http::send(request),
    )
    .await;

    assert_eq!(answer.status.as_u16(), 200);
    drop(silent);
    target.survived().await;
}
