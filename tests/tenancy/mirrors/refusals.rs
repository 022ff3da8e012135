//! What `ns` does not change, and what is refused.

use harness::http::send;
use reqwest::Method;
use serde_json::json;

use super::super::{DOMAIN, get, push, settings, to, two_tenants};
use super::{HUB, acme, parameter, put_cache, read};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ns_that_names_the_request_s_own_host_changes_nothing() {
    let (berth, admin) = two_tenants(settings()).await;
    admin
        .put_tenant("acme", json!({ "hosts": ["registry.acme.com"] }))
        .await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, &acme(), &token, "app", b"content", "v1").await;
    for ns in [
        acme(),
        format!("ACME.{DOMAIN}:5000"),
        "registry.acme.com".to_owned(),
    ] {
        let path = format!("/v2/app/manifests/v1?ns={ns}");
        let challenge = read(&berth, &acme(), &path).await.expect(401);
        assert_eq!(
            parameter(&challenge, "realm"),
            format!("http://{}/v2/token", acme())
        );
        assert_eq!(challenge.header("oci-namespace"), "");
        get(&berth, &acme(), &token, &path).await.expect(200);
        let start = to(
            &berth,
            &acme(),
            Method::POST,
            &format!("/v2/app/blobs/uploads/?ns={ns}"),
        );
        send(start.basic_auth("", Some(&token))).await.expect(202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ns_that_is_no_host_is_refused_where_somebody_lives() {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, &acme(), &token, "app", b"content", "v1").await;
    let long = "a".repeat(300);
    for query in [
        "ns=",
        "ns",
        "ns=a/b",
        "ns=https://docker.io",
        "ns=a:b",
        "ns=a%22,b",
        "ns=a%0d%0aX-B:%20c",
        "ns=a&ns=b",
        &format!("ns={long}"),
    ] {
        for host in [acme(), DOMAIN.to_owned(), "10.96.3.4".to_owned()] {
            for path in ["/v2/app/manifests/v1", "/v2/", "/v2/token"] {
                let answer = get(&berth, &host, &token, &format!("{path}?{query}"))
                    .await
                    .expect(400);
                assert_eq!(answer.error_code(), "NAME_INVALID", "{query}");
                assert_eq!(answer.header("oci-namespace"), "");
            }
        }
        let answer = get(&berth, "node-7", &token, &format!("/v2/app/manifests/v1?{query}"))
            .await
            .expect(404);
        assert_eq!(answer.error_code(), "NAME_UNKNOWN");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_takes_no_writes() {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
    let (blob, manifest) = push(&berth, &acme(), &token, "app", b"content", "v1").await;
    push(&berth, &acme(), &token, "docker.io/library/app", b"content", "v1").await;
    put_cache(&admin, "acme", HUB, &[HUB]).await;
    let started = to(&berth, &acme(), Method::POST, "/v2/app/blobs/uploads/").basic_auth("", Some(&token));
    let started = send(started).await.expect(202);
    let upload = started.header("location");
    let own = acme();
    for (host, ns) in [("10.96.3.4", own.as_str()), ("node-7", &own), (&own, HUB)] {
        for (method, path) in [
            (Method::POST, "/v2/app/blobs/uploads/"),
            (Method::POST, &format!("/v2/app/blobs/uploads/?digest={blob}")),
            (
                Method::POST,
                &format!("/v2/app/blobs/uploads/?mount={blob}&from=app"),
            ),
            (Method::GET, upload),
            (Method::PATCH, upload),
            (Method::PUT, &format!("{upload}?digest={blob}")),
            (Method::DELETE, upload),
            (Method::PUT, "/v2/app/manifests/v2"),
            (Method::DELETE, "/v2/app/manifests/v1"),
            (Method::DELETE, &format!("/v2/app/manifests/{manifest}")),
            (Method::DELETE, &format!("/v2/app/blobs/{blob}")),
        ] {
            let join = if path.contains('?') { '&' } else { '?' };
            let request = to(&berth, host, method.clone(), &format!("{path}{join}ns={ns}"));
            let answer = send(request.basic_auth("", Some(&token)).body("x"))
                .await
                .expect(405);
            assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}");
            assert_eq!(answer.header("allow"), "GET, HEAD");
            assert!(answer.text().contains(ns), "{}", answer.text());
        }
    }
    for name in ["app", "docker.io/app"] {
        let tags = get(&berth, &acme(), &token, &format!("/v2/{name}/tags/list"))
            .await
            .expect(200);
        assert_eq!(tags.json()["tags"], json!(["v1"]));
        get(&berth, &acme(), &token, &format!("/v2/{name}/blobs/{blob}"))
            .await
            .expect(200);
    }
    get(&berth, &acme(), &token, upload).await.expect(204);
}
