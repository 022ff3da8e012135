//! `ns` names a registry for which a cache of the tenant is a mirror.

use harness::content::sha256;
use harness::http::send;
use harness::image::MANIFEST;
use harness::{Admin, Backend, Berth, Upstream};
use reqwest::Method;
use serde_json::json;

use super::super::{DOMAIN, get, push, settings, to, two_tenants};
use super::{HUB, acme, parameter, put_cache, read, reads_everything, token_by_post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_s_host_is_a_mirror_for_the_registries_of_its_caches() {
    let upstream = Upstream::start().await;
    let there = upstream.repository("library/alpine");
    let blob = there.push_blob(b"0123456789").await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": { "mediaType": "application/x-test", "digest": blob, "size": 10 },
    })
    .to_string();
    for tag in ["v1", "v2"] {
        there
            .put_manifest(tag, MANIFEST, manifest.as_bytes())
            .await
            .expect(201);
    }
    let pushed = (blob, sha256(manifest.as_bytes()));
    let url = format!("http://{}", upstream.address());
    for backend in Backend::BOTH {
        let settings = settings().backend(backend).flag("--egress-allow", "127.0.0.1");
        let (berth, admin) = two_tenants(settings).await;
        let token = admin.token("acme", &["**"], &["pull", "push"]).await;
        let name = "docker.io/library/alpine";
        let path = format!("/v2/library/alpine/manifests/v1?ns={HUB}");
        let unknown = async |host: &str, path: &str| {
            for password in [None, Some(&token)] {
                let mut request = to(&berth, host, Method::GET, path);
                if let Some(password) = password {
                    request = request.basic_auth("", Some(password));
                }
                let answer = send(request).await.expect(404);
                assert_eq!(answer.error_code(), "NAME_UNKNOWN", "{host} {path}");
                assert_eq!(answer.header("www-authenticate"), "");
                assert!(answer.text().contains("mirror"), "{answer:?}");
            }
        };
        // The client goes on to the Hub at once.
        unknown(&acme(), &path).await;
        let hub = json!({ "upstream": { "url": url }, "prefix": HUB, "mirrorFor": [HUB, "quay.test:5000"] });
        admin.put("tenants/acme/caches/cache", hub).await;
        let challenge = read(&berth, &acme(), &path).await.expect(401);
        assert_eq!(parameter(&challenge, "scope"), format!("repository:{name}:pull"));
        assert_eq!(
            parameter(&challenge, "realm"),
            format!("http://{}/v2/token", acme())
        );
        assert_eq!(parameter(&challenge, "service"), acme());
        let bearer = token_by_post(&berth, &challenge, &token, "repository:library/alpine:pull").await;
        for ns in [
            HUB,
            "registry-1.docker.io",
            "index.docker.io",
            "Docker.io:443",
            "quay.test:5000",
        ] {
            reads_everything(&berth, &acme(), "library/alpine", ns, &bearer, &pushed).await;
        }
        // What is not listed, another port, another tenant, and hosts that are no tenant's.
        for ns in ["ghcr.io", "quay.test", "docker.io:8443", "10.1.1.1"] {
            unknown(&acme(), &format!("/v2/library/alpine/manifests/v1?ns={ns}")).await;
        }
        unknown(&format!("other.{DOMAIN}"), &path).await;
        unknown(DOMAIN, &path).await;
        unknown("10.96.3.4", &path).await;
        get(&berth, "node-7", &token, &path).await.expect(404);
        // The rights that count are those on the repository below the prefix.
        let narrow = admin.token("acme", &["library/**"], &["pull"]).await;
        let denied = get(&berth, &acme(), &narrow, &path).await.expect(403);
        assert!(denied.text().contains(name), "{}", denied.text());
        // Its names alone are read so: what the tenant itself calls library/alpine is something else.
        get(&berth, &acme(), &token, "/v2/library/alpine/manifests/v1")
            .await
            .expect(404);
        let listed = get(&berth, &acme(), &token, &format!("/v2/_catalog?ns={HUB}"))
            .await
            .expect(405);
        assert_eq!(listed.error_code(), "UNSUPPORTED");
        // Where anybody may pull, nobody is asked for a credential.
        let public = json!({ "match": "docker.io/**", "visibility": "Public" });
        admin.put("tenants/acme/repositories/public", public).await;
        read(&berth, &acme(), &path).await.expect(200);
        admin
            .ask(Method::DELETE, "tenants/acme/caches/cache", None)
            .await
            .expect(200);
        unknown(&acme(), &path).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_on_the_apex_is_a_mirror_for_its_caches_by_any_address() {
    let berth = Berth::builder().flag("--open", "Never").start().await;
    let admin = Admin::of(&berth);
    let token = admin.token("default", &["**"], &["pull", "push"]).await;
    push(
        &berth,
        "localhost",
        &token,
        "docker.io/library/alpine",
        b"content",
        "v1",
    )
    .await;
    put_cache(&admin, "default", HUB, &[HUB]).await;
    for host in ["localhost:5000", "10.96.3.4", "default.localhost"] {
        let path = format!("/v2/library/alpine/manifests/v1?ns={HUB}");
        get(&berth, host, &token, &path).await.expect(200);
        // Its own names change nothing, and it takes pushes by them.
        for ns in ["localhost", "default.localhost:5000"] {
            let path = format!("/v2/app/blobs/uploads/?ns={ns}");
            let start = to(&berth, host, Method::POST, &path).basic_auth("", Some(&token));
            assert_eq!(send(start).await.expect(202).header("oci-namespace"), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_a_mirror_are_redirected_as_on_the_tenant_s_own_host() {
    let distributed = settings()
        .backend(Backend::Distributed)
        .flag("--redirect", "Always");
    let (berth, admin) = two_tenants(distributed).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    let (blob, _) = push(&berth, &acme(), &token, "app", b"content", "v1").await;
    push(&berth, &acme(), &token, "docker.io/library/app", b"content", "v1").await;
    put_cache(&admin, "acme", HUB, &[HUB]).await;
    let own = acme();
    for (host, ns) in [("10.96.3.4", own.as_str()), (&own, HUB)] {
        let found = get(&berth, host, &token, &format!("/v2/app/blobs/{blob}?ns={ns}"))
            .await
            .expect(307);
        assert_eq!(found.header("oci-namespace"), ns);
        let content = send(harness::http::client().get(found.header("location")))
            .await
            .expect(200);
        assert_eq!(content.text(), "content");
    }
}
