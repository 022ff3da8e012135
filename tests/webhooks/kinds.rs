//! What is told besides pushes: deletions, retention, expiries, quotas, caches.

use harness::{Faulty, Image, Upstream, eventually};
use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_are_told_of_each_tag_and_of_the_manifest() {
    let place = Place::new().await;
    let digest = place.push("app", "v1", "one").await;
    place.push("app", "v2", "one").await;
    place.push("app", "v3", "other").await;
    for reference in ["v3", digest.as_str()] {
        let path = format!("/v2/acme/app/manifests/{reference}");
        place.ask(Method::DELETE, &path, Vec::new()).await.expect(202);
    }
    let manifest = place.receiver.awaits(&format!("app@{digest}"), 1, WAIT).await;
    let event = manifest[0].event();
    assert_eq!(event["type"], "dev.berth.registry.delete");
    assert!(event["data"]["tag"].is_null());
    assert_eq!(event["data"]["mediaType"], INDEX);
    for tag in ["v1", "v2", "v3"] {
        let told = place.receiver.awaits(&format!("app:{tag}"), 2, WAIT).await;
        let types: Vec<String> = told.iter().map(|received| received.field("type")).collect();
        assert_eq!(types, ["dev.berth.registry.push", "dev.berth.registry.delete"]);
        assert_eq!(
            told[0].event()["data"]["digest"],
            told[1].event()["data"]["digest"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_deletes_and_what_expires_is_told() {
    let place = Place::new().await;
    let policy = json!({ "repositories": ["kept"], "rules": [{ "keepLast": 1 }] });
    place
        .admin
        .put("tenants/acme/retention-policies/ci/keep", policy)
        .await;
    let short = json!({ "name": "short", "lifecycle": "Ephemeral", "ephemeralAfter": "1s" });
    place.admin.put("tenants/acme/repositories/ci/short", short).await;
    for tag in ["v1", "v2"] {
        place.push("kept", tag, tag).await;
    }
    place.push("short", "v1", "one").await;
    let run = "tenants/acme/retention/run?policy=ci%2Fkeep";
    eventually("the policy runs", WAIT, async || {
        let ran = place.admin.ask(Method::POST, run, None).await;
        ran.status.is_success().then_some(())
    })
    .await;
    let told = place.receiver.awaits("kept:v1", 2, WAIT).await;
    let event = told[1].event();
    assert_eq!(event["type"], "dev.berth.registry.retention.delete");
    assert_eq!(event["data"]["mediaType"], INDEX);
    assert_eq!(event["data"]["digest"], told[0].event()["data"]["digest"]);
    let told = place.receiver.awaits("short:v1", 2, WAIT * 2).await;
    assert_eq!(told[1].field("type"), "dev.berth.registry.retention.expire");
    assert_eq!(place.receiver.about("kept:v2").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_told_when_it_is_nearly_used_up_and_when_it_refuses_and_then_not_again_for_an_hour() {
    let place = Place::new().await;
    let all = webhook(&place.receiver, "/all", &["quota"]);
    place
        .spec(json!({ "quota": { "tagsPerRepository": 2 }, "webhooks": [all] }))
        .await;
    for tag in ["v1", "v2"] {
        place.push("app", tag, "one").await;
    }
    for tag in ["v3", "v4", "v5"] {
        let path = format!("/v2/acme/app/manifests/{tag}");
        place.ask(Method::PUT, &path, index("one")).await.expect(403);
    }
    let told = place.receiver.awaits("app", 2, WAIT).await;
    assert_eq!(told[0].field("type"), "dev.berth.registry.quota.threshold");
    assert_eq!(told[1].field("type"), "dev.berth.registry.quota.exceeded");
    let data = &told[1].event()["data"];
    assert_eq!(
        (&data["quota"], &data["usage"], &data["limit"]),
        (&json!("tags"), &json!(2), &json!(2))
    );
    // Of another repository it is news; of this one nothing has come meanwhile.
    for tag in ["v1", "v2"] {
        place.push("other", tag, "one").await;
    }
    place.receiver.awaits("other", 1, WAIT).await;
    assert_eq!(place.receiver.about("app").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_tell_of_what_they_fetch_first_and_of_upstreams_that_go_and_come_back() {
    let place = Place::new().await;
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let image = Image::new(1, 100);
    image.push(&upstream.repository("team/app"), "v1").await;
    let cache =
        json!({ "upstream": { "url": way.url() }, "prefix": "up", "tags": { "revalidateAfter": "1s" } });
    place.admin.put("tenants/acme/caches/up", cache).await;
    let pull = async || {
        place
            .ask(Method::GET, "/v2/acme/up/team/app/manifests/v1", Vec::new())
            .await
            .status
            .as_u16()
    };
    eventually("it is pulled", WAIT, async || (pull().await == 200).then_some(())).await;
    let told = place.receiver.awaits("up/team/app:v1", 1, WAIT).await;
    assert_eq!(told[0].field("type"), "dev.berth.registry.cache.fetch");
    assert_eq!(told[0].event()["data"]["digest"], image.digest());

    way.go_down();
    eventually("it is told that the upstream is away", WAIT * 2, async || {
        let _ = pull().await;
        (!place.receiver.about("up").is_empty()).then_some(())
    })
    .await;
    way.come_up();
    let told = eventually("it is told that it is back", WAIT * 2, async || {
        let _ = pull().await;
        Some(place.receiver.about("up")).filter(|told| told.len() >= 2)
    })
    .await;
    let types: Vec<String> = told.iter().map(|received| received.field("type")).collect();
    assert_eq!(
        types,
        [
            "dev.berth.registry.cache.unreachable",
            "dev.berth.registry.cache.recovered"
        ]
    );
    assert_eq!(
        place.receiver.about("up/team/app:v1").len(),
        1,
        "it has not changed"
    );
}
