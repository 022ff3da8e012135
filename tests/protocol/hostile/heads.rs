//! Heads of requests that are too large, or that two readers would read differently.

use harness::Wire;
use harness::content::sha256;

use super::Target;

#[tokio::test]
async fn heads_that_are_too_large_are_refused_and_the_largest_allowed_are_not() {
    let target = Target::start().await;
    let with_headers = |lines: usize, length: usize| {
        let mut head = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_owned();
        for line in 0..lines {
            head.push_str(&format!("X-{line}: {}\r\n", "y".repeat(length)));
        }
        head + "\r\n"
    };

    assert_eq!(target.say(with_headers(60, 1000)).await.status, 200);
    for (lines, length) in [(1, 66_000), (70, 1000), (90, 2500), (2000, 1), (1, 1_000_000)] {
        let said = target.say(with_headers(lines, length)).await;
        assert_eq!(said.status, 431, "{lines} of {length}: {said:?}");
    }
    let long = |length: usize| format!("/v2/app/tags/list?last={}", "a".repeat(length));
    assert_eq!(target.ask("GET", &long(15_000)).await.status, 404);
    for length in [17_000, 66_000, 100_000] {
        let said = target.ask("GET", &long(length)).await;
        assert_eq!(said.status, 414, "{length}: {said:?}");
    }
    target.survived().await;
}

#[tokio::test]
async fn nothing_can_be_smuggled_behind_a_body_of_two_lengths() {
    let target = Target::start().await;
    let secret = "GET /v2/team-a/app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!(
            "POST /v2/team-a/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}{secret}"
        )
    };

    for (headers, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "abcde"),
        ("Content-Length: 5, 6\r\n", "abcde"),
        ("Content-Length: +5\r\n", "abcde"),
        ("Content-Length: 0x5\r\n", "abcde"),
        ("Content-Length: -5\r\n", "abcde"),
        ("Content-Length: 99999999999999999999999\r\n", "abcde"),
        ("Transfer-Encoding: chunked\r\n", "5;\r\nab"),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nab"),
        ("Transfer-Encoding: chunked\r\n", "-1\r\nab"),
        ("Transfer-Encoding: identity, chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("X: a\r\n b\r\n", ""),
        ("X: a\u{0}b\r\n", ""),
    ] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        wire.send(post(headers, body)).await;
        wire.end().await;
        let said = String::from_utf8_lossy(&wire.rest().await).into_owned();
        // At most one answer, and never that to the request behind.
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{headers}: {said}");
        assert!(!said.contains("schemaVersion"), "{headers}: {said}");
    }
    target.survived().await;
}

#[tokio::test]
async fn a_body_that_is_shorter_than_declared_publishes_nothing() {
    let target = Target::start().await;
    let content = b"0123456789";
    let digest = sha256(content);

    for (head, body) in [
        (
            format!("POST /v2/team-a/app/blobs/uploads/?digest={digest}"),
            "Content-Length: 20",
        ),
        (
            format!("POST /v2/team-a/app/blobs/uploads/?digest={digest}"),
            "Transfer-Encoding: chunked",
        ),
        (
            "PUT /v2/team-a/app/manifests/cut".to_owned(),
            "Content-Length: 20",
        ),
        (
            "PUT /v2/team-a/app/manifests/cut".to_owned(),
            "Transfer-Encoding: chunked",
        ),
    ] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        let payload = if body.ends_with("chunked") {
            "a\r\n0123456789\r\n"
        } else {
            "0123456789"
        };
        wire.send(format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n\r\n{payload}"
        ))
        .await;
        wire.end().await;
        let said = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(!said.contains(" 201 "), "{head} {body}: {said}");
    }
    target
        .repository
        .head(&format!("blobs/{digest}"))
        .await
        .expect(404);
    target.repository.get_manifest("cut").await.expect(404);
    target.survived().await;
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_400_or_a_closed_connection() {
    let target = Target::start().await;

    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"\x00\x01\x02\x03",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /v2/ HTTP/1.1\nHost localhost\n\n",
        b"G\xc3\x89T /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v2/team a/tags/list HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame of the protocol",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x01",
    ] {
        let mut wire = Wire::connect(&target.berth.address()).await;
        wire.send(bytes).await;
        wire.end().await;
        let said = wire.rest().await;
        let text = String::from_utf8_lossy(&said).into_owned();
        assert!(
            !text.starts_with("HTTP/1.1 2") && !text.starts_with("HTTP/1.1 5"),
            "{text}"
        );
    }
    for method in [
        "TRACE",
        "CONNECT",
        "OPTIONS",
        "PROPFIND",
        "get",
        "A".repeat(5000).as_str(),
    ] {
        let said = target.ask(method, "/v2/").await;
        assert!(
            (400..500).contains(&said.status) || said.text.is_empty(),
            "{method}: {said:?}"
        );
    }
    target.survived().await;
}

#[tokio::test]
async fn what_a_client_writes_does_not_come_back_as_a_header_or_a_log_line() {
    let mut target = Target::start().await;

    let said = target
        .say(
            "GET /v2/team-a/app/tags/list HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             X-Request-Id: <script>alert(1)</script>\"}\r\nUser-Agent: \"},{\"level\":\"ERROR\",\"x\":\"\x1b[31m\u{8}\r\n\r\n",
        )
        .await;
    assert!(!said.text.contains("<script>"), "{said:?}");
    let odd = target
        .ask(
            "GET",
            "/v2/team-a/app/manifests/%22%7D%0A%7B%22level%22:%22ERROR%22",
        )
        .await;
    assert!([400, 404].contains(&odd.status), "{odd:?}");

    target.berth.terminate(std::time::Duration::from_secs(30)).await;
    for line in target.berth.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("every line is one JSON document");
        assert_ne!(line["level"], "ERROR", "{line}");
    }
}
