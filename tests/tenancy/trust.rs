//! Tokens of a real issuer, exchanged and used directly: a server on loopback that publishes a discovery document
//! and a key, and signs what a job would be given.

use harness::Issuer;
use harness::http::send;
use reqwest::Method;
use serde_json::{Value, json};

use super::{DOMAIN, get, push, settings, to, two_tenants};

fn claims(issuer: &str, repository: &str) -> Value {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    json!({
        "iss": issuer, "aud": format!("acme.{DOMAIN}"), "sub": format!("repo:{repository}:ref:refs/heads/main"),
        "iat": now, "exp": now + 300, "repository": repository, "ref": "refs/heads/main",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_s_own_token_pushes_where_the_tenant_trusts_it_and_nowhere_else() {
    let issuer = Issuer::start().await;
    let (berth, admin) = two_tenants(settings().flag("--egress-allow", "127.0.0.1")).await;
    let host = format!("acme.{DOMAIN}");
    let rule = json!({
        "kind": "Issuer", "issuer": issuer.url(), "audience": host, "claims": { "repository": "acme/app" },
        "when": "claims.ref == 'refs/heads/main'",
        "grants": [{ "repositories": ["app"], "actions": ["pull", "push"] }],
    });
    admin.put_tenant("acme", json!({ "trust": [rule] })).await;
    admin.put_tenant("other", json!({})).await;
    let job = issuer.sign(&claims(issuer.url(), "acme/app"));

    // Directly as the password, and exchanged for an access token as clients do.
    push(&berth, &host, &job, "app", b"content", "v1").await;
    let bearer = super::access_token(&berth, &host, &job, "repository:app:pull,push").await;
    send(to(&berth, &host, Method::GET, "/v2/app/tags/list").bearer_auth(&bearer))
        .await
        .expect(200);
    get(&berth, &host, &job, "/v2/elsewhere/tags/list")
        .await
        .expect(403);

    for (token, why) in [
        (
            issuer.sign(&claims(issuer.url(), "acme/other")),
            "another repository",
        ),
        (
            Issuer::start().await.sign(&claims(issuer.url(), "acme/app")),
            "another's key",
        ),
        (format!("{}x", &job[..job.len() - 1]), "a changed signature"),
    ] {
        let refused = get(&berth, &host, &token, "/v2/").await;
        assert_eq!(refused.status, 401, "{why}");
        assert!(
            refused.text().contains("no trust rule"),
            "{why}: {}",
            refused.text()
        );
    }
    get(&berth, &format!("other.{DOMAIN}"), &job, "/v2/")
        .await
        .expect(401);
    // A rule that is taken back takes what was issued on its strength with it.
    admin.put_tenant("acme", json!({})).await;
    get(&berth, &host, &job, "/v2/").await.expect(401);
    send(to(&berth, &host, Method::GET, "/v2/app/tags/list").bearer_auth(&bearer))
        .await
        .expect(401);
    let log = berth.log();
    assert!(
        log.contains("oidc:127.0.0.1") && !log.contains(&job),
        "the trail names the job, not its token"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_at_a_private_address_is_asked_only_if_that_is_allowed() {
    let issuer = Issuer::start().await;
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let rule = json!({
        "kind": "Issuer", "issuer": issuer.url(), "audience": host,
        "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
    });
    admin.put_tenant("acme", json!({ "trust": [rule] })).await;
    let job = issuer.sign(&claims(issuer.url(), "acme/app"));
    get(&berth, &host, &job, "/v2/").await.expect(401);
    assert_eq!(issuer.asked(), 0);
    super::eventually("the log says why", async || {
        berth.log().contains("--egress-allow")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_pulls_by_its_own_token() {
    let cluster = Issuer::start().await;
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let rule = json!({
        "kind": "ServiceAccounts", "jwks": cluster.jwks().to_string(), "namespaces": ["build"], "names": ["default"],
        "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
    });
    admin.put_tenant("acme", json!({ "trust": [rule] })).await;
    let token = |namespace: &str| {
        let mut claims = claims("https://kubernetes.default.svc", "x");
        claims["aud"] = json!([DOMAIN]);
        claims["sub"] = format!("system:serviceaccount:{namespace}:default").into();
        claims["kubernetes.io"] =
            json!({ "namespace": namespace, "serviceaccount": { "name": "default", "uid": "u" } });
        cluster.sign(&claims)
    };
    get(&berth, &host, &token("build"), "/v2/").await.expect(200);
    get(&berth, &host, &token("other"), "/v2/").await.expect(401);
    // The same audience at another tenant, which trusts nobody.
    get(&berth, &format!("other.{DOMAIN}"), &token("build"), "/v2/")
        .await
        .expect(401);
    assert_eq!(cluster.asked(), 0, "keys of a cluster are never fetched");
}
