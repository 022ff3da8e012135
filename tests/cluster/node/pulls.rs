//! Pods pull with the Secrets that the operator made.

use harness::node::{Release, in_phase, logs, pod};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_a_labelled_namespace_runs_an_image_of_its_tenant() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let image = acme.push_runnable("team/app", "v1", 100_000).await;
    let apps = format!("{}-apps", acme.name);
    release.namespace(&apps, json!({ "pull": acme.name })).await;
    release
        .plane
        .wait("ServiceAccount", &apps, "default", |account| {
            account["imagePullSecrets"][0]["name"] == format!("berth-{}", acme.name)
        })
        .await;
    let hello = pod(&apps, "hello", &image, "echo pulled from Berth", json!({}));
    release.plane.apply(hello).await.expect("a pod");
    in_phase(&release.plane, &apps, "hello", "Succeeded").await;
    assert_eq!(logs(&apps, "hello").await, "pulled from Berth");
}
