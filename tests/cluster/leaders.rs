//! Several operators: one leads, another follows, nobody writes over the leader.

use std::time::Duration;

use harness::{Admin, Installation, Signal, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

async fn holder(berth: &Installation) -> String {
    let lease = berth
        .plane
        .find("Lease", &berth.id, &format!("{}-operator", berth.id))
        .await
        .unwrap_or(Value::Null);
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn a_killed_leader_is_followed_and_one_that_ends_in_order_at_once() {
    let mut berth = Installation::start().await;
    berth.ready_tenant(&berth.name("one"), json!({})).await;
    let first = holder(&berth).await;
    berth.start_operator().await;
    berth.operator(0).signal(Signal::KILL);
    berth.ready_tenant(&berth.name("two"), json!({})).await;
    assert_ne!(holder(&berth).await, first);
    // An orderly end gives the Lease up.
    berth.start_operator().await;
    berth.operator(1).signal(Signal::TERM);
    berth.operator(1).ended(PATIENCE).await;
    berth.ready_tenant(&berth.name("three"), json!({})).await;
}

#[tokio::test]
async fn a_leader_that_was_frozen_ends_and_its_writes_are_refused() {
    let mut berth = Installation::start().await;
    berth.ready_tenant(&berth.name("one"), json!({})).await;
    let first = holder(&berth).await;
    berth.operator(0).signal(Signal::STOP);
    berth.start_operator().await;
    berth
        .ready_tenant(&berth.name("two"), json!({ "displayName": "by the second" }))
        .await;
    assert_ne!(holder(&berth).await, first);
    // What the frozen one may still have to write comes under its old term.
    let stale = Admin::of(&berth.registry)
        .ask(
            Method::PUT,
            &format!("tenants/{}", berth.name("one")),
            Some(json!({ "generation": 9, "term": 1, "spec": { "displayName": "by the first" } })),
        )
        .await;
    assert_eq!(stale.expect(409).json()["reason"], "StaleTerm");
    berth.operator(0).signal(Signal::CONT);
    berth.operator(0).ended(PATIENCE).await;
    assert!(berth.operator(1).is_running());
    berth.ready_tenant(&berth.name("three"), json!({})).await;
}

#[tokio::test]
async fn a_second_look_at_everything_writes_nothing() {
    let mut berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } }, "serviceAccounts": ["default"] },
    });
    berth.ready_tenant(&name, spec).await;
    let repository = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Repository", "metadata": { "name": "api", "namespace": apps },
        "spec": { "tenantRef": { "name": name }, "name": "api" },
    });
    berth.plane.apply(repository).await.expect("it is accepted");
    berth
        .plane
        .wait_for("Repository", &apps, "api", "Ready", "True", "")
        .await;
    let secret = format!("berth-{name}");
    let versions = async |berth: &Installation| {
        let mut versions = Vec::new();
        for (kind, namespace, name) in [
            ("Tenant", "", name.as_str()),
            ("Repository", apps.as_str(), "api"),
            ("Secret", apps.as_str(), secret.as_str()),
            ("ServiceAccount", apps.as_str(), "default"),
        ] {
            let found = berth
                .plane
                .find(kind, namespace, name)
                .await
                .expect("it is there");
            versions.push(found["metadata"]["resourceVersion"].clone());
        }
        versions
    };
    let settled = berth.plane.wait("ServiceAccount", &apps, "default", |account| {
        !account["imagePullSecrets"].is_null()
    });
    settled.await;
    let before = versions(&berth).await;
    let config = Admin::of(&berth.registry)
        .ask(Method::GET, "state", None)
        .await
        .expect(200)
        .json();
    // A new leader looks at everything.
    berth.operator(0).signal(Signal::KILL);
    let second = berth.start_operator().await;
    eventually("everything was looked at", PATIENCE, async || {
        let (tenants, repositories) = (
            berth.ready_looks(second, "Tenant").await,
            berth.ready_looks(second, "Repository").await,
        );
        (tenants > 0 && repositories > 0).then_some(())
    })
    .await;
    assert_eq!(versions(&berth).await, before);
    let after = Admin::of(&berth.registry)
        .ask(Method::GET, "state", None)
        .await
        .expect(200)
        .json();
    assert_eq!(
        after["version"], config["version"],
        "nor did the registry's configuration change"
    );
}
