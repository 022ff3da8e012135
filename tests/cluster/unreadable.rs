//! Objects that the API server stores and the operator cannot read: definitions newer than the operator.

use std::time::Duration;

use harness::{Admin, ControlPlane, Installation, OwnControlPlane, Signal, condition, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// The definitions of a later release: every spec has a field `tomorrow`.
async fn renew_definitions(plane: &ControlPlane) {
    let manifest = include_str!("../../crds/manifests/berth.yaml");
    for document in serde_yaml::Deserializer::from_str(manifest) {
        let mut document: Value = serde::Deserialize::deserialize(document).expect("YAML");
        let schema = &mut document["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"]["tomorrow"] = json!({ "type": "boolean" });
        plane.apply(document).await.expect("a definition is accepted");
    }
    for (kind, namespace) in [
        ("Tenant", ""),
        ("Repository", "default"),
        ("RetentionPolicy", "default"),
    ] {
        eventually("the new definitions are served", PATIENCE, async || {
            let mut spec = json!({ "tomorrow": true });
            if kind != "Tenant" {
                spec["tenantRef"] = json!({ "name": "acme" });
            }
            match kind {
                "Repository" => spec["name"] = json!("app"),
                "RetentionPolicy" => spec["rules"] = json!([{ "keepLast": 1 }]),
                _ => {}
            }
            plane
                .dry_run(object(kind, namespace, "probe", spec))
                .await
                .ok()
                .map(drop)
        })
        .await;
    }
}

async fn stalled(berth: &Installation, kind: &str, namespace: &str, name: &str) {
    let stalled = berth
        .plane
        .wait_for(kind, namespace, name, "Stalled", "True", "Invalid")
        .await;
    let told = condition(&stalled, "Stalled").expect("a condition")["message"].to_string();
    assert!(told.contains("tomorrow"), "{told}");
}

async fn ready(berth: &Installation, kind: &str, namespace: &str, name: &str) {
    berth
        .plane
        .wait_for(kind, namespace, name, "Ready", "True", "")
        .await;
}

/// The operator is killed, and another one takes over.
async fn restart(berth: &mut Installation, number: usize) {
    berth.operator(number).signal(Signal::KILL);
    berth.operator(number).ended(PATIENCE).await;
    berth.start_operator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_told_so_stays_as_it_was_and_stops_nobody_else() {
    let cluster = OwnControlPlane::start();
    let plane = cluster.connect().await;
    renew_definitions(&plane).await;
    let mut berth = Installation::builder().plane(plane).start().await;
    let (acme, late, later) = (berth.name("acme"), berth.name("late"), berth.name("later"));
    let apps = berth.namespace("apps", json!({})).await;
    let open = json!({ "allowedNamespaces": { "from": "All" } });
    berth.ready_tenant(&acme, open).await;
    let repository = |name: &str| {
        let spec = json!({ "tenantRef": { "name": acme }, "name": name });
        object("Repository", &apps, name, spec)
    };
    let rules = json!({ "tenantRef": { "name": acme }, "rules": [{ "keepLast": 3 }] });
    let policy = object("RetentionPolicy", &apps, "ci", rules);
    for object in [repository("api"), policy] {
        berth.plane.apply(object).await.expect("it is accepted");
    }
    ready(&berth, "Repository", &apps, "api").await;
    ready(&berth, "RetentionPolicy", &apps, "ci").await;
    let admin = Admin::of(&berth.registry);
    let stored = async |path: &str| {
        admin
            .ask(Method::GET, &format!("tenants/{acme}/{path}"), None)
            .await
    };
    let policy_path = format!("retention-policies/{apps}/ci");
    let repository_path = format!("repositories/{apps}/api");
    let tomorrow = json!({ "spec": { "tomorrow": true } });

    // One that was read before, and one that never was.
    berth
        .plane
        .merge("RetentionPolicy", &apps, "ci", tomorrow.clone())
        .await;
    let mut odd = repository("odd");
    odd["spec"]["tomorrow"] = json!(true);
    berth.plane.apply(odd).await.expect("it is accepted");
    stalled(&berth, "RetentionPolicy", &apps, "ci").await;
    stalled(&berth, "Repository", &apps, "odd").await;
    // An operator that begins with them goes on with all others, and sweeps nothing that is there.
    restart(&mut berth, 0).await;
    berth.ready_tenant(&late, json!({})).await;
    berth
        .plane
        .apply(repository("new"))
        .await
        .expect("it is accepted");
    ready(&berth, "Repository", &apps, "new").await;
    let kept = stored(&policy_path).await.expect(200).json();
    assert_eq!(kept["spec"]["rules"][0]["keepLast"], 3, "{kept}");

    // A Tenant: what namespaces declare for it stays.
    berth.plane.merge("Tenant", "", &acme, tomorrow).await;
    stalled(&berth, "Tenant", "", &acme).await;
    restart(&mut berth, 1).await;
    let described = json!({ "spec": { "description": "changed" } });
    berth.plane.merge("Repository", &apps, "api", described).await;
    berth
        .plane
        .wait_for("Repository", &apps, "api", "Ready", "False", "TenantUnreadable")
        .await;
    berth.ready_tenant(&later, json!({})).await;
    stored(&repository_path).await.expect(200);
    let read = json!({ "spec": { "tomorrow": null } });
    berth.plane.merge("Tenant", "", &acme, read.clone()).await;
    ready(&berth, "Tenant", "", &acme).await;
    ready(&berth, "Repository", &apps, "api").await;
    let api = stored(&repository_path).await.expect(200).json();
    assert_eq!(api["spec"]["description"], "changed", "{api}");

    // What is mended is looked at again; what is deleted goes, and the registry hears of it.
    berth.plane.merge("Repository", &apps, "odd", read).await;
    ready(&berth, "Repository", &apps, "odd").await;
    berth.plane.delete("RetentionPolicy", &apps, "ci").await;
    berth.plane.wait_gone("RetentionPolicy", &apps, "ci").await;
    eventually("the registry has forgotten the policy", PATIENCE, async || {
        (stored(&policy_path).await.status == 404).then_some(())
    })
    .await;
}
