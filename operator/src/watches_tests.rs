//! Watches of an API server that says by which way it likes that a version is too old.

use kube::Config;
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
        let (_store, writer) = reflector::store();
        let seen = CancellationToken::new();
        let api: Api<Tenant> = Api::all(client);
        let mut changes = changes(api, watcher::Config::default(), writer, seen, spec);
        let late = tokio::time::timeout(std::time::Duration::from_secs(30), changes.next());
        let late = late
            .await
            .unwrap_or_else(|_| panic!("{refusal:?}: nothing more is seen"));
        assert_eq!(late.unwrap().unwrap().metadata.name.as_deref(), Some("late"));
    }
}
