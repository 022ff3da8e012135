//! Secrets that others write or keep the operator from writing: they cost nobody a token or content, and a status says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Admin, Installation, condition, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A tenant's name with what its tokens are for: the Secret `berth-ci` of a namespace.
async fn tenant_with_token(berth: &Installation, suffix: &str, namespace: &str) -> String {
    let name = berth.name(suffix);
    berth.ready_tenant(&name, token_spec(namespace)).await;
    name
}

fn token_spec(namespace: &str) -> Value {
    json!({
        "allowedNamespaces": { "from": "All" },
        "tokens": [{
            "name": "ci",
            "secretRef": { "namespace": namespace, "name": "berth-ci" },
            "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
        }],
    })
}

async fn secret(berth: &Installation, namespace: &str) -> Value {
    let found = berth.plane.find("Secret", namespace, "berth-ci").await;
    found.expect("the token's Secret")
}

fn token(secret: &Value) -> String {
    let data = secret["data"]["token"].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(data).expect("base64")).expect("text")
}

fn annotation<'a>(secret: &'a Value, key: &str) -> &'a str {
    secret["metadata"]["annotations"][key]
        .as_str()
        .unwrap_or_default()
}

/// What the registry answers to the ping with a Secret's token.
async fn ping(berth: &Installation, tenant: &str, token: &str) -> u16 {
    let request = harness::http::client()
        .get(berth.registry.url("/v2/"))
        .header("host", format!("{tenant}.registry.test"))
        .basic_auth("x-token", Some(token));
    harness::http::send(request).await.status.as_u16()
}

async fn annotate(berth: &Installation, kind: &str, namespace: &str, name: &str, key: &str, value: &str) {
    let patch = json!({ "metadata": { "annotations": { key: value } } });
    berth.plane.merge(kind, namespace, name, patch).await;
}

/// Looks at Tenants that ended so.
async fn looks(berth: &Installation, outcome: &str) -> usize {
    let wanted = format!("berth_operator_reconciliations_total{{kind=\"Tenant\",outcome=\"{outcome}\"}} ");
    let metrics = berth.metrics(0).await;
    let count = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// Makes the operator look at a tenant this often.
async fn make_look(berth: &Installation, tenant: &str, outcome: &str, times: usize) {
    for touch in 0..times {
        let before = looks(berth, outcome).await;
        annotate(
            berth,
            "Tenant",
            "",
            tenant,
            "example.com/touched",
            &touch.to_string(),
        )
        .await;
        eventually("a look", PATIENCE, async || {
            (looks(berth, outcome).await > before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_secret_that_only_looks_like_a_tenants_costs_nobody_content_or_a_token() {
    let berth = Installation::start().await;
    let ci = berth.namespace("ci", json!({})).await;
    let own = berth.namespace("own", json!({})).await;
    let anywhere = berth.namespace("anywhere", json!({})).await;
    let name = tenant_with_token(&berth, "acme", &ci).await;
    let victim = tenant_with_token(&berth, "victim", &own).await;
    let (present, theirs) = (secret(&berth, &ci).await, secret(&berth, &own).await);
    let id = annotation(&present, "berth.dev/token-id").to_owned();
    let forged = [
        ("erasing", format!("../../{victim}?erase=true#"), String::new()),
        ("removing", format!("../../{victim}"), String::new()),
        ("ending", id.clone(), String::new()),
        ("listing", String::new(), format!("{id}=1970-01-01T00:00:00Z")),
    ];
    for (secret, id, previous) in &forged {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": secret, "namespace": anywhere,
                "labels": { "app.kubernetes.io/managed-by": "berth-operator", "berth.dev/tenant": name },
                "annotations": {
                    "berth.dev/token-id": id, "berth.dev/previous-token-id": previous, "berth.dev/revoke": "now",
                },
            },
        });
        berth.plane.create(object).await.expect("a Secret");
    }
    make_look(&berth, &name, "Ready", 3).await;
    let admin = Admin::of(&berth.registry);
    for tenant in [&victim, &name] {
        let path = format!("tenants/{tenant}");
        admin.ask(Method::GET, &path, None).await.expect(200);
    }
    assert_eq!(ping(&berth, &victim, &token(&theirs)).await, 200);
    assert_eq!(ping(&berth, &name, &token(&present)).await, 200);
    for (secret, ..) in &forged {
        assert!(
            berth.plane.find("Secret", &anywhere, secret).await.is_some(),
            "{secret} is whose it was"
        );
    }
}

#[tokio::test]
async fn a_secret_s_annotations_end_no_other_secret_s_token() {
    let berth = Installation::start().await;
    let (ci, own) = (
        berth.namespace("ci", json!({})).await,
        berth.namespace("own", json!({})).await,
    );
    let name = berth.name("acme");
    let mut spec = token_spec(&ci);
    let mut second = spec["tokens"][0].clone();
    second["name"] = json!("second");
    second["secretRef"]["namespace"] = json!(own);
    spec["tokens"].as_array_mut().expect("tokens").push(second);
    berth.ready_tenant(&name, spec).await;
    let (theirs, present) = (secret(&berth, &own).await, secret(&berth, &ci).await);
    let id = annotation(&theirs, "berth.dev/token-id");
    let patch = json!({ "metadata": { "annotations": {
        "berth.dev/previous-token-id": id, "berth.dev/revoke": "now",
    } } });
    berth.plane.merge("Secret", &ci, "berth-ci", patch).await;
    berth
        .plane
        .wait("Secret", &ci, "berth-ci", |secret| {
            token(secret) != token(&present)
        })
        .await;
    eventually("its own token is void", PATIENCE, async || {
        (ping(&berth, &name, &token(&present)).await == 401).then_some(())
    })
    .await;
    assert_eq!(ping(&berth, &name, &token(&theirs)).await, 200);
}

#[tokio::test]
async fn a_forged_date_of_issue_does_not_hold_up_a_revocation() {
    let berth = Installation::start().await;
    let ci = berth.namespace("ci", json!({})).await;
    let name = tenant_with_token(&berth, "acme", &ci).await;
    let before = secret(&berth, &ci).await;
    annotate(
        &berth,
        "Secret",
        &ci,
        "berth-ci",
        "berth.dev/issued-at",
        "2099-01-01T00:00:00Z",
    )
    .await;
    let tokens = Admin::of(&berth.registry)
        .ask(Method::GET, &format!("tenants/{name}/tokens"), None)
        .await
        .expect(200)
        .json();
    let made = tokens["tokens"][0]["createdAt"].as_str().expect("a time");
    // A little later than that.
    let fraction = if made.contains('.') { "9Z" } else { ".9Z" };
    let later = made.replace('Z', fraction);
    annotate(
        &berth,
        "Tenant",
        "",
        &name,
        "berth.dev/revoke-issued-before",
        &later,
    )
    .await;
    let after = berth
        .plane
        .wait("Secret", &ci, "berth-ci", |secret| {
            token(secret) != token(&before)
        })
        .await;
    eventually("the old token is void", PATIENCE, async || {
        (ping(&berth, &name, &token(&before)).await == 401).then_some(())
    })
    .await;
    assert_eq!(ping(&berth, &name, &token(&after)).await, 200);
}

#[tokio::test]
async fn a_secret_that_cannot_be_written_is_told_and_costs_few_tokens() {
    let berth = Installation::start().await;
    let full = berth.namespace("full", json!({})).await;
    let none = json!({ "secrets": "0" });
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none", "namespace": full },
        "spec": { "hard": none },
    });
    berth.plane.create(quota).await.expect("a quota");
    let known = json!({ "hard": none, "used": { "secrets": "0" } });
    berth
        .plane
        .merge_status("ResourceQuota", &full, "none", known)
        .await;
    let filler = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "filler", "namespace": full },
    });
    eventually("the quota is enforced", PATIENCE, async || {
        match berth.plane.create(filler.clone()).await {
            Err(_) => Some(()),
            Ok(_) => {
                berth.plane.delete("Secret", &full, "filler").await;
                None
            }
        }
    })
    .await;
    let name = berth.name("acme");
    berth
        .plane
        .apply(berth.tenant(&name, token_spec(&full)))
        .await
        .expect("it is accepted");
    let told = berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "False", "CredentialsRetrying")
        .await;
    let distributed = condition(&told, "CredentialsDistributed").expect("a condition");
    assert_eq!(
        (&distributed["status"], &distributed["reason"]),
        (&json!("False"), &json!("Retrying"))
    );
    assert_eq!(
        condition(&told, "Reconciling").expect("a condition")["status"],
        "True"
    );
    let attempts = || {
        let requests = berth.requests();
        let creates = requests.iter().filter(|request| {
            request["verb"] == "create"
                && request["objectRef"]["resource"] == "secrets"
                && request["objectRef"]["namespace"] == full.as_str()
        });
        creates.count()
    };
    let before = attempts();
    let started = std::time::Instant::now();
    make_look(&berth, &name, "Failing", 12).await;
    // After one second, two, four and so on, each a quarter sooner at most.
    let due = (started.elapsed().as_secs_f64() / 0.75 + 1.0).log2().ceil() + 1.0;
    let more = attempts() - before;
    assert!((more as f64) <= due, "{more} attempts, {due} were due");
    berth.plane.delete("ResourceQuota", &full, "none").await;
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Served")
        .await;
    assert_eq!(
        ping(&berth, &name, &token(&secret(&berth, &full).await)).await,
        200
    );
}

#[tokio::test]
async fn a_revocation_does_not_wait_for_a_secret_that_cannot_be_written() {
    let berth = Installation::start().await;
    let ci = berth.namespace("ci", json!({})).await;
    let name = tenant_with_token(&berth, "acme", &ci).await;
    let before = token(&secret(&berth, &ci).await);
    let frozen = json!({ "immutable": true, "metadata": { "annotations": { "berth.dev/revoke": "now" } } });
    berth.plane.merge("Secret", &ci, "berth-ci", frozen).await;
    eventually("the token is void", PATIENCE, async || {
        (ping(&berth, &name, &before).await == 401).then_some(())
    })
    .await;
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "False", "CredentialsRetrying")
        .await;
    berth.plane.delete("Secret", &ci, "berth-ci").await;
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Served")
        .await;
    assert_eq!(ping(&berth, &name, &token(&secret(&berth, &ci).await)).await, 200);
}

#[tokio::test]
async fn a_namespace_that_is_not_admitted_is_told_from_one_that_is_about_to_go() {
    let berth = Installation::start().await;
    let ci = berth.namespace("ci", json!({})).await;
    let name = berth.name("acme");
    let mut spec = token_spec(&ci);
    spec["allowedNamespaces"] = json!({ "from": "None" });
    berth
        .plane
        .apply(berth.tenant(&name, spec))
        .await
        .expect("it is accepted");
    let stalled = async |reason: &str| {
        let told = berth
            .plane
            .wait_for("Tenant", "", &name, "Stalled", "True", reason)
            .await;
        let distributed = condition(&told, "CredentialsDistributed").expect("a condition");
        assert_eq!(distributed["reason"], reason);
    };
    stalled("NotAdmitted").await;
    berth.ready_tenant(&name, token_spec(&ci)).await;
    let present = token(&secret(&berth, &ci).await);
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "held", "namespace": ci, "finalizers": ["example.com/held"] },
    });
    berth.plane.create(held).await.expect("a ConfigMap");
    berth.plane.delete("Namespace", "", &ci).await;
    berth
        .plane
        .wait("Namespace", "", &ci, |namespace| {
            !namespace["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    annotate(&berth, "Tenant", "", &name, "example.com/touched", "now").await;
    stalled("NamespaceMissing").await;
    eventually("its token is void", PATIENCE, async || {
        (ping(&berth, &name, &present).await == 401).then_some(())
    })
    .await;
    let freed = json!({ "metadata": { "finalizers": null } });
    berth.plane.merge("ConfigMap", &ci, "held", freed).await;
}

#[tokio::test]
async fn a_token_ends_although_the_tenant_has_no_secret_left() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
    });
    berth.ready_tenant(&name, spec).await;
    let ours = format!("berth-{name}");
    let made = berth.plane.find("Secret", &apps, &ours).await.expect("a Secret");
    let docker = STANDARD
        .decode(made["data"][".dockerconfigjson"].as_str().expect("text"))
        .expect("base64");
    let docker: Value = serde_json::from_slice(&docker).expect("JSON");
    let host = format!("{name}.registry.test");
    let old = docker["auths"][&host]["password"].as_str().expect("a password");
    assert_eq!(ping(&berth, &name, old).await, 200);
    // Without the label the operator sees it no more.
    let hidden = json!({ "metadata": { "labels": { "berth.dev/tenant": null } } });
    berth.plane.merge("Secret", &apps, &ours, hidden).await;
    let unwanted = json!({ "metadata": { "labels": { "pull": null } } });
    berth.plane.merge("Namespace", "", &apps, unwanted).await;
    eventually("the token is void", Duration::from_secs(90), async || {
        (ping(&berth, &name, old).await == 401).then_some(())
    })
    .await;
}
