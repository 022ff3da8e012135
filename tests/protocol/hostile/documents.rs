//! Manifests that two readers would read differently, or that cost more to read than to send.

use harness::Wire;
use harness::content::sha256;
use harness::http::{send, streamed};
use harness::image::{INDEX, MANIFEST, descriptor};
use reqwest::Method;
use serde_json::json;

use super::Target;

const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

impl Target {
    /// Fails unless this document is refused as malformed and nothing of it is kept.
    async fn refuses(&self, kind: &str, document: impl AsRef<[u8]>) {
        let document = document.as_ref();
        let shown = String::from_utf8_lossy(&document[..document.len().min(200)]).into_owned();
        let answer = self.repository.put_manifest("odd", kind, document).await;
        assert_eq!(answer.status.as_u16(), 400, "{shown}: {}", answer.text());
        assert_eq!(answer.error_code(), "MANIFEST_INVALID", "{shown}");
        self.repository.get_manifest("odd").await.expect(404);
        self.repository.get_manifest(&sha256(document)).await.expect(404);
    }
}

/// A manifest with these members instead of the usual ones.
fn image(members: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{EMPTY},{members}}}"#)
}

#[tokio::test]
async fn a_document_that_can_be_read_in_two_ways_is_refused() {
    let target = Target::start().await;
    target.repository.push_blob(b"{}").await;
    let accepted = image(r#""layers":[]"#);
    target
        .repository
        .put_manifest("fine", MANIFEST, accepted.as_bytes())
        .await
        .expect(201);

    for members in [
        format!(r#""layers":[],"layers":[{EMPTY}]"#),
        format!(r#""layers":[],"Layers":[{EMPTY}]"#),
        format!(r#""layers":[],"LAYERS":[{EMPTY}]"#),
        format!(r#""layers":[],"manifests":[{EMPTY}]"#),
        format!(r#""layers":[],"config":{EMPTY}"#),
        format!(r#""layers":[],"la\u0079ers":[{EMPTY}]"#),
        format!(r#""layers":[],"layer\u017f":[{EMPTY}]"#),
        r#""layers":[],"schemaVersion":1"#.into(),
        format!(r#""layers":[],"mediaType":"{INDEX}""#),
        format!(r#""layers":[],"subject":{EMPTY},"subject":{EMPTY}"#),
        EMPTY
            .replace(r#""size":2"#, r#""size":2,"size":3"#)
            .replacen('{', r#""layers":[{"#, 1)
            + "]",
        EMPTY
            .replace(r#""size":2"#, r#""size":2,"Digest":"x""#)
            .replacen('{', r#""layers":[{"#, 1)
            + "]",
        r#""layers":[],"fsLayers":[],"signatures":[]"#.into(),
    ] {
        target.refuses(MANIFEST, image(&members)).await;
    }
    for tail in ["{}", "x", "]", "\0", &accepted] {
        target.refuses(MANIFEST, format!("{accepted}{tail}")).await;
    }
    target.refuses(MANIFEST, format!("\u{feff}{accepted}")).await;
    target.refuses(INDEX, accepted.replace(MANIFEST, INDEX)).await;
    target.survived().await;
}

#[tokio::test]
async fn values_that_are_none_are_refused() {
    let target = Target::start().await;
    target.repository.push_blob(b"{}").await;

    for size in [
        "-1",
        "NaN",
        "Infinity",
        "1e400",
        "\"2\"",
        "null",
        "99999999999999999999999",
        "[]",
        "2.5",
    ] {
        let layer = EMPTY.replace(r#""size":2"#, &format!(r#""size":{size}"#));
        target
            .refuses(MANIFEST, image(&format!(r#""layers":[{layer}]"#)))
            .await;
    }
    for digest in [
        "",
        "sha256:",
        "sha256:xyz",
        "SHA256:00",
        "../../etc/passwd",
        "md5:00",
        "sha256:00\\u0000",
    ] {
        let layer = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":2}}"#);
        target
            .refuses(MANIFEST, image(&format!(r#""layers":[{layer}]"#)))
            .await;
    }
    for layers in ["{}", "3", "\"x\"", "[null]", "[[]]", "[3]"] {
        target
            .refuses(MANIFEST, image(&format!(r#""layers":{layers}"#)))
            .await;
    }
    for annotations in ["[]", "\"x\"", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{"b":"c"}}"#] {
        target
            .refuses(
                MANIFEST,
                image(&format!(r#""layers":[],"annotations":{annotations}"#)),
            )
            .await;
    }
    for document in ["", "null", "[]", "\"x\"", "{", "{\"a\"", "\u{0}", "true"] {
        target.refuses(MANIFEST, document).await;
    }
    target
        .refuses(MANIFEST, b"{\"schemaVersion\":2,\"x\":\"\xff\xfe\"}")
        .await;
    target.survived().await;
}

#[tokio::test]
async fn bombs_are_refused_quickly() {
    let target = Target::start().await;
    target.repository.push_blob(b"{}").await;
    let started = std::time::Instant::now();

    for depth in [200, 100_000, 1_900_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        target
            .refuses(MANIFEST, image(&format!(r#""layers":[],"x":{nested}"#)))
            .await;
        let objects = r#"{"a":"#.repeat(depth.min(600_000));
        target
            .refuses(MANIFEST, image(&format!(r#""layers":[],"x":{objects}"#)))
            .await;
    }
    let layers = vec![EMPTY; 10_001].join(",");
    target
        .refuses(MANIFEST, image(&format!(r#""layers":[{layers}]"#)))
        .await;
    let children = vec![
        r#"{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        10_001
    ];
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#,
        children.join(",")
    );
    target.refuses(INDEX, index).await;
    // As many as are allowed, every one of them missing: an answer of bounded size.
    let missing: Vec<_> = (0..9_000u32)
        .map(|n| descriptor("a/b", &n.to_le_bytes()))
        .collect();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": missing[0], "layers": missing});
    let answer = target
        .repository
        .put_manifest("odd", MANIFEST, manifest.to_string().as_bytes())
        .await
        .expect(400);
    assert_eq!(answer.error_code(), "MANIFEST_BLOB_UNKNOWN");
    assert!(answer.body.len() < 100_000, "{} bytes", answer.body.len());

    assert!(
        started.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    target.survived().await;
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused_before_all_of_it_was_sent() {
    let target = Target::start().await;
    let head = format!(
        "PUT /v2/team-a/app/manifests/odd HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MANIFEST}\r\n"
    );

    // Declared: at once.
    let mut wire = Wire::connect(&target.berth.address()).await;
    wire.send(format!("{head}Content-Length: 5000000\r\n\r\n")).await;
    assert_eq!(wire.head().await.expect("an answer").status, 413);
    // Undeclared: as soon as it is known.
    let mut wire = Wire::connect(&target.berth.address()).await;
    wire.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"))
        .await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..80 {
        if !wire.send(&chunk).await {
            break;
        }
    }
    assert_eq!(wire.head().await.expect("an answer").status, 413);
    target.repository.get_manifest("odd").await.expect(404);
    target.survived().await;
}

#[tokio::test]
async fn compressed_bodies_are_refused_unread() {
    let target = Target::start().await;
    let digest = sha256(b"x");
    let location = target.repository.start_upload().await;

    for encoding in ["gzip", "zstd", "br", "gzip, gzip", "identity, gzip"] {
        for (method, path) in [
            (Method::PUT, "/v2/team-a/app/manifests/odd".to_owned()),
            (Method::PATCH, location.clone()),
            (Method::PUT, format!("{location}?digest={digest}")),
            (
                Method::POST,
                format!("/v2/team-a/app/blobs/uploads/?digest={digest}"),
            ),
        ] {
            let request = target
                .repository
                .at(method.clone(), &path)
                .header("Content-Encoding", encoding);
            let request = request.header("Content-Type", MANIFEST).body("x");
            let refused = send(request).await.expect(415);
            assert!(!refused.error_code().is_empty(), "{method} {path}");
        }
    }
    target
        .repository
        .head(&format!("blobs/{digest}"))
        .await
        .expect(404);
    assert_eq!(target.repository.progress(&location).await, "0--1");
    // Nor is anything sent compressed, however much a client asks for it.
    let request = target.repository.request(Method::GET, "manifests/v1");
    let plain = send(request.header("Accept-Encoding", "gzip, zstd, br"))
        .await
        .expect(200);
    assert!(plain.body == target.image.manifest && !plain.headers.contains_key("content-encoding"));
    target.survived().await;
}

#[tokio::test]
async fn stored_markup_is_served_as_what_it_was_pushed_as_and_never_as_a_page() {
    let target = Target::start().await;
    let page = b"<html><script>alert(1)</script></html>";
    let digest = target.repository.push_blob(page).await;
    target.repository.push_blob(b"{}").await;
    let manifest = image(r#""layers":[],"annotations":{"a":"<script>alert(1)</script>\"\u0000\u202e"}"#);
    target
        .repository
        .put_manifest("html", MANIFEST, manifest.as_bytes())
        .await
        .expect(201);

    let request = target.repository.request(Method::GET, &format!("blobs/{digest}"));
    let blob = send(request.header("Accept", "text/html")).await.expect(200);
    assert_eq!(blob.header("content-type"), "application/octet-stream");
    assert_eq!(blob.header("x-content-type-options"), "nosniff");
    assert_eq!(blob.header("content-disposition"), "attachment");
    let stored = target.repository.get_manifest("html").await.expect(200);
    assert!(stored.header("content-type") == MANIFEST && stored.body == manifest.as_bytes());
    let refused = target
        .repository
        .put_manifest("html2", "text/html", manifest.as_bytes())
        .await;
    assert!([400, 415].contains(&refused.status.as_u16()));
    target.survived().await;
}

#[tokio::test]
async fn a_blob_in_chunks_of_one_byte_is_a_blob() {
    let target = Target::start().await;
    let content = harness::content::blob(3000, 5);
    let digest = sha256(&content);
    let pieces = || content.iter().map(|byte| vec![*byte]).collect();

    let path = format!("blobs/uploads/?digest={digest}");
    send(
        target
            .repository
            .request(Method::POST, &path)
            .body(streamed(pieces())),
    )
    .await
    .expect(201);
    target.repository.assert_blob(&digest, &content).await;
    let answer = target
        .repository
        .request(Method::PUT, "manifests/bytes")
        .header("Content-Type", MANIFEST);
    let bytes = target.image.manifest.iter().map(|byte| vec![*byte]).collect();
    send(answer.body(streamed(bytes))).await.expect(201);
    target.survived().await;
}
