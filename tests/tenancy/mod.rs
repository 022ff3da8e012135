//! Stage `tenancy`: who lives in the registry, who may do what, and that nobody sees another's.
//!
//! Names below `registry.test` resolve nowhere. Plain requests go to the server's address with the tenant's host in
//! `Host`; client programs take the server for their HTTP proxy, and so name the tenant's host in each request.

mod commands;
mod configuration;
mod confined;
mod conformance;
mod credential_provider;
mod hosts;
mod isolation;
mod limits;
mod logins;
mod manifests;
mod mirrors;
mod tokens;
mod trust;

use harness::http::{Answer, client, send};
use harness::{Admin, Berth, Builder};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

/// The domain of the servers under test.
const DOMAIN: &str = "registry.test";

/// Longest wait for a condition.
const WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A server at [`DOMAIN`], path-addressed on its apex.
fn settings() -> Builder {
    behind("http")
}

/// Clients come by this scheme.
fn behind(scheme: &str) -> Builder {
    Berth::builder()
        .flag("--domain", DOMAIN)
        .flag("--external-scheme", scheme)
        .flag("--apex-tenant", "none")
}

/// A server with the tenants `acme` and `other`.
async fn two_tenants(builder: Builder) -> (Berth, Admin) {
    let berth = builder.start().await;
    let admin = Admin::of(&berth);
    for tenant in ["acme", "other"] {
        admin.put_tenant(tenant, json!({})).await;
    }
    (berth, admin)
}

/// Waits until a condition holds.
async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    let within = async {
        let mut condition = condition;
        while !condition().await {
            // Conditions ask a server: each try takes its time by itself.
            tokio::task::yield_now().await;
        }
    };
    harness::within(what, WAIT, within).await;
}

/// A request to a host of the server.
fn to(berth: &Berth, host: &str, method: Method, path: &str) -> RequestBuilder {
    client().request(method, berth.url(path)).header("Host", host)
}

/// Asks a host for a path with a password.
async fn get(berth: &Berth, host: &str, password: &str, path: &str) -> Answer {
    send(to(berth, host, Method::GET, path).basic_auth("x-token", Some(password))).await
}

/// An access token for `scope`.
async fn access_token(berth: &Berth, host: &str, password: &str, scope: &str) -> String {
    let path = format!("/v2/token?service={host}&scope={scope}");
    let answer = get(berth, host, password, &path).await.expect(200).json();
    answer["token"].as_str().expect("a token").to_owned()
}

/// Pushes a blob, and a manifest of it under a tag, with a password. Answers both digests.
async fn push(
    berth: &Berth,
    host: &str,
    password: &str,
    name: &str,
    content: &[u8],
    tag: &str,
) -> (String, String) {
    let blob = harness::content::sha256(content);
    let path = format!("/v2/{name}/blobs/uploads/?digest={blob}");
    let request = to(berth, host, Method::POST, &path).basic_auth("x-token", Some(password));
    send(request.body(content.to_vec())).await.expect(201);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x-test",
        "config": { "mediaType": "application/x-test", "digest": blob, "size": content.len() },
        "layers": [],
    })
    .to_string();
    let digest = harness::content::sha256(manifest.as_bytes());
    put_manifest(berth, host, password, name, tag, &manifest)
        .await
        .expect(201);
    (blob, digest)
}

async fn put_manifest(
    berth: &Berth,
    host: &str,
    password: &str,
    name: &str,
    tag: &str,
    manifest: &str,
) -> Answer {
    let request = to(berth, host, Method::PUT, &format!("/v2/{name}/manifests/{tag}"))
        .basic_auth("x-token", Some(password))
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    send(request.body(manifest.to_owned())).await
}
