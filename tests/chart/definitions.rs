//! The definitions of the kinds: those of the crate, with what Helm needs to know.

use serde_json::Value;

use super::{chart, checkout, parsed, read, rendered};

fn definitions(arguments: &[&str]) -> Vec<Value> {
    let mut definitions = parsed(&rendered(arguments));
    definitions.retain(|object| object["kind"] == "CustomResourceDefinition");
    definitions.sort_by_key(|object| object["metadata"]["name"].to_string());
    definitions
}

/// What the crate's own manifest holds, by name.
fn manifest() -> Vec<Value> {
    let mut manifest = parsed(&read(&checkout("crds/manifests/berth.yaml")));
    manifest.sort_by_key(|object| object["metadata"]["name"].to_string());
    manifest
}

#[test]
fn the_chart_has_the_definitions_of_the_manifest_one_a_file() {
    for definition in manifest() {
        let plural = definition["spec"]["names"]["plural"].as_str().expect("a plural");
        let file = read(&chart(&format!("files/crds/{plural}.yaml")));
        assert!(
            parsed(&file) == [definition.clone()],
            "files/crds/{plural}.yaml is stale: run crdgen"
        );
    }
    let files = std::fs::read_dir(chart("files/crds")).expect("a folder");
    assert_eq!(files.count(), manifest().len());
}

#[test]
fn definitions_are_installed_unchanged_and_kept() {
    let rendered = definitions(&["--set-string", "crds.annotations.team=platform"]);
    for (rendered, plain) in rendered.iter().zip(manifest()) {
        assert_eq!(rendered["spec"], plain["spec"]);
        assert_eq!(rendered["metadata"]["name"], plain["metadata"]["name"]);
        let annotations = &rendered["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep");
        assert_eq!(annotations["team"], "platform");
        assert_eq!(
            rendered["metadata"]["labels"]["app.kubernetes.io/managed-by"],
            "Helm"
        );
    }
    assert_eq!(rendered.len(), manifest().len());
}

#[test]
fn definitions_may_go_with_the_release_or_not_be_its_own() {
    for definition in definitions(&["--set", "crds.keep=false"]) {
        assert!(definition["metadata"]["annotations"].is_null());
    }
    assert!(definitions(&["--set", "crds.install=false"]).is_empty());
}
