//! Repositories, RetentionPolicies and PullThroughCaches: both sides agree, the oldest claim wins.

use harness::{Admin, Installation, condition, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

fn repository(namespace: &str, name: &str, tenant: &str, repository: &str) -> Value {
    object(
        "Repository",
        namespace,
        name,
        json!({ "tenantRef": { "name": tenant }, "name": repository }),
    )
}

/// What the registry has at this path, if anything.
async fn stored(berth: &Installation, path: &str) -> Option<Value> {
    let answer = Admin::of(&berth.registry).ask(Method::GET, path, None).await;
    (answer.status == 200).then(|| answer.json())
}

#[tokio::test]
async fn what_a_namespace_declares_is_served_until_it_is_deleted() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let tenant = json!({ "name": name });
    let objects = [
        (
            "RetentionPolicy",
            "retention-policies",
            json!({ "tenantRef": tenant, "repositories": ["**"], "rules": [{ "tags": ["v*"], "keepLast": 3 }] }),
        ),
        (
            "Repository",
            "repositories",
            json!({ "tenantRef": tenant, "name": "api", "retentionPolicyRef": { "name": "one" } }),
        ),
        (
            "PullThroughCache",
            "caches",
            json!({ "tenantRef": tenant, "upstream": { "url": "https://192.0.2.1" }, "prefix": "docker.io" }),
        ),
    ];
    for (kind, segment, spec) in objects {
        berth
            .plane
            .apply(object(kind, &apps, "one", spec))
            .await
            .expect("it is accepted");
        let ready = berth
            .plane
            .wait_for(kind, &apps, "one", "Ready", "True", "Served")
            .await;
        assert_eq!(
            condition(&ready, "Programmed").expect("a condition")["status"],
            "True"
        );
        let path = format!("tenants/{name}/{segment}/{apps}/one");
        let found = stored(&berth, &path).await.expect("the registry has it");
        assert_eq!(found["uid"], ready["metadata"]["uid"]);
        if kind == "Repository" {
            assert_eq!(found["spec"]["retentionPolicy"], format!("{apps}/one"));
        }
        berth.plane.delete(kind, &apps, "one").await;
        berth.plane.wait_gone(kind, &apps, "one").await;
        assert!(stored(&berth, &path).await.is_none(), "{kind}");
    }
}

#[tokio::test]
async fn a_namespace_that_the_tenant_does_not_admit_declares_nothing_and_learns_nothing() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    let by_team = json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "team": name } } } });
    berth.ready_tenant(&name, by_team).await;
    let path = format!("tenants/{name}/repositories/{apps}/api");
    berth
        .plane
        .apply(repository(&apps, "api", &name, "api"))
        .await
        .expect("it is accepted");
    let refused = berth
        .plane
        .wait_for("Repository", &apps, "api", "Stalled", "True", "NotAdmitted")
        .await;
    assert!(stored(&berth, &path).await.is_none());
    assert_eq!(
        condition(&refused, "Reconciling").expect("a condition")["status"],
        "False"
    );
    // The label admits it, and its loss withdraws what was declared.
    let label = |value: Value| json!({ "metadata": { "labels": { "team": value } } });
    berth
        .plane
        .merge("Namespace", "", &apps, label(json!(name)))
        .await;
    berth
        .plane
        .wait_for("Repository", &apps, "api", "Ready", "True", "")
        .await;
    assert!(stored(&berth, &path).await.is_some());
    berth
        .plane
        .merge("Namespace", "", &apps, label(Value::Null))
        .await;
    berth
        .plane
        .wait_for("Repository", &apps, "api", "Stalled", "True", "NotAdmitted")
        .await;
    assert!(stored(&berth, &path).await.is_none());
}

#[tokio::test]
async fn of_two_objects_with_one_claim_the_older_has_it_and_the_younger_follows() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let (apps, more) = (
        berth.namespace("apps", json!({})).await,
        berth.namespace("more", json!({})).await,
    );
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    berth
        .plane
        .apply(repository(&apps, "first", &name, "api"))
        .await
        .expect("it is accepted");
    berth
        .plane
        .wait_for("Repository", &apps, "first", "Ready", "True", "")
        .await;
    let told = async |namespace: &str| {
        berth
            .plane
            .apply(repository(namespace, "second", &name, "api"))
            .await
            .expect("it is accepted");
        let lost = berth
            .plane
            .wait_for("Repository", namespace, "second", "Stalled", "True", "Conflict")
            .await;
        condition(&lost, "Stalled").expect("a condition")["message"].to_string()
    };
    assert!(told(&apps).await.contains("first"));
    let elsewhere = told(&more).await;
    assert!(
        !elsewhere.contains("first") && !elsewhere.contains(&apps),
        "{elsewhere}"
    );
    berth.plane.delete("Repository", &more, "second").await;
    berth.plane.delete("Repository", &apps, "first").await;
    berth.plane.wait_gone("Repository", &apps, "first").await;
    berth
        .plane
        .wait_for("Repository", &apps, "second", "Ready", "True", "")
        .await;
}

#[tokio::test]
async fn an_upstreams_credentials_are_followed_as_their_secret_changes() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    let spec = json!({
        "tenantRef": { "name": name }, "prefix": "docker.io",
        "upstream": { "url": "https://192.0.2.1", "credentialsSecretRef": { "name": "hub" } },
    });
    berth
        .plane
        .apply(object("PullThroughCache", &apps, "hub", spec))
        .await
        .expect("it is accepted");
    let stalled = berth
        .plane
        .wait_for("PullThroughCache", &apps, "hub", "Stalled", "True", "Invalid")
        .await;
    let told = condition(&stalled, "Stalled").expect("a condition")["message"].to_string();
    assert!(told.contains("there is no Secret"), "{told}");
    // With the label its changes are seen at once.
    let secret = |password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "hub", "namespace": apps, "labels": { "berth.dev/tenant": name } },
            "stringData": { "username": "reader", "password": password },
        })
    };
    berth.plane.apply(secret("first")).await.expect("a Secret");
    berth
        .plane
        .wait_for("PullThroughCache", &apps, "hub", "Ready", "True", "")
        .await;
    let path = format!("tenants/{name}/caches/{apps}/hub");
    let first = stored(&berth, &path).await.expect("the registry has it");
    assert_eq!(first["spec"]["upstream"]["username"], "reader");
    berth.plane.apply(secret("second")).await.expect("a Secret");
    eventually("the new password is known", Duration::from_secs(30), async || {
        let now = stored(&berth, &path).await?;
        (now["hash"] != first["hash"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_can_be_deleted_while_the_registry_is_gone() {
    let mut berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    berth
        .ready_tenant(&name, json!({ "allowedNamespaces": { "from": "All" } }))
        .await;
    berth
        .plane
        .apply(repository(&apps, "api", &name, "api"))
        .await
        .expect("it is accepted");
    berth
        .plane
        .wait_for("Repository", &apps, "api", "Ready", "True", "")
        .await;
    berth.registry.kill9();
    berth.plane.delete("Namespace", "", &apps).await;
    berth.plane.wait_gone("Repository", &apps, "api").await;
    berth.plane.wait_gone("Namespace", "", &apps).await;
    // Once it is back it is told.
    berth.registry.restart().await;
    let path = format!("tenants/{name}/repositories/{apps}/api");
    eventually("the orphan is swept", Duration::from_secs(60), async || {
        stored(&berth, &path).await.is_none().then_some(())
    })
    .await;
}
