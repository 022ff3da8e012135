//! A receiver of webhooks: a server on loopback that keeps what it is sent, and answers as the test says.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::wait::eventually;

/// What it was sent.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it had all of it.
    pub at: Instant,
    /// How.
    pub method: Method,
    /// Where.
    pub path: String,
    /// With which headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether it was answered with 200.
    pub taken: bool,
}

impl Received {
    /// A header's value; the empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event is JSON")
    }

    /// A field of the event, as text.
    pub fn field(&self, name: &str) -> String {
        self.event()[name].as_str().unwrap_or_default().to_owned()
    }

    /// Whether `X-Signature` is the HMAC of the body under this token, as a Receiver of the type `generic-hmac` of Flux
    /// checks it.
    pub fn is_signed_by(&self, token: &str) -> bool {
        let Some((function, hex)) = self.header("x-signature").split_once('=') else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
        let tag = hex::decode(hex).unwrap_or_default();
        function == "sha256" && hmac::verify(&key, &self.body, &tag).is_ok()
    }
}

/// How it answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// 200.
    Take,
    /// This status.
    Refuse(u16),
    /// Never.
    Hang,
    /// 307 to this URL.
    Redirect(String),
}

type Rule = Box<dyn Fn(&Received) -> Reply + Send>;

struct State {
    received: Mutex<Vec<Received>>,
    rule: Mutex<Rule>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A request that is not answered yet.
struct Open<'s>(&'s State);

impl<'s> Open<'s> {
    fn new(state: &'s State) -> Self {
        let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_open.fetch_max(open, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A receiver; it stops when dropped.
pub struct Receiver {
    url: String,
    state: Arc<State>,
    server: AbortHandle,
}

impl Receiver {
    /// One that takes everything.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            received: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Reply::Take)),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(answer(&state, request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Receiver {
            url,
            state,
            server: server.abort_handle(),
        }
    }

    /// Where it takes events, below a path of the test's choice.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Says how it answers from now on.
    pub fn reply(&self, rule: impl Fn(&Received) -> Reply + Send + 'static) {
        *self.state.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// Everything that it was sent so far, in order.
    pub fn received(&self) -> Vec<Received> {
        let received = self.state.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most requests that waited for its answer at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }

    /// What it was sent of this subject, in order.
    pub fn about(&self, subject: &str) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|received| received.field("subject") == subject);
        received
    }

    /// What it was sent, once it is at least `count` of this subject.
    ///
    /// # Panics
    /// If that takes longer than `limit`.
    pub async fn awaits(&self, subject: &str, count: usize, limit: Duration) -> Vec<Received> {
        eventually(&format!("{count} events of {subject}"), limit, async || {
            Some(self.about(subject)).filter(|received| received.len() >= count)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(state: &State, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let _open = Open::new(state);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let mut received = Received {
        at: Instant::now(),
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.unwrap_or_default(),
        taken: false,
    };
    let reply = {
        let rule = state.rule.lock().unwrap_or_else(PoisonError::into_inner);
        (*rule)(&received)
    };
    received.taken = matches!(reply, Reply::Take);
    let keep = || {
        let mut all = state.received.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(received);
    };
    keep();
    let answer = Response::builder();
    let answer = match reply {
        Reply::Take => answer.status(200),
        Reply::Refuse(status) => answer.status(status),
        Reply::Redirect(url) => answer.status(307).header("location", url),
        Reply::Hang => std::future::pending().await,
    };
    answer.body(Full::new(Bytes::new())).expect("a plain answer")
}
