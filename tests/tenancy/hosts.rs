//! Hosts, aliases and paths: what is served where.

use harness::Berth;
use harness::http::send;
use reqwest::Method;
use serde_json::json;

use super::{DOMAIN, get, push, settings, to, two_tenants};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_reached_on_its_subdomain_its_own_host_and_its_path() {
    let (berth, admin) = two_tenants(settings()).await;
    admin
        .put_tenant("acme", json!({ "hosts": ["registry.acme.com"] }))
        .await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(
        &berth,
        &format!("acme.{DOMAIN}"),
        &token,
        "team/app",
        b"content",
        "v1",
    )
    .await;
    for (host, path) in [
        (format!("acme.{DOMAIN}"), "/v2/team/app/manifests/v1"),
        (format!("ACME.{DOMAIN}:5000"), "/v2/team/app/manifests/v1"),
        ("registry.acme.com".to_owned(), "/v2/team/app/manifests/v1"),
        (DOMAIN.to_owned(), "/v2/acme/team/app/manifests/v1"),
        ("127.0.0.1".to_owned(), "/v2/acme/team/app/manifests/v1"),
    ] {
        get(&berth, &host, &token, path).await.expect(200);
        get(&berth, &host, &token, "/v2/").await.expect(200);
    }
    // What is pushed by path is told by path.
    let request = to(&berth, DOMAIN, Method::POST, "/v2/acme/team/app/blobs/uploads/");
    let started = send(request.basic_auth("", Some(&token))).await.expect(202);
    assert!(
        started
            .header("location")
            .starts_with("/v2/acme/team/app/blobs/uploads/")
    );
    let catalog = get(&berth, DOMAIN, &token, "/v2/_catalog")
        .await
        .expect(200)
        .json();
    assert_eq!(catalog["repositories"], json!(["acme/team/app"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_host_is_404_before_anything_else_is_read() {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull"]).await;
    for host in [
        format!("nobody.{DOMAIN}"),
        format!("a.acme.{DOMAIN}"),
        "registry.acme.com".to_owned(),
        format!("evil{DOMAIN}"),
        format!("acme.{DOMAIN}.evil.com"),
    ] {
        for path in ["/v2/", "/v2/token", "/v2/app/manifests/v1"] {
            let answer = get(&berth, &host, &token, path).await.expect(404);
            assert_eq!(
                (answer.error_code().as_str(), answer.header("www-authenticate")),
                ("NAME_UNKNOWN", "")
            );
        }
        for path in ["/", "/explorer/", "/explorer/r/app"] {
            get(&berth, &host, &token, path).await.expect(404);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_an_older_registry_work_for_pull_and_push() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["team/api"], &["pull", "push"]).await;
    admin
        .put_tenant("acme", json!({ "apexAliases": ["d58mfwccbf"] }))
        .await;
    admin
        .put(
            "tenants/acme/repositories/api",
            json!({ "name": "team/api", "aliases": ["d58mfwccbf"] }),
        )
        .await;
    // Pushed under the old name on the apex, found under every name.
    push(&berth, DOMAIN, &token, "d58mfwccbf", b"content", "v1").await;
    push(&berth, &host, &token, "d58mfwccbf", b"content", "v2").await;
    for (host, name) in [
        (DOMAIN, "d58mfwccbf"),
        (host.as_str(), "d58mfwccbf"),
        (&host, "team/api"),
        (DOMAIN, "acme/team/api"),
    ] {
        let tags = get(&berth, host, &token, &format!("/v2/{name}/tags/list"))
            .await
            .expect(200)
            .json();
        assert_eq!(tags, json!({ "name": name, "tags": ["v1", "v2"] }));
    }
    let catalog = get(&berth, &host, &token, "/v2/_catalog")
        .await
        .expect(200)
        .json();
    assert_eq!(catalog["repositories"], json!(["team/api"]));
    // Held by one tenant alone, and no tenant's name.
    for spec in [
        json!({ "apexAliases": ["d58mfwccbf"] }),
        json!({ "apexAliases": ["acme"] }),
    ] {
        let answer = admin
            .ask(Method::PUT, "tenants/other", Some(json!({ "spec": spec })))
            .await
            .expect(409);
        assert_eq!(answer.json()["reason"], "Taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subdomains_of_localhost_work_out_of_the_box() {
    let berth = Berth::builder().start().await;
    let admin = harness::Admin::of(&berth);
    admin.put_tenant("acme", json!({})).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, "acme.localhost", &token, "app", b"content", "v1").await;
    get(&berth, "acme.localhost:5000", &token, "/v2/app/manifests/v1")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuring_a_tenant_ends_the_open_mode() {
    let berth = Berth::builder().start().await;
    let anonymous = async || {
        send(harness::http::client().get(berth.url("/v2/")))
            .await
            .status
            .as_u16()
    };
    assert_eq!(anonymous().await, 200);
    harness::Admin::of(&berth).put_tenant("acme", json!({})).await;
    assert_eq!(anonymous().await, 401);
}
