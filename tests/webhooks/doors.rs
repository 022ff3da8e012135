//! Tenants: none hears of another's events, and no door of one shows another's.

use harness::{Receiver, Reply, eventually};
use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_hears_of_another_or_sees_its_dead_letters() {
    let place = Place::with(reaching().flag("--webhook-retry", "1s")).await;
    let theirs = Receiver::start().await;
    // Both name the same URL besides: it is a webhook of each.
    let shared = webhook(&place.receiver, "/all", &["push"]);
    let own = webhook(&theirs, "/theirs", &["push"]);
    place
        .admin
        .put_tenant("globex", json!({ "webhooks": [own, shared] }))
        .await;
    let token = place.admin.token("globex", &["**"], &["push"]).await;
    place.receiver.reply(|_| Reply::Refuse(500));
    place.push("app", "acme-s", "one").await;
    push(&place.berth, &token, "globex/app", "globex-s", "one").await;
    theirs.awaits("app:globex-s", 1, WAIT).await;
    eventually("acme's is given up", WAIT, async || {
        (place.told().await["dead"] == 1).then_some(())
    })
    .await;
    assert!(theirs.about("app:acme-s").is_empty());
    let tenants = place.receiver.about("app:acme-s");
    assert!(
        tenants
            .iter()
            .all(|received| received.event()["data"]["tenant"] == "acme")
    );

    let ask = async |method: Method, path: &str| place.admin.ask(method, path, None).await;
    let listed = ask(Method::GET, "tenants/globex/webhooks")
        .await
        .expect(200)
        .json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    let id = place.told().await["id"].as_str().expect("an id").to_owned();
    assert_eq!(listed[1]["id"], json!(id), "the same URL");
    eventually("globex's is given up", WAIT, async || {
        let listed = ask(Method::GET, "tenants/globex/webhooks")
            .await
            .expect(200)
            .json();
        (listed[1]["dead"] == 1).then_some(())
    })
    .await;
    let path = format!("tenants/globex/webhooks/{id}/dead");
    let letters = ask(Method::GET, &path).await.expect(200).text();
    assert!(
        letters.contains("app:globex-s") && !letters.contains("acme"),
        "{letters}"
    );
    let path = format!("tenants/globex/webhooks/{id}/replay");
    assert_eq!(ask(Method::POST, &path).await.expect(200).json()["replayed"], 1);
    assert_eq!(place.told().await["dead"], 1, "acme's stays where it is");
    let their_own = listed[0]["id"].as_str().expect("an id");
    for door in ["dead", "replay", "test"] {
        let method = if door == "dead" { Method::GET } else { Method::POST };
        let path = format!("tenants/acme/webhooks/{their_own}/{door}");
        ask(method, &path).await.expect(404);
    }
}
