//! Quotas, immutable tags, declared repositories, suspension.

use futures_util::future::join_all;
use harness::http::send;
use harness::{Backend, Cluster};
use reqwest::Method;
use serde_json::json;

use super::{DOMAIN, get, push, put_manifest, settings, to, two_tenants};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_told_when_it_is_near_and_when_it_is_reached() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let (berth, admin) = two_tenants(settings().backend(backend)).await;
        let host = format!("acme.{DOMAIN}");
        admin
            .put_tenant(
                "acme",
                json!({ "quota": { "storage": "1000", "repositories": 2 } }),
            )
            .await;
        let token = admin.token("acme", &["**"], &["pull", "push"]).await;
        let post = async |name: &str, content: Vec<u8>| {
            let digest = harness::content::sha256(&content);
            let request = to(
                &berth,
                &host,
                Method::POST,
                &format!("/v2/{name}/blobs/uploads/?digest={digest}"),
            );
            send(request.basic_auth("", Some(&token)).body(content)).await
        };
        let first = post("a", vec![1; 500]).await.expect(201);
        assert_eq!(first.header("warning"), "");
        let near = post("a", vec![2; 450]).await.expect(201);
        assert_eq!(
            near.header("warning"),
            "299 - \"950 of 1000 bytes of the quota on the tenant's storage are used\""
        );
        let over = post("a", vec![3; 51]).await.expect(403);
        assert_eq!(over.error_code(), "DENIED");
        assert_eq!(
            over.json()["errors"][0]["detail"],
            json!({ "quota": "the tenant's storage", "usage": 950, "limit": 1000 })
        );
        post("b", vec![4; 1]).await.expect(201);
        let over = post("c", vec![5; 1]).await.expect(403);
        assert!(over.text().contains("repositories"), "{}", over.text());
        // Of two uploads that each fit when they were sent, the one that is closed second is too much.
        let mut sessions = Vec::new();
        for content in [vec![6; 40], vec![8; 40]] {
            let start = to(&berth, &host, Method::POST, "/v2/a/blobs/uploads/").basic_auth("", Some(&token));
            let location = send(start).await.expect(202).header("location").to_owned();
            let patch = to(&berth, &host, Method::PATCH, &location).basic_auth("", Some(&token));
            let digest = harness::content::sha256(&content);
            send(patch.body(content)).await.expect(202);
            sessions.push((location, digest));
        }
        for ((location, digest), [closed, found]) in sessions.iter().zip([[201, 200], [403, 404]]) {
            let close = to(&berth, &host, Method::PUT, &format!("{location}?digest={digest}"));
            send(close.basic_auth("", Some(&token))).await.expect(closed);
            get(&berth, &host, &token, &format!("/v2/a/blobs/{digest}"))
                .await
                .expect(found);
        }
        // Nobody sends in vain what cannot fit, declared or not.
        let start = to(&berth, &host, Method::POST, "/v2/a/blobs/uploads/").basic_auth("", Some(&token));
        let location = send(start).await.expect(202).header("location").to_owned();
        for body in [
            reqwest::Body::from(vec![7; 80]),
            reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(vec![
                7_u8;
                80
            ])])),
        ] {
            let patch = to(&berth, &host, Method::PATCH, &location).basic_auth("", Some(&token));
            assert_eq!(send(patch.body(body)).await.expect(403).error_code(), "DENIED");
        }
        let usage = admin
            .ask(Method::GET, "usage?tenant=acme", None)
            .await
            .expect(200)
            .json();
        assert_eq!(usage[0]["bytes"], 991);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_pushes_at_once_through_two_replicas_only_what_fits_is_taken() {
    let mut cluster = Cluster::start_with(2, settings()).await;
    let admin = harness::Admin::of(cluster.replica(0));
    admin
        .put_tenant("acme", json!({ "quota": { "storage": "100000" } }))
        .await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    let host = format!("acme.{DOMAIN}");
    let bases = [cluster.replica(0).url(""), cluster.replica(1).url("")];
    super::eventually("the second replica serves the tenant", async || {
        let request = harness::http::client()
            .get(format!("{}/v2/", bases[1]))
            .header("Host", &host);
        send(request.basic_auth("", Some(&token))).await.status == 200
    })
    .await;
    let pushes = (0..64_u8).map(|n| {
        let content = vec![n; 10_000];
        let digest = harness::content::sha256(&content);
        let url = format!(
            "{}/v2/app{}/blobs/uploads/?digest={digest}",
            bases[usize::from(n % 2)],
            n % 5
        );
        let request = harness::http::client().post(url).header("Host", &host);
        let request = request.basic_auth("", Some(&token)).body(content);
        async move { send(request).await.status.as_u16() }
    });
    let statuses = join_all(pushes).await;
    let taken = statuses.iter().filter(|status| **status == 201).count();
    let refused = statuses.iter().filter(|status| **status == 403).count();
    assert_eq!((taken, refused), (10, 54));
    let usage = admin
        .ask(Method::GET, "usage?tenant=acme", None)
        .await
        .expect(200)
        .json();
    assert_eq!(usage[0]["bytes"], 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immutable_tag_is_neither_moved_nor_deleted() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
    admin
        .put(
            "tenants/acme/repositories/app",
            json!({ "name": "app", "immutableTags": ["v*"] }),
        )
        .await;
    let (blob, digest) = push(&berth, &host, &token, "app", b"content", "v1").await;
    push(&berth, &host, &token, "app", b"content", "v1").await;
    let other = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "annotations": { "other": "yes" },
        "config": { "mediaType": "application/x-test", "digest": blob, "size": 7 }, "layers": [],
    })
    .to_string();
    let moved = put_manifest(&berth, &host, &token, "app", "v1", &other)
        .await
        .expect(403);
    assert_eq!(moved.error_code(), "DENIED");
    let by_parameter = format!("{}?tag=v1", harness::content::sha256(other.as_bytes()));
    put_manifest(&berth, &host, &token, "app", &by_parameter, &other)
        .await
        .expect(403);
    put_manifest(&berth, &host, &token, "app", "latest", &other)
        .await
        .expect(201);
    for reference in ["v1", &digest] {
        let request = to(
            &berth,
            &host,
            Method::DELETE,
            &format!("/v2/app/manifests/{reference}"),
        );
        send(request.basic_auth("", Some(&token))).await.expect(403);
    }
    let stays = get(&berth, &host, &token, "/v2/app/manifests/v1")
        .await
        .expect(200);
    assert_eq!(stays.header("docker-content-digest"), digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_of_declared_repositories_takes_pushes_to_those_alone() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    admin
        .put_tenant("acme", json!({ "repositories": { "creation": "Declared" } }))
        .await;
    admin
        .put("tenants/acme/repositories/app", json!({ "name": "app" }))
        .await;
    admin
        .put(
            "tenants/acme/repositories/shape",
            json!({ "match": "team/**", "description": "shapes, declares nothing" }),
        )
        .await;
    push(&berth, &host, &token, "app", b"content", "v1").await;
    for name in ["other", "team/app"] {
        let request = to(&berth, &host, Method::POST, &format!("/v2/{name}/blobs/uploads/"));
        let refused = send(request.basic_auth("", Some(&token))).await.expect(403);
        assert!(refused.text().contains("not declared"), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_is_refused_with_the_reason_until_it_is_resumed() {
    let (berth, admin) = two_tenants(settings()).await;
    let host = format!("acme.{DOMAIN}");
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, &host, &token, "app", b"content", "v1").await;
    admin
        .put_tenant(
            "acme",
            json!({ "suspend": true, "suspendReason": "unpaid since May" }),
        )
        .await;
    for (method, path) in [
        (Method::GET, "/v2/app/manifests/v1"),
        (Method::POST, "/v2/app/blobs/uploads/"),
        (Method::GET, "/v2/_catalog"),
    ] {
        let refused = send(to(&berth, &host, method, path).basic_auth("", Some(&token)))
            .await
            .expect(403);
        assert!(refused.text().contains("unpaid since May"), "{}", refused.text());
    }
    // Who may not see it is not told either.
    let stranger = send(to(&berth, &host, Method::GET, "/v2/app/manifests/v1"))
        .await
        .expect(401);
    assert!(!stranger.text().contains("suspended"), "{}", stranger.text());
    admin.ask(Method::GET, "tenants/acme", None).await.expect(200);
    admin.put_tenant("acme", json!({})).await;
    get(&berth, &host, &token, "/v2/app/manifests/v1")
        .await
        .expect(200);
}
