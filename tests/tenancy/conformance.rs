//! The conformance suite on a tenant's host, by access tokens and by password alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Backend, Berth, Client, RoundRobin};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use serde_json::json;

use super::{DOMAIN, settings};
use crate::protocol::conformance::assert_passes;

async fn tenant(backend: Backend) -> (Berth, String) {
    let berth = settings()
        .backend(backend)
        .flag("--redirect", "Never")
        .start()
        .await;
    let admin = harness::Admin::of(&berth);
    admin
        .put_tenant("acme", json!({ "repositories": { "sparse": "Always" } }))
        .await;
    let token = admin
        .token("acme", &["conformance/**"], &["pull", "push", "delete"])
        .await;
    (berth, token)
}

/// The suite answers the challenge: every request bears an access token.
async fn by_bearer(backend: Backend, run: &str) {
    let (berth, token) = tenant(backend).await;
    let suite = Client::new("conformance")
        .variable("HTTP_PROXY", &berth.url(""))
        .variable("OCI_USERNAME", "x-token")
        .variable("OCI_PASSWORD", &token);
    assert_passes(suite, run, &format!("acme.{DOMAIN}"), "dev", &[], 800).await;
    let log = berth.log();
    assert!(log.contains("/v2/token"), "access tokens were asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_by_access_token_on_sqlite_and_a_folder() {
    by_bearer(Backend::Embedded, "tenant-bearer-sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_by_access_token_on_postgres_and_s3() {
    by_bearer(Backend::Distributed, "tenant-bearer-postgres").await;
}

/// A proxy in front adds the password to every request, so that nothing else is ever used.
async fn by_password(backend: Backend, run: &str) {
    let (berth, token) = tenant(backend).await;
    let host = format!("acme.{DOMAIN}");
    let password = format!("Basic {}", STANDARD.encode(format!("x-token:{token}")));
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host.parse().expect("a host"));
    headers.insert(AUTHORIZATION, password.parse().expect("visible characters"));
    let proxy = RoundRobin::adding(vec![berth.address()], headers).await;
    assert_passes(Client::new("conformance"), run, &proxy.address(), "dev", &[], 800).await;
    assert!(
        !berth.log().contains("/v2/token"),
        "no access token was asked for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_by_password_on_sqlite_and_a_folder() {
    by_password(Backend::Embedded, "tenant-basic-sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_by_password_on_postgres_and_s3() {
    by_password(Backend::Distributed, "tenant-basic-postgres").await;
}
