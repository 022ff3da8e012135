//! Upstreams with certificates of authorities of their own.

use std::sync::Arc;

use harness::http::Repository;
use harness::{Admin, Backend, Berth, Image, Storage, TlsFiles, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{KIB, WAIT, is_failure, reaching};

/// An upstream that speaks TLS with this certificate, and its one image, `app:v1`.
async fn upstream(files: &TlsFiles) -> (Berth, Image) {
    let storage = Arc::new(Storage::create(Backend::Embedded));
    let image = Image::new(1, KIB);
    let plain = Berth::builder().storage(storage.clone(), 0).start().await;
    image.push(&Repository::new(&plain.url(""), "app"), "v1").await;
    drop(plain);
    let berth = Berth::builder()
        .storage(storage, 0)
        .flag("--tls-cert", files.certificate().to_str().expect("text"))
        .flag("--tls-key", files.key().to_str().expect("text"))
        .start()
        .await;
    (berth, image)
}

/// What an operator is told of a cache that does not get on.
async fn told(admin: &Admin, cache: &str, what: &str) {
    let path = format!("tenants/default/pull-through?cache={cache}");
    eventually("its operator is told why", WAIT, async || {
        let figures = admin.ask(Method::GET, &path, None).await.expect(200).text();
        figures.contains(what).then_some(())
    })
    .await;
}

fn pem(files: &TlsFiles) -> String {
    std::fs::read_to_string(files.certificate()).expect("a certificate")
}

/// A cache of an upstream at a prefix of its own.
async fn cache(admin: &Admin, prefix: &str, upstream: &Berth, bundle: Value) {
    let upstream = json!({ "url": format!("https://{}", upstream.address()), "caBundle": bundle });
    let spec = json!({ "upstream": upstream, "prefix": prefix });
    admin.put(&format!("tenants/default/caches/{prefix}"), spec).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_s_certificate_is_trusted_by_the_bundle_of_its_cache_alone() {
    let (files, others) = (TlsFiles::new(), TlsFiles::new());
    let (upstream, image) = upstream(&files).await;
    let berth = reaching(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    for (prefix, bundle) in [
        ("own", json!(pem(&files))),
        ("both", json!(pem(&others) + &pem(&files))),
        ("other", json!(pem(&others))),
        ("none", Value::Null),
    ] {
        cache(&admin, prefix, &upstream, bundle).await;
    }
    let here = |prefix: &str| Repository::new(&berth.url(""), &format!("{prefix}/app"));

    for untrusted in ["other", "none"] {
        let answer = here(untrusted).get_manifest("v1").await;
        assert!(is_failure(&answer), "{untrusted}: {answer:?}");
        told(&admin, untrusted, "add that authority to the CA bundle").await;
    }
    for trusted in ["own", "both"] {
        image.assert_pullable(&here(trusted), "v1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_s_certificate_that_is_an_authority_s_is_named_as_what_is_wrong() {
    let files = TlsFiles::of_authority();
    let (upstream, _) = upstream(&files).await;
    let berth = reaching(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    cache(&admin, "up", &upstream, json!(pem(&files))).await;

    let answer = Repository::new(&berth.url(""), "up/app").get_manifest("v1").await;

    assert!(is_failure(&answer), "{answer:?}");
    told(&admin, "up", "basicConstraints=critical,CA:FALSE").await;
}
