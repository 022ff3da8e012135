//! Stage `webhooks`: what happens in a tenant reaches its receivers, signed, in order, at least once, and nobody else's.
//!
//! What it is: registries with tenants whose webhooks lie on loopback ([`Place`]), where a receiver takes, refuses, hangs and
//! counts. What it may use: the harness. What must hold: an acknowledged change is told, whatever becomes of the process
//! behind it; a failing event holds back those of its tag and no others.

mod delivery;
mod doors;
mod failures;
mod kinds;

use std::sync::Arc;
use std::time::Duration;

use harness::http::{Answer, send};
use harness::{Admin, Berth, Builder, Receiver};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(60);
/// The domain of all registries here.
const DOMAIN: &str = "registry.test";
/// What signs the events.
const TOKEN: &str = "a webhook's token";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry with the tenant `acme` and a receiver.
struct Place {
    receiver: Arc<Receiver>,
    berth: Berth,
    admin: Admin,
    token: String,
}

/// A registry that reaches receivers on loopback.
fn reaching() -> Builder {
    Berth::builder()
        .flag("--domain", DOMAIN)
        .flag("--external-scheme", "http")
        .flag("--apex-tenant", "none")
        .flag("--egress-allow", "127.0.0.1")
}

/// A webhook of these events that goes to a path of a receiver.
fn webhook(receiver: &Receiver, path: &str, events: &[&str]) -> Value {
    json!({ "url": receiver.url(path), "events": events, "secret": TOKEN })
}

impl Place {
    /// Events of all kinds go to the path `/all`.
    async fn new() -> Place {
        Place::with(reaching()).await
    }

    async fn with(builder: Builder) -> Place {
        let receiver = Arc::new(Receiver::start().await);
        let berth = builder.start().await;
        let admin = Admin::of(&berth);
        let all = webhook(
            &receiver,
            "/all",
            &["push", "delete", "retention", "quota", "cache"],
        );
        admin.put_tenant("acme", json!({ "webhooks": [all] })).await;
        let token = admin.token("acme", &["**"], &["pull", "push", "delete"]).await;
        Place {
            receiver,
            berth,
            admin,
            token,
        }
    }

    /// Makes `acme` what the spec says.
    async fn spec(&self, spec: Value) {
        self.admin.put_tenant("acme", spec).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        ask(&self.berth, &self.token, method, path, body).await
    }

    /// Pushes an index of nothing with this text under a tag; its digest.
    async fn push(&self, repository: &str, tag: &str, text: &str) -> String {
        push(&self.berth, &self.token, &format!("acme/{repository}"), tag, text).await
    }

    /// The tenant's only webhook, as the admin API tells it.
    async fn told(&self) -> Value {
        let path = "tenants/acme/webhooks";
        self.admin.ask(Method::GET, path, None).await.expect(200).json()[0].clone()
    }

    /// The path of the only webhook's doors.
    async fn door(&self, of: &str) -> String {
        let id = self.told().await["id"].as_str().expect("an id").to_owned();
        format!("tenants/acme/webhooks/{id}/{of}")
    }
}

async fn ask(berth: &Berth, token: &str, method: Method, path: &str, body: Vec<u8>) -> Answer {
    let request = harness::http::client()
        .request(method, berth.url(path))
        .basic_auth("x-token", Some(token))
        .header(CONTENT_TYPE, INDEX)
        .body(body);
    send(request).await
}

fn index(text: &str) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": { "text": text } })
        .to_string()
        .into_bytes()
}

async fn push(berth: &Berth, token: &str, repository: &str, tag: &str, text: &str) -> String {
    let body = index(text);
    let digest = harness::content::sha256(&body);
    let path = format!("/v2/{repository}/manifests/{tag}");
    ask(berth, token, Method::PUT, &path, body).await.expect(201);
    digest
}
