//! No stored secret: the kubelet gets each pod's login by the token of the pod's service account.
//!
//! The node's kubelet asks `berth-credential-provider` for the images of one release (`tests/tools/node`), of which this
//! is the only user. One test tells its story from the installation on: there is one kubelet, and one release for it.

use std::path::Path;
use std::time::Duration;

use harness::node::{Release, TenantOf, in_phase, kubectl, logs, node_file, pod, told};
use harness::{Backend, eventually};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the tenant trusts, in the namespace of its pods.
const TRUSTED: &str = "puller";
/// Another account there.
const STRANGER: &str = "stranger";

/// The namespace `name`, which has two accounts and no Secret.
async fn make_accounts(release: &Release, name: &str) {
    release.namespace(name, json!({})).await;
    for account in [TRUSTED, STRANGER] {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account, "namespace": name },
        });
        release.plane.apply(account).await.expect("a service account");
    }
}

/// A pod of an account, without any Secret.
async fn start(
    tenant: &TenantOf<'_>,
    namespace: &str,
    name: &str,
    account: &str,
    image: &str,
    policy: &str,
) -> Value {
    let more = json!({ "serviceAccountName": account });
    let mut pod = pod(namespace, name, image, "echo without a Secret", more);
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!(policy);
    tenant.release.plane.apply(pod).await.expect("a pod")
}

/// Waits until a pod is refused its image, and its owner is told so.
async fn refused(namespace: &str, name: &str, image: &str) {
    let events = told(namespace, name, "Failed to pull image").await;
    assert!(
        events.contains(image) && events.contains("may require authorization"),
        "{events}"
    );
}

/// Waits until the kubelet's log has a line with all of this.
async fn kubelet_says(parts: &[&str]) {
    eventually(&format!("{parts:?} in the kubelet's log"), PATIENCE, async || {
        let log = std::fs::read_to_string(node_file("kubelet.log")).expect("the kubelet's log");
        let mut lines = log.lines();
        lines
            .any(|line| parts.iter().all(|part| line.contains(part)))
            .then_some(())
    })
    .await;
}

/// Whether an image lies on the node.
async fn is_on_the_node(release: &Release, image: &str) -> bool {
    let node = release.plane.document("/api/v1/nodes/node1").await;
    let mut images = node["status"]["images"].as_array().into_iter().flatten();
    images.any(|found| {
        found["names"]
            .as_array()
            .is_some_and(|names| names.iter().any(|name| name == image))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_pull_by_their_service_account_alone_once_nodes_may_ask_for_its_tokens() {
    let program = node_file("providers/berth-credential-provider");
    assert!(
        Path::new(&program).exists(),
        "the node was started without {program}, which was not beside BERTH_BIN"
    );
    let release = Release::install(
        "providers",
        Backend::Embedded,
        &["registry.persistence.enabled=false"],
    )
    .await;
    let apps = format!("providers-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let trust = json!([{
        "serviceAccounts": { "namespaces": [apps], "names": [TRUSTED] },
        "grants": [{ "repositories": ["team/**"], "actions": ["pull"] }],
    }]);
    let acme = release.new_tenant("acme", json!({ "trust": trust })).await;
    let image = acme.push_runnable("team/app", "v1", 1000).await;
    let other = acme.push_runnable("private/app", "v1", 1000).await;
    make_accounts(&release, &apps).await;

    nodes_without_the_right_to_the_audience_get_no_token(&acme, &apps, &image).await;
    there_is_no_secret(&release, &apps).await;
    an_image_that_one_account_has_pulled_is_refused_to_another(&acme, &apps, &image).await;
    an_account_pulls_what_its_rule_names_and_nothing_else(&acme, &apps, &image, &other).await;
    the_rule_ends_and_with_it_every_pull(&acme, &apps, &image).await;
}

async fn nodes_without_the_right_to_the_audience_get_no_token(acme: &TenantOf<'_>, apps: &str, image: &str) {
    let release = acme.release;
    start(acme, apps, "early", TRUSTED, image, "Always").await;
    refused(apps, "early", image).await;
    kubelet_says(&[
        "is not authorized to request tokens for audience",
        &release.domain,
        &format!("pod=\"{apps}/early\""),
    ])
    .await;
    let values = [
        "registry.persistence.enabled=false",
        "credentialProvider.enabled=true",
    ];
    release.helm("upgrade", &values).await;
    start(acme, apps, "first", TRUSTED, image, "Always").await;
    in_phase(&release.plane, apps, "first", "Succeeded").await;
    assert_eq!(logs(apps, "first").await, "without a Secret");
}

/// Neither in the pod, nor in its account, nor in its namespace.
async fn there_is_no_secret(release: &Release, apps: &str) {
    let pod = release.plane.find("Pod", apps, "first").await.expect("the pod");
    assert_eq!(pod["spec"]["imagePullSecrets"], Value::Null);
    let account = release.plane.find("ServiceAccount", apps, TRUSTED).await;
    assert_eq!(account.expect("the account")["imagePullSecrets"], Value::Null);
    assert!(release.plane.list("Secret", apps, "").await.is_empty());
}

/// Neither by the kubelet's cache of logins, nor by the image that lies there.
async fn an_image_that_one_account_has_pulled_is_refused_to_another(
    acme: &TenantOf<'_>,
    apps: &str,
    image: &str,
) {
    let plane = &acme.release.plane;
    eventually("the image on the node", PATIENCE, async || {
        is_on_the_node(acme.release, image).await.then_some(())
    })
    .await;
    start(acme, apps, "again", TRUSTED, image, "IfNotPresent").await;
    start(acme, apps, "strange", STRANGER, image, "Always").await;
    start(acme, apps, "strange-present", STRANGER, image, "IfNotPresent").await;
    in_phase(plane, apps, "again", "Succeeded").await;
    told(apps, "again", "already present on machine").await;
    refused(apps, "strange", image).await;
    refused(apps, "strange-present", image).await;
    let account = format!("sa/{apps}/{STRANGER}");
    kubelet_says(&[
        "berth-credential-provider",
        &account,
        "no trust rule of this tenant accepts",
    ])
    .await;
    for name in ["strange", "strange-present"] {
        let pod = plane.find("Pod", apps, name).await.expect("the pod");
        assert_eq!(pod["status"]["phase"], "Pending");
    }
}

async fn an_account_pulls_what_its_rule_names_and_nothing_else(
    acme: &TenantOf<'_>,
    apps: &str,
    image: &str,
    other: &str,
) {
    start(acme, apps, "beyond", TRUSTED, other, "Always").await;
    refused(apps, "beyond", other).await;
    let account = format!("sa/{apps}/{TRUSTED}");
    kubelet_says(&[
        "berth-credential-provider",
        &account,
        "may not pull",
        "private/app",
    ])
    .await;
    start(acme, apps, "within", TRUSTED, image, "Always").await;
    in_phase(&acme.release.plane, apps, "within", "Succeeded").await;
}

async fn the_rule_ends_and_with_it_every_pull(acme: &TenantOf<'_>, apps: &str, image: &str) {
    let plane = &acme.release.plane;
    plane
        .merge("Tenant", "", &acme.name, json!({ "spec": { "trust": null } }))
        .await;
    plane
        .wait_for("Tenant", "", &acme.name, "Programmed", "True", "")
        .await;
    start(acme, apps, "late", TRUSTED, image, "Always").await;
    refused(apps, "late", image).await;
    kubectl()
        .run(&["delete", "namespace", apps, "--wait=false"])
        .await;
}
