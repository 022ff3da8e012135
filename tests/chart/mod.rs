//! Stage `chart`: the Helm chart as Helm renders it. Nothing is installed here; the stage that has a cluster does that.
//!
//! What must hold: whatever values the schema lets through render to valid objects, the same at every run; pods satisfy
//! the Pod Security Standard `restricted`; no Secret is ever rendered; documents name every value. What a render is
//! expected to be lies in `golden/`: with `BERTH_BLESS=1` the tests write it anew, and the change shows in review.

mod definitions;
mod docs;
mod image;
mod kind;
mod mirrors;
mod notes;
mod objects;
mod observing;
mod pods;
mod profiles;
mod programs;
mod reading;
mod readme;
mod refusals;
mod release;
mod rights;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::program;
use serde::Deserialize as _;
use serde_json::Value;

/// The profiles that come with the chart.
const PROFILES: [&str; 4] = ["kind", "edge", "production-gateway", "production-ingress"];
/// Namespace of every release under test.
const NAMESPACE: &str = "berth-system";
/// What mode `distributed` cannot do without.
const DISTRIBUTED: &str =
    "registry.mode=distributed,registry.metadata.existingSecret=db,registry.blobs.url=s3://blobs";
/// Everything that is off by default and needs no further value.
const EVERYTHING: &str = "networkPolicy.enabled=true,metrics.podMonitor.enabled=true,\
    metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,\
    admissionPolicy.enabled=true,admissionPolicy.deletionGroups={admins},credentialProvider.enabled=true,\
    operator.replicas=2";

/// A file of the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A file of the chart.
fn chart(path: &str) -> PathBuf {
    checkout("charts/berth").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn helm(arguments: &[&str]) -> Output {
    Command::new(program("helm"))
        .args(arguments)
        .output()
        .expect("helm runs")
}

/// `helm template` of a release with these further arguments.
fn template(release: &str, arguments: &[&str]) -> Output {
    let folder = chart("");
    let folder = folder.to_str().expect("a plain path");
    let fixed = [
        "template",
        release,
        folder,
        "-n",
        NAMESPACE,
        "--kube-version",
        "v1.37.0",
    ];
    helm(&[&fixed, arguments].concat())
}

/// What the release `berth` renders to.
///
/// # Panics
/// If Helm refuses.
fn rendered(arguments: &[&str]) -> String {
    let output = template("berth", arguments);
    assert!(
        output.status.success(),
        "helm template {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The objects of a render; definitions of kinds, which are long and the same everywhere, are left out.
fn objects(arguments: &[&str]) -> Vec<Value> {
    parsed(&rendered(&[arguments, &["--set", "crds.install=false"]].concat()))
}

fn parsed(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{error}:\n{text}")))
        .filter(|document| !document.is_null())
        .collect()
}

/// The file of a profile, as `-f` takes it.
fn profile(name: &str) -> String {
    let path = chart(&format!("profiles/{name}.yaml"));
    path.to_str().expect("a plain path").to_owned()
}

/// The object of a kind and name.
///
/// # Panics
/// If it is not there.
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap_or_else(|| {
        let names: Vec<String> = objects.iter().map(described).collect();
        panic!("no {kind} {name} among {names:?}")
    })
}

fn described(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!(
        "{} {}/{}",
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"])
    )
}

/// Values sets that between them reach every branch of the templates.
fn sets() -> Vec<Vec<String>> {
    let mut sets: Vec<Vec<String>> = PROFILES
        .iter()
        .map(|name| vec!["-f".to_owned(), profile(name)])
        .collect();
    let exposures = [
        "exposure.mode=none",
        "exposure.mode=gateway,exposure.gateway.name=edge,exposure.gateway.namespace=infra,exposure.gateway.sectionName=https",
        "exposure.mode=gateway,exposure.gateway.create=true,exposure.gateway.className=envoy,exposure.gateway.tls.enabled=false",
        "exposure.mode=ingress,exposure.ingress.className=nginx,exposure.ingress.tlsSecret=tls",
    ];
    let modes = [
        "registry.mode=embedded",
        "registry.persistence.enabled=false",
        "registry.persistence.existingClaim=data,registry.blobs.existingSecret=bucket",
        DISTRIBUTED,
        "registry.autoscaling.enabled=true,registry.blobs.credentials.existingSecret=key,\
         registry.regions.regions[0].name=eu,registry.regions.regions[0].blobs=s3://eu,registry.zone=FromPod",
    ];
    for (number, mode) in modes.iter().enumerate() {
        for exposure in exposures {
            let base = if number == 4 {
                DISTRIBUTED
            } else {
                "tests.enabled=true"
            };
            let per_tenant = format!("exposure.perTenantRoutes={}", number % 2 == 0);
            let namespaces = if number % 2 == 1 {
                "operator.namespaces={apps,default}"
            } else {
                EVERYTHING
            };
            let mut set = Vec::new();
            for values in [base, mode, exposure, &per_tenant, namespaces] {
                set.extend(["--set".to_owned(), values.to_owned()]);
            }
            sets.push(set);
        }
    }
    sets
}

fn arguments(set: &[String]) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}
