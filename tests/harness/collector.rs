//! A collector of OpenTelemetry: it takes spans by OTLP over HTTP and keeps them, or keeps who sends them waiting.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::wait::eventually;

/// How long spans may take to arrive.
const WITHIN: Duration = Duration::from_secs(20);

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedSpan {
    /// Its name.
    pub name: String,
    /// Its trace, 32 digits.
    pub trace: String,
    /// Its id, 16 digits.
    pub id: String,
    /// The id of its parent; empty if it has none.
    pub parent: String,
    /// Its kind, as the protocol numbers them: 2 is a server's, 3 a client's.
    pub kind: i32,
    /// Its attributes, and those of what sends it with `resource.` before them.
    pub attributes: BTreeMap<String, String>,
    /// Whether it failed.
    pub failed: bool,
    /// Nanoseconds from its beginning to its end.
    pub nanoseconds: u64,
}

impl TracedSpan {
    /// An attribute; the empty string if it is absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What has come so far.
#[derive(Debug, Default)]
struct Taken {
    spans: Vec<TracedSpan>,
    bytes: Vec<u8>,
    headers: Vec<String>,
    requests: usize,
}

/// A collector on loopback; it stops when dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    taken: Arc<Mutex<Taken>>,
    server: AbortHandle,
}

impl Collector {
    /// One that takes what it gets.
    pub async fn start() -> Collector {
        Collector::serve(false).await
    }

    /// One that takes connections and requests, and never answers.
    pub async fn start_hanging() -> Collector {
        Collector::serve(true).await
    }

    async fn serve(hangs: bool) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let taken = Arc::<Mutex<Taken>>::default();
        let keeps = taken.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keeps = keeps.clone();
                let answer = service_fn(move |request| take(keeps.clone(), hangs, request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Collector {
            url,
            taken,
            server: server.abort_handle(),
        }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<TracedSpan> {
        self.look(|taken| taken.spans.clone())
    }

    /// Every byte of bodies so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.look(|taken| taken.bytes.clone())
    }

    /// Paths and headers of the requests so far, as `path` and `name: value`.
    pub fn headers(&self) -> Vec<String> {
        self.look(|taken| taken.headers.clone())
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.look(|taken| taken.requests)
    }

    /// The spans, once they are such.
    pub async fn spans_when(&self, what: &str, are_such: impl Fn(&[TracedSpan]) -> bool) -> Vec<TracedSpan> {
        eventually(what, WITHIN, async || {
            let spans = self.spans();
            are_such(&spans).then_some(spans)
        })
        .await
    }

    fn look<T>(&self, at: impl FnOnce(&Taken) -> T) -> T {
        at(&self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    keeps: Arc<Mutex<Taken>>,
    hangs: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    {
        let mut taken = keeps.lock().unwrap_or_else(PoisonError::into_inner);
        taken.requests += 1;
        taken.headers.push(head.uri.path().to_owned());
        let headers = head.headers.iter();
        let lines =
            headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        taken.headers.extend(lines.collect::<Vec<_>>());
        taken.bytes.extend_from_slice(&body);
        taken.spans.extend(decoded(body));
    }
    if hangs {
        std::future::pending::<()>().await;
    }
    let answer = Response::builder().header("content-type", "application/x-protobuf");
    Ok(answer.body(Full::default()).expect("an answer"))
}

fn decoded(body: Bytes) -> Vec<TracedSpan> {
    let request = ExportTraceServiceRequest::decode(body).expect("an export of traces");
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = group
            .resource
            .map(|resource| resource.attributes)
            .unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let of_resource = resource
                .iter()
                .map(|pair| (format!("resource.{}", pair.key), text(pair)));
            let own = span.attributes.iter().map(|pair| (pair.key.clone(), text(pair)));
            spans.push(TracedSpan {
                attributes: of_resource.chain(own).collect(),
                trace: hex::encode(&span.trace_id),
                id: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                kind: span.kind,
                failed: span.status.is_some_and(|status| status.code == 2),
                nanoseconds: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                name: span.name,
            });
        }
    }
    spans
}

fn text(pair: &KeyValue) -> String {
    match &pair.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
            ..
        }) => text.clone(),
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
            ..
        }) => number.to_string(),
        Some(AnyValue {
            value: Some(Value::BoolValue(is_true)),
            ..
        }) => is_true.to_string(),
        other => format!("{other:?}"),
    }
}
