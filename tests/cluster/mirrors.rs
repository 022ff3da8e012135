//! The pods that tell nodes' containerd to ask a tenant, as an API server takes them.

use harness::{Client, ControlPlane, chart};
use serde_json::{Value, json};

/// The DaemonSet of a release, in this namespace.
fn daemon_set(namespace: &str) -> Value {
    let values = [
        "nodeMirrors.enabled=true".to_owned(),
        format!("nodeMirrors.namespace={namespace}"),
        "nodeMirrors.mirrors[0].upstream=docker.io".to_owned(),
        "nodeMirrors.mirrors[0].tenant=acme".to_owned(),
        "domain=registry.example.com".to_owned(),
    ];
    let objects = chart::render("berth", "berth-system", &values);
    let mut sets = objects.into_iter().filter(|object| object["kind"] == "DaemonSet");
    sets.next().expect("a DaemonSet")
}

#[tokio::test]
async fn pods_on_nodes_are_taken_where_a_namespace_admits_them_and_nowhere_else() {
    let plane = ControlPlane::connect().await;
    let id = uuid::Uuid::new_v4().simple().to_string();
    for (level, is_taken) in [("privileged", true), ("baseline", false), ("restricted", false)] {
        let name = format!("nodes-{level}-{}", &id[..8]);
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": level } },
        });
        plane.apply(namespace).await.expect("a namespace");
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": name },
        });
        plane.apply(account).await.expect("an account");
        let set = daemon_set(&name);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one", "namespace": name },
            "spec": set["spec"]["template"]["spec"],
        });
        let kubectl = Client::new("kubectl");
        let file = kubectl.file("set.json", set.to_string().as_bytes());
        let told = kubectl
            .variable("KUBECONFIG", plane.kubeconfig().to_str().expect("text"))
            .attempt(&[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                &file,
            ])
            .await;
        assert!(told.success, "{}", told.stderr);
        match plane.dry_run(pod).await {
            Ok(_) => assert!(is_taken, "{level}"),
            Err(error) => {
                assert!(!is_taken, "{error}");
                assert!(error.to_string().contains("hostPath"), "{error}");
            }
        }
        plane.delete("Namespace", "", &name).await;
    }
}
