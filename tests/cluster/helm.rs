//! The chart, installed by Helm into a real control plane whose namespaces enforce the strictest pod security.
//!
//! There is no node: what nodes report of pods is said in their place; registry and operator run beside the cluster,
//! with what the chart tells them.

use std::path::Path;

use harness::{ControlPlane, Nodes, OwnControlPlane, chart, eventually, program, schemas};
use serde_json::json;

const NAMESPACE: &str = "berth-system";
const PROFILES: [&str; 4] = ["kind", "edge", "production-gateway", "production-ingress"];

/// Runs a program to its end; its output.
async fn run(program_name: &str, plane: &ControlPlane, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(program(program_name));
    command.args(arguments).env("KUBECONFIG", plane.kubeconfig());
    let output = command.kill_on_drop(true).output().await.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn succeeds(program_name: &str, plane: &ControlPlane, arguments: &[&str]) -> String {
    let (success, text) = run(program_name, plane, arguments).await;
    assert!(success, "{program_name} {arguments:?}: {text}");
    text
}

/// A cluster without Berth's definitions, and the release's namespace.
async fn empty(cluster: &OwnControlPlane) -> ControlPlane {
    let plane = cluster.connect_bare().await;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
            },
        },
    });
    plane.apply(namespace).await.expect("a namespace");
    plane
}

fn profile(name: &str) -> String {
    let path = chart::chart().join(format!("profiles/{name}.yaml"));
    path.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_installs_waits_upgrades_and_leaves_the_tenants() {
    let cluster = OwnControlPlane::start();
    let plane = empty(&cluster).await;
    let _nodes = Nodes::of(&plane, NAMESPACE);
    let folder = chart::chart();
    let release = [
        "berth",
        folder.to_str().expect("text"),
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "2m",
    ];
    let set = |more: &[&str]| -> Vec<String> {
        let all = release.iter().chain(more);
        all.map(|argument| (*argument).to_owned()).collect()
    };
    let helm = async |verb: &str, more: &[&str]| {
        let arguments = set(more);
        let mut all = vec![verb];
        all.extend(arguments.iter().map(String::as_str));
        succeeds("helm", &plane, &all).await
    };
    let notes = helm("install", &[]).await;
    assert!(notes.contains("STATUS: deployed"), "{notes}");
    let set = plane
        .find("StatefulSet", NAMESPACE, "berth")
        .await
        .expect("a registry");
    assert_eq!(set["status"]["readyReplicas"], 1);
    let operator = plane.find("Deployment", NAMESPACE, "berth-operator").await;
    assert_eq!(operator.expect("an operator")["status"]["readyReplicas"], 1);
    // Nothing was set by others, so that nothing drifts.
    let tenant = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": "acme" }, "spec": {},
    });
    plane
        .apply(tenant)
        .await
        .expect("the chart has installed the definitions");
    let upgraded = helm(
        "upgrade",
        &["--set", "operator.replicas=2", "--set", "operator.resync=5m"],
    )
    .await;
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    let operator = plane.find("Deployment", NAMESPACE, "berth-operator").await;
    assert_eq!(operator.expect("an operator")["status"]["readyReplicas"], 2);
    // To many replicas, with everything that the chart can make of the cluster's own kinds.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "stores", "namespace": NAMESPACE },
        "stringData": { "uri": "postgres://berth@db/berth", "url": "s3://berth?region=eu-central-1" },
    });
    plane.apply(secret).await.expect("it is accepted");
    let many = [
        "registry.mode=distributed",
        "registry.metadata.existingSecret=stores",
        "registry.blobs.existingSecret=stores",
        "registry.autoscaling.enabled=true",
        "networkPolicy.enabled=true",
        "exposure.mode=ingress",
        "admissionPolicy.enabled=true",
    ];
    let many: Vec<&str> = many.iter().flat_map(|value| ["--set", value]).collect();
    helm("upgrade", &many).await;
    let registry = plane
        .find("Deployment", NAMESPACE, "berth")
        .await
        .expect("a registry");
    assert_eq!(registry["status"]["readyReplicas"], 2);
    plane.wait_gone("StatefulSet", NAMESPACE, "berth").await;
    succeeds(
        "helm",
        &plane,
        &["uninstall", "berth", "--namespace", NAMESPACE, "--wait"],
    )
    .await;
    plane.wait_gone("Deployment", NAMESPACE, "berth-operator").await;
    assert!(
        plane.find("Tenant", "", "acme").await.is_some(),
        "the definitions are kept, and what is of them"
    );
    // And once more, over what was kept.
    let again = helm("install", &[]).await;
    assert!(again.contains("STATUS: deployed"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_profile_is_what_the_api_server_takes() {
    let cluster = OwnControlPlane::start();
    let plane = empty(&cluster).await;
    let examples = std::fs::canonicalize(program("contour")).expect("a program");
    let gateway = examples.with_file_name("examples").join("gateway/00-crds.yaml");
    let gateway = gateway.to_str().expect("text");
    succeeds("kubectl", &plane, &["apply", "--server-side", "-f", gateway]).await;
    succeeds(
        "kubectl",
        &plane,
        &["wait", "--for=condition=Established", "crd", "--all"],
    )
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let crds = folder.path().join("crds.yaml");
    template(&plane, &crds, &["--show-only", "templates/crds/crds.yaml"]).await;
    let crds = crds.to_str().expect("text");
    succeeds("kubectl", &plane, &["apply", "--server-side", "-f", crds]).await;
    succeeds(
        "kubectl",
        &plane,
        &["wait", "--for=condition=Established", "crd", "--all"],
    )
    .await;
    // A pod is taken only where its account is; a dry run leaves none.
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "berth", "namespace": NAMESPACE } });
    plane.apply(account).await.expect("an account");
    let schema_folder = folder.path().join("schemas");
    std::fs::create_dir(&schema_folder).expect("a folder");
    // The server gathers its document piece by piece.
    let patience = std::time::Duration::from_secs(60);
    let document = eventually("the server describes what it serves", patience, async || {
        let document = plane.document("/openapi/v2").await;
        let kinds = ["v1.CustomResourceDefinition", "v1.HTTPRoute", "v1alpha1.Tenant"];
        let has = |kind: &str| {
            let definitions = document["definitions"].as_object();
            definitions.is_some_and(|all| all.keys().any(|name| name.ends_with(kind)))
        };
        kinds.iter().all(|kind| has(kind)).then_some(document)
    })
    .await;
    schemas::write(&document, &schema_folder);
    let location = format!(
        "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        schema_folder.to_str().expect("text")
    );
    for name in PROFILES {
        let file = folder.path().join(format!("{name}.yaml"));
        // Kinds of the Prometheus operator are not in this cluster.
        let without = [
            "--set",
            "metrics.podMonitor.enabled=false",
            "--set",
            "metrics.serviceMonitor.enabled=false",
            "--set",
            "metrics.prometheusRule.enabled=false",
        ];
        template(
            &plane,
            &file,
            &[&["--values", &profile(name)][..], &without].concat(),
        )
        .await;
        let file = file.to_str().expect("text");
        let checked = ["-strict", "-summary", "-schema-location", &location, file];
        let summary = succeeds("kubeconform", &plane, &checked).await;
        assert!(
            summary.contains("Invalid: 0, Errors: 0, Skipped: 0"),
            "{name}: {summary}"
        );
        let dry = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--namespace",
            NAMESPACE,
            "-f",
            file,
        ];
        let told = succeeds("kubectl", &plane, &dry).await;
        assert!(!told.contains("Warning"), "{name}: {told}");
    }
    // The check can fail.
    let wrong = folder.path().join("wrong.yaml");
    let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "x" }, "spec": { "replica": 1 } });
    std::fs::write(&wrong, object.to_string()).expect("a file");
    let wrong = wrong.to_str().expect("text");
    let (fine, told) = run(
        "kubeconform",
        &plane,
        &["-strict", "-schema-location", &location, wrong],
    )
    .await;
    assert!(!fine && told.contains("replica"), "{told}");
}

async fn template(plane: &ControlPlane, file: &Path, more: &[&str]) {
    let folder = chart::chart();
    let base = [
        "template",
        "berth",
        folder.to_str().expect("text"),
        "--namespace",
        NAMESPACE,
    ];
    let text = succeeds("helm", plane, &[&base[..], more].concat()).await;
    std::fs::write(file, text).expect("a file");
}
