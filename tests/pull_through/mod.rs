//! Stage `pull_through`: other registries, read through a tenant and kept for the next time.
//!
//! What it is: a registry with a cache before a real upstream, and between the two a way on which faults happen and
//! which counts what the upstream is asked ([`Place`]). What it may use: the harness. What must hold: clients get the
//! upstream's bytes or an error, never other bytes with a regular end; the upstream is asked once for what many want;
//! and what is kept is served whatever becomes of the upstream.

mod blobs;
mod calm;
mod circuit;
mod credentials;
mod figures;
mod isolation;
mod manifests;
mod policy;
mod programs;
mod quotas;
mod ranges;
mod redirects;
mod referrers;
mod replicas;
mod streams;
mod tags;
mod tls;
mod tokens;
mod upkeep;
mod warming;
mod ways;

use std::time::Duration;

use futures_util::future::join_all;
use harness::http::{Answer, Repository};
use harness::image::{MANIFEST, descriptor};
use harness::{Admin, Berth, Builder, Faulty, Image, Question, RoundRobin, Upstream};
use http::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The cache's object and its prefix.
const CACHE: &str = "up";
/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(60);
/// Longest wait for an answer that is not to wait for the upstream.
const AT_ONCE: Duration = Duration::from_secs(10);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The domain of registries with several tenants.
const DOMAIN: &str = "registry.test";

/// A registry with one cache, its upstream, and the way from the one to the other.
struct Place {
    upstream: Upstream,
    way: Faulty,
    berth: Berth,
    admin: Admin,
}

impl Place {
    /// A cache as it is by default.
    async fn new() -> Place {
        Place::with(json!({})).await
    }

    /// A cache with this in its spec besides.
    async fn with(more: Value) -> Place {
        let upstream = Upstream::start().await;
        let way = Faulty::before(&upstream.address()).await;
        let (berth, admin) = cached(&way, more).await;
        Place {
            upstream,
            way,
            berth,
            admin,
        }
    }

    /// The same upstream with this in the cache's spec besides.
    async fn configure(&self, more: Value) {
        put_cache(&self.admin, "default", &self.way, more).await;
    }

    /// A repository at the upstream, by no way that counts.
    fn there(&self, name: &str) -> Repository {
        self.upstream.repository(name)
    }

    /// The same repository through the cache.
    fn here(&self, name: &str) -> Repository {
        Repository::new(&self.berth.url(""), &format!("{CACHE}/{name}"))
    }

    /// Pushes an image to the upstream.
    async fn pushed(&self, name: &str, tag: &str, seed: u64) -> Image {
        let image = Image::new(seed, KIB);
        image.push(&self.there(name), tag).await;
        image
    }

    /// Pushes an image of one layer to the upstream, and pulls its manifest through the cache; the layer's digest.
    async fn layer(&self, name: &str, layer: &[u8]) -> String {
        let digest = push_layer(&self.there(name), "v1", layer).await;
        self.here(name).get_manifest("v1").await.expect(200);
        self.way.forget();
        digest
    }

    /// What the upstream was asked since [`Faulty::forget`], or since the start.
    fn asked(&self) -> Vec<Question> {
        asked(&self.way)
    }

    async fn figures(&self) -> Value {
        let path = format!("tenants/default/pull-through?cache={CACHE}");
        self.admin.ask(Method::GET, &path, None).await.expect(200).json()
    }
}

/// What was asked by a way for somebody: not whether the upstream is there, which the registry asks by itself.
fn asked(way: &Faulty) -> Vec<Question> {
    let mut asked = way.asked();
    asked.retain(|question| question.path != "/v2/");
    asked
}

/// A registry that may reach upstreams on loopback, with a cache at the end of a way.
async fn cached(way: &Faulty, more: Value) -> (Berth, Admin) {
    let berth = reaching(Berth::builder()).start().await;
    let admin = Admin::of(&berth);
    put_cache(&admin, "default", way, more).await;
    (berth, admin)
}

/// May ask upstreams on loopback.
fn reaching(builder: Builder) -> Builder {
    builder
        .flag("--egress-allow", "127.0.0.1")
        .flag("--redirect", "Never")
}

/// A registry with the tenants `acme` and `other`, each at its own host.
async fn two_tenants() -> (Berth, Admin) {
    let builder = reaching(Berth::builder())
        .flag("--domain", DOMAIN)
        .flag("--external-scheme", "http")
        .flag("--apex-tenant", "none");
    let berth = builder.start().await;
    let admin = Admin::of(&berth);
    for tenant in ["acme", "other"] {
        admin.put_tenant(tenant, json!({})).await;
    }
    (berth, admin)
}

/// What a client of a tenant talks to who shows this token, or nothing.
async fn door(berth: &Berth, tenant: &str, token: Option<&str>) -> RoundRobin {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(&format!("{tenant}.{DOMAIN}"));
    headers.insert("host", host.expect("a host"));
    if let Some(token) = token {
        headers.insert("authorization", basic("x-token", token));
    }
    RoundRobin::adding(vec![berth.address()], headers).await
}

/// A repository behind a door.
fn behind(door: &RoundRobin, name: &str) -> Repository {
    Repository::new(&format!("http://{}", door.address()), name)
}

fn basic(username: &str, password: &str) -> HeaderValue {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    HeaderValue::from_str(&format!("Basic {text}")).expect("a header's value")
}

/// Makes the tenant's cache one of what is at the end of a way.
async fn put_cache(admin: &Admin, tenant: &str, way: &Faulty, more: Value) {
    let mut spec = json!({ "upstream": { "url": way.url() }, "prefix": CACHE });
    merge(&mut spec, more);
    admin.put(&format!("tenants/{tenant}/caches/{CACHE}"), spec).await;
}

/// Puts what `more` says into a document, below objects that both have.
fn merge(document: &mut Value, more: Value) {
    match (document, more) {
        (Value::Object(document), Value::Object(more)) => {
            for (key, value) in more {
                merge(document.entry(key).or_insert(Value::Null), value);
            }
        }
        (document, more) => *document = more,
    }
}

/// Pushes an image of one layer; the layer's digest.
async fn push_layer(repository: &Repository, tag: &str, layer: &[u8]) -> String {
    repository.push_blob(b"{}").await;
    let digest = repository.push_blob(layer).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string();
    let put = repository.put_manifest(tag, MANIFEST, manifest.as_bytes());
    put.await.expect(201);
    digest
}

/// The digest of what an answer brings, read without keeping it.
async fn digest_of(request: RequestBuilder) -> Result<String, String> {
    let mut answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let mut hash = Sha256::new();
    while let Some(bytes) = answer.chunk().await.map_err(|error| format!("{error:?}"))? {
        hash.update(&bytes);
    }
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}

/// What so many do at once.
async fn at_once<T>(count: usize, work: impl AsyncFn(usize) -> T) -> Vec<T> {
    join_all((0..count).map(|number| work(number))).await
}

/// Whether a client is told that the upstream could not be asked.
fn is_stale(answer: &Answer) -> bool {
    answer.header("warning").starts_with("299 - \"")
}

/// Whether the upstream gave nothing that could be passed on.
fn is_failure(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 502 | 503)
}
