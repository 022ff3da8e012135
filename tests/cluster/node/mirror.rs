//! A node that reaches the registry at an address in the cluster, without DNS and edge.

use harness::node::{Release, TenantOf, in_phase, logs, pod, told};
use serde_json::json;

use super::apps::{apps, asked, leave};
use super::hosts::{HostFolder, service};
use super::images::Pushing;

/// Sends what is for the tenant's host to the registry's Service, by plain HTTP, and to nobody else.
async fn through_the_service(release: &Release, tenant: &TenantOf<'_>) -> HostFolder {
    let address = service(release).await;
    HostFolder::write(&tenant.host, &format!("server = \"http://{address}\"\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_pull_from_their_tenant_at_the_address_of_the_service() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    let draft = pushing.busybox().await;
    pushing.finish(&draft, "v1").await;
    let image = format!("{}:v1", pushing.image());
    let _folder = through_the_service(&release, &acme).await;
    let apps = apps(&acme, "apps").await;
    let runs = pod(&apps, "runs", &image, "echo by the address", json!({}));
    release.plane.apply(runs).await.expect("a pod");
    in_phase(&release.plane, &apps, "runs", "Succeeded").await;
    assert_eq!(logs(&apps, "runs").await, "by the address");

    // A namespace without the Secret is refused here as well.
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    let stays_out = pod(&plain, "stays-out", &image, "true", json!({}));
    release.plane.apply(stays_out).await.expect("a pod");
    told(&plain, "stays-out", "Failed to pull image").await;

    let asked = asked(&acme, pushing.repository()).await;
    let meant = format!("ns={}", acme.host);
    assert!(
        asked.iter().all(|request| request.path.ends_with(&meant)),
        "{asked:#?}"
    );
    let some = |method: &str, object: &str, status: u64| {
        asked.iter().any(|request| {
            request.method == method && request.path.contains(object) && request.status == status
        })
    };
    assert!(some("HEAD", "/manifests/v1", 401), "{asked:#?}");
    assert!(some("HEAD", "/manifests/v1", 200), "{asked:#?}");
    assert!(some("GET", "/manifests/sha256:", 200), "{asked:#?}");
    assert!(some("GET", "/blobs/sha256:", 307), "{asked:#?}");
    for namespace in [apps, plain] {
        leave(&release, &namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenant_shows_to_everybody_is_pulled_at_the_address_without_a_credential() {
    let release = Release::shared().await;
    let public = json!({ "repositories": { "visibility": "Public" } });
    let acme = release.new_tenant("acme", public).await;
    let pushing = Pushing::to(&acme, "app");
    let draft = pushing.busybox().await;
    pushing.finish(&draft, "v1").await;
    let _folder = through_the_service(&release, &acme).await;
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    let image = format!("{}:v1", pushing.image());
    let runs = pod(&plain, "runs", &image, "echo for everybody", json!({}));
    release.plane.apply(runs).await.expect("a pod");
    in_phase(&release.plane, &plain, "runs", "Succeeded").await;
    assert_eq!(logs(&plain, "runs").await, "for everybody");
    let asked = asked(&acme, pushing.repository()).await;
    let meant = format!("ns={}", acme.host);
    assert!(
        !asked.is_empty() && asked.iter().all(|request| request.path.ends_with(&meant)),
        "{asked:#?}"
    );
    leave(&release, &plain).await;
}
