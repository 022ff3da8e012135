//! The configuration changes while clients are at work, and word of it gets lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, attempt, client, send, with_query};
use harness::image::MANIFEST;
use harness::{Admin, Backend, Berth, Builder, Image, Relay, Storage, eventually};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::task::JoinSet;

const DOMAIN: &str = "registry.test";
const LIMIT: Duration = Duration::from_secs(30);

fn builder() -> Builder {
    Berth::builder()
        .flag("--domain", DOMAIN)
        .flag("--external-scheme", "http")
        .flag("--apex-tenant", "none")
}

/// A tenant's host, asked by whoever has a password.
struct Tenant {
    host: String,
    token: String,
    repository: Repository,
}

impl Tenant {
    async fn of(berth: &Berth, admin: &Admin) -> Tenant {
        admin.put_tenant("acme", json!({})).await;
        Tenant {
            host: format!("acme.{DOMAIN}"),
            token: admin.token("acme", &["**"], &["pull", "push", "delete"]).await,
            repository: Repository::new(&berth.url(""), "app"),
        }
    }

    /// The answer; as clients do it asks again where the server has closed a connection after it refused a body unread.
    async fn ask(&self, request: RequestBuilder) -> Answer {
        let request = request.header("Host", &self.host);
        let request = request.basic_auth("x-token", Some(&self.token));
        let again = request.try_clone().expect("a body in memory");
        match attempt(request).await {
            Some(answer) => answer,
            None => send(again).await,
        }
    }

    async fn push_blob(&self, content: &[u8]) {
        let path = format!("blobs/uploads/?digest={}", sha256(content));
        let request = self.repository.request(Method::POST, &path);
        self.ask(request.body(content.to_vec())).await.expect(201);
    }
}

#[tokio::test]
async fn a_change_whose_notification_is_lost_is_served_by_the_other_replica_within_a_second() {
    let storage = Arc::new(Storage::create(Backend::Distributed));
    let first = builder().storage(storage.clone(), 0).start().await;
    let url = storage.database().expect("a database").url();
    let server = url.split(['@', '/']).nth(3).expect("host:port").to_owned();
    let relay = Relay::before(&server).await;
    let keys = storage.data(0).join("keys");
    let second = builder()
        .storage(storage.clone(), 1)
        .flag("--keys", keys.to_str().expect("a plain path"))
        .variable("BERTH_METADATA", &url.replace(&server, &relay.address()))
        .start()
        .await;
    let admin = Admin::of(&first);
    let is_served = async |host: String| {
        let asked = client().get(second.url("/v2/")).header("Host", host);
        send(asked).await.status.as_u16() == 401
    };
    // It listens by then: what is said arrives, and is taken away on its way.
    admin.put_tenant("heard", json!({})).await;
    eventually("the other replica serves it", LIMIT, async || {
        is_served(format!("heard.{DOMAIN}")).await.then_some(())
    })
    .await;
    relay.lose("berth_configuration");

    for number in 0..5 {
        let name = format!("t{number}");
        admin.put_tenant(&name, json!({})).await;
        let put = Instant::now();
        eventually("the other replica serves it", LIMIT, async || {
            is_served(format!("{name}.{DOMAIN}")).await.then_some(())
        })
        .await;
        assert!(put.elapsed() < Duration::from_secs(1), "{:?}", put.elapsed());
    }

    assert!(relay.losses() > 0, "nothing was said, so nothing was lost");
}

#[tokio::test]
async fn a_tenant_that_is_suspended_in_an_upload_publishes_nothing_and_goes_on_when_it_is_resumed() {
    for backend in Backend::BOTH {
        let berth = builder().backend(backend).start().await;
        let admin = Admin::of(&berth);
        let tenant = Tenant::of(&berth, &admin).await;
        let repository = &tenant.repository;
        let content = blob(300_000, 1);
        let (first, rest) = content.split_at(100_000);
        let digest = sha256(&content);
        let post = repository.request(Method::POST, "blobs/uploads/");
        let start = tenant.ask(post).await.expect(202);
        let location = start.header("location").to_owned();
        let path = location
            .split_once("/v2/app/")
            .map_or_else(String::new, |(_, path)| path.to_owned());
        let patch = |bytes: &[u8], range: &str| {
            repository
                .request(Method::PATCH, &path)
                .header("Content-Range", range)
                .body(bytes.to_vec())
        };
        tenant.ask(patch(first, "0-99999")).await.expect(202);

        admin
            .put_tenant("acme", json!({ "suspend": true, "suspendReason": "unpaid" }))
            .await;

        let refused = tenant.ask(patch(rest, "100000-299999")).await.expect(403);
        assert!(refused.text().contains("unpaid"), "{}", refused.text());
        let close = || {
            let closing = with_query(&path, &format!("digest={digest}"));
            repository.request(Method::PUT, &closing)
        };
        tenant.ask(close()).await.expect(403);

        admin.put_tenant("acme", json!({})).await;

        let read = || repository.request(Method::GET, &format!("blobs/{digest}"));
        tenant.ask(read()).await.expect(404);
        tenant.ask(patch(rest, "100000-299999")).await.expect(202);
        tenant.ask(close()).await.expect(201);
        let whole = tenant.ask(read().header("User-Agent", "plain")).await.expect(200);
        assert!(whole.body == content, "{backend:?}");
    }
}

#[tokio::test]
async fn pulls_meet_no_refusal_while_their_token_is_rotated_with_overlap() {
    let berth = builder().backend(Backend::Distributed).start().await;
    let admin = Admin::of(&berth);
    let tenant = Tenant::of(&berth, &admin).await;
    let image = Image::new(1, 1000);
    for content in image.blobs() {
        tenant.push_blob(content).await;
    }
    let put = tenant.repository.request(Method::PUT, "manifests/v1");
    let put = put.header("Content-Type", MANIFEST).body(image.manifest.clone());
    tenant.ask(put).await.expect(201);

    // What a node finds in the Secret, which is rewritten at some time after the rotation.
    let token = Arc::new(RwLock::new(admin.token("acme", &["**"], &["pull"]).await));
    let (stop, pulls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut pullers = JoinSet::new();
    for _ in 0..4 {
        let (repository, host) = (tenant.repository.clone(), tenant.host.clone());
        let (token, stop, pulls) = (token.clone(), stop.clone(), pulls.clone());
        pullers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let password = token.read().expect("no writer panics").clone();
                let request = repository
                    .request(Method::GET, "manifests/v1")
                    .header("Host", &host);
                send(request.basic_auth("x-token", Some(password)))
                    .await
                    .expect(200);
                pulls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    for _ in 0..10 {
        let old = token.read().expect("no writer panics").clone();
        let path = format!("tenants/acme/tokens/{}/rotate", Admin::id_of(&old));
        let made = admin.ask(Method::POST, &path, Some(json!({ "overlap": "60s" })));
        let made = made.await.expect(200).json();
        let before = pulls.load(Ordering::Relaxed);
        eventually("pulls go on by the old one", LIMIT, async || {
            (pulls.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        let new = made["token"].as_str().expect("a token");
        new.clone_into(&mut token.write().expect("no reader panics"));
        let before = pulls.load(Ordering::Relaxed);
        eventually("pulls go on by the new one", LIMIT, async || {
            (pulls.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }

    stop.store(true, Ordering::Relaxed);
    pullers.join_all().await;
}
