//! Requests put together at random from valid and broken parts, over raw connections.

use std::time::Duration;

use harness::content::sha256;
use harness::{Dice, Wire};
use tokio::time::timeout;

use super::Target;

const REQUESTS: u64 = 2_000;
/// Connections at once.
const CLIENTS: u64 = 100;
/// The limits on slow clients, so that a request that waits for more ends soon.
const IMPATIENT: [&str; 3] = ["--header-timeout", "--body-timeout", "--idle-timeout"];

/// A part of a path or a value: known words, digests, or noise.
fn word(dice: &mut Dice, known: &[&str]) -> String {
    match dice.below(10) {
        0..=6 => dice.pick(known).to_owned(),
        7 => (0..dice.below(20))
            .map(|_| char::from(33 + byte(dice) % 94))
            .collect(),
        8 => dice
            .pick(&["..", "%00", "%2F", "", "é", "%ff", "a%0d%0ab", "\\", "*"])
            .to_owned(),
        _ => "x".repeat(dice.index(3000)),
    }
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(256)).expect("below 256")
}

/// One request, and where it was broken on purpose.
fn request(dice: &mut Dice, known: &[&str]) -> Vec<u8> {
    let method = dice.pick(&["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"]);
    let mut path = String::from("/v2");
    for _ in 0..dice.below(6) {
        path.push('/');
        path.push_str(&word(dice, known));
    }
    if dice.below(3) == 0 {
        let name = dice.pick(&[
            "digest",
            "mount",
            "from",
            "n",
            "last",
            "tag",
            "artifactType",
            "digest-algorithm",
        ]);
        path.push_str(&format!("?{name}={}", word(dice, known)));
    }
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for _ in 0..dice.below(4) {
        let name = dice.pick(&[
            "Content-Range",
            "Range",
            "Content-Type",
            "If-None-Match",
            "If-Match",
            "If-Range",
            "Accept",
            "Authorization",
            "Expect",
            "Content-Encoding",
            "X-Request-Id",
        ]);
        let value = match dice.below(4) {
            0 => word(dice, known),
            1 => format!("{}-{}", dice.below(20), dice.below(20)),
            2 => format!("bytes={}-", dice.below(2000)),
            _ => dice
                .pick(&[
                    "100-continue",
                    "application/vnd.oci.image.manifest.v1+json",
                    "*",
                    "\"",
                    "W/\"\"",
                ])
                .to_owned(),
        };
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = match dice.below(4) {
        0 => b"{\"schemaVersion\":2}".to_vec(),
        1 => (0..dice.below(500)).map(|_| byte(dice)).collect(),
        _ => Vec::new(),
    };
    match dice.below(5) {
        0 => head.push_str("Transfer-Encoding: chunked\r\n"),
        1 => head.push_str(&format!(
            "Content-Length: {}\r\n",
            body.len() as u64 + dice.below(3)
        )),
        _ => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
    }
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    // One in four is damaged: a byte changed, or the end cut off.
    match dice.below(8) {
        0 => {
            let at = dice.index(bytes.len());
            bytes[at] = byte(dice);
        }
        1 => bytes.truncate(dice.index(bytes.len())),
        _ => {}
    }
    bytes
}

#[tokio::test]
async fn thousands_of_random_requests_get_no_server_error() {
    let mut dice = Dice::new();
    let builder = IMPATIENT
        .into_iter()
        .fold(harness::Berth::builder(), |builder, flag| {
            builder.flag(flag, "1s")
        });
    let target = Target::of(builder).await;
    let location = target.repository.start_upload().await;
    let session = location.rsplit('/').next().unwrap_or_default().to_owned();
    let mut known = vec![
        "team-a",
        "app",
        "blobs",
        "uploads",
        "manifests",
        "tags",
        "list",
        "referrers",
        "_catalog",
        "v1",
        "v2",
        "_oci",
        "ext",
        "discover",
        "sha256:",
        "sha256",
        "sha512",
        "0",
    ];
    // The image may be deleted by what follows: this one is another repository's.
    let other = target.repository.sibling("other/app");
    let image = harness::Image::new(9, 100);
    image.push(&other, "v1").await;
    let digests = [image.digest(), sha256(b"x"), sha256(&image.config)];
    known.extend(digests.iter().map(String::as_str));
    known.push(&session);

    let dice: Vec<Dice> = (0..CLIENTS).map(|_| dice.split()).collect();
    let clients = dice.into_iter().enumerate().map(async |(client, mut dice)| {
        let mut answered = 0;
        for number in 0..REQUESTS / CLIENTS {
            let bytes = request(&mut dice, &known);
            let mut wire = Wire::connect(&target.berth.address()).await;
            wire.send(&bytes).await;
            let said = timeout(Duration::from_secs(20), wire.rest()).await;
            let said = said.unwrap_or_else(|_| panic!("no end: {}", String::from_utf8_lossy(&bytes)));
            let status = said
                .get(9..12)
                .map(|code| String::from_utf8_lossy(code).into_owned());
            assert!(
                !status.as_deref().is_some_and(|status| status.starts_with('5')),
                "request {number} of client {client}: {}\n{}",
                String::from_utf8_lossy(&bytes),
                String::from_utf8_lossy(&said)
            );
            answered += u64::from(status.is_some());
        }
        answered
    });
    let answered: u64 = futures_util::future::join_all(clients).await.into_iter().sum();

    println!("{answered} of {REQUESTS} requests were answered");
    assert!(answered > REQUESTS * 3 / 4);
    // What the requests may have deleted is pushed again.
    target.image.push(&target.repository, "v1").await;
    target.survived().await;
}
