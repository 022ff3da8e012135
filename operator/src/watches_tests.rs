//! Watches of an API server that says by which way it likes that a version is too old.

use futures_util::FutureExt as _;
use kube::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const GONE: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old"}"#;

/// Reads the head of a request, and answers it; never if there is no answer.
async fn answer(stream: &mut TcpStream, with: impl Fn(&str) -> Option<(&'static str, String)>) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some((status, body)) = with(head.lines().next().unwrap_or_default()) else {
        return std::future::pending().await;
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// An API server with no Tenant at version 5, which is too old at once, and one at version 9; a watch from 5 is answered
/// like this.
async fn server(refusal: (&'static str, String)) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let lists = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        while let Ok((mut stream, _)) = listener.accept().await {
            let (lists, refusal) = (lists.clone(), refusal.clone());
            tokio::spawn(async move {
                answer(&mut stream, |request| {
                    if request.contains("watch=true") {
                        return request.contains("resourceVersion=5").then(|| refusal.clone());
                    }
                    let (version, items) = match lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                        0 => (5, ""),
                        _ => (9, r#"{"metadata":{"name":"late","resourceVersion":"8"},"spec":{}}"#),
                    };
                    let list = format!(
                        r#"{{"kind":"TenantList","apiVersion":"berth.dev/v1alpha1","metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#
                    );
                    Some(("200 OK", list))
                })
                .await;
            });
        }
    });
    Client::try_from(Config::new(url.parse().unwrap())).unwrap()
}

#[tokio::test]
async fn a_version_that_is_too_old_is_listed_anew_whichever_way_it_is_told() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let event = format!("{{\"type\":\"ERROR\",\"object\":{GONE}}}\n");
    for refusal in [("410 Gone", GONE.to_owned()), ("200 OK", event)] {
        let client = server(refusal.clone()).await;
        let (store, writer) = reflector::store();
        let api: Api<Tenant> = Api::all(client);
        let events = watching(api, watcher::Config::default()).default_backoff();
        let mut changes = changes(events.reflect(writer), store, Place::new("Tenants", None), spec);
        let late = tokio::time::timeout(std::time::Duration::from_secs(30), changes.next());
        let late = late
            .await
            .unwrap_or_else(|_| panic!("{refusal:?}: nothing more is seen"));
        assert_eq!(late.unwrap().unwrap().metadata.name.as_deref(), Some("late"));
    }
}

fn tenant(name: &str, version: &str, generation: i64) -> Tenant {
    let object = json!({
        "metadata": { "name": name, "uid": name, "resourceVersion": version, "generation": generation }, "spec": {},
    });
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn what_a_list_has_is_passed_on_once_the_store_has_it() {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let events = futures_util::stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        Some((event, events))
    });
    let (store, writer) = reflector::store();
    let events = events.reflect(writer);
    let mut changes = changes(events, store.clone(), Place::new("Tenants", None), spec);
    let send = |event| sender.send(Ok(event)).unwrap();
    send(watcher::Event::Init);
    send(watcher::Event::InitApply(tenant("a", "1", 1)));
    send(watcher::Event::InitDone);
    assert_eq!(
        changes.next().await.unwrap().unwrap().metadata.generation,
        Some(1)
    );
    // A new list, of which a first page has come: whoever looked now would see the old content.
    send(watcher::Event::Init);
    send(watcher::Event::InitApply(tenant("a", "5", 2)));
    assert!(changes.next().now_or_never().is_none());
    send(watcher::Event::InitApply(tenant("b", "6", 1)));
    send(watcher::Event::InitDone);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let change = changes.next().await.unwrap().unwrap();
        let stored = store.get(&ObjectRef::from_obj(&change)).unwrap();
        assert_eq!(stored.metadata.resource_version, change.metadata.resource_version);
        seen.push(change.metadata.name.unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
}

fn refused(code: u16) -> watcher::Error {
    let status = serde_json::from_value(json!({ "status": "Failure", "code": code })).unwrap();
    watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
}

fn namespace(name: &str, is_going: bool) -> PartialObjectMeta<Namespace> {
    let deleted = is_going.then_some("2026-01-31T12:00:00Z");
    let object = json!({ "metadata": { "name": name, "uid": name, "deletionTimestamp": deleted } });
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_not_waited_for() {
    // What the cluster has of the namespace, what the list was answered, whether others wait on.
    let cases = [
        (Some(Some(false)), 403, true),
        (Some(Some(true)), 403, false),
        (Some(None), 403, false),
        (Some(None), 404, false),
        (Some(None), 500, true),
        (None, 403, true),
    ];
    for (found, code, waits) in cases {
        let (store, mut writer) = reflector::store();
        let mut namespaces = Namespaces::empty();
        let place = Place::new("Namespaces", None);
        namespaces.add(store, place.clone());
        if let Some(found) = found {
            writer.apply_watcher_event(&watcher::Event::Init);
            if let Some(is_going) = found {
                writer.apply_watcher_event(&watcher::Event::InitApply(namespace("apps", is_going)));
            }
            writer.apply_watcher_event(&watcher::Event::InitDone);
            place.see();
        }
        let place = Place::new("Repositories", Some(("apps".to_owned(), namespaces)));
        let (store, _writer) = reflector::store::<Tenant>();
        let events = futures_util::stream::iter([Err(refused(code))]);
        let mut changes = changes(events, store, place.clone(), spec);
        assert!(changes.next().await.is_none(), "an error is no change");
        assert_eq!(place.is_seen(), !waits, "{found:?} {code}");
        assert_eq!(place.to_string(), "Repositories of apps");
    }
}
