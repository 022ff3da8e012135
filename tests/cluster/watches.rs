//! Watches that have become too old while the operator could not reach the API server: it answers them with 410, and
//! everything is listed anew.

use std::time::Duration;

use harness::{Admin, ControlPlane, Installation, OwnControlPlane, Relay, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";
/// Kinds that a namespace declares, with what the registry's admin API and the API server call them.
const DECLARED: [(&str, &str, &str); 3] = [
    ("Repository", "repositories", "repositories"),
    ("RetentionPolicy", "retention-policies", "retentionpolicies"),
    ("PullThroughCache", "caches", "pullthroughcaches"),
];

/// An object of a kind that a namespace declares.
fn declared(kind: &str, namespace: &str, name: &str, tenant: &str) -> Value {
    let mut spec = match kind {
        "Repository" => json!({ "name": name }),
        "RetentionPolicy" => json!({ "repositories": [name], "rules": [{ "keepLast": 3 }] }),
        _ => json!({ "upstream": { "url": "https://192.0.2.1" }, "prefix": format!("{name}.test") }),
    };
    spec["tenantRef"] = json!({ "name": tenant });
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// What is changed of it.
fn change(kind: &str) -> Value {
    match kind {
        "Repository" => json!({ "spec": { "description": "changed" } }),
        "RetentionPolicy" => json!({ "spec": { "rules": [{ "keepLast": 5 }] } }),
        _ => json!({ "spec": { "upstream": { "url": "https://192.0.2.2" } } }),
    }
}

/// The version that a watch from now on begins at.
async fn version(plane: &ControlPlane, path: &str) -> String {
    let list = plane.document(&format!("{path}?limit=1")).await;
    list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_too_old_are_begun_anew_and_nothing_that_changed_meanwhile_is_missed() {
    let cluster = OwnControlPlane::start();
    let plane = cluster.connect().await;
    let server = plane.address();
    let relay = Relay::before(&server).await;
    // The Lease outlasts the time in which nothing comes through: the operator is to go on, not to start again.
    let builder = Installation::builder().plane(plane).way(&relay.address());
    let mut berth = builder.flag("--lease-duration=120s").start().await;
    let (changed, gone, new) = (berth.name("changed"), berth.name("gone"), berth.name("new"));
    let apps = berth.namespace("apps", json!({})).await;
    let left = berth.namespace("left", json!({ "pull": changed })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": changed } } },
    });
    berth.ready_tenant(&changed, spec).await;
    berth.ready_tenant(&gone, json!({})).await;
    for (kind, ..) in DECLARED {
        for name in ["changed", "gone"] {
            berth
                .plane
                .apply(declared(kind, &apps, name, &changed))
                .await
                .expect("it is accepted");
        }
    }
    for (kind, ..) in DECLARED {
        for name in ["changed", "gone"] {
            berth.plane.wait_for(kind, &apps, name, "Ready", "True", "").await;
        }
    }
    let secret = format!("berth-{changed}");
    berth.plane.wait("Secret", &left, &secret, |_| true).await;
    let mut watched = vec!["/api/v1/namespaces".to_owned()];
    for kind in ["tenants"]
        .into_iter()
        .chain(DECLARED.map(|(_, _, plural)| plural))
    {
        watched.push(format!("/apis/berth.dev/v1alpha1/{kind}"));
    }
    let mut before = Vec::new();
    for path in &watched {
        before.push(version(&berth.plane, path).await);
    }

    // Nothing comes through any more. Meanwhile objects change, and the API server forgets what came before.
    relay.route_to(NOWHERE);
    relay.cut();
    let tenant = berth.tenant(&new, json!({}));
    berth.plane.apply(tenant).await.expect("it is accepted");
    let name = json!({ "spec": { "displayName": "changed" } });
    berth.plane.merge("Tenant", "", &changed, name).await;
    berth.plane.delete("Tenant", "", &gone).await;
    for (kind, ..) in DECLARED {
        berth
            .plane
            .apply(declared(kind, &apps, "new", &changed))
            .await
            .expect("it is accepted");
        berth.plane.merge(kind, &apps, "changed", change(kind)).await;
        berth.plane.delete(kind, &apps, "gone").await;
    }
    let unlabelled = json!({ "metadata": { "labels": { "pull": null } } });
    berth.plane.merge("Namespace", "", &left, unlabelled).await;
    let late = berth.namespace("late", json!({ "pull": changed })).await;
    cluster.crash();
    for (path, version) in watched.iter().zip(&before) {
        let watch = format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds=5");
        let told = berth.plane.document(&watch).await;
        assert_eq!(told["type"], "ERROR", "{path}: {told}");
        assert_eq!(told["object"]["code"], 410, "{path}: {told}");
    }
    relay.route_to(&server);

    for name in [&changed, &new] {
        berth
            .plane
            .wait_for("Tenant", "", name, "Ready", "True", "")
            .await;
    }
    berth.plane.wait_gone("Tenant", "", &gone).await;
    let admin = Admin::of(&berth.registry);
    let stored = async |path: &str| admin.ask(Method::GET, path, None).await;
    for (kind, segment, _) in DECLARED {
        for name in ["changed", "new"] {
            berth.plane.wait_for(kind, &apps, name, "Ready", "True", "").await;
            stored(&format!("tenants/{changed}/{segment}/{apps}/{name}"))
                .await
                .expect(200);
        }
        berth.plane.wait_gone(kind, &apps, "gone").await;
        stored(&format!("tenants/{changed}/{segment}/{apps}/gone"))
            .await
            .expect(404);
    }
    let tenant = stored(&format!("tenants/{changed}")).await.expect(200).json();
    assert_eq!(tenant["spec"]["displayName"], "changed", "{tenant}");
    stored(&format!("tenants/{gone}")).await.expect(404);
    berth.plane.wait("Secret", &late, &secret, |_| true).await;
    berth.plane.wait_gone("Secret", &left, &secret).await;
    // It was the operator's own watches that were refused, one of each kind, and it never started again.
    let kinds = [
        "Tenant",
        "Repository",
        "RetentionPolicy",
        "PullThroughCache",
        "Namespace",
    ];
    let operator = &*berth.operator(0);
    eventually("each kind's watch has been refused", PATIENCE, async || {
        let log = operator.log();
        let refused = |kind: &str| {
            let mut lines = log
                .lines()
                .filter(|line| line.contains("too old resource version"));
            lines.any(|line| line.contains("a watch failed") && line.contains(&format!("::{kind}")))
        };
        kinds.iter().all(|kind| refused(kind)).then_some(())
    })
    .await;
    assert!(berth.operator(0).is_running());
}
