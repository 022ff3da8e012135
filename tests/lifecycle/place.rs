//! Servers with short delays, and content to let go.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Admin, Berth, Builder, eventually};
use reqwest::Method;
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Longest wait for a condition.
pub const WAIT: Duration = Duration::from_secs(60);

/// Delays of a second, so that a test sees the end of them.
pub fn short(builder: Builder) -> Builder {
    builder
        .flag("--redirect", "Never")
        .flag("--lease", "2s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1ms")
}

/// An image: a blob of its own, one that it shares with others, and its manifest.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub own: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Pushed {
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }
}

/// The blob that all images share.
pub fn shared() -> Vec<u8> {
    blob(3000, 7)
}

/// An image by number; `annotations` may be null.
pub fn image(number: u64, annotations: &Value) -> Pushed {
    let own = blob(2000, 1000 + number);
    let descriptor = |bytes: &[u8]| json!({ "mediaType": "application/x-test", "digest": sha256(bytes), "size": bytes.len() });
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-test",
        "config": descriptor(&own),
        "layers": [descriptor(&shared())],
    });
    if annotations.is_object() {
        manifest["annotations"] = annotations.clone();
    }
    Pushed {
        own,
        manifest: manifest.to_string().into_bytes(),
    }
}

/// Pushes an image under a tag.
pub async fn push(repository: &Repository, number: u64, tag: &str) -> Pushed {
    push_annotated(repository, number, tag, &Value::Null).await
}

pub async fn push_annotated(repository: &Repository, number: u64, tag: &str, annotations: &Value) -> Pushed {
    let image = image(number, annotations);
    repository.push_blob(&image.own).await;
    repository.push_blob(&shared()).await;
    repository
        .put_manifest(tag, MANIFEST, &image.manifest)
        .await
        .expect(201);
    image
}

/// Everything of an image is there, byte for byte.
pub async fn assert_there(repository: &Repository, image: &Pushed) {
    let answer = repository.get_manifest(&image.digest()).await.expect(200);
    assert_eq!(answer.body, image.manifest);
    repository.assert_blob(&sha256(&image.own), &image.own).await;
    repository.assert_blob(&sha256(&shared()), &shared()).await;
}

pub async fn status(repository: &Repository, reference: &str) -> u16 {
    repository.get_manifest(reference).await.status.as_u16()
}

pub async fn eventually_gone(repository: &Repository, reference: &str) {
    eventually("a manifest is gone", WAIT, async || {
        (status(repository, reference).await == 404).then_some(())
    })
    .await;
}

/// What the installation stores, once nothing waits for collection any more.
pub async fn settled(admin: &Admin) -> Value {
    eventually("nothing waits for collection", WAIT, async || {
        let gc = admin.ask(Method::GET, "gc", None).await.expect(200).json();
        let queues = &gc["queues"];
        let waits = |kind: &str| queues[kind].as_u64().unwrap_or(1);
        (waits("manifests") + waits("blobs") + waits("objects") == 0).then_some(())
    })
    .await;
    admin.ask(Method::GET, "storage", None).await.expect(200).json()
}

pub async fn usage(admin: &Admin, tenant: &str) -> Value {
    let path = format!("usage?tenant={tenant}");
    admin.ask(Method::GET, &path, None).await.expect(200).json()[0].clone()
}

/// The metric's value.
pub async fn metric(berth: &Berth, name: &str) -> f64 {
    let text = harness::http::send(harness::http::client().get(berth.ops_url("/metrics")))
        .await
        .expect(200)
        .text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_else(|| panic!("{name} in {text}"));
    value.parse().expect("a number")
}
