//! Tokens: what they may do, the token endpoint, revocation on every replica, rotation, abuse.

use std::time::{Duration, Instant};

use harness::http::send;
use harness::{Admin, Cluster};
use reqwest::Method;
use serde_json::json;

use super::{DOMAIN, access_token, eventually, get, push, settings, to, two_tenants};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_does_what_it_was_granted_by_password_and_by_bearer() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let owner = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
    let (blob, manifest) = push(&berth, &host, &owner, "team-a/app", b"content", "v1").await;
    push(&berth, &host, &owner, "team-b/app", b"content", "v1").await;
    // Grants, and the status of: GET and HEAD a manifest, GET and HEAD a blob, list tags, start an upload, delete
    // a tag that is not there.
    let cases: [(&[&str], [u16; 7]); 5] = [
        (&["pull"], [200, 200, 200, 200, 200, 403, 403]),
        (&["push"], [403, 200, 403, 200, 200, 202, 403]),
        (&["metadata"], [403, 200, 403, 200, 200, 403, 403]),
        (&["delete"], [403, 403, 403, 403, 403, 403, 404]),
        (&["pull", "push", "delete"], [200, 200, 200, 200, 200, 202, 404]),
    ];
    for (actions, expected) in cases {
        let token = admin.token("acme", &["team-a/**"], actions).await;
        let bearer = access_token(&berth, &host, &token, "repository:team-a/app:pull,push,delete").await;
        let requests = [
            (Method::GET, "manifests/v1".to_owned()),
            (Method::HEAD, "manifests/v1".to_owned()),
            (Method::GET, format!("blobs/{blob}")),
            (Method::HEAD, format!("blobs/{blob}")),
            (Method::GET, "tags/list".to_owned()),
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::DELETE, "manifests/absent".to_owned()),
        ];
        for ((method, path), status) in requests.into_iter().zip(expected) {
            let request = || to(&berth, &host, method.clone(), &format!("/v2/team-a/app/{path}"));
            let by_password = send(request().basic_auth("anybody", Some(&token))).await;
            let by_bearer = send(request().bearer_auth(&bearer)).await;
            assert_eq!(by_password.status.as_u16(), status, "{actions:?} {method} {path}");
            assert_eq!(
                by_bearer.status.as_u16(),
                status,
                "{actions:?} {method} {path} by bearer"
            );
            let elsewhere = to(&berth, &host, method.clone(), &format!("/v2/team-b/app/{path}"));
            let elsewhere = send(elsewhere.basic_auth("x-token", Some(&token))).await;
            assert_eq!(elsewhere.status, 403, "{actions:?} {method} {path} elsewhere");
        }
    }
    let listing = admin.token("acme", &["team-a/**"], &["pull"]).await;
    let catalog = get(&berth, &host, &listing, "/v2/_catalog")
        .await
        .expect(200)
        .json();
    assert_eq!(catalog["repositories"], json!(["team-a/app"]));
    get(
        &berth,
        &host,
        &owner,
        &format!("/v2/team-a/app/manifests/{manifest}"),
    )
    .await
    .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_endpoint_speaks_as_every_client_expects() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["app"], &["pull", "push"]).await;
    // The challenge names the endpoint, on the same host.
    let challenge = send(to(&berth, &host, Method::GET, "/v2/app/manifests/v1"))
        .await
        .expect(401);
    assert_eq!(
        challenge.header("www-authenticate"),
        format!(r#"Bearer realm="http://{host}/v2/token",service="{host}",scope="repository:app:pull""#)
    );
    // Less than was asked for is no error.
    let scopes =
        "scope=repository:app:pull,push,delete&scope=repository:b:pull%20repository(plugin):app:*&account=x";
    let answer = get(&berth, &host, &token, &format!("/v2/token?{scopes}"))
        .await
        .expect(200)
        .json();
    assert_eq!(answer["token"], answer["access_token"]);
    assert!(answer["expires_in"].as_i64().unwrap() >= 60 && answer["issued_at"].is_string());
    assert!(answer.get("refresh_token").is_none());
    // No scope: a token that passes the ping, which is how clients log in.
    let empty = access_token(&berth, &host, &token, "").await;
    send(to(&berth, &host, Method::GET, "/v2/").bearer_auth(&empty))
        .await
        .expect(200);
    let too_small = send(to(&berth, &host, Method::GET, "/v2/app/tags/list").bearer_auth(&empty))
        .await
        .expect(401);
    assert!(
        too_small
            .header("www-authenticate")
            .contains(r#"error="insufficient_scope""#)
    );

    // POST as containerd and Helm do, then the refresh token as docker does.
    let post = async |form: &str| {
        let request = to(&berth, &host, Method::POST, "/v2/token")
            .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
        send(request.body(form.to_owned())).await
    };
    let form = format!(
        "grant_type=password&service={host}&client_id=c&access_type=offline&username=x-token&password={token}&scope=repository:app:pull"
    );
    let answer = post(&form).await.expect(200).json();
    assert_eq!(answer["scope"], "repository:app:pull,metadata");
    let refresh = answer["refresh_token"].as_str().unwrap();
    let again = format!(
        "grant_type=refresh_token&service={host}&client_id=c&refresh_token={refresh}&scope=repository:app:pull,push"
    );
    let answer = post(&again).await.expect(200).json();
    let bearer = answer["access_token"].as_str().unwrap();
    send(to(&berth, &host, Method::POST, "/v2/app/blobs/uploads/").bearer_auth(bearer))
        .await
        .expect(202);
    send(to(&berth, &host, Method::GET, "/v2/").bearer_auth(refresh))
        .await
        .expect(401);

    for (form, status) in [
        ("grant_type=password&username=x&password=wrong", 401),
        ("grant_type=refresh_token&refresh_token=wrong", 401),
        ("grant_type=password", 400),
        ("grant_type=code", 400),
        ("", 400),
    ] {
        post(form).await.expect(status);
    }
    let many: String = (0..60).map(|n| format!("&scope=repository:a{n}:pull")).collect();
    get(&berth, &host, &token, &format!("/v2/token?x=y{many}"))
        .await
        .expect(400);
    // Without a credential: a token for nobody.
    let nobody = send(to(
        &berth,
        &host,
        Method::GET,
        "/v2/token?scope=repository:app:pull",
    ))
    .await
    .expect(200)
    .json();
    let bearer = nobody["token"].as_str().unwrap();
    send(to(&berth, &host, Method::GET, "/v2/app/tags/list").bearer_auth(bearer))
        .await
        .expect(401);
    send(to(&berth, &host, Method::DELETE, "/v2/token"))
        .await
        .expect(405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_repository_is_pulled_by_anybody_and_pushed_by_nobody() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let owner = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, &host, &owner, "pub/app", b"content", "v1").await;
    let anonymous = async |method: Method, path: &str| send(to(&berth, &host, method, path)).await;
    anonymous(Method::GET, "/v2/pub/app/manifests/v1")
        .await
        .expect(401);

    admin
        .put(
            "tenants/acme/repositories/public",
            json!({ "match": "pub/**", "visibility": "Public" }),
        )
        .await;

    anonymous(Method::GET, "/v2/pub/app/manifests/v1")
        .await
        .expect(200);
    anonymous(Method::GET, "/v2/pub/app/tags/list").await.expect(200);
    anonymous(Method::POST, "/v2/pub/app/blobs/uploads/")
        .await
        .expect(401);
    anonymous(Method::DELETE, "/v2/pub/app/manifests/v1")
        .await
        .expect(401);
    anonymous(Method::GET, "/v2/private/tags/list").await.expect(401);
    anonymous(Method::GET, "/v2/_catalog").await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_by_every_replica_within_a_second() {
    let mut cluster = Cluster::start_with(2, settings()).await;
    let admin = Admin::of(cluster.replica(0));
    admin.put_tenant("acme", json!({})).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull"]).await;
    let (first, second) = (cluster.replica(0).url(""), cluster.replica(1).url(""));
    let ask = async |base: &str| {
        let request = harness::http::client()
            .get(format!("{base}/v2/"))
            .header("Host", &host);
        send(request.basic_auth("x-token", Some(&token)))
            .await
            .status
            .as_u16()
    };
    eventually("both replicas know the token", async || {
        ask(&first).await == 200 && ask(&second).await == 200
    })
    .await;
    let bearer = access_token(cluster.replica(1), &host, &token, "").await;

    let path = format!("tenants/acme/tokens/{}", Admin::id_of(&token));
    admin.ask(Method::DELETE, &path, None).await.expect(200);
    let revoked = Instant::now();

    eventually("no replica accepts it", async || {
        ask(&first).await != 200 && ask(&second).await != 200
    })
    .await;
    let took = revoked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let request = to(cluster.replica(1), &host, Method::GET, "/v2/").bearer_auth(&bearer);
    send(request).await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_replaced_stays_valid_for_the_overlap() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let old = admin.token("acme", &["**"], &["pull"]).await;
    let rotate = format!("tenants/acme/tokens/{}/rotate", Admin::id_of(&old));
    let made = admin
        .ask(Method::POST, &rotate, Some(json!({ "overlap": "2s" })))
        .await
        .expect(200)
        .json();
    let new = made["token"].as_str().unwrap().to_owned();
    get(&berth, &host, &old, "/v2/").await.expect(200);
    get(&berth, &host, &new, "/v2/").await.expect(200);
    eventually("the old one has ended", async || {
        get(&berth, &host, &old, "/v2/").await.status == 401
    })
    .await;
    get(&berth, &host, &new, "/v2/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_are_limited_and_a_secret_sent_twice_counts_once() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull"]).await;
    let login = async |user: &str, secret: &str| {
        let form = format!("grant_type=password&username={user}&password={secret}");
        let post = to(&berth, &host, Method::POST, "/v2/token")
            .header("Content-Type", "application/x-www-form-urlencoded");
        send(post.body(form)).await.status.as_u16()
    };
    for n in 0..10 {
        // As containerd does: by POST, then by GET.
        assert_eq!(login("x-token", &format!("wrong{n}")).await, 401);
        let again =
            to(&berth, &host, Method::GET, "/v2/token").basic_auth("x-token", Some(format!("wrong{n}")));
        assert_eq!(
            send(again).await.status.as_u16(),
            if n < 9 { 401 } else { 429 },
            "{n}"
        );
    }
    let refused = get(&berth, &host, &token, "/v2/").await.expect(429);
    assert_eq!(refused.error_code(), "TOOMANYREQUESTS");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 61);
    // Another user, or another tenant, is not concerned.
    assert_eq!(login("other", &token).await, 200);
    let others = admin.token("other", &["**"], &["pull"]).await;
    get(&berth, &format!("other.{DOMAIN}"), &others, "/v2/")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_gets_other_grants_under_the_same_text() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["app"], &["pull", "push"]).await;
    let upload = async || {
        let request = to(&berth, &host, Method::POST, "/v2/app/blobs/uploads/");
        let answer = send(request.basic_auth("x-token", Some(&token))).await;
        answer.status.as_u16()
    };
    let change = async |tenant: &str, grants: serde_json::Value| {
        let path = format!("tenants/{tenant}/tokens/{}/grants", Admin::id_of(&token));
        let answer = admin.ask(Method::PUT, &path, Some(json!({ "spec": { "grants": grants } })));
        answer.await
    };
    assert_eq!(upload().await, 202);
    let pull = json!([{ "repositories": ["app"], "actions": ["pull"] }]);
    change("other", pull.clone()).await.expect(404);
    change("acme", json!([])).await.expect(400);
    assert_eq!(upload().await, 202);
    let changed = change("acme", pull.clone()).await.expect(200).json();
    assert_eq!(changed["grants"], pull);
    assert_eq!(upload().await, 403);
    get(&berth, &host, &token, "/v2/").await.expect(200);
    let revoke = format!("tenants/acme/tokens/{}", Admin::id_of(&token));
    admin.ask(Method::DELETE, &revoke, None).await.expect(200);
    change("acme", pull).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_denials_stand_in_the_audit_trail_and_no_secret_in_any_log() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["app"], &["pull", "push"]).await;
    push(&berth, &host, &token, "app", b"content", "v1").await;
    let bearer = access_token(&berth, &host, &token, "repository:app:pull").await;
    send(to(&berth, &host, Method::GET, "/v2/app/tags/list").bearer_auth(&bearer))
        .await
        .expect(200);
    get(&berth, &host, &token, "/v2/elsewhere/tags/list")
        .await
        .expect(403);
    get(&berth, &host, "a-wrong-password", "/v2/").await.expect(401);

    let mut records = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("audit?tenant=acme&limit=2{before}");
        let page = admin.ask(Method::GET, &path, None).await.expect(200).json();
        records.extend(page["records"].as_array().unwrap().iter().map(|record| {
            format!("{} {} {}", record["actor"], record["action"], record["outcome"]).replace('"', "")
        }));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    for expected in [
        "admin token.create done",
        "token:test push done",
        "token:test metadata denied",
        "user:x-token login denied",
    ] {
        assert!(
            records.iter().any(|record| record == expected),
            "{expected} in {records:?}"
        );
    }
    let log = berth.log();
    assert!(log.contains("audit"), "denials are in the log");
    for secret in [token.as_str(), &bearer, "a-wrong-password"] {
        assert!(!log.contains(secret), "the log holds a secret");
    }
}
