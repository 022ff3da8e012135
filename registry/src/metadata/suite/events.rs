//! The outbox: what is written for whom, in which order it goes out, and what becomes of tries.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::builders::*;
use super::collection::retire_telling;
use super::fixture::TestStore;
use crate::metadata::events::*;
use crate::metadata::*;

on_both_stores! {
    what_nobody_wants_to_hear_is_not_written
    a_push_is_told_with_what_it_stored_and_a_refused_one_is_not
    of_one_tag_one_event_is_due_at_a_time_and_others_do_not_wait_for_it
    a_delivered_event_is_gone_and_the_next_of_its_tag_is_due
    a_failed_event_waits_and_a_dead_one_lets_the_next_go
    dead_letters_come_in_pages_and_are_sent_again_before_what_is_newer
    a_webhook_is_one_claimants_until_it_gives_it_up_or_its_time_is_over
    pushes_and_deliveries_at_once_lose_nothing_and_keep_the_order
    deletions_and_retention_tell_of_every_tag
    a_cache_tells_of_tags_that_are_new_or_moved_alone
    what_is_told_once_is_told_again_when_it_changes_or_after_its_time
    a_dropped_webhook_loses_what_is_old_and_keeps_what_is_new
    what_waited_for_a_dropped_event_goes_out_when_its_webhook_is_back
    what_is_given_up_takes_along_what_has_waited_behind_it_for_too_long
    tenants_do_not_see_each_other_s_events
}

const HOOK: &str = "hook";

fn announce(kind: Kind) -> Option<Announce> {
    told_to(kind, &[HOOK])
}

fn told_to(kind: Kind, webhooks: &[&str]) -> Option<Announce> {
    Some(Announce {
        kind,
        webhooks: webhooks.iter().map(|id| (*id).to_owned()).collect(),
    })
}

fn key() -> WebhookKey {
    key_of(1, HOOK)
}

fn key_of(tenant: i64, webhook: &str) -> WebhookKey {
    WebhookKey {
        tenant: TenantId(tenant),
        webhook: webhook.to_owned(),
    }
}

fn push_telling(text: &str, name: &str) -> PutManifest {
    PutManifest {
        announce: announce(Kind::Push),
        ..note(text).push_as(name)
    }
}

async fn due(store: &TestStore, seconds: u64) -> Vec<Delivery> {
    store
        .events()
        .deliverable(&key(), after(seconds), 100)
        .await
        .unwrap()
}

async fn subjects(store: &TestStore, seconds: u64) -> Vec<String> {
    let mut subjects: Vec<String> = due(store, seconds).await.into_iter().map(|d| d.subject).collect();
    subjects.sort();
    subjects
}

async fn settle(store: &TestStore, delivery: &Delivery, tried: Tried, seconds: u64) {
    let events = store.events();
    events
        .settle(&key(), delivery.seq, tried, after(seconds))
        .await
        .unwrap();
}

fn dead() -> Tried {
    Tried::Dead { why: "500".into() }
}

async fn state(store: &TestStore) -> WebhookState {
    let states = store.events().webhook_states(TenantId(1)).await.unwrap();
    states
        .into_iter()
        .find(|state| state.webhook == HOOK)
        .unwrap_or_default()
}

async fn what_nobody_wants_to_hear_is_not_written(store: Arc<TestStore>) {
    put(&store, &repository("app"), note("n").push_as("v1")).await;
    assert_eq!(store.count("SELECT count(*) FROM webhook").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM delivery").await, 0);
}

async fn a_push_is_told_with_what_it_stored_and_a_refused_one_is_not(store: Arc<TestStore>) {
    let here = repository("team/app");
    let refused = PutManifest {
        announce: announce(Kind::Push),
        ..image(&[digest("absent")]).push_as("v0")
    };
    assert!(matches!(
        store.put_manifest(&here, refused).await.unwrap(),
        PutOutcome::Missing(_)
    ));
    assert_eq!(store.count("SELECT count(*) FROM delivery").await, 0);

    let push = PutManifest {
        announce: told_to(Kind::Push, &[HOOK, "second"]),
        ..note("n").push_as("v1")
    };
    let size = push.payload.len();
    let stored = put(&store, &here, push).await;

    let told = due(&store, 0).await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].kind.as_str(), told[0].subject.as_str()),
        ("dev.berth.registry.push", "team/app:v1")
    );
    let data: Value = serde_json::from_str(&told[0].data).unwrap();
    let media_type = data["mediaType"].as_str().unwrap().to_owned();
    let expected = json!({
        "repository": "team/app", "tag": "v1", "digest": stored.to_string(), "mediaType": media_type, "size": size,
        "actor": "ci",
    });
    assert_eq!(data, expected);
    let second = store
        .events()
        .deliverable(&key_of(1, "second"), NOW, 10)
        .await
        .unwrap();
    assert_ne!(second[0].event, Uuid::nil());
    assert_eq!(
        second[0].event, told[0].event,
        "an event has one id, whoever hears of it"
    );
    // Without a tag it is told of the manifest.
    let untagged = PutManifest {
        announce: announce(Kind::Push),
        ..note("untagged").push()
    };
    let digest = put(&store, &here, untagged).await;
    assert_eq!(
        subjects(&store, 0).await,
        ["team/app:v1".to_owned(), format!("team/app@{digest}")]
    );
}

async fn of_one_tag_one_event_is_due_at_a_time_and_others_do_not_wait_for_it(store: Arc<TestStore>) {
    let here = repository("app");
    for text in ["one", "two", "three"] {
        put(&store, &here, push_telling(text, "v1")).await;
    }
    put(&store, &here, push_telling("one", "v2")).await;
    put(&store, &repository("other"), push_telling("one", "v1")).await;

    assert_eq!(subjects(&store, 1000).await, ["app:v1", "app:v2", "other:v1"]);
    assert_eq!(state(&store).await.pending, 5);
}

async fn a_delivered_event_is_gone_and_the_next_of_its_tag_is_due(store: Arc<TestStore>) {
    let here = repository("app");
    let mut digests = Vec::new();
    for text in ["one", "two", "three"] {
        digests.push(put(&store, &here, push_telling(text, "v1")).await.to_string());
    }
    let mut told = Vec::new();
    while let Some(delivery) = due(&store, 10).await.first() {
        let data: Value = serde_json::from_str(&delivery.data).unwrap();
        told.push(data["digest"].as_str().unwrap().to_owned());
        settle(&store, delivery, Tried::Delivered, 5).await;
    }
    assert_eq!(told, digests);
    let state = state(&store).await;
    assert_eq!(
        (state.pending, state.dead, state.delivered_at),
        (0, 0, Some(after(5)))
    );
}

async fn a_failed_event_waits_and_a_dead_one_lets_the_next_go(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, push_telling("one", "v1")).await;
    put(&store, &here, push_telling("two", "v1")).await;
    let first = due(&store, 0).await.remove(0);
    let again = Tried::Again {
        at: after(30),
        why: "a receiver's\0words".into(),
    };
    settle(&store, &first, again, 1).await;
    assert!(due(&store, 29).await.is_empty(), "the second waits for the first");
    let tried = due(&store, 30).await.remove(0);
    assert_eq!(
        (tried.seq, tried.attempts, tried.event),
        (first.seq, 1, first.event)
    );
    let failed = state(&store).await.failed;
    assert_eq!(failed, Some((after(1), "a receiver's words".into())));

    settle(&store, &tried, dead(), 31).await;
    let next = due(&store, 31).await.remove(0);
    assert!(next.seq > first.seq);
    assert_eq!(next.since, after(31), "its time begins when it may go out");
    let state = state(&store).await;
    assert_eq!((state.pending, state.dead), (1, 1));
    // What is dead is not settled again.
    settle(&store, &tried, Tried::Delivered, 32).await;
    assert_eq!(self::state(&store).await.dead, 1);
}

async fn dead_letters_come_in_pages_and_are_sent_again_before_what_is_newer(store: Arc<TestStore>) {
    let here = repository("app");
    for number in 0..5 {
        put(&store, &here, push_telling(&number.to_string(), "v1")).await;
        let delivery = due(&store, 10).await.remove(0);
        settle(&store, &delivery, dead(), 10 + number).await;
    }
    put(&store, &here, push_telling("newer", "v1")).await;
    let events = store.events();
    let first = events.dead_letters(&key(), i64::MAX, 3).await.unwrap();
    let seqs: Vec<i64> = first.iter().map(|letter| letter.delivery.seq).collect();
    assert_eq!(seqs, [5, 4, 3]);
    assert_eq!((first[0].why.as_str(), first[0].dead_at), ("500", after(14)));
    let second = events.dead_letters(&key(), 3, 3).await.unwrap();
    assert_eq!(second.len(), 2);

    let one = Replay::One(second[0].delivery.event);
    assert_eq!(events.replay(&key(), one.clone(), after(20)).await.unwrap(), 1);
    assert_eq!(
        events.replay(&key(), one, after(20)).await.unwrap(),
        0,
        "it is not dead any more"
    );
    assert_eq!(
        events
            .replay(&key(), Replay::Oldest(10), after(21))
            .await
            .unwrap(),
        4
    );
    let mut order = Vec::new();
    while let Some(delivery) = due(&store, 30).await.first() {
        order.push(delivery.seq);
        assert_eq!(delivery.attempts, 0);
        settle(&store, delivery, Tried::Delivered, 30).await;
    }
    // The newer one was on its way when they were sent again.
    assert_eq!(order, [6, 1, 2, 3, 4, 5]);

    put(&store, &here, push_telling("last", "v1")).await;
    let delivery = due(&store, 40).await.remove(0);
    settle(&store, &delivery, dead(), 40).await;
    assert_eq!(events.forget_dead(after(40), 10).await.unwrap(), 0);
    assert_eq!(events.forget_dead(after(41), 10).await.unwrap(), 1);
    assert_eq!(state(&store).await.dead, 0);
}

async fn a_webhook_is_one_claimants_until_it_gives_it_up_or_its_time_is_over(store: Arc<TestStore>) {
    let events = store.events();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let claim = async |by: Uuid, now: u64| {
        events
            .claim_webhooks(by, after(now), after(now + 30), 10)
            .await
            .unwrap()
    };
    assert!(!events.has_due_webhooks(NOW).await.unwrap());
    put(&store, &repository("app"), push_telling("one", "v1")).await;
    assert!(events.has_due_webhooks(NOW).await.unwrap());
    assert_eq!(claim(me, 0).await, [key()]);
    assert!(!events.has_due_webhooks(after(1)).await.unwrap());
    assert!(claim(other, 29).await.is_empty());
    assert_eq!(claim(other, 30).await, [key()], "a claim ends by itself");
    events.release_webhook(&key(), me, after(31)).await.unwrap();
    assert!(
        claim(me, 31).await.is_empty(),
        "whoever has lost a claim gives nothing up"
    );

    events.release_webhook(&key(), other, after(35)).await.unwrap();
    assert!(
        claim(me, 34).await.is_empty(),
        "not before the time that was named"
    );
    assert_eq!(claim(me, 35).await, [key()]);
    let delivery = due(&store, 35).await.remove(0);
    settle(&store, &delivery, Tried::Delivered, 35).await;
    events.release_webhook(&key(), me, after(35)).await.unwrap();
    assert!(
        claim(me, 1_000_000).await.is_empty(),
        "there is nothing to deliver"
    );
    put(&store, &repository("app"), push_telling("two", "v1")).await;
    assert_eq!(claim(me, 36).await, [key()]);
    events.end_webhook_claims().await.unwrap();
    assert_eq!(claim(other, 36).await, [key()]);
}

async fn pushes_and_deliveries_at_once_lose_nothing_and_keep_the_order(store: Arc<TestStore>) {
    const PUSHES: usize = 40;
    let here = repository("app");
    let pushing = async {
        let mut digests = Vec::new();
        for number in 0..PUSHES {
            digests.push(
                put(&store, &here, push_telling(&number.to_string(), "v1"))
                    .await
                    .to_string(),
            );
        }
        digests
    };
    let others = join_all((0..4).map(|number| {
        let (store, here) = (store.clone(), here.clone());
        async move {
            for text in 0..10 {
                let name = format!("other-{number}");
                put(&store, &here, push_telling(&format!("{number}-{text}"), &name)).await;
            }
        }
    }));
    let delivering = async {
        let (mut told, mut sum) = (Vec::new(), 0);
        while sum < PUSHES + 40 {
            for delivery in due(&store, 10).await {
                let data: Value = serde_json::from_str(&delivery.data).unwrap();
                if data["tag"] == "v1" {
                    told.push(data["digest"].as_str().unwrap().to_owned());
                }
                settle(&store, &delivery, Tried::Delivered, 1).await;
                sum += 1;
            }
            tokio::task::yield_now().await;
        }
        told
    };
    let (pushed, (), told) = tokio::time::timeout(Duration::from_secs(120), async {
        let others = async { drop(others.await) };
        tokio::join!(pushing, others, delivering)
    })
    .await
    .expect("no event is held back for ever");
    assert_eq!(told, pushed);
}

async fn deletions_and_retention_tell_of_every_tag(store: Arc<TestStore>) {
    let here = repository("app");
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    for name in ["v2", "v3", "v4", "v5"] {
        put(&store, &here, note("n").push_as(name)).await;
    }
    let by = Deletion {
        announce: announce(Kind::Delete),
        ..deletion()
    };
    assert!(store.delete_tag(&here, &tag("v1"), by.clone()).await.unwrap());
    assert!(!store.delete_tag(&here, &tag("v1"), by.clone()).await.unwrap());
    assert_eq!(
        retire_telling(&store, &here, &["v2", "v3"], announce(Kind::Retention)).await,
        2
    );
    assert!(store.delete_manifest(&here, &digest, by).await.unwrap());
    let mut told: Vec<(String, String)> = due(&store, 100)
        .await
        .into_iter()
        .map(|delivery| {
            let data: Value = serde_json::from_str(&delivery.data).unwrap();
            assert_eq!(data["digest"], digest.to_string());
            assert!(
                data["size"].as_u64().is_some() && data["mediaType"].is_string(),
                "{data}"
            );
            (delivery.subject, delivery.kind)
        })
        .collect();
    told.sort();
    let (delete, retention) = ("dev.berth.registry.delete", "dev.berth.registry.retention.delete");
    let expected = [
        ("app:v1".to_owned(), delete),
        ("app:v2".to_owned(), retention),
        ("app:v3".to_owned(), retention),
        ("app:v4".to_owned(), delete),
        ("app:v5".to_owned(), delete),
        (format!("app@{digest}"), delete),
    ];
    assert_eq!(told, expected.map(|(subject, kind)| (subject, kind.to_owned())));
}

async fn a_cache_tells_of_tags_that_are_new_or_moved_alone(store: Arc<TestStore>) {
    let here = repository("up/app");
    let fetch = |text: &str| PutManifest {
        announce: announce(Kind::CacheFetch),
        ..note(text).push_as("v1")
    };
    put(&store, &here, fetch("one")).await;
    put(&store, &here, fetch("one")).await;
    put(&store, &here, fetch("two")).await;
    let untagged = PutManifest {
        announce: announce(Kind::CacheFetch),
        ..note("three").push()
    };
    put(&store, &here, untagged).await;
    assert_eq!(state(&store).await.pending, 2);
}

async fn what_is_told_once_is_told_again_when_it_changes_or_after_its_time(store: Arc<TestStore>) {
    let tell = async |tenant: i64, state: &str, now: u64, since: u64| {
        let event = NewEvent {
            announce: announce(Kind::QuotaExceeded).unwrap(),
            subject: "app".into(),
            place: "quota".into(),
            data: Map::new(),
            now: after(now),
            once: Some(Once {
                name: "tags".into(),
                state: state.into(),
                before: after(since),
            }),
        };
        store.events().announce(TenantId(tenant), event).await.unwrap()
    };
    assert!(tell(1, "full", 100, 0).await);
    assert!(!tell(1, "full", 101, 100).await);
    assert!(tell(1, "nearly", 102, 100).await);
    assert!(tell(1, "full", 103, 100).await);
    assert!(tell(1, "full", 200, 104).await);
    assert!(tell(2, "full", 101, 100).await, "each tenant is told by itself");
    assert_eq!(state(&store).await.pending, 4);
}

async fn a_dropped_webhook_loses_what_is_old_and_keeps_what_is_new(store: Arc<TestStore>) {
    let here = repository("app");
    for number in 0..3 {
        put(
            &store,
            &here,
            push_telling(&number.to_string(), &format!("v{number}")),
        )
        .await;
    }
    let delivery = due(&store, 0).await.remove(0);
    settle(&store, &delivery, dead(), 1).await;
    let new = PutManifest {
        now: after(100),
        ..push_telling("new", "new")
    };
    put(&store, &here, new).await;
    let events = store.events();
    assert_eq!(events.known_webhooks(None, 10).await.unwrap(), [key()]);
    assert_eq!(
        events
            .drop_webhook(&key(), after(100), after(100), 2)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        events
            .drop_webhook(&key(), after(100), after(100), 2)
            .await
            .unwrap(),
        1
    );
    assert_eq!(subjects(&store, 100).await, ["app:new"]);
    assert_eq!(
        events
            .drop_webhook(&key(), after(101), after(101), 2)
            .await
            .unwrap(),
        1
    );
    assert!(events.known_webhooks(None, 10).await.unwrap().is_empty());
}

async fn what_waited_for_a_dropped_event_goes_out_when_its_webhook_is_back(store: Arc<TestStore>) {
    let here = repository("app");
    let at = async |seconds: u64, text: &str, tag: &str| {
        let told = PutManifest {
            now: after(seconds),
            ..push_telling(text, tag)
        };
        put(&store, &here, told).await;
    };
    at(0, "one", "v1").await;
    at(100, "two", "v1").await;
    at(101, "three", "v1").await;
    at(0, "one", "v2").await;
    // Sent again, it waits for one that is on its way.
    let events = store.events();
    let replayed = due(&store, 0).await.pop().unwrap();
    assert_eq!(replayed.subject, "app:v2");
    settle(&store, &replayed, dead(), 1).await;
    at(102, "two", "v2").await;
    events
        .replay(&key(), Replay::Oldest(1), after(103))
        .await
        .unwrap();
    for (subject, seconds) in [("app:v1", 400), ("app:v2", 500)] {
        let tried = due(&store, 200).await;
        let tried = tried.iter().find(|told| told.subject == subject).unwrap();
        let again = Tried::Again {
            at: after(seconds),
            why: "503".into(),
        };
        settle(&store, tried, again, 104).await;
    }
    let turn = events.claim_webhooks(Uuid::max(), after(104), after(200), 1);
    assert_eq!(turn.await.unwrap(), [key()]);
    events
        .release_webhook(&key(), Uuid::max(), after(105))
        .await
        .unwrap();
    assert!(!events.has_due_webhooks(after(399)).await.unwrap());

    let drop = async |seconds: u64, limit: u32| {
        events
            .drop_webhook(&key(), after(50), after(seconds), limit)
            .await
            .unwrap()
    };
    assert_eq!(drop(110, 1).await, 1);
    assert!(events.has_due_webhooks(after(110)).await.unwrap());
    let next = due(&store, 110).await.remove(0);
    assert_eq!(
        (next.subject.as_str(), next.at, next.since),
        ("app:v1", after(100), after(110))
    );
    assert_eq!(drop(111, 9).await, 1);
    assert_eq!(due(&store, 499).await.len(), 1, "what is on its way stays so");
    let mut told = Vec::new();
    while let Some(delivery) = due(&store, 600).await.first() {
        told.push((delivery.subject.clone(), delivery.at));
        settle(&store, delivery, Tried::Delivered, 120).await;
    }
    told.sort();
    let told: Vec<_> = told.iter().map(|(subject, at)| (subject.as_str(), *at)).collect();
    let expected = [
        ("app:v1", after(100)),
        ("app:v1", after(101)),
        ("app:v2", after(102)),
    ];
    assert_eq!(told, expected);
}

async fn what_is_given_up_takes_along_what_has_waited_behind_it_for_too_long(store: Arc<TestStore>) {
    let here = repository("app");
    for seconds in 0..6 {
        let told = PutManifest {
            now: after(seconds),
            ..push_telling(&seconds.to_string(), "v1")
        };
        put(&store, &here, told).await;
    }
    put(&store, &here, push_telling("other", "v2")).await;
    let events = store.events();
    let first = due(&store, 10).await;
    let first = first.iter().find(|told| told.subject == "app:v1").unwrap();
    let give_up = async |seconds: u64, limit: u32| {
        events
            .give_up_held(&key(), first.seq, after(seconds), after(10), limit)
            .await
            .unwrap()
    };
    assert_eq!(give_up(4, 2).await, 2);
    assert_eq!(give_up(4, 2).await, 1);
    assert_eq!(give_up(4, 2).await, 0);
    let letters = events.dead_letters(&key(), i64::MAX, 10).await.unwrap();
    let seqs: Vec<i64> = letters.iter().map(|letter| letter.delivery.seq).collect();
    assert_eq!(seqs, [4, 3, 2]);
    assert!(letters[0].why.contains("an older event"), "{}", letters[0].why);

    settle(&store, first, dead(), 10).await;
    let next = due(&store, 10).await;
    let next = next.iter().find(|told| told.subject == "app:v1").unwrap();
    assert_eq!(
        (next.at, next.since),
        (after(4), after(10)),
        "a younger one has its own time"
    );
    assert_eq!(give_up(100, 10).await, 0, "nothing waits for what is dead");
    assert_eq!((state(&store).await.pending, state(&store).await.dead), (3, 4));
}

async fn tenants_do_not_see_each_other_s_events(store: Arc<TestStore>) {
    for tenant in [1, 2] {
        put(
            &store,
            &repository_of(tenant, &format!("of-{tenant}")),
            push_telling("one", "v1"),
        )
        .await;
    }
    let events = store.events();
    assert_eq!(subjects(&store, 0).await, ["of-1:v1"]);
    let theirs = events.deliverable(&key_of(2, HOOK), NOW, 10).await.unwrap();
    assert_eq!(theirs.len(), 1);
    assert_eq!(theirs[0].subject, "of-2:v1");
    // The same number and the same id of a webhook: what is settled for one is not for the other.
    let mine = due(&store, 0).await.remove(0);
    assert_eq!(mine.seq, theirs[0].seq);
    settle(&store, &mine, dead(), 1).await;
    assert!(
        events
            .dead_letters(&key_of(2, HOOK), i64::MAX, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        events
            .replay(&key_of(2, HOOK), Replay::One(mine.event), NOW)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        events
            .replay(&key_of(2, HOOK), Replay::Oldest(10), NOW)
            .await
            .unwrap(),
        0
    );
    let states = events.webhook_states(TenantId(2)).await.unwrap();
    assert_eq!((states.len(), states[0].pending, states[0].dead), (1, 1, 0));
    assert_eq!(
        events
            .drop_webhook(&key_of(2, HOOK), after(10), after(10), 10)
            .await
            .unwrap(),
        1
    );
    assert_eq!(state(&store).await.dead, 1);
}
