//! Content that means harm, and answers that keep a browser safe.

use std::time::Instant;

use harness::image::{MANIFEST, descriptor};
use serde_json::json;

use super::House;

const SCRIPT: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_content_is_text() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let config = json!({
        "architecture": SCRIPT, "os": SCRIPT, "author": SCRIPT, "created": SCRIPT,
        "config": { "User": SCRIPT, "Env": [SCRIPT], "Entrypoint": [SCRIPT], "Labels": { SCRIPT: SCRIPT },
            "ExposedPorts": { SCRIPT: {} } },
        "history": [{ "created_by": SCRIPT, "comment": SCRIPT }],
    });
    let config = config.to_string().into_bytes();
    let mut layer = descriptor("application/x", b"layer");
    layer["annotations"] = json!({ "org.opencontainers.image.title": SCRIPT });
    layer["mediaType"] = json!(SCRIPT);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SCRIPT,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [layer], "annotations": { SCRIPT: SCRIPT },
    });
    repository.push_blob(&config).await;
    repository.push_blob(b"layer").await;
    let manifest = manifest.to_string().into_bytes();
    repository
        .put_manifest("v1", MANIFEST, &manifest)
        .await
        .expect(201);
    let program = house.program("acme", &token);
    let search = "/explorer/?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E";

    for path in [
        "/explorer/r/app/-/tags/v1",
        "/explorer/r/app",
        search,
        "/explorer/r/app?q=%3Cscript%3E",
    ] {
        let page = program.get(path).await.expect(200).text();
        assert!(
            !page.contains("<script>") && !page.contains("<img"),
            "{path}: {page}"
        );
    }
    let guest = house
        .guest("acme")
        .get("/explorer/sign-in?to=%22%3E%3Cscript%3E")
        .await;
    assert!(!guest.expect(200).text().contains("<script>"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_keeps_a_browser_safe() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let person = house.person("acme", &token).await;

    for path in [
        "/explorer/",
        "/explorer/sign-in",
        "/explorer/r/nothing",
        "/explorer/nothing",
    ] {
        let answer = person.get(path).await;
        let policy = answer.header("content-security-policy").to_owned();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(
            answer.header("content-type"),
            "text/html; charset=utf-8",
            "{path}"
        );
    }
    let page = person.get("/explorer/").await.expect(200).text();
    for quoted in page
        .split('"')
        .filter(|text| text.starts_with("/explorer/assets/"))
    {
        let asset = person.get(quoted).await.expect(200);
        assert!(asset.header("cache-control").contains("immutable"), "{quoted}");
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
    }
    for path in [
        "/explorer/assets/x/explorer.css",
        "/explorer/assets/",
        "/explorer/assets/../mod.rs",
    ] {
        person.get(path).await.expect(404);
    }
    for outside in ["http://", "https://", "style=", "onclick"] {
        assert!(!page.contains(outside), "{outside}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_layers_make_a_page_of_bounded_size() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    repository.push_blob(b"{}").await;
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", b"{}");
    let steps: Vec<_> = (0..9_999)
        .map(|_| json!({ "created_by": "x".repeat(50) }))
        .collect();
    let config = json!({ "history": steps }).to_string().into_bytes();
    repository.push_blob(&config).await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": vec![layer; 9_999],
    });
    let manifest = manifest.to_string().into_bytes();
    repository
        .put_manifest("v1", MANIFEST, &manifest)
        .await
        .expect(201);
    let program = house.program("acme", &token);

    let begun = Instant::now();
    let page = program.get("/explorer/r/app/-/tags/v1").await.expect(200);

    assert!(page.body.len() < 400 * 1024, "{} bytes", page.body.len());
    assert!(page.text().contains("of 9999 are shown"));
    assert!(begun.elapsed().as_secs() < 10);
    let told = program.json("/explorer/r/app/-/tags/v1").await;
    assert_eq!(told["layers"].as_array().map(Vec::len), Some(9_999));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_words() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let program = house.program("acme", &token);
    let long = format!("/explorer/?q={}", "x".repeat(300));

    for (path, status) in [
        (long.as_str(), 400),
        ("/explorer/?after=%00", 400),
        ("/explorer/r/UPPER", 404),
        ("/explorer/r/app/-/tags/..%2f..", 404),
        ("/explorer/r/%00", 404),
    ] {
        program.get(path).await.expect(status);
    }
    let posted = program.post("/explorer/", &[]).await.expect(405);
    assert_eq!(posted.header("allow"), "GET, HEAD");
    let nobody = house
        .program("acme", "nonsense")
        .get("/explorer/api/")
        .await
        .expect(401);
    assert!(nobody.header("www-authenticate").starts_with("Basic"));
}
