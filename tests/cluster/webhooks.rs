//! What a Tenant's status says of its webhooks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::http::{client, send};
use harness::{Admin, Berth, Installation, Receiver, Reply, eventually};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An installation whose registry reaches receivers on loopback, and gives events up after this time.
async fn reaching(retry: &str) -> Installation {
    let registry = Berth::builder()
        .flag("--domain", "registry.test")
        .flag("--egress-allow", "127.0.0.1")
        .flag("--webhook-retry", retry);
    let registry = registry.start().await;
    Installation::builder().registry(registry).start().await
}

/// Pushes an index of nothing under a tag.
async fn push(berth: &Installation, tenant: &str, tag: &str) {
    let admin = Admin::of(&berth.registry);
    let token = admin.token(tenant, &["**"], &["pull", "push"]).await;
    let body =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": { "tag": tag } });
    let request = client()
        .request(
            Method::PUT,
            berth.registry.url(&format!("/v2/app/manifests/{tag}")),
        )
        .header("Host", format!("{tenant}.registry.test"))
        .header(CONTENT_TYPE, INDEX)
        .basic_auth("x-token", Some(token));
    send(request.body(body.to_string())).await.expect(201);
}

/// The status' webhooks once they are as they should be. A status is renewed every few minutes, and whenever its Tenant
/// changes: so it is changed.
async fn told(berth: &Installation, tenant: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let changes = AtomicU64::new(0);
    eventually("the status tells of the webhooks", PATIENCE, async || {
        let change = changes.fetch_add(1, Ordering::Relaxed);
        let name = json!({ "spec": { "displayName": format!("change {change}") } });
        berth.plane.merge("Tenant", "", tenant, name).await;
        let seen = berth
            .plane
            .wait_for("Tenant", "", tenant, "Ready", "True", "")
            .await;
        let webhooks = seen["status"]["webhooks"].as_array().cloned().unwrap_or_default();
        is(&webhooks).then_some(webhooks)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_which_webhook_waits_why_it_fails_and_that_it_delivers_again() {
    let berth = reaching("1h").await;
    let (refusing, taking) = (Receiver::start().await, Receiver::start().await);
    refusing.reply(|_| Reply::Refuse(503));
    let (name, other) = (berth.name("acme"), berth.name("other"));
    let urls = [refusing.url("/one"), taking.url("/two")];
    let webhooks = urls.clone().map(|url| json!({ "url": url, "events": ["push"] }));
    berth.ready_tenant(&name, json!({ "webhooks": webhooks })).await;
    berth.ready_tenant(&other, json!({})).await;
    let fresh = told(&berth, &name, |webhooks| webhooks.len() == 2).await;
    for (webhook, url) in fresh.iter().zip(&urls) {
        assert_eq!(
            *webhook,
            json!({ "url": url, "pending": 0, "dead": 0 }),
            "nothing has happened"
        );
    }

    push(&berth, &name, "v1").await;
    refusing.awaits("app:v1", 1, PATIENCE).await;
    taking.awaits("app:v1", 1, PATIENCE).await;

    let failing = told(&berth, &name, |webhooks| {
        webhooks[0]["lastError"].is_string() && webhooks[1]["lastDelivery"].is_string()
    })
    .await;
    let (one, two) = (&failing[0], &failing[1]);
    assert_eq!(
        (&one["url"], &one["pending"], &one["dead"]),
        (&json!(urls[0]), &json!(1), &json!(0)),
        "{one}"
    );
    assert!(
        one["lastError"]
            .as_str()
            .is_some_and(|error| error.contains("503")),
        "{one}"
    );
    assert!(one["lastDelivery"].is_null(), "{one}");
    assert_eq!(
        (&two["url"], &two["pending"], &two["dead"]),
        (&json!(urls[1]), &json!(0), &json!(0)),
        "{two}"
    );
    assert!(two["lastError"].is_null(), "{two}");

    refusing.reply(|_| Reply::Take);

    let delivered = told(&berth, &name, |webhooks| webhooks[0]["lastDelivery"].is_string()).await;
    let one = &delivered[0];
    assert_eq!((&one["pending"], &one["dead"]), (&json!(0), &json!(0)), "{one}");
    assert!(one["lastError"].is_null(), "a delivery came after it: {one}");
    let none = told(&berth, &other, |webhooks| webhooks.is_empty()).await;
    assert!(none.is_empty(), "another tenant's are not told");
    // A webhook that is taken away is told of no more.
    let left = json!({ "spec": { "webhooks": [webhooks[1]] } });
    berth.plane.merge("Tenant", "", &name, left).await;
    told(&berth, &name, |webhooks| {
        webhooks.len() == 1 && webhooks[0]["url"] == json!(urls[1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_counts_what_was_given_up_and_what_was_sent_again() {
    let berth = reaching("1s").await;
    let receiver = Receiver::start().await;
    receiver.reply(|_| Reply::Refuse(500));
    let name = berth.name("acme");
    let webhook = json!({ "url": receiver.url("/"), "events": ["push"] });
    berth.ready_tenant(&name, json!({ "webhooks": [webhook] })).await;
    push(&berth, &name, "v1").await;

    let given_up = told(&berth, &name, |webhooks| webhooks[0]["dead"] == 1).await;
    assert_eq!(given_up[0]["pending"], 0, "{given_up:?}");
    assert!(
        given_up[0]["lastError"]
            .as_str()
            .is_some_and(|error| error.contains("500"))
    );

    receiver.reply(|_| Reply::Take);
    let admin = Admin::of(&berth.registry);
    let path = format!("tenants/{name}/webhooks");
    let listed = admin.ask(Method::GET, &path, None).await.expect(200).json();
    let id = listed[0]["id"].as_str().expect("an id");
    admin
        .ask(Method::POST, &format!("{path}/{id}/replay"), None)
        .await
        .expect(200);

    let sent = told(&berth, &name, |webhooks| webhooks[0]["lastDelivery"].is_string()).await;
    assert_eq!(
        (&sent[0]["pending"], &sent[0]["dead"]),
        (&json!(0), &json!(0)),
        "{sent:?}"
    );
    assert!(sent[0]["lastError"].is_null(), "{sent:?}");
}
