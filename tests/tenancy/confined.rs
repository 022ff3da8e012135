//! Confined tokens: passwords for one repository, which the token endpoint issues.

use harness::http::{Answer, send};
use harness::{Admin, Berth};
use reqwest::Method;
use serde_json::Value;

use super::{DOMAIN, access_token, get, push, settings, to, two_tenants};

fn host() -> String {
    format!("acme.{DOMAIN}")
}

async fn exchange(berth: &Berth, host: &str, form: &str) -> Answer {
    let request = to(berth, host, Method::POST, "/v2/token")
        .header("Content-Type", "application/x-www-form-urlencoded");
    send(request.body(form.to_owned())).await
}

/// What the token endpoint answers to a password and a scope.
async fn confined(berth: &Berth, password: &str, scope: &str) -> Value {
    let form =
        format!("grant_type=password&access_type=confined&username=u&password={password}&scope={scope}");
    exchange(berth, &host(), &form).await.expect(200).json()
}

/// A server with the repositories `app` and `other` of a tenant, and a token that may do everything there.
async fn scene() -> (Berth, Admin, String) {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    for name in ["app", "other"] {
        push(&berth, &host(), &token, name, name.as_bytes(), "v1").await;
    }
    (berth, admin, token)
}

async fn password(berth: &Berth, token: &str, scope: &str) -> String {
    let issued = confined(berth, token, scope).await;
    assert_eq!(issued["confined_expires_in"], 3600);
    issued["confined_token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_token_does_what_it_was_asked_for_and_nothing_else_its_credential_could() {
    let (berth, _admin, token) = scene().await;
    let password = password(&berth, &token, "repository:app:pull").await;
    get(&berth, &host(), &password, "/v2/").await.expect(200);
    get(&berth, &host(), &password, "/v2/app/manifests/v1")
        .await
        .expect(200);
    get(&berth, &host(), &password, "/v2/app/tags/list")
        .await
        .expect(200);
    for path in ["/v2/other/manifests/v1", "/v2/other/tags/list", "/v2/_catalog"] {
        get(&berth, &host(), &password, path).await.expect(401);
    }
    let upload = to(&berth, &host(), Method::POST, "/v2/app/blobs/uploads/");
    send(upload.basic_auth("u", Some(&password))).await.expect(401);

    // Exchanged as clients do, for more than it has.
    let scope = "repository:app:pull,push&scope=repository:other:pull&scope=registry:catalog:*";
    let form = format!("grant_type=password&username=u&password={password}&scope={scope}");
    let issued = exchange(&berth, &host(), &form).await.expect(200).json();
    assert_eq!(issued["scope"], "repository:app:pull,metadata");
    let bearer = issued["token"].as_str().expect("a token");
    send(to(&berth, &host(), Method::GET, "/v2/app/manifests/v1").bearer_auth(bearer))
        .await
        .expect(200);
    send(to(&berth, &host(), Method::GET, "/v2/other/manifests/v1").bearer_auth(bearer))
        .await
        .expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_token_mounts_nothing_from_repositories_that_it_does_not_name() {
    let (berth, _admin, token) = scene().await;
    let blob = harness::content::sha256(b"other");
    let mount = || {
        let path = format!("/v2/app/blobs/uploads/?mount={blob}");
        to(&berth, &host(), Method::POST, &path)
    };
    let password = password(&berth, &token, "repository:app:pull,push").await;
    send(mount().basic_auth("u", Some(&password))).await.expect(202);
    // Nor does what it is exchanged for.
    let bearer = access_token(&berth, &host(), &password, "repository:app:pull,push").await;
    send(mount().bearer_auth(&bearer)).await.expect(202);
    // Naming the source does not help either.
    let from = format!("/v2/app/blobs/uploads/?mount={blob}&from=other");
    let request = to(&berth, &host(), Method::POST, &from);
    send(request.basic_auth("u", Some(&password))).await.expect(202);

    // What is narrower than the confined token is told to ask for a wider one, as ever.
    let narrow = access_token(&berth, &host(), &password, "repository:app:pull").await;
    send(mount().bearer_auth(&narrow)).await.expect(401);
    // An access token that is not confined mounts what its credential may pull.
    let bearer = access_token(&berth, &host(), &token, "repository:app:pull,push").await;
    send(mount().bearer_auth(&bearer)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_token_is_a_password_and_buys_nothing_that_lasts() {
    let (berth, _admin, token) = scene().await;
    let password = password(&berth, &token, "repository:app:pull").await;
    let bearer = to(&berth, &host(), Method::GET, "/v2/app/manifests/v1").bearer_auth(&password);
    send(bearer).await.expect(401);
    let refresh = format!("grant_type=refresh_token&refresh_token={password}&scope=repository:app:pull");
    exchange(&berth, &host(), &refresh).await.expect(401);
    for access in [
        "access_type=offline",
        "offline_token=true",
        "access_type=confined",
    ] {
        let form =
            format!("grant_type=password&username=u&password={password}&scope=repository:app:pull&{access}");
        let issued = exchange(&berth, &host(), &form).await.expect(200).json();
        assert!(issued["token"].is_string(), "{access}");
        for lasting in ["refresh_token", "confined_token"] {
            assert!(issued.get(lasting).is_none(), "{access} gives a {lasting}");
        }
    }
    // Nor do a refresh token or an access token pass for one.
    let form = format!(
        "grant_type=password&username=u&password={token}&access_type=offline&scope=repository:app:pull"
    );
    let issued = exchange(&berth, &host(), &form).await.expect(200).json();
    for field in ["refresh_token", "token"] {
        let other = issued[field].as_str().expect("a token");
        get(&berth, &host(), other, "/v2/app/manifests/v1")
            .await
            .expect(401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_token_is_nobody_at_another_tenant_and_ends_with_its_credential() {
    let (berth, admin, token) = scene().await;
    let password = password(&berth, &token, "repository:app:pull").await;
    let elsewhere = format!("other.{DOMAIN}");
    let unknown = get(&berth, &elsewhere, "no-token-at-all", "/v2/")
        .await
        .expect(401);
    let refused = get(&berth, &elsewhere, &password, "/v2/").await.expect(401);
    assert_eq!(refused.text(), unknown.text(), "in the same words");
    // By path on the bare domain it is the tenant's.
    get(&berth, DOMAIN, &password, "/v2/acme/app/manifests/v1")
        .await
        .expect(200);
    get(&berth, DOMAIN, &password, "/v2/other/app/manifests/v1")
        .await
        .expect(401);

    let path = format!("tenants/acme/tokens/{}", Admin::id_of(&token));
    let revoked = admin.ask(Method::DELETE, &path, None).await;
    assert!(revoked.status.is_success(), "{}", revoked.text());
    super::eventually("it is refused", async || {
        get(&berth, &host(), &password, "/v2/app/manifests/v1")
            .await
            .status
            == 401
    })
    .await;
    assert!(!berth.log().contains(&password));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_and_nothing_granted_get_no_confined_token() {
    let (berth, admin, _token) = scene().await;
    let small = admin.token("acme", &["app"], &["pull"]).await;
    for scope in ["", "repository:other:pull", "repository:app:delete"] {
        let issued = confined(&berth, &small, scope).await;
        assert!(issued.get("confined_token").is_none(), "{scope}");
    }
    let anonymous = "/v2/token?access_type=confined&scope=repository:app:pull";
    let issued = send(to(&berth, &host(), Method::GET, anonymous))
        .await
        .expect(200)
        .json();
    assert!(issued.get("confined_token").is_none());
    // Unless it is asked for there is none.
    let issued = get(&berth, &host(), &small, "/v2/token?scope=repository:app:pull")
        .await
        .expect(200)
        .json();
    assert!(issued.get("confined_token").is_none() && issued["token"].is_string());
}
