//! The rule by which Argo CD judges our kinds, over objects as a real API server holds them.

use harness::content::sha256;
use harness::http::{client, send};
use harness::{Admin, Installation, condition};
use mlua::serde::ser;
use mlua::{Lua, LuaOptions, LuaSerdeExt as _, StdLib, Table};
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("../../charts/berth/argocd/health.lua");
const SNIPPET: &str = include_str!("../../charts/berth/argocd/argocd-cm.yaml");

/// What Argo CD shows: the status, and the message that goes with it.
fn judged(object: &Value) -> (String, String) {
    // Argo CD speaks Lua 5.1 and opens the base and table libraries alone.
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).expect("Lua");
    // Absent and null are the same to it.
    let options = ser::Options::new()
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).expect("a table");
    lua.globals().set("obj", object).expect("a global");
    let health: Table = lua.load(SCRIPT).eval().expect("the script returns a table");
    (
        health.get("status").expect("a status"),
        health.get("message").expect("a message"),
    )
}

fn assert_judged(object: &Value, status: &str, told: &str) {
    let (found, message) = judged(object);
    assert!(
        found == status && message.contains(told),
        "{found} ({message:?}) instead of {status} ({told:?}): {object:#}"
    );
}

fn declared(kind: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": "one", "namespace": namespace }, "spec": spec,
    })
}

/// One object of each kind that a namespace declares for a tenant.
fn of_each_kind(namespace: &str, tenant: &str) -> [Value; 3] {
    let tenant = json!({ "name": tenant });
    [
        ("Repository", json!({ "tenantRef": tenant, "name": "api" })),
        (
            "RetentionPolicy",
            json!({ "tenantRef": tenant, "repositories": ["**"] }),
        ),
        (
            "PullThroughCache",
            json!({ "tenantRef": tenant, "upstream": { "url": "https://192.0.2.1" }, "prefix": "docker.io" }),
        ),
    ]
    .map(|(kind, spec)| declared(kind, namespace, spec))
}

#[test]
fn the_snippet_holds_the_script_for_every_kind_of_the_group() {
    let snippet: Value = serde_yaml::from_str(SNIPPET).expect("YAML");
    let rules = snippet["data"]["resource.customizations"]
        .as_str()
        .expect("a text");
    let rules: Value = serde_yaml::from_str(rules).expect("YAML");
    assert_eq!(rules["berth.dev/*"]["health.lua"], SCRIPT);
}

#[tokio::test]
async fn what_no_operator_has_looked_at_is_progressing() {
    let berth = Installation::start().await;
    let apps = berth.namespace("unseen", json!({})).await;
    let name = berth.name("unseen");
    // No installation selects it.
    let mut tenant = berth.tenant(&name, json!({}));
    tenant["metadata"]["labels"] = json!({});
    let mut objects = vec![tenant];
    objects.extend(of_each_kind(&apps, &name));
    for object in objects {
        let stored = berth.plane.apply(object).await.expect("it is accepted");
        assert_eq!(stored["status"]["observedGeneration"], -1);
        assert_judged(&stored, "Progressing", "No operator");
        // An API server of before the defaults.
        let mut bare = stored.clone();
        bare.as_object_mut().expect("an object").remove("status");
        assert_judged(&bare, "Progressing", "No operator");
    }
    berth.plane.delete("Tenant", "", &name).await;
}

#[tokio::test]
async fn what_is_served_is_healthy_until_it_changes_is_paused_or_is_deleted() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({})).await;
    let open = json!({ "allowedNamespaces": { "from": "All" } });
    let tenant = berth.ready_tenant(&name, open).await;
    assert_judged(&tenant, "Healthy", "Served");
    for object in of_each_kind(&apps, &name) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        berth.plane.apply(object).await.expect("it is accepted");
        let ready = berth
            .plane
            .wait_for(&kind, &apps, "one", "Ready", "True", "")
            .await;
        assert_judged(&ready, "Healthy", "Served");
    }
    // Nothing looks at it while it is paused: the generation runs ahead, and the rest of its status is of before.
    let paused = json!({
        "metadata": { "annotations": { "berth.dev/paused": "true" } }, "spec": { "description": "changed" },
    });
    let paused = berth.plane.merge("Repository", &apps, "one", paused).await;
    assert_judged(&paused, "Suspended", "berth.dev/paused");
    let mut ahead = paused;
    assert_ne!(
        ahead["status"]["observedGeneration"],
        ahead["metadata"]["generation"]
    );
    ahead["metadata"]["annotations"] = json!({});
    assert_judged(&ahead, "Progressing", "has not seen the last change");
    // A tenant that is suspended is as it is said to be.
    let suspended = json!({ "spec": { "suspend": true } });
    berth.plane.merge("Tenant", "", &name, suspended).await;
    let suspended = berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Suspended")
        .await;
    assert_judged(&suspended, "Healthy", "pushes and pulls are refused");
}

#[tokio::test]
async fn what_somebody_must_change_is_degraded_and_says_what() {
    let berth = Installation::start().await;
    let (first, second) = (berth.name("first"), berth.name("second"));
    let host = format!("{}.example.com", berth.id);
    berth.ready_tenant(&first, json!({ "hosts": [host] })).await;
    let rival = berth.tenant(&second, json!({ "hosts": [host] }));
    berth.plane.apply(rival).await.expect("it is accepted");
    let conflict = berth
        .plane
        .wait_for("Tenant", "", &second, "Stalled", "True", "Conflict")
        .await;
    assert_judged(&conflict, "Degraded", &first);

    // The first Tenant admits no namespace.
    let apps = berth.namespace("apps", json!({})).await;
    for object in of_each_kind(&apps, &first) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        berth.plane.apply(object).await.expect("it is accepted");
        let refused = berth
            .plane
            .wait_for(&kind, &apps, "one", "Stalled", "True", "NotAdmitted")
            .await;
        let told = condition(&refused, "Stalled").expect("a condition")["message"].clone();
        assert_judged(&refused, "Degraded", told.as_str().expect("a text"));
    }
}

#[tokio::test]
async fn work_that_goes_on_or_failed_for_now_is_progressing() {
    let berth = Installation::builder().flag("--exposure=ingress").start().await;
    let name = berth.name("acme");
    let tenant = berth.tenant(&name, json!({}));
    berth.plane.apply(tenant).await.expect("it is accepted");
    let pending = berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "Unknown", "RoutePending")
        .await;
    assert_judged(&pending, "Progressing", "the edge has not accepted");

    // The same with Ready=False: the cluster may not have the Gateway API, or the registry may be gone.
    let mut berth = Installation::start().await;
    let name = berth.name("beta");
    berth.ready_tenant(&name, json!({})).await;
    berth.registry.kill9();
    let change = json!({ "spec": { "displayName": "changed" } });
    berth.plane.merge("Tenant", "", &name, change).await;
    let failing = berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "False", "RegistryUnreachable")
        .await;
    let told = condition(&failing, "Reconciling").expect("a condition")["message"].clone();
    assert_judged(&failing, "Progressing", told.as_str().expect("a text"));
}

#[tokio::test]
async fn what_is_being_deleted_is_progressing() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    berth.ready_tenant(&name, json!({})).await;
    // Another finalizer keeps it in sight.
    let kept = json!({ "metadata": { "finalizers": ["berth.dev/registry", "example.com/test"] } });
    berth.plane.merge("Tenant", "", &name, kept).await;
    berth.plane.delete("Tenant", "", &name).await;
    let going = berth
        .plane
        .find("Tenant", "", &name)
        .await
        .expect("it is still there");
    assert_judged(&going, "Progressing", "Being deleted");
    let released = json!({ "metadata": { "finalizers": null } });
    berth.plane.merge("Tenant", "", &name, released).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
}

#[tokio::test]
async fn a_deletion_that_waits_for_somebody_is_progressing_and_says_for_what() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    berth
        .ready_tenant(&name, json!({ "deletionPolicy": "Delete" }))
        .await;
    let token = Admin::of(&berth.registry)
        .token(&name, &["**"], &["pull", "push"])
        .await;
    let blob = b"content".to_vec();
    let upload = format!("/v2/app/blobs/uploads/?digest={}", sha256(&blob));
    let request = client()
        .post(berth.registry.url(&upload))
        .header("host", format!("{name}.registry.test"))
        .basic_auth("x-token", Some(&token))
        .body(blob);
    send(request).await.expect(201);
    berth.plane.delete("Tenant", "", &name).await;
    let waiting = berth.plane.wait("Tenant", "", &name, |tenant| {
        condition(tenant, "Stalled").is_some_and(|found| found["reason"] == "DeletionUnconfirmed")
    });
    assert_judged(
        &waiting.await,
        "Progressing",
        "Being deleted: the tenant stores 7 bytes",
    );
    let confirmed = json!({ "metadata": { "annotations": { "berth.dev/confirm-delete": name } } });
    berth.plane.merge("Tenant", "", &name, confirmed).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
}
