//! Registries behind a real edge, which follows the operator's routes: by the Gateway API, and by Ingress.
//!
//! Two replicas, their Service, Contour and Envoy before it. Nothing here talks to a replica itself.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::content::{blob, sha256};
use harness::http::{Answer, send, streamed, with_query};
use harness::{Edge, Image, Layout, RoutesBy, condition, eventually};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// Longest wait for the edge to follow a route.
const PATIENCE: Duration = Duration::from_secs(30);
/// Above every limit of a body that edges are known to have.
const LARGE: usize = 256 << 20;

/// Makes each of these functions a test by the Gateway API and one by Ingress.
macro_rules! by_both_apis {
    ($($test:ident),+ $(,)?) => {
        mod by_the_gateway_api {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(harness::RoutesBy::Gateway).await;
            })+
        }
        mod by_ingress {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(harness::RoutesBy::Ingress).await;
            })+
        }
    };
}

by_both_apis!(
    images_go_through_the_edge_with_the_credentials_of_the_operators_secrets,
    the_route_is_closed_while_a_tenant_is_suspended_and_once_it_is_deleted,
    hosts_of_a_tenants_own_are_routed_while_it_has_them,
    a_large_blob_goes_through_and_an_upload_moves_between_the_replicas,
);

mod long {
    by_both_apis!(a_pull_that_outlasts_the_edges_time_limit_is_not_cut_off);

    async fn a_pull_that_outlasts_the_edges_time_limit_is_not_cut_off(by: harness::RoutesBy) {
        super::a_slow_pull_is_whole(by).await;
    }
}

fn text(secret: &Value, key: &str) -> String {
    let data = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(data).expect("base64")).expect("text")
}

/// Makes a Tenant that hands a token for all its repositories over, waits until it is ready and exposed, and
/// returns the token's Secret.
async fn tenant(edge: &Edge, name: &str, more: Value) -> Value {
    let ci = format!("{name}-ci");
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ci } });
    edge.berth.plane.apply(namespace).await.expect("a namespace");
    let mut spec = json!({
        "allowedNamespaces": { "from": "All" },
        "tokens": [{
            "name": "ci",
            "secretRef": { "namespace": ci, "name": "berth-ci" },
            "grants": [{ "repositories": ["**"], "actions": ["pull", "push"] }],
        }],
    });
    for (key, value) in more.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    let ready = edge.berth.ready_tenant(name, spec).await;
    let exposed = condition(&ready, "Exposed").expect("a condition");
    assert_eq!(
        (&exposed["status"], &exposed["reason"]),
        (&json!("True"), &json!("Accepted"))
    );
    let secret = edge.berth.plane.find("Secret", &ci, "berth-ci").await;
    secret.expect("the token's Secret")
}

/// Waits until a host answers the ping with this status.
async fn answers(edge: &Edge, host: &str, password: &str, status: u16) -> Answer {
    let what = format!("{status} from {host}");
    eventually(&what, PATIENCE, async || {
        edge.ping(host, password)
            .await
            .filter(|answer| answer.status == status)
    })
    .await
}

/// Waits until a host is one that the edge does not know. A registry's own refusal says so in its body.
async fn is_unknown(edge: &Edge, host: &str) {
    let what = format!("the edge's own 404 for {host}");
    eventually(&what, PATIENCE, async || {
        let answer = edge.ping(host, "").await?;
        (answer.status == 404 && answer.body.is_empty() && answer.header("server") == "envoy").then_some(())
    })
    .await;
}

async fn images_go_through_the_edge_with_the_credentials_of_the_operators_secrets(by: RoutesBy) {
    let edge = Edge::start(by).await;
    let (acme, other) = (edge.berth.name("acme"), edge.berth.name("other"));
    let apps = edge.berth.namespace("apps", json!({ "pull": acme })).await;
    let pulls = json!({ "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": acme } } } });
    let ci = tenant(&edge, &acme, pulls).await;
    let foreign = tenant(&edge, &other, json!({})).await;
    let pull = edge
        .berth
        .plane
        .find("Secret", &apps, &format!("berth-{acme}"))
        .await;
    let pull = pull.expect("the pull Secret");
    let host = format!("{acme}.registry.test");
    answers(&edge, &host, &text(&ci, "token"), 200).await;

    let image = Image::new(1, 300_000);
    let crane = edge.client("crane", &ci);
    let layout = Layout::of_image(&crane.path("image"), &image, "v1");
    let reference = format!("{host}/team/app:v1");
    crane
        .run(&["push", "--insecure", layout.path(), &reference])
        .await;

    let crane = edge.client("crane", &pull);
    let digest = crane.run(&["digest", "--insecure", &reference]).await;
    assert_eq!(digest.text(), image.digest());
    let pulled = crane.path_text("pulled");
    crane
        .run(&["pull", "--insecure", "--format=oci", &reference, &pulled])
        .await;
    Layout::at(&crane.path("pulled")).assert_holds(&image);
    let tag = crane.attempt(&["tag", "--insecure", &reference, "v2"]).await;
    assert!(!tag.success && tag.stderr.contains("DENIED"), "{}", tag.stderr);

    // Another tenant's credential is worth nothing here, and the tenant's own nothing elsewhere.
    let there = format!("{other}.registry.test");
    answers(&edge, &there, &text(&foreign, "token"), 200).await;
    for (host, secret) in [(&host, &foreign), (&there, &ci)] {
        let refused = edge.ping(host, &text(secret, "token")).await.expect("an answer");
        assert_eq!(refused.expect(401).error_code(), "UNAUTHORIZED");
    }
    let anonymous = send(edge.request(Method::GET, &host, "/v2/")).await.expect(401);
    let challenge = anonymous.header("www-authenticate");
    assert!(challenge.contains(&format!("http://{host}/")), "{challenge}");
    is_unknown(&edge, &format!("{}.registry.test", edge.berth.name("nobody"))).await;
}

async fn the_route_is_closed_while_a_tenant_is_suspended_and_once_it_is_deleted(by: RoutesBy) {
    let edge = Edge::start(by).await;
    let plane = &edge.berth.plane;
    let (name, stays) = (edge.berth.name("acme"), edge.berth.name("stays"));
    let secret = tenant(&edge, &name, json!({})).await;
    let neighbour = tenant(&edge, &stays, json!({})).await;
    let (host, token) = (format!("{name}.registry.test"), text(&secret, "token"));
    answers(&edge, &host, &token, 200).await;

    plane
        .merge("Tenant", "", &name, json!({ "spec": { "suspend": true } }))
        .await;
    plane
        .wait_for("Tenant", "", &name, "Exposed", "False", "Suspended")
        .await;
    is_unknown(&edge, &host).await;
    let route = format!("berth-{name}");
    assert!(plane.find(by.kind(), &edge.berth.id, &route).await.is_none());

    plane
        .merge("Tenant", "", &name, json!({ "spec": { "suspend": false } }))
        .await;
    plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Served")
        .await;
    plane
        .wait_for("Tenant", "", &name, "Exposed", "True", "Accepted")
        .await;
    answers(&edge, &host, &token, 200).await;

    plane.delete("Tenant", "", &name).await;
    is_unknown(&edge, &host).await;
    plane.wait_gone("Tenant", "", &name).await;
    plane.wait_gone(by.kind(), &edge.berth.id, &route).await;
    let neighbours = edge
        .ping(&format!("{stays}.registry.test"), &text(&neighbour, "token"))
        .await;
    neighbours.expect("an answer").expect(200);
}

async fn hosts_of_a_tenants_own_are_routed_while_it_has_them(by: RoutesBy) {
    let edge = Edge::start(by).await;
    let name = edge.berth.name("acme");
    let own = format!("{}.example.com", edge.berth.id);
    let secret = tenant(&edge, &name, json!({})).await;
    is_unknown(&edge, &own).await;
    let secret = {
        let (namespace, old) = (format!("{name}-ci"), text(&secret, ".dockerconfigjson"));
        edge.berth
            .plane
            .merge("Tenant", "", &name, json!({ "spec": { "hosts": [own] } }))
            .await;
        let rewritten = |secret: &Value| text(secret, ".dockerconfigjson") != old;
        edge.berth
            .plane
            .wait("Secret", &namespace, "berth-ci", rewritten)
            .await
    };
    answers(&edge, &own, &text(&secret, "token"), 200).await;

    // Pushed there, pulled from the host that every tenant has: one registry.
    let image = Image::new(2, 1000);
    let crane = edge.client("crane", &secret);
    let layout = Layout::of_image(&crane.path("image"), &image, "v1");
    crane
        .run(&["push", "--insecure", layout.path(), &format!("{own}/app:v1")])
        .await;
    let reference = format!("{name}.registry.test/app:v1");
    let digest = crane.run(&["digest", "--insecure", &reference]).await;
    assert_eq!(digest.text(), image.digest());

    edge.berth
        .plane
        .merge("Tenant", "", &name, json!({ "spec": { "hosts": [] } }))
        .await;
    is_unknown(&edge, &own).await;
    answers(
        &edge,
        &format!("{name}.registry.test"),
        &text(&secret, "token"),
        200,
    )
    .await;
}

/// Uploads and downloads on one host, with one token.
struct Transfers<'a> {
    edge: &'a Edge,
    host: String,
    token: String,
}

impl Transfers<'_> {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.edge.request(method, &self.host, path);
        request.basic_auth("x-token", Some(&self.token))
    }

    /// Where an answer's Location leads on the same host.
    fn next(&self, answer: &Answer) -> String {
        let location = answer.header("location");
        let path = location
            .strip_prefix(&format!("http://{}", self.host))
            .unwrap_or(location);
        assert!(path.starts_with("/v2/"), "it leads elsewhere: {location}");
        path.to_owned()
    }

    async fn open(&self) -> String {
        let opened = send(self.request(Method::POST, "/v2/app/blobs/uploads/")).await;
        self.next(&opened.expect(202))
    }

    /// Pushes a blob as programs do that do not know its size beforehand.
    async fn push(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        let location = self.open().await;
        let pieces = content.chunks(1 << 20).map(<[u8]>::to_vec).collect();
        let patch = self.request(Method::PATCH, &location).body(streamed(pieces));
        let location = self.next(&send(patch).await.expect(202));
        let close = self.request(Method::PUT, &with_query(&location, &format!("digest={digest}")));
        send(close).await.expect(201);
        digest
    }

    fn pull(&self, digest: &str) -> RequestBuilder {
        self.request(Method::GET, &format!("/v2/app/blobs/{digest}"))
    }
}

async fn transfers(edge: &Edge) -> Transfers<'_> {
    let name = edge.berth.name("acme");
    let secret = tenant(edge, &name, json!({ "redirect": "Never" })).await;
    let (host, token) = (format!("{name}.registry.test"), text(&secret, "token"));
    answers(edge, &host, &token, 200).await;
    Transfers { edge, host, token }
}

async fn a_large_blob_goes_through_and_an_upload_moves_between_the_replicas(by: RoutesBy) {
    let edge = Edge::start(by).await;
    let transfers = transfers(&edge).await;
    let large = blob(LARGE, 3);
    let digest = transfers.push(&large).await;
    let pulled = send(transfers.pull(&digest)).await.expect(200);
    assert!(pulled.body == large, "the large blob has other bytes");

    let before = edge.answered("PATCH").await;
    let content = blob(8 << 20, 4);
    let mut location = transfers.open().await;
    for (number, chunk) in content.chunks(1 << 20).enumerate() {
        let start = number << 20;
        let patch = transfers
            .request(Method::PATCH, &location)
            .header("content-range", format!("{start}-{}", start + chunk.len() - 1))
            .body(chunk.to_vec());
        let answer = send(patch).await.expect(202);
        assert_eq!(answer.header("range"), format!("0-{}", start + chunk.len() - 1));
        location = transfers.next(&answer);
    }
    let digest = sha256(&content);
    let close = transfers.request(Method::PUT, &with_query(&location, &format!("digest={digest}")));
    let stored = transfers.next(&send(close).await.expect(201));
    let pulled = send(transfers.request(Method::GET, &stored)).await.expect(200);
    assert!(pulled.body == content, "the blob in chunks has other bytes");
    let after = edge.answered("PATCH").await;
    let answered: Vec<u64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after - before)
        .collect();
    assert!(
        answered.len() == 2 && answered.iter().all(|&count| count > 0),
        "{answered:?}"
    );
    assert_eq!(answered.iter().sum::<u64>(), 8);
}

/// Pulls so slowly that it takes longer than the 15 seconds after which Envoy ends an answer by default.
async fn a_slow_pull_is_whole(by: RoutesBy) {
    let edge = Edge::start(by).await;
    let transfers = transfers(&edge).await;
    let large = blob(LARGE, 5);
    let digest = transfers.push(&large).await;
    let answer = transfers.pull(&digest).send().await.expect("an answer");
    let mut answer = answer.error_for_status().expect("200");
    let (started, lasts) = (Instant::now(), Duration::from_secs(20));
    let mut pulled = Vec::new();
    while let Some(piece) = answer.chunk().await.expect("the answer is not cut off") {
        pulled.extend_from_slice(&piece);
        // At an even pace, slow readers are what this is about.
        let due = lasts.mul_f64(pulled.len() as f64 / LARGE as f64);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
    }
    assert!(pulled == large, "the large blob has other bytes");
    assert!(started.elapsed() >= lasts);
}
