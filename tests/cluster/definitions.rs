//! What the API server accepts and refuses by the definitions alone, and how it shows them.

use harness::{Client, ControlPlane, setting};
use serde_json::{Value, json};

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let namespace = if kind == "Tenant" {
        Value::Null
    } else {
        json!("default")
    };
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    if !namespace.is_null() {
        object["metadata"]["namespace"] = namespace;
    }
    object
}

fn unique(suffix: &str) -> String {
    format!("{suffix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8])
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_at_once_with_its_field() {
    let plane = ControlPlane::connect().await;
    let tenant = json!({ "name": "acme" });
    let grants = json!([{ "repositories": ["**"], "actions": ["pull"] }]);
    let token = |more: Value| {
        let mut token =
            json!({ "name": "ci", "secretRef": { "namespace": "a", "name": "b" }, "grants": grants });
        token
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        json!({ "tokens": [token] })
    };
    let refused = [
        (
            "Tenant",
            json!({ "allowedNamespaces": { "from": "Selector" } }),
            "selector goes with",
        ),
        (
            "Tenant",
            json!({ "allowedNamespaces": { "from": "Some" } }),
            "Unsupported value",
        ),
        (
            "Tenant",
            json!({ "hosts": ["UPPER.example.com"] }),
            "spec.hosts[0]",
        ),
        (
            "Tenant",
            json!({ "hosts": ["a.example.com", "a.example.com"] }),
            "Duplicate value",
        ),
        (
            "Tenant",
            json!({ "quota": { "repositories": -1 } }),
            "spec.quota.repositories",
        ),
        ("Tenant", token(json!({ "rotateEvery": "1s" })), "rotateEvery"),
        (
            "Tenant",
            token(json!({ "rotateEvery": "48h", "expiresAfter": "24h" })),
            "expiresAfter",
        ),
        ("Tenant", token(json!({ "grants": [] })), "spec.tokens[0].grants"),
        ("Repository", json!({ "tenantRef": tenant }), "spec"),
        (
            "Repository",
            json!({ "tenantRef": tenant, "name": "a", "match": "b/**" }),
            "spec",
        ),
        ("Repository", json!({ "name": "a" }), "spec.tenantRef"),
        (
            "Repository",
            json!({ "tenantRef": tenant, "name": "Upper" }),
            "spec.name",
        ),
        (
            "PullThroughCache",
            json!({ "tenantRef": tenant, "prefix": "x", "upstream": { "url": "ftp://x" } }),
            "spec.upstream.url",
        ),
    ];
    for (kind, spec, told) in refused {
        let answer = plane.create(object(kind, &unique("refused"), spec.clone())).await;
        let error = answer
            .expect_err(&format!("{kind} {spec} is refused"))
            .to_string();
        assert!(error.contains(told), "{kind} {spec}: {error}");
    }
    let dotted = plane.create(object("Tenant", "a.b", json!({}))).await;
    assert!(
        dotted
            .expect_err("a dot is no part of a label")
            .to_string()
            .contains("no dot")
    );
}

#[tokio::test]
async fn what_is_sound_is_accepted_counts_as_unfinished_and_keeps_its_tenant() {
    let plane = ControlPlane::connect().await;
    let tenant = json!({ "name": "nobody" });
    let accepted = [
        ("Tenant", json!({})),
        (
            "Repository",
            json!({ "tenantRef": tenant, "name": "team-a/api", "immutableTags": ["v*"] }),
        ),
        (
            "RetentionPolicy",
            json!({ "tenantRef": tenant, "rules": [{ "tags": ["v*"], "keepLast": 20 }] }),
        ),
        (
            "PullThroughCache",
            json!({ "tenantRef": tenant, "prefix": "docker.io", "upstream": { "url": "https://192.0.2.1" } }),
        ),
    ];
    for (kind, spec) in accepted {
        let name = unique("accepted");
        let namespace = if kind == "Tenant" { "" } else { "default" };
        // Nobody reconciles it: no operator of the run has its label, or knows its tenant.
        let made = plane
            .create(object(kind, &name, spec))
            .await
            .expect("it is accepted");
        let status = plane.find(kind, namespace, &name).await.expect("it is there")["status"].clone();
        assert!(
            made["status"].is_null() || made["status"]["observedGeneration"] == -1,
            "{made}"
        );
        assert!(
            status.is_null() || status["observedGeneration"] == -1,
            "{kind}: {status}"
        );
        if kind != "Tenant" {
            let moved = object(kind, &name, json!({ "tenantRef": { "name": "other" } }));
            let error = plane
                .apply(moved)
                .await
                .expect_err("the tenant is fixed")
                .to_string();
            assert!(error.contains("tenantRef"), "{error}");
        }
        plane.delete(kind, namespace, &name).await;
    }
}

#[tokio::test]
async fn kubectl_lists_explains_and_selects_the_kinds() {
    let plane = ControlPlane::connect().await;
    let name = unique("shown");
    plane
        .create(object("Tenant", &name, json!({ "suspend": true })))
        .await
        .expect("it is accepted");
    let kubectl = async |arguments: &[&str]| {
        let kubeconfig = setting("BERTH_TEST_KUBECONFIG");
        let all = [&["--kubeconfig", kubeconfig.as_str()], arguments].concat();
        Client::new("kubectl").run(&all).await.text()
    };
    let listed = kubectl(&["get", "bten", &name]).await;
    for column in ["NAME", "READY", "HOST", "REASON", "AGE"] {
        assert!(listed.contains(column), "{listed}");
    }
    assert!(
        kubectl(&["get", "berth", "-A"]).await.contains(&name),
        "the category"
    );
    assert!(
        kubectl(&["get", "bten", "--field-selector", "spec.suspend=true"])
            .await
            .contains(&name)
    );
    assert!(
        !kubectl(&["get", "bten", "--field-selector", "spec.suspend=false"])
            .await
            .contains(&name)
    );
    let explained = kubectl(&["explain", "tenant.spec.pullSecrets.rotateEvery"]).await;
    assert!(explained.contains("How often"), "{explained}");
    plane.delete("Tenant", "", &name).await;
}
