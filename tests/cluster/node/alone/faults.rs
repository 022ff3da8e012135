//! What goes on when the rest of the cluster does not: without the operator, without the API server, after a power cut
//! of the node. These tests run one after the other, and when no others do.

use std::time::Duration;

use harness::node::{
    Release, TenantOf, entry, halt_api_server, http, in_phase, kubectl, logged_in, pod, reboot_node,
    resume_api_server,
};
use harness::{Backend, Client, condition, eventually};
use serde_json::{Value, json};

use super::super::apps::{apps, secret_of};

/// Longest wait for a node to come back.
const PATIENCE: Duration = Duration::from_secs(180);

/// A namespace whose pods get the tenant's pull Secret; its name and the Secret.
async fn with_secret(release: &Release, tenant: &TenantOf<'_>) -> (String, Value) {
    let namespace = apps(tenant, "apps").await;
    let secret = release.plane.find("Secret", &namespace, &secret_of(tenant)).await;
    (namespace, secret.expect("the pull Secret"))
}

/// The registry's pods, and how often each has been restarted.
async fn restarts(release: &Release) -> Vec<(String, u64)> {
    let labels = "app.kubernetes.io/component=registry";
    let pods = release.plane.list("Pod", &release.name, labels).await;
    let of = |pod: &Value| {
        let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        (
            pod["metadata"]["name"].as_str().expect("a name").to_owned(),
            count.unwrap_or_default(),
        )
    };
    let mut found: Vec<(String, u64)> = pods.iter().map(of).collect();
    found.sort();
    found
}

/// Has the node's containerd pull an image with the Secret's token, without a kubelet.
async fn node_pulls(image: &str, secret: &Value) {
    let ctr = Client::new("ctr");
    let config: Value = serde_json::from_str(&entry(secret, ".dockerconfigjson")).expect("JSON");
    let host = image.split('/').next().unwrap_or_default();
    let password = config["auths"][host]["password"].as_str().expect("a password");
    let login = format!("x-token:{password}");
    ctr.run(&["--namespace", "tests", "images", "pull", "--user", &login, image])
        .await;
    ctr.run(&["--namespace", "tests", "images", "rm", "--sync", image])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_and_pushes_go_on_without_an_operator_and_it_catches_up_when_it_is_back() {
    let release = Release::install("faults", Backend::Embedded, &[]).await;
    let acme = release.new_tenant("acme", json!({})).await;
    let (apps, _) = with_secret(&release, &acme).await;
    let operator = format!("deployment/{}-operator", release.name);
    let scale = async |replicas: &str| {
        let count = format!("--replicas={replicas}");
        kubectl()
            .run(&["scale", "--namespace", &release.name, &operator, &count])
            .await;
        kubectl()
            .run(&[
                "rollout",
                "status",
                "--namespace",
                &release.name,
                &operator,
                "--timeout=120s",
            ])
            .await;
    };
    scale("0").await;
    eventually("the operator is gone", PATIENCE, async || {
        let labels = "app.kubernetes.io/component=operator";
        release
            .plane
            .list("Pod", &release.name, labels)
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    let image = acme.push_runnable("team/app", "v1", 50_000).await;
    release
        .plane
        .apply(pod(&apps, "hello", &image, "true", json!({})))
        .await
        .expect("a pod");
    in_phase(&release.plane, &apps, "hello", "Succeeded").await;
    // What is wanted meanwhile waits.
    let late = format!("{}-late", acme.name);
    release.namespace(&late, json!({ "pull": acme.name })).await;
    let secret = format!("berth-{}", acme.name);
    assert!(release.plane.find("Secret", &late, &secret).await.is_none());
    scale("1").await;
    release.plane.wait("Secret", &late, &secret, |_| true).await;
    release
        .plane
        .wait_for("Tenant", "", &acme.name, "Ready", "True", "")
        .await;
}

/// Starts the API server again, also if the test fails.
struct Halted;

impl Halted {
    fn halt() -> Halted {
        halt_api_server();
        Halted
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        resume_api_server();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_and_pushes_go_on_without_an_api_server() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let (apps, secret) = with_secret(&release, &acme).await;
    let image = acme.push_runnable("team/app", "v1", 50_000).await;
    let before = restarts(&release).await;
    let halted = Halted::halt();
    let path = release.plane.kubeconfig().to_str().expect("text").to_owned();
    let asked = Client::new("kubectl")
        .variable("KUBECONFIG", &path)
        .attempt(&["get", "nodes"])
        .await;
    assert!(!asked.success, "the API server is down");
    for number in 0..8 {
        let further = acme
            .push_runnable("team/app", &format!("v{number}"), 50_000)
            .await;
        node_pulls(&further, &secret).await;
    }
    node_pulls(&image, &secret).await;
    drop(halted);
    eventually("the node is ready again", PATIENCE, async || {
        let node = release.plane.find("Node", "", "node1").await?;
        (condition(&node, "Ready")?["status"] == "True").then_some(())
    })
    .await;
    release
        .plane
        .apply(pod(&apps, "hello", &image, "true", json!({})))
        .await
        .expect("a pod");
    in_phase(&release.plane, &apps, "hello", "Succeeded").await;
    assert_eq!(restarts(&release).await, before, "no replica was touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_by_itself_after_a_power_cut_with_everything_that_was_acknowledged() {
    let shared = Release::shared().await;
    let release = Release::install("faults", Backend::Embedded, &[]).await;
    let (acme, other) = (
        release.new_tenant("acme", json!({})).await,
        shared.new_tenant("other", json!({})).await,
    );
    let (apps, _) = with_secret(&release, &acme).await;
    let image = acme.push_runnable("team/app", "v1", 50_000).await;
    let elsewhere = other.push_runnable("team/app", "v1", 50_000).await;
    let server = pod(
        &apps,
        "server",
        &image,
        "echo up; exec sleep 3600",
        json!({ "restartPolicy": "Always" }),
    );
    release.plane.apply(server).await.expect("a pod");
    in_phase(&release.plane, &apps, "server", "Running").await;
    let before = restarts(&release).await;
    // The last words before the cut.
    let digest = acme.client("crane").run(&["digest", &image]).await.text();
    let last = acme.push_runnable("team/app", "last", 50_000).await;
    reboot_node();
    let http = http();
    for tenant in [&acme, &other] {
        eventually(&format!("{} answers", tenant.host), PATIENCE, async || {
            let request = http.get(format!("https://{}/v2/", tenant.host));
            let answer = request
                .basic_auth("x-token", Some(tenant.token()))
                .send()
                .await
                .ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }
    for reference in [&image, &last] {
        // The whole of it, checked by its digests.
        let crane = logged_in("crane", &acme.secret);
        let folder = crane.path_text("pulled");
        crane.run(&["pull", "--format=oci", reference, &folder]).await;
    }
    assert_eq!(acme.client("crane").run(&["digest", &image]).await.text(), digest);
    other.client("crane").run(&["digest", &elsewhere]).await;
    let after = restarts(&release).await;
    assert_eq!(after[0].0, before[0].0, "the same pod");
    assert!(after[0].1 > before[0].1, "it was started again");
    // Workloads as well, with a new pull.
    release
        .plane
        .wait("Pod", &apps, "server", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["ready"] == true && status["restartCount"].as_u64() > Some(0)
        })
        .await;
    for each in [&release, &shared] {
        eventually("the operator is back", PATIENCE, async || {
            let name = format!("{}-operator", each.name);
            let found = each.plane.find("Deployment", &each.name, &name).await?;
            (condition(&found, "Available")?["status"] == "True").then_some(())
        })
        .await;
    }
}
