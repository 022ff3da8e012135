//! `helm install`, `upgrade`, `test` and `uninstall` in a cluster that runs what the chart says.

use std::time::{Duration, Instant};

use harness::node::{Release, helm, http, in_phase, kubectl, pod};
use harness::{Backend, Load, condition, eventually};
use serde_json::{Value, json};

/// Longest wait for a roll-out.
const PATIENCE: Duration = Duration::from_secs(180);

/// `helm test`.
async fn tested(release: &Release) {
    let told = helm()
        .run(&[
            "test",
            &release.name,
            "--namespace",
            &release.name,
            "--timeout",
            "2m",
        ])
        .await;
    assert!(
        told.text().contains("Phase:          Succeeded"),
        "{}",
        told.text()
    );
}

/// The registry's pods.
async fn pods(release: &Release) -> Vec<Value> {
    let labels = "app.kubernetes.io/component=registry";
    let all = release.plane.list("Pod", &release.name, labels).await;
    let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
    all.into_iter().filter(stays).collect()
}

fn names(pods: &[Value]) -> Vec<String> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
    pods.iter().map(name).collect()
}

/// Waits until the load has got further answers.
async fn goes_on(load: &Load, answers: u64) {
    let from = load.answered();
    eventually("the load goes on", PATIENCE, async || {
        (load.answered() >= from + answers).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_mode_is_installed_tested_and_keeps_its_data_over_uninstall_and_install() {
    let release = Release::install("embedded", Backend::Embedded, &[]).await;
    tested(&release).await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 100_000).await;
    let digest = acme.client("crane").run(&["digest", &image]).await.text();
    release.uninstall().await;
    assert!(pods(&release).await.is_empty());
    release.helm("install", &[]).await;
    tested(&release).await;
    // The Tenant was never gone, nor were the token's Secret and the keys that it was made with.
    release
        .plane
        .wait_for("Tenant", "", &acme.name, "Ready", "True", "")
        .await;
    acme.is_open().await;
    assert_eq!(acme.client("crane").run(&["digest", &image]).await.text(), digest);
    release
        .plane
        .apply(pod(&acme.name, "again", &image, "true", json!({})))
        .await
        .expect("a pod");
    // The namespace has no pull Secret: it is not labelled.
    harness::node::told(&acme.name, "again", "Failed to pull image").await;
    let apps = super::apps::apps(&acme, "apps").await;
    release
        .plane
        .apply(pod(&apps, "again", &image, "true", json!({})))
        .await
        .expect("a pod");
    in_phase(&release.plane, &apps, "again", "Succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_the_embedded_mode_costs_a_gap_of_seconds_and_nothing_that_was_acknowledged() {
    let release = Release::install("gap", Backend::Embedded, &[]).await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 100_000).await;
    let digest = acme.client("crane").run(&["digest", &image]).await.text();
    let uid = async || {
        pods(&release)
            .await
            .first()
            .map(|pod| pod["metadata"]["uid"].clone())
    };
    let (old, before) = (uid().await, names(&pods(&release).await));
    let http = http();
    let url = format!("https://{}/v2/team/app/manifests/v1", acme.host);
    let ask = async || {
        let request = http
            .head(&url)
            .basic_auth("x-token", Some(acme.token()))
            .timeout(Duration::from_secs(2));
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    };
    let probing = async {
        let (mut gap, mut last) = (Duration::ZERO, Instant::now());
        // Until the new pod has answered for a while.
        let mut of_new = 0;
        while of_new < 50 {
            if ask().await {
                gap = gap.max(last.elapsed());
                last = Instant::now();
                if uid().await.is_some_and(|now| Some(now) != old) {
                    of_new += 1;
                }
            }
            assert!(last.elapsed() < PATIENCE, "it does not come back");
        }
        gap
    };
    let changed = ["registry.podAnnotations.rolled=yes"];
    let (gap, _) = tokio::join!(probing, release.helm("upgrade", &changed));
    println!("an upgrade of the embedded mode: {gap:?} without an answer");
    assert_eq!(names(&pods(&release).await), before);
    assert_eq!(acme.client("crane").run(&["digest", &image]).await.text(), digest);
    // preStop, the drain of nothing, the start: far from the 300 seconds that a long request may take.
    assert!(gap < Duration::from_secs(60), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_the_distributed_mode_under_twenty_clients_fails_no_request() {
    let release = Release::install("upgrade", Backend::Distributed, &[]).await;
    tested(&release).await;
    let acme = release.new_tenant("acme", json!({})).await;
    let load = Load::start(&acme, 20);
    goes_on(&load, 200).await;
    let before = names(&pods(&release).await);
    release
        .helm("upgrade", &["registry.podAnnotations.rolled=yes"])
        .await;
    // The old pods end only when nothing reaches them any more.
    eventually("the old pods are gone", PATIENCE, async || {
        let all = release
            .plane
            .list("Pod", &release.name, "app.kubernetes.io/component=registry")
            .await;
        let now = names(&all);
        (now.len() == 2 && before.iter().all(|old| !now.contains(old))).then_some(())
    })
    .await;
    goes_on(&load, 200).await;
    let (answered, failures) = load.end().await;
    println!(
        "an upgrade under load: {answered} requests answered, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "of {answered}: {failures:#?}");

    // What is stored is not the release's.
    let digest = acme
        .client("crane")
        .run(&["digest", &format!("{}/load/client-0:latest", acme.host)])
        .await;
    release.uninstall().await;
    release.helm("install", &[]).await;
    acme.is_open().await;
    let again = acme
        .client("crane")
        .run(&["digest", &format!("{}/load/client-0:latest", acme.host)])
        .await;
    assert_eq!(again.text(), digest.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_drained_and_deleted_lose_no_request() {
    let release = Release::install("drain", Backend::Distributed, &[]).await;
    let acme = release.new_tenant("acme", json!({})).await;
    let load = Load::start(&acme, 20);
    goes_on(&load, 200).await;
    // As `kubectl drain` does it.
    let both = names(&pods(&release).await);
    let [first, second] = both.as_slice() else {
        panic!("two replicas, not {both:?}");
    };
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": first, "namespace": release.name },
    });
    let path = format!("/api/v1/namespaces/{}/pods/{first}/eviction", release.name);
    let client = kubectl();
    let file = client.file("eviction.json", eviction.to_string().as_bytes());
    client.run(&["create", "--raw", &path, "--filename", &file]).await;
    // The budget lets only one go at a time.
    let refused = client
        .attempt(&[
            "create",
            "--raw",
            &format!("/api/v1/namespaces/{}/pods/{second}/eviction", release.name),
            "--filename",
            &client.file(
                "second.json",
                eviction.to_string().replace(first, second).as_bytes(),
            ),
        ])
        .await;
    assert!(
        !refused.success && refused.stderr.contains("disruption budget"),
        "{}",
        refused.stderr
    );
    replaced(&release, first).await;
    goes_on(&load, 200).await;
    release.plane.delete("Pod", &release.name, second).await;
    replaced(&release, second).await;
    goes_on(&load, 200).await;
    let (answered, failures) = load.end().await;
    println!(
        "a drain under load: {answered} requests answered, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "of {answered}: {failures:#?}");
}

/// Waits until a pod is gone and the Deployment is whole again.
async fn replaced(release: &Release, gone: &str) {
    eventually("another pod in its place", PATIENCE, async || {
        let all = release
            .plane
            .list("Pod", &release.name, "app.kubernetes.io/component=registry")
            .await;
        let ready = |pod: &Value| condition(pod, "Ready").is_some_and(|found| found["status"] == "True");
        let whole =
            names(&all).iter().all(|name| name != gone) && all.iter().filter(|pod| ready(pod)).count() == 2;
        whole.then_some(())
    })
    .await;
}
