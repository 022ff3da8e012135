//! What real clients send and how they read the answers: raw HTTP, one test a habit.
//!
//! What it is: the boxes of the wire protocol that the conformance suites leave out, by theme. What it may
//! use: the harness. What must hold: no test needs a credential, and none depends on a client library
//! doing something on its own.

mod chunks;
mod closing;
mod conditions;
mod deleting;
mod kinds;
mod lists;
mod manifests;
mod posting;
mod ranges;
mod reading;
mod referrers;
mod wire;

use harness::Berth;
use harness::http::Repository;
use harness::image::{MANIFEST, descriptor};
use serde_json::{Value, json};

/// The config of artifacts that have none.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

async fn registry() -> (Berth, Repository) {
    let berth = Berth::builder().start().await;
    let repository = Repository::new(&berth.url(""), "team-a/app");
    (berth, repository)
}

/// A manifest without layers whose config is `{}`, as oras and cosign make them. `note` tells two apart.
fn artifact(artifact_type: &str, subject: Option<Value>, note: &str) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
        "config": descriptor(EMPTY_TYPE, EMPTY), "layers": [], "annotations": {"note": note},
    });
    if let Some(subject) = subject {
        manifest["subject"] = subject;
    }
    bytes(&manifest)
}

/// Pushes such an artifact and its config; returns the manifest's bytes.
async fn push_artifact(
    repository: &Repository,
    reference: &str,
    kind: &str,
    subject: Option<Value>,
) -> Vec<u8> {
    repository.push_blob(EMPTY).await;
    let manifest = artifact(kind, subject, reference);
    repository
        .put_manifest(reference, MANIFEST, &manifest)
        .await
        .expect(201);
    manifest
}

fn bytes(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).expect("JSON values serialise")
}
