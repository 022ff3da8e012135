//! What reaches a receiver: by whom, how often, and what survives.

use std::sync::Arc;
use std::time::Duration;

use harness::{Admin, Backend, Berth, Client, Cluster, Image, Layout, Receiver, Reply, eventually};
use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_arrives_as_a_signed_cloud_event() {
    let place = Place::new().await;
    let digest = place.push("team/api", "v1", "one").await;

    let received = place.receiver.awaits("team/api:v1", 1, WAIT).await;
    let received = &received[0];
    assert_eq!(
        (received.method.as_str(), received.path.as_str()),
        ("POST", "/all")
    );
    assert_eq!(received.header("content-type"), "application/cloudevents+json");
    assert_eq!(received.header("x-berth-event"), "dev.berth.registry.push");
    assert_eq!(received.header("x-berth-attempt"), "1");
    assert!(received.is_signed_by(TOKEN), "{:?}", received.headers);
    assert!(!received.is_signed_by("another token"));
    let event = received.event();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "dev.berth.registry.push");
    assert_eq!(event["id"], received.header("x-berth-delivery"));
    assert_eq!(event["datacontenttype"], "application/json");
    let source = event["source"].as_str().expect("a source");
    assert!(source.starts_with("http://acme.registry.test"), "{source}");
    let data = &event["data"];
    let expected = json!({
        "tenant": "acme", "repository": "team/api", "tag": "v1", "digest": digest, "mediaType": INDEX,
        "size": index("one").len(), "actor": data["actor"],
        "reference": format!("{}/team/api:v1", source.trim_start_matches("http://")),
    });
    assert_eq!(data, &expected);
    assert!(
        data["actor"].as_str().is_some_and(|actor| actor.contains("test")),
        "{data}"
    );

    eventually("the webhook's state says so", WAIT, async || {
        let told = place.told().await;
        (told["pending"] == 0 && told["lastDelivery"].is_string()).then_some(())
    })
    .await;
    let metrics = send(harness::http::client().get(place.berth.ops_url("/metrics")));
    let metrics = metrics.await.expect(200).text();
    let delivered = "berth_webhook_deliveries_total{outcome=\"delivered\"} 1";
    assert!(metrics.contains(delivered), "{metrics}");
    assert!(!metrics.contains("acme"), "tenants are told on request only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_crane_pushes_is_told_once() {
    let place = Place::with(Berth::builder().flag("--egress-allow", "127.0.0.1")).await;
    let all = webhook(&place.receiver, "/all", &["push"]);
    place
        .admin
        .put_tenant("default", json!({ "webhooks": [all] }))
        .await;
    let token = place.admin.token("default", &["**"], &["pull", "push"]).await;
    let crane = Client::new("crane");
    let layout = Layout::of_image(&crane.path("image"), &Image::new(1, 2000), "v1");
    let address = place.berth.address();
    crane
        .run(&["auth", "login", &address, "-u", "x-token", "-p", &token])
        .await;
    crane
        .run(&["push", layout.path(), &format!("{address}/app:v1")])
        .await;

    let received = place.receiver.awaits("app:v1", 1, WAIT).await;
    assert!(received[0].is_signed_by(TOKEN));
    assert_eq!(received[0].event()["data"]["tenant"], "default");
    eventually("nothing waits", WAIT, async || {
        let path = "tenants/default/webhooks";
        let told = place.admin.ask(Method::GET, path, None).await.expect(200).json();
        (told[0]["pending"] == 0).then_some(())
    })
    .await;
    assert_eq!(place.receiver.about("app:v1").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_push_is_told_though_the_server_is_killed_on_sqlite() {
    killed_between_push_and_delivery(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_push_is_told_though_the_server_is_killed_on_postgres() {
    killed_between_push_and_delivery(Backend::Distributed).await;
}

async fn killed_between_push_and_delivery(backend: Backend) {
    let mut place = Place::with(reaching().backend(backend)).await;
    place.receiver.reply(|_| Reply::Hang);
    for number in 0..5 {
        place.push("app", &format!("v{number}"), "one").await;
    }
    // One is on its way, and nobody will ever hear what became of it.
    place.receiver.awaits("app:v0", 1, WAIT).await;
    place.berth.kill9();
    place.receiver.reply(|_| Reply::Take);
    place.berth.restart().await;

    for number in 0..5 {
        let subject = format!("app:v{number}");
        eventually("every push is told", WAIT, async || {
            let received = place.receiver.about(&subject);
            received.iter().any(|received| received.taken).then_some(())
        })
        .await;
    }
    let first = place.receiver.about("app:v0");
    assert!(
        first
            .iter()
            .all(|received| received.field("id") == first[0].field("id"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_deliver_each_event_once_and_in_order() {
    let receiver = Arc::new(Receiver::start().await);
    let mut cluster = Cluster::start_with(2, reaching()).await;
    let admin = Admin::of(cluster.replica(0));
    let all = webhook(&receiver, "/all", &["push"]);
    admin.put_tenant("acme", json!({ "webhooks": [all] })).await;
    let token = admin.token("acme", &["**"], &["push"]).await;
    eventually("both replicas know the webhook", WAIT, async || {
        let replicas = admin.ask(Method::GET, "replicas", None).await.expect(200).json();
        (replicas["served"] == true).then_some(())
    })
    .await;
    let mut digests = Vec::new();
    for number in 0..6 {
        let berth = cluster.replica(number % 2);
        let text = number.to_string();
        digests.push(push(berth, &token, "acme/app", "latest", &text).await);
        push(berth, &token, "acme/app", &format!("v{number}"), &text).await;
    }
    receiver.awaits("app:latest", 6, WAIT).await;
    for number in 0..6 {
        receiver.awaits(&format!("app:v{number}"), 1, WAIT).await;
    }
    let told = receiver.about("app:latest").into_iter();
    let told: Vec<String> = told
        .map(|received| {
            received.event()["data"]["digest"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(told, digests);
    assert_eq!(
        receiver.received().len(),
        12,
        "nobody failed, so nothing is told twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_hears_of_its_events_in_its_repositories_alone() {
    let place = Place::new().await;
    let pushes =
        json!({ "url": place.receiver.url("/pushes"), "events": ["push"], "repositories": ["team-a/**"] });
    let deletions = json!({ "url": place.receiver.url("/deletions"), "events": ["delete"] });
    place.spec(json!({ "webhooks": [pushes, deletions] })).await;
    place.push("team-b/api", "v1", "one").await;
    place.push("team-a/api", "v1", "one").await;
    place
        .ask(Method::DELETE, "/v2/acme/team-b/api/manifests/v1", Vec::new())
        .await
        .expect(202);
    // Deletions come last: what else would come has come.
    place.receiver.awaits("team-b/api:v1", 1, WAIT).await;
    place.receiver.awaits("team-a/api:v1", 1, WAIT).await;
    let mut told: Vec<(String, String)> = place
        .receiver
        .received()
        .iter()
        .map(|received| (received.path.clone(), received.field("subject")))
        .collect();
    told.sort();
    let expected = [("/deletions", "team-b/api:v1"), ("/pushes", "team-a/api:v1")];
    assert_eq!(
        told,
        expected.map(|(path, subject)| (path.to_owned(), subject.to_owned()))
    );
    assert_eq!(
        place.receiver.received()[0].header("x-signature"),
        "",
        "no secret, no signature"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_receiver_is_refused_unless_the_installation_allows_it() {
    let builder = Berth::builder()
        .flag("--domain", DOMAIN)
        .flag("--external-scheme", "http")
        .flag("--apex-tenant", "none");
    let place = Place::with(builder).await;
    place.push("app", "v1", "one").await;
    let why = eventually("the delivery fails", WAIT, async || {
        place.told().await["lastError"].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains("--egress-allow"), "{why}");
    assert!(place.receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_does_not_hold_up_another() {
    let place = Place::new().await;
    let slow = Receiver::start().await;
    slow.reply(|_| Reply::Hang);
    let webhooks = [
        webhook(&slow, "/slow", &["push"]),
        webhook(&place.receiver, "/all", &["push"]),
    ];
    place.spec(json!({ "webhooks": webhooks })).await;
    for number in 0..20 {
        place.push("app", &format!("v{number}"), "one").await;
    }
    for number in 0..20 {
        // Sooner than the slow one gives up once.
        let limit = Duration::from_secs(9);
        place.receiver.awaits(&format!("app:v{number}"), 1, limit).await;
    }
    let most = slow.most_at_once();
    assert!((1..=8).contains(&most), "{most} on their way at once");
}
