//! The YAML in the guides: every block parses, every object of ours is taken by a real API server, and every set of values
//! renders.

use harness::ControlPlane;
use serde_json::{Value, json};

use super::{checkout, objects, parsed, read};

/// The guides, and how many objects of ours each must have at least.
const GUIDES: [(&str, usize); 3] = [
    ("docs/gitops.md", 4),
    ("docs/quickstart-kubernetes.md", 1),
    ("docs/operator.md", 0),
];

/// The documents of all YAML blocks of a guide.
fn documents(guide: &str) -> Vec<Value> {
    let text = read(&checkout(guide));
    let mut blocks = text.split("\n```");
    let mut documents = Vec::new();
    blocks.next();
    // What follows a fence is a block and the text after it, in turn.
    while let (Some(block), _) = (blocks.next(), blocks.next()) {
        let (language, content) = block.split_once('\n').unwrap_or_default();
        if language == "yaml" {
            documents.extend(parsed(content));
        }
    }
    documents
}

/// Whether a document is a part of an object, as guides show some.
fn is_part(document: &Value) -> bool {
    document.get("kind").is_none()
}

#[test]
fn every_object_says_what_it_is() {
    for (guide, _) in GUIDES {
        for document in documents(guide).iter().filter(|document| !is_part(document)) {
            for field in ["apiVersion", "kind", "metadata"] {
                assert!(!document[field].is_null(), "{guide}: no {field}: {document:#}");
            }
            assert!(document["metadata"]["name"].is_string(), "{guide}: {document:#}");
        }
    }
}

#[test]
fn every_set_of_values_renders() {
    let mut seen = 0;
    for (guide, _) in GUIDES {
        for document in documents(guide) {
            let values = match document["kind"].as_str() {
                Some("Application") => &document["spec"]["source"]["helm"]["valuesObject"],
                Some("HelmRelease") => &document["spec"]["values"],
                _ => continue,
            };
            if values.is_null() {
                continue;
            }
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), values.to_string()).expect("a file");
            let rendered = objects(&["-f", file.path().to_str().expect("a plain path")]);
            assert!(!rendered.is_empty());
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "Argo CD's values and Flux's");
}

#[test]
fn the_versions_are_those_of_the_chart() {
    let chart: Value = serde_yaml::from_str(&read(&super::chart("Chart.yaml"))).expect("YAML");
    let version = chart["version"].as_str().expect("a version");
    let range = format!("{}.x", version.rsplit_once('.').expect("three parts").0);
    for document in documents("docs/gitops.md") {
        let spec = &document["spec"];
        match document["kind"].as_str() {
            Some("Application") if spec["source"]["chart"] == "berth" => {
                assert_eq!(spec["source"]["targetRevision"], version);
            }
            Some("OCIRepository") => assert_eq!(spec["ref"]["semver"], *range),
            Some("HelmRelease") if spec.get("chart").is_some() => {
                assert_eq!(spec["chart"]["spec"]["version"], *range);
            }
            _ => {}
        }
    }
    let quickstart = read(&checkout("docs/quickstart-kubernetes.md"));
    assert!(quickstart.contains(&format!("-t berth:{version} ")));
}

#[tokio::test]
async fn an_api_server_takes_every_object_of_ours() {
    let plane = ControlPlane::connect().await;
    for (guide, least) in GUIDES {
        let mut seen = 0;
        for mut document in documents(guide) {
            let version = document["apiVersion"].as_str().unwrap_or_default();
            if is_part(&document) || !version.starts_with("berth.dev/") {
                continue;
            }
            // The guide's namespaces are not here.
            if document["kind"] != "Tenant" {
                document["metadata"]["namespace"] = json!("default");
            }
            let taken = plane.dry_run(document.clone()).await;
            let taken = taken.unwrap_or_else(|error| panic!("{guide}: {error}\n{document:#}"));
            assert_eq!(taken["kind"], document["kind"]);
            seen += 1;
        }
        assert!(seen >= least, "{guide} has {seen} objects of ours");
    }
    // Strict: what the schema does not know is not dropped in silence.
    let wrong = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Tenant",
        "metadata": { "name": "acme" }, "spec": { "displayname": "Acme" },
    });
    assert!(plane.dry_run(wrong).await.is_err());
}
