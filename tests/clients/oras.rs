//! oras, and with it oras-go: Helm, Argo CD, notation.

use harness::content::blob;
use harness::{Backend, Berth, Client, Output};

use super::{repository, tags};

on_both_backends!(
    pushes_pulls_and_attaches,
    copies_an_artifact_with_its_referrers,
    deletes_manifests_and_blobs
);

const TYPE: &str = "application/vnd.example.report";
const SBOM: &str = "application/vnd.example.sbom";

async fn pushes_pulls_and_attaches(backend: Backend) {
    let berth = Berth::start(backend).await;
    let oras = Client::new("oras");
    let report = blob(200_000, 1);
    push(&oras, &berth, "reports", &report).await;
    let reference = format!("{}/reports:v1", berth.address());

    oras.file("sbom.json", b"{\"packages\":[]}");
    let attach = [
        "attach",
        "--plain-http",
        "--artifact-type",
        SBOM,
        &reference,
        "sbom.json:application/json",
    ];
    oras.run(&attach).await;

    oras.run(&["pull", "--plain-http", "-o", "pulled", &reference])
        .await;
    assert_eq!(
        std::fs::read(oras.path("pulled/report.bin")).expect("the pulled file"),
        report
    );
    assert_eq!(referrers(&oras, &reference, None).await.len(), 1);
    assert_eq!(referrers(&oras, &reference, Some(SBOM)).await.len(), 1);
    assert_eq!(
        referrers(&oras, &reference, Some("application/vnd.example.other"))
            .await
            .len(),
        0
    );
    // With the referrers API there, no client needs the fallback tag.
    assert_eq!(tags(&berth, "reports").await, ["v1"]);
}

async fn copies_an_artifact_with_its_referrers(backend: Backend) {
    let berth = Berth::start(backend).await;
    let oras = Client::new("oras");
    let report = blob(200_000, 2);
    push(&oras, &berth, "reports", &report).await;
    let (from, to) = (
        format!("{}/reports:v1", berth.address()),
        format!("{}/archive/reports:v1", berth.address()),
    );
    oras.file("sbom.json", b"{\"packages\":[1]}");
    oras.run(&[
        "attach",
        "--plain-http",
        "--artifact-type",
        SBOM,
        &from,
        "sbom.json",
    ])
    .await;

    oras.run(&["cp", "-r", "--from-plain-http", "--to-plain-http", &from, &to])
        .await;

    assert_eq!(
        referrers(&oras, &to, Some(SBOM)).await,
        referrers(&oras, &from, Some(SBOM)).await
    );
    oras.run(&["pull", "--plain-http", "-o", "pulled", &to]).await;
    assert_eq!(
        std::fs::read(oras.path("pulled/report.bin")).expect("the pulled file"),
        report
    );
}

async fn deletes_manifests_and_blobs(backend: Backend) {
    let berth = Berth::start(backend).await;
    let oras = Client::new("oras");
    let report = blob(1000, 3);
    push(&oras, &berth, "reports", &report).await;
    let reference = format!("{}/reports:v1", berth.address());
    let digest = oras.run(&["resolve", "--plain-http", &reference]).await.text();

    oras.run(&["manifest", "delete", "--plain-http", "--force", &reference])
        .await;

    let reports = repository(&berth, "reports");
    reports.get("manifests/v1").await.expect(404);
    reports.get(&format!("manifests/{digest}")).await.expect(404);
    let layer = harness::content::sha256(&report);
    let layer_reference = format!("{}/reports@{layer}", berth.address());
    oras.run(&["blob", "delete", "--plain-http", "--force", &layer_reference])
        .await;
    reports.head(&format!("blobs/{layer}")).await.expect(404);
}

async fn push(oras: &Client, berth: &Berth, name: &str, report: &[u8]) -> Output {
    oras.file("report.bin", report);
    let reference = format!("{}/{name}:v1", berth.address());
    let file = "report.bin:application/octet-stream";
    oras.run(&["push", "--plain-http", "--artifact-type", TYPE, &reference, file])
        .await
}

/// The digests of the referrers that oras discovers.
async fn referrers(oras: &Client, reference: &str, artifact_type: Option<&str>) -> Vec<String> {
    let mut arguments = vec!["discover", "--plain-http", "--format", "json", reference];
    if let Some(artifact_type) = artifact_type {
        arguments.extend(["--artifact-type", artifact_type]);
    }
    let found = oras.run(&arguments).await;
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("oras prints JSON");
    let found = found["referrers"].as_array().cloned().unwrap_or_default();
    found
        .iter()
        .map(|referrer| referrer["digest"].as_str().expect("a digest").to_owned())
        .collect()
}
