//! Secrets with tokens: handed over, rotated, revoked, never at another's cost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Admin, Installation, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn text(secret: &Value, key: &str) -> String {
    let data = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(data).expect("base64")).expect("text")
}

/// The password for a host.
fn password(secret: &Value, host: &str) -> String {
    let docker: Value = serde_json::from_str(&text(secret, ".dockerconfigjson")).expect("JSON");
    docker["auths"][host]["password"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What the registry answers to the ping with this password on the tenant's host.
async fn ping(berth: &Installation, host: &str, password: &str) -> u16 {
    let request = harness::http::client()
        .get(berth.registry.url("/v2/"))
        .header("host", host)
        .basic_auth("x-token", Some(password));
    harness::http::send(request).await.status.as_u16()
}

#[tokio::test]
async fn a_namespace_gets_a_pull_secret_with_its_label_and_loses_it_with_the_label() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth
        .namespace("apps", json!({ "pull": name, "team": "a" }))
        .await;
    let tenant = berth
        .ready_tenant(
            &name,
            json!({
                "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "team": "a" } } },
                "pullSecrets": {
                    "namespaceSelector": { "matchLabels": { "pull": name } },
                    "serviceAccounts": ["default", "late"],
                },
            }),
        )
        .await;
    assert_eq!(tenant["status"]["pullSecrets"]["namespaces"], 1);
    let host = format!("{name}.registry.test");
    let secret = berth
        .plane
        .find("Secret", &apps, &format!("berth-{name}"))
        .await
        .expect("the pull Secret");
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(ping(&berth, &host, &password(&secret, &host)).await, 200);
    let names = |account: &Value| -> Vec<String> {
        let list = account["imagePullSecrets"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
            .collect()
    };
    let ours = format!("berth-{name}");
    berth
        .plane
        .wait("ServiceAccount", &apps, "default", |account| {
            names(account).contains(&ours)
        })
        .await;
    // An account that comes later, with an entry of its own.
    let late = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "late", "namespace": apps },
        "imagePullSecrets": [{ "name": "theirs" }],
    });
    berth.plane.create(late).await.expect("an account");
    let both = |account: &Value| names(account) == ["theirs", ours.as_str()];
    berth.plane.wait("ServiceAccount", &apps, "late", both).await;
    // A second namespace follows; one that the tenant does not admit does not.
    let more = berth
        .namespace("more", json!({ "pull": name, "team": "a" }))
        .await;
    let foreign = berth.namespace("foreign", json!({ "pull": name })).await;
    berth.plane.wait("Secret", &more, &ours, |_| true).await;
    assert!(berth.plane.find("Secret", &foreign, &ours).await.is_none());
    let other = berth.plane.find("Secret", &more, &ours).await.expect("a Secret");
    assert_ne!(
        password(&secret, &host),
        password(&other, &host),
        "a credential a namespace"
    );
    // The label goes, and with it the Secret, its tokens and the entries.
    let rotate = json!({ "metadata": { "annotations": { "berth.dev/rotate": "now" } } });
    berth.plane.merge("Secret", &apps, &ours, rotate).await;
    let old = password(&secret, &host);
    let secret = berth
        .plane
        .wait("Secret", &apps, &ours, |secret| password(secret, &host) != old)
        .await;
    assert_eq!(ping(&berth, &host, &old).await, 200);
    berth
        .plane
        .merge(
            "Namespace",
            "",
            &apps,
            json!({ "metadata": { "labels": { "pull": null } } }),
        )
        .await;
    berth.plane.wait_gone("Secret", &apps, &ours).await;
    assert_eq!(ping(&berth, &host, &password(&secret, &host)).await, 401);
    assert_eq!(ping(&berth, &host, &old).await, 401);
    assert_eq!(ping(&berth, &host, &password(&other, &host)).await, 200);
    let late = berth
        .plane
        .find("ServiceAccount", &apps, "late")
        .await
        .expect("an account");
    assert_eq!(names(&late), ["theirs"]);
}

#[tokio::test]
async fn a_token_is_rotated_with_overlap_on_request_and_revoked_at_once_on_request() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let ci = berth.namespace("ci", json!({})).await;
    berth
        .ready_tenant(
            &name,
            json!({
                "allowedNamespaces": { "from": "All" },
                "tokens": [{
                    "name": "ci",
                    "secretRef": { "namespace": ci, "name": "berth-ci" },
                    "grants": [{ "repositories": ["team-a/**"], "actions": ["pull", "push"] }],
                }],
            }),
        )
        .await;
    let host = format!("{name}.registry.test");
    let first = berth
        .plane
        .find("Secret", &ci, "berth-ci")
        .await
        .expect("the token's Secret");
    assert_eq!(text(&first, "username"), "x-token");
    assert_eq!(text(&first, "registry"), host);
    let old = text(&first, "token");
    assert_eq!(password(&first, &host), old);
    let annotate = async |key: &str| {
        let patch = json!({ "metadata": { "annotations": { key: "now" } } });
        berth.plane.merge("Secret", &ci, "berth-ci", patch).await;
    };
    annotate("berth.dev/rotate").await;
    let second = berth
        .plane
        .wait("Secret", &ci, "berth-ci", |secret| text(secret, "token") != old)
        .await;
    let new = text(&second, "token");
    assert!(
        second["metadata"]["annotations"]
            .get("berth.dev/rotate")
            .is_none(),
        "the request is done"
    );
    assert_eq!(
        (ping(&berth, &host, &old).await, ping(&berth, &host, &new).await),
        (200, 200),
        "both are valid"
    );
    annotate("berth.dev/revoke").await;
    let third = berth
        .plane
        .wait("Secret", &ci, "berth-ci", |secret| text(secret, "token") != new)
        .await;
    assert_eq!(ping(&berth, &host, &text(&third, "token")).await, 200);
    eventually("both predecessors are void", PATIENCE, async || {
        let answers = (ping(&berth, &host, &old).await, ping(&berth, &host, &new).await);
        (answers == (401, 401)).then_some(())
    })
    .await;
    let status = berth.plane.wait("Tenant", "", &name, |tenant| {
        tenant["status"]["tokens"][0]["id"] == third["metadata"]["annotations"]["berth.dev/token-id"]
    });
    status.await;
}

#[tokio::test]
async fn grants_that_are_taken_away_are_taken_from_replaced_tokens_too() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let ci = berth.namespace("ci", json!({})).await;
    let spec = |actions: &[&str]| {
        json!({
            "allowedNamespaces": { "from": "All" },
            "tokens": [{
                "name": "ci",
                "secretRef": { "namespace": ci, "name": "berth-ci" },
                "grants": [{ "repositories": ["team-a/**"], "actions": actions }],
            }],
        })
    };
    berth.ready_tenant(&name, spec(&["pull", "push"])).await;
    let host = format!("{name}.registry.test");
    let first = berth.plane.find("Secret", &ci, "berth-ci").await;
    let old = text(&first.expect("the token's Secret"), "token");
    let rotate = json!({ "metadata": { "annotations": { "berth.dev/rotate": "now" } } });
    berth.plane.merge("Secret", &ci, "berth-ci", rotate).await;
    let second = berth
        .plane
        .wait("Secret", &ci, "berth-ci", |secret| text(secret, "token") != old)
        .await;
    let new = text(&second, "token");
    let upload = async |token: &str| {
        let request = harness::http::client()
            .post(berth.registry.url("/v2/team-a/app/blobs/uploads/"))
            .header("host", &host)
            .basic_auth("x-token", Some(token));
        harness::http::send(request).await.status.as_u16()
    };
    assert_eq!((upload(&old).await, upload(&new).await), (202, 202));
    let narrowed = json!({ "spec": spec(&["pull"]) });
    berth.plane.merge("Tenant", "", &name, narrowed).await;
    eventually("neither may push any more", PATIENCE, async || {
        ((upload(&old).await, upload(&new).await) == (403, 403)).then_some(())
    })
    .await;
    assert_eq!(
        (ping(&berth, &host, &old).await, ping(&berth, &host, &new).await),
        (200, 200),
        "both are still valid"
    );
}

#[tokio::test]
async fn tokens_that_are_rotated_in_a_row_are_all_valid_until_they_are_revoked() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
    });
    berth.ready_tenant(&name, spec).await;
    let (host, ours) = (format!("{name}.registry.test"), format!("berth-{name}"));
    let replace = async |how: &str, old: &str| {
        let patch = json!({ "metadata": { "annotations": { how: "now" } } });
        berth.plane.merge("Secret", &apps, &ours, patch).await;
        let new = berth
            .plane
            .wait("Secret", &apps, &ours, |secret| password(secret, &host) != old)
            .await;
        (password(&new, &host), new)
    };
    let answers = async |passwords: &[String]| {
        let mut answers = Vec::new();
        for password in passwords {
            answers.push(ping(&berth, &host, password).await);
        }
        answers
    };
    let first = berth.plane.find("Secret", &apps, &ours).await.expect("a Secret");
    let mut passwords = vec![password(&first, &host)];
    let started = Instant::now();
    for rotation in 0..3 {
        // Each is used before it is replaced, as a node would.
        assert_eq!(ping(&berth, &host, &passwords[rotation]).await, 200);
        passwords.push(replace("berth.dev/rotate", &passwords[rotation]).await.0);
    }
    let took = started.elapsed();
    assert!(took < PATIENCE, "in a row: {took:?}");
    assert_eq!(answers(&passwords).await, [200; 4]);
    // Nor are they taken for tokens that no Secret names, which end half a minute after they were made.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let touch = json!({ "metadata": { "annotations": { "example.com/touched": "yes" } } });
    berth.plane.merge("Tenant", "", &name, touch).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(answers(&passwords).await, [200; 4]);

    let (new, secret) = replace("berth.dev/revoke", &passwords[3]).await;
    assert!(
        secret["metadata"]["annotations"]
            .get("berth.dev/previous-token-id")
            .is_none(),
        "nothing is left to end"
    );
    eventually("all predecessors are void", PATIENCE, async || {
        (answers(&passwords).await == [401; 4]).then_some(())
    })
    .await;
    assert_eq!(ping(&berth, &host, &new).await, 200);
}

#[tokio::test]
async fn all_tokens_issued_before_a_time_end_at_once() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
    });
    berth.ready_tenant(&name, spec).await;
    let (host, ours) = (format!("{name}.registry.test"), format!("berth-{name}"));
    let before = berth.plane.find("Secret", &apps, &ours).await.expect("a Secret");
    let tokens = Admin::of(&berth.registry)
        .ask(Method::GET, &format!("tenants/{name}/tokens"), None)
        .await
        .json();
    let made = tokens["tokens"][0]["createdAt"].as_str().expect("a time");
    // A little later than that.
    let later = made.replace('Z', if made.contains('.') { "9Z" } else { ".9Z" });
    let patch = json!({ "metadata": { "annotations": { "berth.dev/revoke-issued-before": later } } });
    berth.plane.merge("Tenant", "", &name, patch).await;
    let old = password(&before, &host);
    let after = berth
        .plane
        .wait("Secret", &apps, &ours, |secret| password(secret, &host) != old)
        .await;
    eventually("the old token is void", PATIENCE, async || {
        (ping(&berth, &host, &old).await == 401).then_some(())
    })
    .await;
    assert_eq!(ping(&berth, &host, &password(&after, &host)).await, 200);
}

#[tokio::test]
async fn a_secret_that_is_not_the_tenants_is_neither_adopted_nor_overwritten() {
    let berth = Installation::start().await;
    let (name, thief) = (berth.name("acme"), berth.name("thief"));
    let apps = berth.namespace("apps", json!({})).await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "database", "namespace": apps },
        "stringData": { "password": "theirs" },
    });
    berth.plane.create(theirs).await.expect("a Secret");
    let spec = |namespace: &str, secret: &str| {
        json!({
            "allowedNamespaces": { "from": "All" },
            "tokens": [{
                "name": "ci",
                "secretRef": { "namespace": namespace, "name": secret },
                "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
            }],
        })
    };
    let stalled = async |tenant: &str, namespace: &str, secret: &str| {
        let tenant_object = berth.tenant(tenant, spec(namespace, secret));
        berth
            .plane
            .apply(tenant_object)
            .await
            .expect("the Tenant is accepted");
        berth
            .plane
            .wait_for("Tenant", "", tenant, "Stalled", "True", "SecretConflict")
            .await;
    };
    stalled(&name, &apps, "database").await;
    let kept = berth
        .plane
        .find("Secret", &apps, "database")
        .await
        .expect("the Secret");
    assert_eq!(text(&kept, "password"), "theirs");
    assert!(kept["metadata"].get("labels").is_none());
    // Nor one of another tenant, nor any in the cluster's namespaces or the operator's own.
    berth.ready_tenant(&name, spec(&apps, "berth-ci")).await;
    let before = berth
        .plane
        .find("Secret", &apps, "berth-ci")
        .await
        .expect("the Secret");
    stalled(&thief, &apps, "berth-ci").await;
    assert_eq!(
        berth
            .plane
            .find("Secret", &apps, "berth-ci")
            .await
            .expect("the Secret"),
        before
    );
    for reserved in ["kube-system", berth.id.as_str()] {
        stalled(&thief, reserved, "berth-ci").await;
        assert!(berth.plane.find("Secret", reserved, "berth-ci").await.is_none());
    }
}

#[tokio::test]
async fn a_secret_that_was_changed_or_deleted_is_made_anew() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } } },
    });
    berth.ready_tenant(&name, spec).await;
    let (host, ours) = (format!("{name}.registry.test"), format!("berth-{name}"));
    let works = async |secret: &Value| ping(&berth, &host, &password(secret, &host)).await == 200;
    let first = berth.plane.find("Secret", &apps, &ours).await.expect("a Secret");
    berth.plane.delete("Secret", &apps, &ours).await;
    let uid = first["metadata"]["uid"].clone();
    let second = berth
        .plane
        .wait("Secret", &apps, &ours, |secret| secret["metadata"]["uid"] != uid)
        .await;
    assert!(works(&second).await);
    let broken = json!({ "data": { ".dockerconfigjson": STANDARD.encode(r#"{"auths":{}}"#) } });
    berth.plane.merge("Secret", &apps, &ours, broken).await;
    let third = berth
        .plane
        .wait("Secret", &apps, &ours, |secret| {
            !password(secret, &host).is_empty()
        })
        .await;
    assert!(works(&third).await);
    assert!(!works(&second).await, "whoever emptied it may have seen it");
    // The registry knows no token that no Secret names, but for those that are about to be swept.
    let tokens = Admin::of(&berth.registry)
        .ask(Method::GET, &format!("tenants/{name}/tokens"), None)
        .await
        .json();
    assert!(tokens["tokens"].as_array().expect("tokens").len() <= 2);
}

#[tokio::test]
async fn service_accounts_that_a_tenant_trusts_need_no_secret() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let host = format!("{name}.registry.test");
    let apps = berth.namespace("apps", json!({ "pull": name })).await;
    let other = berth.namespace("other", json!({})).await;
    let spec = json!({
        "trust": [{
            "serviceAccounts": { "namespaceSelector": { "matchLabels": { "pull": name } }, "names": ["default"] },
            "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
        }],
    });
    berth.ready_tenant(&name, spec).await;
    for namespace in [&apps, &other] {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "builder", "namespace": namespace },
        });
        berth.plane.apply(account).await.expect("it is accepted");
        berth
            .plane
            .wait("ServiceAccount", namespace, "default", |_| true)
            .await;
    }
    let token = async |namespace: &str, account: &str, audience: &str| {
        berth.plane.token_of(namespace, account, &[audience]).await
    };
    let trusted = token(&apps, "default", "registry.test").await;
    assert_eq!(ping(&berth, &host, &trusted).await, 200);
    for (namespace, account, audience) in [
        (&apps, "builder", "registry.test"),
        (&other, "default", "registry.test"),
        (&apps, "default", "registry.other"),
        (&apps, "default", "https://kubernetes.default.svc"),
    ] {
        let refused = token(namespace, account, audience).await;
        assert_eq!(
            ping(&berth, &host, &refused).await,
            401,
            "{namespace} {account} {audience}"
        );
    }
    // Selectors are followed: with the label comes the trust, and goes.
    let label = |value: Value| json!({ "metadata": { "labels": { "pull": value } } });
    let later = token(&other, "default", "registry.test").await;
    for (value, status) in [(json!(name), 200), (Value::Null, 401)] {
        berth.plane.merge("Namespace", "", &other, label(value)).await;
        eventually("the trust follows the label", PATIENCE, async || {
            (ping(&berth, &host, &later).await == status).then_some(())
        })
        .await;
    }
}
