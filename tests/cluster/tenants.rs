//! The life of a Tenant.

use std::time::{Duration, SystemTime};

use harness::{Admin, Installation, eventually};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn an_applied_tenant_is_served_and_a_deleted_one_is_not() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let tenant = berth.ready_tenant(&name, json!({ "displayName": "Acme" })).await;
    assert_eq!(tenant["status"]["host"], format!("{name}.registry.test"));
    let admin = Admin::of(&berth.registry);
    let stored = admin
        .ask(Method::GET, &format!("tenants/{name}"), None)
        .await
        .expect(200)
        .json();
    assert_eq!(stored["spec"]["displayName"], "Acme");
    assert_eq!(stored["uid"], tenant["metadata"]["uid"]);
    berth.plane.delete("Tenant", "", &name).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
    admin
        .ask(Method::GET, &format!("tenants/{name}"), None)
        .await
        .expect(404);
}

#[tokio::test]
async fn of_two_tenants_with_one_host_the_older_has_it() {
    let berth = Installation::start().await;
    let (first, second) = (berth.name("first"), berth.name("second"));
    let host = format!("{}.example.com", berth.id);
    berth.ready_tenant(&first, json!({ "hosts": [host] })).await;
    let rival = berth.tenant(&second, json!({ "hosts": [host] }));
    berth.plane.apply(rival).await.expect("the Tenant is accepted");
    let stalled = berth
        .plane
        .wait_for("Tenant", "", &second, "Stalled", "True", "Conflict")
        .await;
    let told = harness::condition(&stalled, "Stalled").expect("a condition")["message"].to_string();
    assert!(told.contains(&first) && told.contains(&host), "{told}");
    berth.plane.delete("Tenant", "", &first).await;
    berth
        .plane
        .wait_for("Tenant", "", &second, "Ready", "True", "Served")
        .await;
}

#[tokio::test]
async fn a_tenant_that_is_served_with_a_host_keeps_it_whatever_an_older_one_says() {
    let berth = Installation::start().await;
    let (older, newer) = (berth.name("older"), berth.name("newer"));
    let host = format!("{}.example.com", berth.id);
    berth.ready_tenant(&older, json!({})).await;
    // Their creation is told in whole seconds.
    let made = seconds();
    eventually("the next second", Duration::from_secs(5), async || {
        (seconds() > made).then_some(())
    })
    .await;
    berth.ready_tenant(&newer, json!({ "hosts": [host] })).await;
    let claims = json!({ "spec": { "hosts": [host] } });
    berth.plane.merge("Tenant", "", &older, claims).await;
    let stalled = berth
        .plane
        .wait_for("Tenant", "", &older, "Stalled", "True", "Conflict")
        .await;
    let told = harness::condition(&stalled, "Stalled").expect("a condition")["message"].to_string();
    assert!(told.contains(&newer) && told.contains(&host), "{told}");
    // The other one goes on as before.
    let suspended = json!({ "spec": { "suspend": true } });
    berth.plane.merge("Tenant", "", &newer, suspended).await;
    berth
        .plane
        .wait_for("Tenant", "", &newer, "Ready", "True", "Suspended")
        .await;
    let none = json!({ "spec": { "hosts": [] } });
    berth.plane.merge("Tenant", "", &newer, none).await;
    berth
        .plane
        .wait_for("Tenant", "", &older, "Ready", "True", "Served")
        .await;
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("a time after 1970").as_secs()
}

#[tokio::test]
async fn content_is_retained_unless_its_deletion_is_asked_for_and_confirmed() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let host = format!("{name}.registry.test");
    let spec = |policy: &str| json!({ "deletionPolicy": policy, "repositories": { "visibility": "Public" } });
    berth.ready_tenant(&name, spec("Retain")).await;
    let token = Admin::of(&berth.registry)
        .token(&name, &["**"], &["pull", "push"])
        .await;
    let blob = b"content".to_vec();
    let digest = push(&berth, &host, &token, &blob).await;
    // Retained: the same content for a Tenant of that name.
    berth.plane.delete("Tenant", "", &name).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
    assert_eq!(pull(&berth, &host, &digest).await.0, 404, "no tenant, no host");
    berth.ready_tenant(&name, spec("Retain")).await;
    assert_eq!(pull(&berth, &host, &digest).await, (200, blob));
    // Deleted: only with the annotation.
    berth.ready_tenant(&name, spec("Delete")).await;
    berth.plane.delete("Tenant", "", &name).await;
    let waiting = berth.plane.wait("Tenant", "", &name, |tenant| {
        harness::condition(tenant, "Stalled").is_some_and(|found| found["reason"] == "DeletionUnconfirmed")
    });
    waiting.await;
    let confirm = json!({ "metadata": { "annotations": { "berth.dev/confirm-delete": name } } });
    berth.plane.merge("Tenant", "", &name, confirm).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
    berth.ready_tenant(&name, spec("Retain")).await;
    assert_eq!(pull(&berth, &host, &digest).await.0, 404);
}

async fn push(berth: &Installation, host: &str, token: &str, blob: &[u8]) -> String {
    let digest = harness::content::sha256(blob);
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let request = harness::http::client()
        .post(berth.registry.url(&path))
        .header("host", host)
        .basic_auth("x-token", Some(token))
        .body(blob.to_vec());
    harness::http::send(request).await.expect(201);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/octet-stream", "digest": digest, "size": blob.len() },
        "layers": [],
    });
    let request = harness::http::client()
        .put(berth.registry.url("/v2/app/manifests/v1"))
        .header("host", host)
        .header("content-type", "application/vnd.oci.image.manifest.v1+json")
        .basic_auth("x-token", Some(token))
        .body(manifest.to_string());
    harness::http::send(request).await.expect(201);
    digest
}

async fn pull(berth: &Installation, host: &str, digest: &str) -> (u16, Vec<u8>) {
    let request = harness::http::client()
        .get(berth.registry.url(&format!("/v2/app/blobs/{digest}")))
        .header("host", host);
    let answer = harness::http::send(request).await;
    (
        answer.status.as_u16(),
        if answer.status == 200 {
            answer.body
        } else {
            Vec::new()
        },
    )
}

#[tokio::test]
async fn a_paused_tenant_is_only_looked_at() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    berth
        .ready_tenant(&name, json!({ "displayName": "Before" }))
        .await;
    let pause = json!({ "metadata": { "annotations": { "berth.dev/paused": "true" } }, "spec": { "displayName": "After" } });
    berth.plane.merge("Tenant", "", &name, pause).await;
    // Something else that is looked at later shows that the change was seen.
    let other = berth.name("other");
    berth.ready_tenant(&other, json!({})).await;
    let admin = Admin::of(&berth.registry);
    let shown = async || {
        let stored = admin
            .ask(Method::GET, &format!("tenants/{name}"), None)
            .await
            .expect(200)
            .json();
        stored["spec"]["displayName"].clone()
    };
    assert_eq!(shown().await, "Before");
    let resume = json!({ "metadata": { "annotations": { "berth.dev/paused": null } } });
    berth.plane.merge("Tenant", "", &name, resume).await;
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "")
        .await;
    assert_eq!(shown().await, "After");
}

#[tokio::test]
async fn statuses_tell_what_a_tenant_and_a_declared_repository_store() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    let spec = json!({ "allowedNamespaces": { "from": "All" } });
    berth.ready_tenant(&name, spec.clone()).await;
    let token = Admin::of(&berth.registry)
        .token(&name, &["**"], &["pull", "push"])
        .await;
    push(&berth, &format!("{name}.registry.test"), &token, b"content").await;
    let repository = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Repository", "metadata": { "name": "app", "namespace": apps },
        "spec": { "tenantRef": { "name": name }, "name": "app" },
    });
    berth.plane.apply(repository).await.expect("it is accepted");
    let told = berth
        .plane
        .wait_for("Repository", &apps, "app", "Ready", "True", "")
        .await;
    assert_eq!(told["status"]["tags"], 1);
    assert!(told["status"]["storage"].as_i64() > Some(7), "{told:#}");
    // Nobody else's namespace is told, also not by naming the tenant and the repository.
    let others = berth.namespace("others", json!({})).await;
    let some = json!({ "allowedNamespaces": {
        "from": "Selector", "selector": { "matchLabels": { "kubernetes.io/metadata.name": apps } },
    } });
    berth.ready_tenant(&name, some).await;
    let curious = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Repository", "metadata": { "name": "app", "namespace": others },
        "spec": { "tenantRef": { "name": name }, "name": "app" },
    });
    berth.plane.apply(curious).await.expect("it is accepted");
    let refused = berth
        .plane
        .wait_for("Repository", &others, "app", "Stalled", "True", "NotAdmitted")
        .await;
    let told_nothing = |status: &serde_json::Value| status["tags"].is_null() && status["storage"].is_null();
    assert!(told_nothing(&refused["status"]), "{refused:#}");
    // Nor does what was told stay with a namespace that is admitted no longer.
    let nobody = berth.tenant(&name, json!({ "allowedNamespaces": { "from": "None" } }));
    berth.plane.apply(nobody).await.expect("it is accepted");
    let lost = berth
        .plane
        .wait_for("Repository", &apps, "app", "Stalled", "True", "NotAdmitted")
        .await;
    assert!(told_nothing(&lost["status"]), "{lost:#}");
    // A leader that comes knows nothing of before.
    let mut berth = berth;
    berth.operator(0).signal(harness::Signal::TERM);
    berth.operator(0).ended(std::time::Duration::from_secs(30)).await;
    berth.start_operator().await;
    let stores = berth.plane.wait("Tenant", "", &name, |tenant| {
        tenant["status"]["usage"]["tags"] == 1
    });
    let stores = stores.await;
    assert_eq!(stores["status"]["usage"]["repositories"], 1);
    assert_eq!(stores["status"]["usage"]["storage"], told["status"]["storage"]);
}
