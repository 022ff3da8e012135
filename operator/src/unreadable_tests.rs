//! What becomes of a watch's events when some objects cannot be read.

use berth_crds::RetentionPolicy;
use futures_util::stream::iter;
use kube::runtime::reflector;

use super::*;

fn policy(name: &str, version: &str, keep_within: &str) -> Tolerant<RetentionPolicy> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "RetentionPolicy",
        "metadata": { "name": name, "namespace": "apps", "uid": name, "generation": 7, "resourceVersion": version },
        "spec": { "tenantRef": { "name": "acme" }, "rules": [{ "keepWithin": keep_within }] },
        "status": { "lastHandledRequest": "now", "conditions": [
            { "type": "Ready", "status": "True", "reason": "Served", "message": "",
              "lastTransitionTime": "2026-01-31T12:00:00Z" },
            { "type": "LastRunSucceeded", "status": "True", "reason": "Succeeded", "message": "",
              "lastTransitionTime": "2026-01-31T12:00:00Z" },
        ] },
    });
    serde_json::from_value(object).unwrap()
}

/// What is in a store after events, with its version, and what could not be read.
async fn after(events: Vec<Event<Tolerant<RetentionPolicy>>>) -> (Vec<(String, String)>, Vec<String>) {
    let (store, writer) = reflector::store();
    let unreadable = Arc::new(Unreadable::default());
    let events = iter(events).map(Ok);
    sorted(events, None, writer, unreadable.clone())
        .for_each(async |_| ())
        .await;
    let mut read: Vec<_> = store
        .state()
        .iter()
        .map(|object| (object.name_any(), object.resource_version().unwrap_or_default()))
        .collect();
    let mut unread: Vec<_> = unreadable.all().iter().map(|one| one.object.name_any()).collect();
    read.sort();
    unread.sort();
    (read, unread)
}

fn listed(objects: Vec<Tolerant<RetentionPolicy>>) -> Vec<Event<Tolerant<RetentionPolicy>>> {
    let mut events = vec![Event::Init];
    events.extend(objects.into_iter().map(Event::InitApply));
    events.push(Event::InitDone);
    events
}

const SOUND: &str = "72h";
const ENDLESS: &str = "999999999h";

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn a_list_with_an_object_that_cannot_be_read_has_all_others() {
    let events = listed(vec![
        policy("a", "1", SOUND),
        policy("b", "2", ENDLESS),
        policy("c", "3", SOUND),
    ]);
    let (read, unread) = after(events).await;
    assert_eq!(read, named(&[("a", "1"), ("c", "3")]));
    assert_eq!(unread, ["b"]);
}

#[tokio::test]
async fn what_was_read_before_stays_until_it_is_deleted_also_through_a_new_list() {
    let mut events = listed(vec![policy("a", "1", SOUND), policy("b", "2", SOUND)]);
    events.push(Event::Apply(policy("b", "3", ENDLESS)));
    let (read, unread) = after(events.clone()).await;
    assert_eq!(
        (read, unread),
        (named(&[("a", "1"), ("b", "2")]), vec!["b".to_owned()])
    );
    events.extend(listed(vec![policy("a", "1", SOUND), policy("b", "3", ENDLESS)]));
    let (read, unread) = after(events.clone()).await;
    assert_eq!(
        (read, unread),
        (named(&[("a", "1"), ("b", "2")]), vec!["b".to_owned()])
    );
    let mut deleted = events.clone();
    deleted.push(Event::Delete(policy("b", "4", ENDLESS)));
    assert_eq!(after(deleted).await, (named(&[("a", "1")]), vec![]));
    events.push(Event::Apply(policy("b", "5", SOUND)));
    assert_eq!(after(events).await, (named(&[("a", "1"), ("b", "5")]), vec![]));
}

#[test]
fn a_list_of_one_namespace_says_nothing_of_others() {
    let unreadable = Unreadable::default();
    let unread = |name: &str, namespace: &str| {
        let mut unread = *policy(name, "1", ENDLESS).0.unwrap_err();
        unread.object.metadata.namespace = Some(namespace.to_owned());
        unread
    };
    unreadable.note(unread("a", "apps"));
    unreadable.note(unread("b", "web"));
    unreadable.replace(Some("apps"), HashMap::new());
    assert!(!unreadable.has("apps", "a") && unreadable.has("web", "b"));
    unreadable.replace(None, HashMap::new());
    assert!(unreadable.all().is_empty());
}

#[test]
fn a_status_tells_what_cannot_be_read_and_keeps_what_else_it_said() {
    let unread = policy("a", "1", ENDLESS).0.unwrap_err();
    let verdict = Verdict::Stalled("Invalid", unread.why.clone());
    let status = told(&unread, &unread.conditions(), &verdict);
    assert_eq!(status["observedGeneration"], 7);
    assert_eq!(status["lastHandledRequest"], "now");
    let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap();
    let states: Vec<_> = conditions
        .iter()
        .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str()))
        .collect();
    assert_eq!(
        states,
        [
            ("Ready", "False", "Invalid"),
            ("Reconciling", "False", "Settled"),
            ("Stalled", "True", "Invalid"),
            ("Programmed", "False", "Invalid"),
            ("LastRunSucceeded", "True", "Succeeded"),
        ]
    );
    assert!(
        conditions[2].message.contains("spec.rules[0].keepWithin"),
        "{conditions:?}"
    );
    // Told once: with the very same status there is nothing to write.
    let mut again = unread.clone();
    again.object.data["status"] = status.clone();
    assert_eq!(told(&again, &again.conditions(), &verdict), status);
}
