//! `ns` names a tenant, and the request comes to a host that is no tenant's.

use harness::Backend;
use harness::http::{Answer, send};
use reqwest::Method;
use serde_json::json;

use super::super::{DOMAIN, behind, get, push, settings, to, two_tenants};
use super::{acme, parameter, put_cache, read, reads_everything, token_by_get, token_by_post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_nobody_serves_the_tenant_that_ns_names() {
    for backend in Backend::BOTH {
        let (berth, admin) = two_tenants(settings().backend(backend).flag("--apex-hosts", "berth.svc")).await;
        admin
            .put_tenant("acme", json!({ "hosts": ["registry.acme.com"] }))
            .await;
        let token = admin.token("acme", &["**"], &["pull", "push"]).await;
        let pushed = push(&berth, &acme(), &token, "app", b"0123456789", "v1").await;
        push(&berth, &acme(), &token, "app", b"0123456789", "v2").await;
        for host in [
            "10.96.3.4",
            "127.0.0.1:30500",
            "[::1]:30500",
            "localhost",
            "node-7:80",
            "berth.svc",
            DOMAIN,
        ] {
            for ns in [acme(), "registry.acme.com".to_owned()] {
                let path = format!("/v2/app/manifests/v1?ns={ns}");
                let challenge = read(&berth, host, &path).await.expect(401);
                assert_eq!(
                    parameter(&challenge, "realm"),
                    format!("http://{host}/v2/token?ns={ns}")
                );
                assert_eq!(parameter(&challenge, "service"), ns);
                assert_eq!(parameter(&challenge, "scope"), "repository:app:pull");
                let bearer = token_by_post(&berth, &challenge, &token, "repository:app:pull").await;
                reads_everything(&berth, host, "app", &ns, &bearer, &pushed).await;
                let bearer = token_by_get(&berth, &challenge, Some(&token)).await;
                send(to(&berth, host, Method::HEAD, &path).bearer_auth(&bearer))
                    .await
                    .expect(200);
                // It is the tenant's token, whatever host has issued it.
                let own = to(&berth, &acme(), Method::GET, "/v2/app/manifests/v1");
                send(own.bearer_auth(&bearer)).await.expect(200);
                get(&berth, host, &token, &path).await.expect(200);
                get(&berth, host, &token, &format!("/v2/?ns={ns}"))
                    .await
                    .expect(200);
                let catalog = get(&berth, host, &token, &format!("/v2/_catalog?ns={ns}"))
                    .await
                    .expect(200);
                assert_eq!(catalog.json(), json!({ "repositories": ["app"] }));
            }
        }
        // With a port, as it stands in the image's name.
        let path = format!("/v2/app/manifests/v1?ns={}:5000", acme());
        let challenge = read(&berth, "10.96.3.4:80", &path).await.expect(401);
        let expected = format!("http://10.96.3.4:80/v2/token?ns={}%3A5000", acme());
        assert_eq!(parameter(&challenge, "realm"), expected);
        token_by_post(&berth, &challenge, &token, "repository:app:pull").await;
        assert_eq!(challenge.header("oci-namespace"), format!("{}:5000", acme()));
        assert!(
            berth
                .log()
                .contains(&format!("/v2/app/manifests/v1?ns={}:5000", acme()))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pulls_what_is_public_through_a_mirror_and_nothing_else() {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    let public = json!({ "match": "pub/**", "visibility": "Public" });
    admin.put("tenants/acme/repositories/public", public).await;
    push(&berth, &acme(), &token, "pub/app", b"content", "v1").await;
    push(&berth, &acme(), &token, "app", b"content", "v1").await;
    let ns = acme();
    read(&berth, "10.96.3.4", &format!("/v2/pub/app/manifests/v1?ns={ns}"))
        .await
        .expect(200);
    let private = format!("/v2/app/manifests/v1?ns={ns}");
    let challenge = read(&berth, "10.96.3.4", &private).await.expect(401);
    assert!(!challenge.header("www-authenticate").contains("error="));
    let nobody = token_by_get(&berth, &challenge, None).await;
    let refused = send(to(&berth, "10.96.3.4", Method::GET, &private).bearer_auth(nobody))
        .await
        .expect(401);
    // What containerd shows, and it does not ask again.
    assert_eq!(parameter(&refused, "error"), "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_edge_with_tls_a_challenge_at_an_address_speaks_as_the_request_did() {
    let (berth, admin) = two_tenants(behind("https")).await;
    let realm = async |host: &str| {
        let path = format!("/v2/app/manifests/v1?ns={}", acme());
        let challenge = read(&berth, host, &path).await.expect(401);
        parameter(&challenge, "realm").to_owned()
    };
    for inside in ["10.96.3.4", "localhost:30500", "node-7", "berth.berth-system.svc"] {
        assert_eq!(
            realm(inside).await,
            format!("http://{inside}/v2/token?ns={}", acme())
        );
    }
    for outside in [DOMAIN, "mirror.example.net"] {
        assert_eq!(
            realm(outside).await,
            format!("https://{outside}/v2/token?ns={}", acme())
        );
    }
    // A tenant's own host comes by the edge, whatever it looks like.
    admin.put_tenant("acme", json!({ "hosts": ["images.svc"] })).await;
    for own in [acme(), "images.svc".to_owned()] {
        let challenge = read(&berth, &own, "/v2/app/manifests/v1").await.expect(401);
        assert_eq!(parameter(&challenge, "realm"), format!("https://{own}/v2/token"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_suspended_or_gone_is_so_through_a_mirror() {
    let (berth, admin) = two_tenants(settings()).await;
    let token = admin.token("acme", &["**"], &["pull", "push"]).await;
    push(&berth, &acme(), &token, "app", b"content", "v1").await;
    let both = async |status: u16| {
        let own = get(&berth, &acme(), &token, "/v2/app/manifests/v1")
            .await
            .expect(status);
        let path = format!("/v2/app/manifests/v1?ns={}", acme());
        for host in ["10.96.3.4", "node-7"] {
            let mirrored = get(&berth, host, &token, &path).await.expect(status);
            assert_eq!(mirrored.text(), own.text());
        }
    };
    both(200).await;
    admin
        .put_tenant("acme", json!({ "suspend": true, "suspendReason": "unpaid" }))
        .await;
    both(403).await;
    admin.ask(Method::DELETE, "tenants/acme", None).await.expect(200);
    both(404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_s_host_never_leads_to_another_tenant() {
    let (berth, admin) = two_tenants(settings()).await;
    admin
        .put_tenant("other", json!({ "hosts": ["registry.other.com"] }))
        .await;
    let all = ["pull", "push", "delete"];
    let mine = admin.token("acme", &["**"], &all).await;
    let theirs = admin.token("other", &["**"], &all).await;
    let other = format!("other.{DOMAIN}");
    // Both have the repository; a cache of acme's even claims the other's names.
    push(&berth, &acme(), &mine, "app", b"of acme", "v1").await;
    let (blob, manifest) = push(&berth, &other, &theirs, "app", b"of other", "v1").await;
    push(&berth, &acme(), &mine, "theirs/app", b"of acme", "v1").await;
    put_cache(&admin, "acme", "theirs", &[&other, "registry.other.com"]).await;
    let paths = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/token?scope=repository:app:pull".to_owned(),
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{manifest}"),
        format!("/v2/app/blobs/{blob}"),
        "/v2/app/tags/list".to_owned(),
        format!("/v2/app/referrers/{manifest}"),
    ];
    for ns in [
        other.as_str(),
        "registry.other.com",
        "OTHER.registry.test:5000",
        DOMAIN,
    ] {
        for path in &paths {
            let join = if path.contains('?') { '&' } else { '?' };
            let at = |ns: &str| format!("{path}{join}ns={ns}");
            for password in [&mine, &theirs, "nothing"] {
                let there = get(&berth, &acme(), password, &at(ns)).await.expect(404);
                assert_eq!(there.error_code(), "NAME_UNKNOWN", "{path} {ns}");
                assert_eq!(there.header("www-authenticate"), "", "{path} {ns}");
                // Nor does it show that the other is there.
                let nowhere = format!("none.{DOMAIN}");
                let absent = get(&berth, &acme(), password, &at(&nowhere)).await.expect(404);
                let told = |answer: &Answer, ns: &str| answer.text().replace(&format!("for {ns}:"), "");
                assert_eq!(told(&there, ns), told(&absent, &nowhere));
            }
        }
        let start = to(
            &berth,
            &acme(),
            Method::POST,
            &format!("/v2/app/blobs/uploads/?ns={ns}"),
        );
        send(start.basic_auth("", Some(&theirs))).await.expect(404);
    }
    // At a mirror a credential counts at its own tenant alone.
    let path = format!("/v2/app/manifests/v1?ns={other}");
    get(&berth, "10.96.3.4", &mine, &path).await.expect(401);
    get(&berth, "10.96.3.4", &theirs, &path).await.expect(200);
    let token = format!("/v2/token?scope=repository:app:pull&ns={}", acme());
    get(&berth, "10.96.3.4", &theirs, &token).await.expect(401);
    // A name below the domain that nobody has is no mirror: its tenant may come back.
    get(&berth, &format!("gone.{DOMAIN}"), &theirs, &path)
        .await
        .expect(404);
    // Headers of proxies that nobody trusts make no host anybody's.
    let request = to(&berth, &acme(), Method::GET, &path).header("X-Forwarded-Host", "10.96.3.4");
    send(request.basic_auth("", Some(&theirs))).await.expect(404);
}
