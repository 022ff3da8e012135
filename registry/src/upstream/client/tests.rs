use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::{Request as Asked, State};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, LOCATION, RANGE, WWW_AUTHENTICATE};
use http_body_util::BodyExt as _;

use super::call::REDIRECTS;
use super::*;
use crate::egress::{Allow, Client, Dialer};

/// A registry on loopback that gives tokens itself, and what it was asked.
#[derive(Default)]
struct Registry {
    /// Tokens given so far; the newest is the one that counts.
    tokens: AtomicU32,
    /// Each request: its path, with query, and its `Authorization`.
    seen: Mutex<Vec<(String, String)>>,
    /// Where blobs are.
    blobs_at: Mutex<String>,
}

impl Registry {
    fn count(&self, beginning: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(path, _)| path.starts_with(beginning))
            .count()
    }

    fn authorizations(&self, beginning: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let fits = seen.iter().filter(|(path, _)| path.starts_with(beginning));
        fits.map(|(_, authorization)| authorization.clone()).collect()
    }
}

async fn answer(State(registry): State<Arc<Registry>>, request: Asked) -> axum::response::Response {
    let path = request.uri().to_string();
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    registry
        .seen
        .lock()
        .unwrap()
        .push((path.clone(), authorization.clone()));
    let token = |number: u32| format!("Bearer token{number}");
    if path.starts_with("/token") {
        let number = registry.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!(r#"{{"token":"token{number}","expires_in":300}}"#);
        return body.into_response();
    }
    let status = |code: u16| StatusCode::from_u16(code).unwrap();
    let name = path.split('/').nth(2).unwrap_or_default();
    match name {
        "open" => "hello".into_response(),
        "ranged" => (status(206), format!("{:?}", request.headers().get(RANGE))).into_response(),
        "absent" => status(404).into_response(),
        "limited" => (status(429), [(RETRY_AFTER, "90")]).into_response(),
        "failing" => status(503).into_response(),
        "loop" => (status(302), [(LOCATION, path)]).into_response(),
        "moved" => {
            let to = registry.blobs_at.lock().unwrap().clone();
            (status(307), [(LOCATION, to)]).into_response()
        }
        "basic" if authorization == "Basic dTpw" => "hello".into_response(),
        "basic" => (status(401), [(WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response(),
        "never" => (status(401), [(WWW_AUTHENTICATE, "Bearer realm=\"/token\"")]).into_response(),
        _ if authorization == token(registry.tokens.load(Ordering::SeqCst)) => "hello".into_response(),
        _ => {
            let challenge = "Bearer realm=\"/token\",service=\"here\"";
            (status(401), [(WWW_AUTHENTICATE, challenge)]).into_response()
        }
    }
}

async fn start() -> (String, Arc<Registry>) {
    let registry = Arc::new(Registry::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(registry.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base, registry)
}

fn upstream(base: &str, login: bool) -> Upstream {
    let client = Client::new(Dialer::new(Allow(vec!["127.0.0.0/8".parse().unwrap()])));
    let login = login.then(|| Login::Password {
        username: "u".into(),
        password: "p".into(),
    });
    Upstream::new(base, login, client.channel(None).unwrap(), Duration::from_secs(5)).unwrap()
}

fn question(repository: &str) -> Question<'_> {
    Question {
        method: Method::GET,
        repository,
        path: "manifests/v1",
        headers: HeaderMap::new(),
    }
}

async fn body(upstream: &Upstream, repository: &str) -> Result<String, UpstreamError> {
    let answer = upstream.ask(&question(repository)).await?;
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_token_is_fetched_once_for_many_requests_and_anew_when_it_is_refused() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, true);
    assert_eq!(body(&upstream, "app").await.unwrap(), "hello");
    let all = join_all((0..20).map(|_| body(&upstream, "app"))).await;
    assert!(all.into_iter().all(|body| body.unwrap() == "hello"));
    assert_eq!(registry.count("/token"), 1);
    assert_eq!(
        registry.count("/token?service=here&scope=repository%3Aapp%3Apull"),
        1
    );
    assert_eq!(
        registry.authorizations("/token"),
        ["Basic dTpw"],
        "the cache's own login"
    );

    // Its end came early: the one that is known is refused.
    registry.tokens.fetch_add(1, Ordering::SeqCst);
    let all = join_all((0..20).map(|_| body(&upstream, "app"))).await;
    assert!(all.into_iter().all(|body| body.unwrap() == "hello"));
    assert_eq!(registry.count("/token"), 2);

    // For another repository nobody is asked in vain first.
    assert_eq!(body(&upstream, "other").await.unwrap(), "hello");
    assert_eq!(registry.count("/v2/other"), 1);
}

#[tokio::test]
async fn a_registry_without_a_login_is_asked_for_anonymous_tokens() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, false);
    assert_eq!(body(&upstream, "app").await.unwrap(), "hello");
    assert_eq!(registry.authorizations("/token"), [""]);
    assert!(matches!(
        body(&upstream, "basic").await,
        Err(UpstreamError::Denied { .. })
    ));
}

#[tokio::test]
async fn a_password_is_sent_to_a_registry_that_asks_for_it_only() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, true);
    assert_eq!(body(&upstream, "open").await.unwrap(), "hello");
    assert_eq!(registry.authorizations("/v2/open"), [""]);
    assert_eq!(body(&upstream, "basic").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_credentials() {
    let (base, registry) = start().await;
    let (elsewhere, store) = start().await;
    *registry.blobs_at.lock().unwrap() = format!("{elsewhere}/v2/open/blob");
    let upstream = upstream(&base, true);
    assert_eq!(body(&upstream, "app").await.unwrap(), "hello");
    assert_eq!(body(&upstream, "moved").await.unwrap(), "hello");
    assert_eq!(store.authorizations("/v2/open"), [""]);
    assert!(registry.authorizations("/v2/moved")[0].starts_with("Bearer "));

    // Nor to an address that nobody allowed.
    *registry.blobs_at.lock().unwrap() = "http://169.254.169.254/latest".into();
    assert!(matches!(
        body(&upstream, "moved").await,
        Err(UpstreamError::Egress(_))
    ));
}

#[tokio::test]
async fn refusals_say_what_they_are_and_end() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, true);
    assert!(matches!(
        body(&upstream, "absent").await,
        Err(UpstreamError::Absent { .. })
    ));
    let limited = body(&upstream, "limited").await;
    assert!(matches!(limited, Err(UpstreamError::Limited { after, .. }) if after == Duration::from_secs(90)));
    let failing = body(&upstream, "failing").await;
    assert!(matches!(failing, Err(UpstreamError::Failing { status, after: None, .. }) if status == 503));
    assert!(matches!(
        body(&upstream, "loop").await,
        Err(UpstreamError::Strange { .. })
    ));
    assert_eq!(registry.count("/v2/loop"), REDIRECTS + 1);
    assert!(matches!(
        body(&upstream, "never").await,
        Err(UpstreamError::Denied { .. })
    ));
    assert_eq!(registry.count("/v2/never"), 2, "once more with a fresh token");
}

#[tokio::test]
async fn headers_of_a_question_go_along() {
    let (base, _) = start().await;
    let mut ranged = question("ranged");
    ranged.headers.insert(RANGE, HeaderValue::from_static("bytes=5-"));
    let answer = upstream(&base, false).ask(&ranged).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes, "Some(\"bytes=5-\")");
}

#[test]
fn limits_and_pauses_are_read_as_registries_write_them() {
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect::<HeaderMap>()
    };
    let hub = headers(&[
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "76;w=21600"),
    ]);
    let allowance = Allowance {
        limit: 100,
        remaining: 76,
    };
    assert_eq!(Allowance::of(&hub), Some(allowance));
    assert_eq!(Allowance::of(&headers(&[("ratelimit-limit", "100")])), None);

    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
    for (text, expected) in [
        ("120", Some(Duration::from_secs(120))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_secs(30))),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO)),
        ("99999999999", Some(LONGEST_PAUSE)),
        ("soon", None),
        ("-1", None),
    ] {
        assert_eq!(
            retry_after(&headers(&[("retry-after", text)]), now),
            expected,
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_is_sent_stays_at_the_registry() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, true);
    let post = |path: &'static str| Call {
        method: Method::POST,
        path,
        scope: "repository:app:pull,push",
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"content"),
    };
    let moved = upstream.call(&post("/v2/loop/blobs/uploads/")).await.unwrap();
    assert_eq!(moved.status(), StatusCode::FOUND);
    assert_eq!(registry.count("/v2/loop"), 1, "it is not followed");

    let stored = upstream
        .call(&post("/v2/app/blobs/uploads/?mount=x"))
        .await
        .unwrap();
    assert_eq!(stored.status(), StatusCode::OK);
    let asked = registry.authorizations("/v2/app/blobs/uploads/?mount=x");
    assert_eq!(asked, ["", "Bearer token1"], "it is sent again with the token");
    assert_eq!(
        registry.count("/token?service=here&scope=repository%3Aapp%3Apull%2Cpush"),
        1
    );
}

#[tokio::test]
async fn a_place_of_tokens_that_is_gone_is_asked_for_anew() {
    let (base, registry) = start().await;
    let upstream = upstream(&base, true);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", gone.local_addr().unwrap());
    drop(gone);
    upstream
        .realm
        .store(Some(Arc::new((realm, Some("here".to_owned())))));
    let get = Call {
        method: Method::GET,
        path: "/v2/app/tags/list",
        scope: "repository:app:pull",
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    for _ in 0..2 {
        assert_eq!(upstream.call(&get).await.unwrap().status(), StatusCode::OK);
    }
    let asked = registry.authorizations("/v2/app");
    assert_eq!(asked, ["", "Bearer token1", "Bearer token1"]);
    assert_eq!(registry.count("/token"), 1);
}
