//! Receivers that fail: what is tried again, what waits for it, and what is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::{Backend, Receiver, Reply, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_comes_again_with_the_same_id() {
    let place = Place::new().await;
    let tries = AtomicUsize::new(0);
    place
        .receiver
        .reply(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Refuse(500),
            1 => Reply::Redirect("http://127.0.0.1:1/elsewhere".into()),
            _ => Reply::Take,
        });
    place.push("app", "v1", "one").await;
    let received = place.receiver.awaits("app:v1", 3, WAIT).await;
    assert!(
        received
            .iter()
            .all(|received| received.body == received_body(&place))
    );
    let attempts: Vec<&str> = received.iter().map(|r| r.header("x-berth-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(received.iter().all(|received| received.is_signed_by(TOKEN)));
    let told = eventually("it is delivered", WAIT, async || {
        Some(place.told().await).filter(|told| told["pending"] == 0)
    })
    .await;
    assert_eq!(told["dead"], 0);
    assert!(told["lastError"].is_null(), "{told}");
}

fn received_body(place: &Place) -> bytes::Bytes {
    place.receiver.received()[0].body.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_event_holds_back_those_of_its_tag_and_no_others() {
    let place = Place::new().await;
    let fails = Arc::new(AtomicBool::new(true));
    let rule = fails.clone();
    place.receiver.reply(move |received| {
        let is_stuck = received.field("subject") == "app:stuck" && rule.load(Ordering::SeqCst);
        if is_stuck { Reply::Refuse(503) } else { Reply::Take }
    });
    let mut digests = Vec::new();
    for text in ["one", "two", "three"] {
        digests.push(place.push("app", "stuck", text).await);
    }
    place.push("app", "free", "one").await;
    place.push("other", "stuck", "one").await;
    place.receiver.awaits("app:free", 1, WAIT).await;
    place.receiver.awaits("other:stuck", 1, WAIT).await;
    place.receiver.awaits("app:stuck", 2, WAIT).await;
    let digest = |received: &harness::Received| {
        received.event()["data"]["digest"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        place
            .receiver
            .about("app:stuck")
            .iter()
            .all(|r| digest(r) == digests[0])
    );

    fails.store(false, Ordering::SeqCst);
    let taken = eventually("all three are taken", WAIT, async || {
        let taken = place.receiver.about("app:stuck").into_iter().filter(|r| r.taken);
        let taken: Vec<String> = taken.map(|received| digest(&received)).collect();
        (taken.len() == 3).then_some(taken)
    })
    .await;
    assert_eq!(taken, digests);
}

/// `berth-registry webhook`, asking the server.
fn command(place: &Place, arguments: &[&str]) -> (bool, Value) {
    let mut command = place.berth.command("webhook");
    command.args(arguments).args(["--tenant", "acme", "-o", "json"]);
    let admin = place.berth.admin_url("");
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    let output = command.output().expect("the binary runs");
    let told = serde_json::from_slice(&output.stdout);
    (
        output.status.success(),
        told.unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_listed_and_can_be_sent_again() {
    let place = Place::with(reaching().flag("--webhook-retry", "1s")).await;
    place.receiver.reply(|_| Reply::Refuse(500));
    for number in 0..3 {
        place.push("app", &format!("v{number}"), "one").await;
    }
    eventually("they are given up", WAIT, async || {
        (place.told().await["dead"] == 3).then_some(())
    })
    .await;
    let url = place.receiver.url("/all");
    let (_, listed) = command(&place, &["list"]);
    assert_eq!(
        (&listed[0]["url"], &listed[0]["dead"], &listed[0]["pending"]),
        (&json!(url), &json!(3), &json!(0))
    );

    // Page by page, newest first.
    let (_, first) = command(&place, &["dead", &url, "--limit", "2"]);
    let next = first["next"].to_string();
    let (_, second) = command(&place, &["dead", &url, "--limit", "2", "--before", &next]);
    let letters: Vec<Value> = [&first, &second]
        .iter()
        .flat_map(|page| page["events"].as_array().cloned().unwrap_or_default())
        .collect();
    let mut subjects: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter["subject"].as_str())
        .collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["app:v0", "app:v1", "app:v2"]);
    assert!(second["next"].is_null(), "{second}");
    let error = letters[0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("500"), "{error}");

    // One, then the rest.
    place.receiver.reply(|_| Reply::Take);
    let id = letters[0]["id"].as_str().expect("an id");
    let subject = letters[0]["subject"].as_str().expect("a subject");
    let (_, replayed) = command(&place, &["replay", &url, "--event", id]);
    assert_eq!(replayed["replayed"], 1);
    let received = eventually("it is taken", WAIT, async || {
        place
            .receiver
            .about(subject)
            .into_iter()
            .find(|received| received.taken)
    })
    .await;
    assert_eq!(received.field("id"), id);
    assert_eq!(received.body, place.receiver.about(subject)[0].body);
    let (_, replayed) = command(&place, &["replay", &url]);
    assert_eq!(replayed["replayed"], 2);
    eventually("nothing is dead or waits", WAIT, async || {
        let told = place.told().await;
        (told["dead"] == 0 && told["pending"] == 0).then_some(())
    })
    .await;
    let gone = place.door(&format!("replay?event={id}")).await;
    place.admin.ask(Method::POST, &gone, None).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_lets_the_next_event_of_its_tag_go() {
    let place = Place::with(reaching().flag("--webhook-retry", "1s")).await;
    let first = harness::content::sha256(&index("one"));
    place.receiver.reply(
        move |received| match received.event()["data"]["digest"] == first {
            true => Reply::Refuse(500),
            false => Reply::Take,
        },
    );
    place.push("app", "v1", "one").await;
    place.push("app", "v1", "two").await;
    eventually("the second is taken", WAIT, async || {
        place
            .receiver
            .about("app:v1")
            .iter()
            .any(|received| received.taken)
            .then_some(())
    })
    .await;
    assert_eq!(place.told().await["dead"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_forgotten_after_their_time() {
    let builder = reaching()
        .flag("--webhook-retry", "1s")
        .flag("--webhook-keep", "1s");
    let place = Place::with(builder).await;
    place.receiver.reply(|_| Reply::Refuse(500));
    place.push("app", "v1", "one").await;
    eventually("it is given up", WAIT, async || {
        (place.told().await["dead"] == 1).then_some(())
    })
    .await;
    eventually("it is forgotten", WAIT * 2, async || {
        (place.told().await["dead"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_says_what_the_receiver_answered() {
    let place = Place::new().await;
    let url = place.receiver.url("/all");
    let (succeeds, told) = command(&place, &["test", &url]);
    assert!(succeeds);
    assert_eq!((&told["delivered"], &told["status"]), (&json!(true), &json!(200)));
    let received = place.receiver.about("test");
    assert_eq!(received[0].field("type"), "dev.berth.registry.test");
    assert!(received[0].is_signed_by(TOKEN));

    place.receiver.reply(|_| Reply::Refuse(418));
    let (succeeds, told) = command(&place, &["test", &url]);
    assert!(!succeeds);
    assert_eq!(
        (&told["delivered"], &told["status"]),
        (&json!(false), &json!(418))
    );
    assert_eq!(place.told().await["dead"], 0, "a test leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_moves_does_not_get_what_waited_for_another_url() {
    let place = Place::new().await;
    place.receiver.reply(|_| Reply::Refuse(503));
    place.push("app", "v1", "one").await;
    place.receiver.awaits("app:v1", 1, WAIT).await;
    let elsewhere = Receiver::start().await;
    place
        .spec(json!({ "webhooks": [webhook(&elsewhere, "/new", &["push"])] }))
        .await;
    place.push("app", "v2", "one").await;
    elsewhere.awaits("app:v2", 1, WAIT).await;
    assert!(elsewhere.about("app:v1").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_tenant_whose_newest_spec_cannot_be_read_are_kept_until_it_can() {
    let mut place = Place::with(reaching().backend(Backend::Distributed)).await;
    place.receiver.reply(|_| Reply::Refuse(503));
    let spec = json!({ "webhooks": [webhook(&place.receiver, "/all", &["push"])] });
    place.spec(spec.clone()).await;
    place.admin.put_tenant("other", spec.clone()).await;
    place.push("app", "v1", "one").await;
    let token = place.admin.token("other", &["**"], &["pull", "push"]).await;
    push(&place.berth, &token, "other/tool", "v1", "one").await;
    place.receiver.awaits("app:v1", 1, WAIT).await;
    place.receiver.awaits("tool:v1", 1, WAIT).await;
    place.berth.kill9();
    // A later release has written what this one does not understand; the webhooks of `other` are gone. All events are old.
    let database = place.berth.storage().database().expect("a database").url();
    let sql = |sql: &str| harness::query(&database, sql);
    let is_of = |name: &str| format!("tenant_id = (SELECT id FROM tenant WHERE name = '{name}')");
    let write = |name: &str, spec: &str| {
        sql(&format!(
            "WITH raised AS (UPDATE config_version SET version = version + 1 RETURNING version) \
             UPDATE config SET spec = '{spec}', version = (SELECT version FROM raised) WHERE kind = 0 AND {}",
            is_of(name)
        ))
    };
    write("acme", r#"{"webhooks": 7}"#);
    write("other", "{}");
    sql("UPDATE delivery SET at = 1");
    let left = |name: &str| sql(&format!("SELECT 1 FROM delivery WHERE {}", is_of(name))).len();
    place.berth.restart().await;
    eventually("what nobody asks for is forgotten", WAIT, async || {
        (left("other") == 0).then_some(())
    })
    .await;
    assert_eq!(left("acme"), 1);

    let before = place.receiver.about("app:v1").len();
    place.receiver.reply(|_| Reply::Take);
    let both = webhook(&place.receiver, "/all", &["push", "delete"]);
    place.spec(json!({ "webhooks": [both] })).await;
    place.receiver.awaits("app:v1", before + 1, WAIT).await;
    eventually("it is delivered", WAIT, async || {
        (left("acme") == 0).then_some(())
    })
    .await;
}
