//! Pods pull with the Secrets that the operator made, and with nothing else.

use std::time::Duration;

use harness::content::tar;
use harness::node::{Release, TenantOf, in_phase, kubectl, logs, pod, told};
use harness::{ControlPlane, eventually};
use serde_json::{Value, json};

use super::apps::{apps, asked, leave, secret_of};
use super::images::Pushing;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the events of a pod say whose pull is refused: that it is for want of a credential. Which of them it is depends on
/// whether the registry tells containerd that what it has shown does not suffice.
const REFUSED: [&str; 2] = ["401 Unauthorized", "pull access denied"];

/// A pod that starts a container only if the image is not there.
fn if_not_present(namespace: &str, name: &str, image: &str, command: &str) -> Value {
    let mut pod = pod(namespace, name, image, command, json!({}));
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    pod
}

/// Applies a pod whose pull is refused, and returns what its events say of it.
async fn refused(plane: &ControlPlane, pod: Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (namespace, name) = (
        text(&pod["metadata"]["namespace"]),
        text(&pod["metadata"]["name"]),
    );
    let image = text(&pod["spec"]["containers"][0]["image"]);
    plane.apply(pod).await.expect("a pod");
    let events = told(&namespace, &name, "Failed to pull image").await;
    let line = events
        .lines()
        .find(|line| line.contains("Failed to pull image"))
        .expect("the event");
    assert!(
        line.contains(&image) && REFUSED.iter().any(|word| line.contains(word)),
        "{line}"
    );
    let found = plane.find("Pod", &namespace, &name).await.expect("the pod");
    let status = &found["status"];
    assert_eq!(status["phase"], "Pending", "{status:#}");
    assert!(
        status["containerStatuses"][0]["state"]["waiting"].is_object(),
        "{status:#}"
    );
    line.to_owned()
}

/// An image that says which tenant's it is.
async fn labelled(tenant: &TenantOf<'_>, repository: &str) -> String {
    let reference = format!("{}/{repository}:v1", tenant.host);
    let base = tenant.push_runnable(repository, "base", 1000).await;
    let label = format!("TENANT={}", tenant.name);
    tenant
        .client("crane")
        .run(&["mutate", &base, "--env", &label, "--tag", &reference])
        .await;
    reference
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_a_labelled_namespace_becomes_available_with_an_image_of_its_tenant() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 100_000).await;
    let apps = apps(&acme, "apps").await;
    let template = pod(
        &apps,
        "web",
        &image,
        "echo pulled from Berth; exec sleep 3600",
        json!({ "restartPolicy": "Always" }),
    );
    let labels = json!({ "app": "web" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": apps },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": template["spec"] },
        },
    });
    release.plane.apply(deployment).await.expect("a Deployment");
    let available = release
        .plane
        .wait_for("Deployment", &apps, "web", "Available", "True", "")
        .await;
    assert_eq!(available["status"]["availableReplicas"], 2, "{available:#}");
    let pods = release.plane.list("Pod", &apps, "app=web").await;
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        assert_eq!(logs(&apps, name).await, "pulled from Berth");
    }
    leave(&release, &apps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_a_namespace_without_the_label_is_refused_and_its_events_say_why() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 1000).await;
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    let stays_out = pod(&plain, "stays-out", &image, "true", json!({}));
    let said = refused(&release.plane, stays_out).await;
    assert!(
        said.contains(&image) && said.contains("may require authorization"),
        "{said}"
    );
    assert!(
        release
            .plane
            .find("Secret", &plain, &secret_of(&acme))
            .await
            .is_none()
    );
    leave(&release, &plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_side_by_side_have_the_same_name_and_tag_and_pods_get_their_own_alone() {
    let release = Release::shared().await;
    let (acme, other) = (
        release.new_tenant("acme", json!({})).await,
        release.new_tenant("other", json!({})).await,
    );
    let (ours, theirs) = (
        labelled(&acme, "team/app").await,
        labelled(&other, "team/app").await,
    );
    let (home, abroad) = (apps(&acme, "apps").await, apps(&other, "apps").await);
    // Both at once on one node.
    for (namespace, image) in [(&home, &ours), (&abroad, &theirs)] {
        let own = pod(namespace, "own", image, "echo $TENANT", json!({}));
        release.plane.apply(own).await.expect("a pod");
    }
    for (namespace, tenant) in [(&home, &acme), (&abroad, &other)] {
        in_phase(&release.plane, namespace, "own", "Succeeded").await;
        assert_eq!(logs(namespace, "own").await, tenant.name);
    }
    // The other's, whose content is on the node by now.
    for (namespace, image, owner) in [(&home, &theirs, &other), (&abroad, &ours, &acme)] {
        let foreign = pod(namespace, "foreign", image, "true", json!({}));
        let said = refused(&release.plane, foreign).await;
        assert!(said.contains(&owner.host), "{said}");
        refused(
            &release.plane,
            if_not_present(namespace, "present", image, "true"),
        )
        .await;
        leave(&release, namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_goes_with_the_label_and_what_is_on_the_node_is_started_for_nobody_without_one() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 1000).await;
    let apps = apps(&acme, "apps").await;
    let runs = pod(&apps, "runs", &image, "true", json!({}));
    release.plane.apply(runs).await.expect("a pod");
    in_phase(&release.plane, &apps, "runs", "Succeeded").await;
    // Who has not shown a credential does not get what somebody else's credential has brought.
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    refused(&release.plane, if_not_present(&plain, "present", &image, "true")).await;
    leave(&release, &plain).await;

    let unlabelled = json!({ "metadata": { "labels": { "pull": null } } });
    release.plane.merge("Namespace", "", &apps, unlabelled).await;
    release.plane.wait_gone("Secret", &apps, &secret_of(&acme)).await;
    let late = || pod(&apps, "late", &image, "true", json!({}));
    // Until admission has seen the account's change pods still name the Secret that is gone.
    eventually("pods without the Secret", PATIENCE, async || {
        let admitted = release.plane.dry_run(late()).await.ok()?;
        admitted["spec"]["imagePullSecrets"].is_null().then_some(())
    })
    .await;
    refused(&release.plane, late()).await;
    refused(&release.plane, if_not_present(&apps, "present", &image, "true")).await;
    // A Secret that is named and gone is told of as well.
    let named = json!({ "imagePullSecrets": [{ "name": secret_of(&acme) }] });
    refused(&release.plane, pod(&apps, "names-it", &image, "true", named)).await;
    let events = told(&apps, "names-it", "FailedToRetrieveImagePullSecret").await;
    assert!(events.contains(&secret_of(&acme)), "{events}");
    leave(&release, &apps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_present_costs_a_look_at_its_manifest_and_none_of_its_blobs() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    let mut draft = pushing.busybox().await;
    // Something that no other image has brought to the node.
    pushing
        .layer(&mut draft, tar("unique", acme.name.as_bytes()))
        .await;
    let digest = pushing.finish(&draft, "v1").await;
    let image = format!("{}:v1", pushing.image());
    let apps = apps(&acme, "apps").await;
    let run = async |name: &str, pod: Value| {
        release.plane.apply(pod).await.expect("a pod");
        let done = in_phase(&release.plane, &apps, name, "Succeeded").await;
        let id = done["status"]["containerStatuses"][0]["imageID"].to_string();
        assert!(id.contains(&digest), "{id}");
        asked(&acme, pushing.repository()).await
    };
    let first = run("first", pod(&apps, "first", &image, "true", json!({}))).await;
    assert!(first.iter().any(|request| request.is_for_blob()), "{first:#?}");

    let second = run("second", pod(&apps, "second", &image, "true", json!({}))).await;
    let more = &second[first.len()..];
    assert!(
        more.iter()
            .any(|request| request.method == "HEAD" && request.status == 200 && request.object() == "v1"),
        "{more:#?}"
    );
    assert!(!more.iter().any(|request| request.is_for_blob()), "{more:#?}");
    let bytes: u64 = more.iter().map(|request| request.sent).sum();
    assert!(bytes < 4096, "{bytes} bytes of {more:#?}");

    // The Secret's content changes; whose image it is does not, so that nothing is asked at all.
    let secret = secret_of(&acme);
    let before = release
        .plane
        .find("Secret", &apps, &secret)
        .await
        .expect("the Secret");
    kubectl()
        .run(&[
            "annotate",
            "secret",
            &secret,
            "--namespace",
            &apps,
            "berth.dev/rotate=now",
        ])
        .await;
    release
        .plane
        .wait("Secret", &apps, &secret, |found| found["data"] != before["data"])
        .await;
    let third = run("third", if_not_present(&apps, "third", &image, "true")).await;
    assert_eq!(third.len(), second.len(), "{third:#?}");
    leave(&release, &apps).await;
}
