use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::super::Allow;
use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A server on loopback; its base URL, and how many requests reached it.
async fn server() -> (String, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = reached.clone();
    let away = |to: String| {
        get(move || async move { (StatusCode::FOUND, [(header::LOCATION, to)]).into_response() })
    };
    let router = Router::new()
        .route("/document", get(|| async { "hello" }))
        .route("/large", get(|| async { vec![0_u8; 4096] }))
        .route("/moved", away("/document".to_owned()))
        .route("/loop", away("/loop".to_owned()))
        .route("/metadata", away("http://169.254.169.254/latest".to_owned()))
        .route(
            "/echo",
            post(async |headers: HeaderMap, body: String| {
                format!("{} {body}", headers[header::CONTENT_TYPE].to_str().unwrap())
            }),
        )
        .route(
            "/echo-moved",
            post(async || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/echo")])),
        )
        .route("/elsewhere", away("http://10.255.255.1/".to_owned()))
        .layer(axum::middleware::from_fn(
            move |request, next: axum::middleware::Next| {
                count.fetch_add(1, Ordering::SeqCst);
                next.run(request)
            },
        ));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base, reached)
}

fn client(allow: &[&str]) -> Client {
    let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    Client::new(Dialer::new(Allow(allow)))
}

#[tokio::test]
async fn a_listed_host_is_reached_and_redirects_there_are_followed() {
    let (base, _) = server().await;
    let client = client(&["127.0.0.0/8"]);
    for path in ["/document", "/moved"] {
        let response = client
            .get(&format!("{base}{path}"), None, 100, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(
            (response.status, &response.body[..]),
            (StatusCode::OK, &b"hello"[..])
        );
    }
    assert!(matches!(
        client.get(&format!("{base}/large"), None, 100, TIMEOUT).await,
        Err(EgressError::TooLarge { limit: 100, .. })
    ));
    assert!(
        client
            .get(&format!("{base}/loop"), None, 100, TIMEOUT)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_private_address_is_not_even_dialled() {
    let (base, reached) = server().await;
    let port = base.rsplit(':').next().unwrap();
    let closed = client(&[]);
    for url in [
        format!("{base}/document"),
        format!("https://127.0.0.1:{port}/document"),
        format!("https://localhost:{port}/document"),
        format!("https://[::ffff:127.0.0.1]:{port}/document"),
        format!("https://0x7f.1:{port}/document"),
    ] {
        let error = closed.get(&url, None, 100, TIMEOUT).await.unwrap_err();
        assert!(
            matches!(error, EgressError::Refused { .. } | EgressError::Url(_)),
            "{url}: {error}"
        );
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_redirect_to_an_address_that_is_not_allowed_is_not_followed() {
    let (base, _) = server().await;
    let client = client(&["127.0.0.0/8"]);
    for path in ["/metadata", "/elsewhere"] {
        let error = client
            .get(&format!("{base}{path}"), None, 100, TIMEOUT)
            .await
            .unwrap_err();
        assert!(
            matches!(error, EgressError::Url(_) | EgressError::Refused { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_form_is_sent_to_its_url_and_to_no_other() {
    let (base, reached) = server().await;
    let client = client(&["127.0.0.0/8"]);
    let send = async |path: &str| {
        let url = format!("{base}{path}");
        client
            .post(&url, None, "code=a%20b".to_owned(), 100, TIMEOUT)
            .await
            .unwrap()
    };
    let echoed = send("/echo").await;
    assert_eq!(&echoed.body[..], b"application/x-www-form-urlencoded code=a%20b");
    reached.store(0, Ordering::SeqCst);
    let moved = send("/echo-moved").await;
    assert_eq!(moved.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(reached.load(Ordering::SeqCst), 1, "a form follows no redirect");
}

#[tokio::test]
async fn an_error_says_nothing_of_a_url_but_its_scheme_and_host() {
    let (base, _) = server().await;
    let client = client(&["127.0.0.0/8"]);
    let listed = |path: &str| format!("{base}{path}");
    let mut said = Vec::new();
    for url in [
        "http://name:hidden@hooks.example/services/hidden?key=hidden".to_owned(),
        "https://127.0.0.1:1/hidden?key=hidden".to_owned(),
        "https://hooks.example:99999/hidden".to_owned(),
        "mailto:hidden".to_owned(),
        listed("/loop?hidden"),
        listed("/metadata?hidden"),
    ] {
        let sent = client
            .send(&url, HeaderMap::new(), Bytes::new(), 100, TIMEOUT)
            .await;
        said.extend(sent.err());
        said.extend(client.post(&url, None, String::new(), 100, TIMEOUT).await.err());
        said.extend(client.get(&url, None, 100, TIMEOUT).await.err());
    }
    assert!(said.len() >= 14, "{said:?}");
    for error in said {
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}
