//! One event per request, and its counters, when its answer ends or is given up.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use tracing::Span;

use super::Connection;
use super::activity::InFlight;
use crate::ops::metrics::{Metrics, Observation};
use crate::ops::route::Route;
use crate::telemetry::span::{self, Traced};

/// The tracing target of the line per request.
pub(super) const TARGET: &str = "access";
/// What stands for the status of a request that its client gave up before there was an answer.
const GIVEN_UP: u16 = 499;
/// Longest path and longest user agent shown, in bytes.
const LONGEST_SHOWN: usize = 1024;
/// Query keys whose values say nothing that must stay secret.
const SHOWN_KEYS: [&str; 12] = [
    "artifactType",
    "digest",
    "digest-algorithm",
    "from",
    "last",
    "mount",
    "n",
    "ns",
    "origin",
    "scope",
    "service",
    "tag",
];

/// The account of one request; given when dropped.
pub(super) struct Account {
    _in_flight: InFlight,
    metrics: Option<Arc<Metrics>>,
    begun: Instant,
    tls: bool,
    method: Method,
    route: Route,
    received: Option<Arc<AtomicU64>>,
    line: Option<Line>,
    traced: Option<Traced>,
    /// Zero until there is an answer.
    pub(super) status: u16,
    /// Bytes of the answer's body so far.
    sent: u64,
    /// Length of the answer's body as its headers say.
    announced: Option<u64>,
    /// Whether the answer's body was handed over whole, or has none to hand over.
    pub(super) complete: bool,
}

/// What only the log wants: kept as the request brought it, formatted when it is written.
struct Line {
    uri: Uri,
    agent: Option<HeaderValue>,
    id: HeaderValue,
    connection: Connection,
    /// Which region's bucket the answer came from, if there are regions.
    region: Option<HeaderValue>,
}

/// What the answer says of its region.
const REGION: HeaderName = HeaderName::from_static("berth-region");

impl Account {
    pub(super) fn open<B>(
        request: &Request<B>,
        in_flight: InFlight,
        metrics: Option<Arc<Metrics>>,
        id: &HeaderValue,
        connection: Connection,
    ) -> Self {
        if let Some(metrics) = &metrics {
            metrics.request_started();
        }
        let logged = metrics.is_some() && tracing::enabled!(target: TARGET, tracing::Level::INFO);
        let line = logged.then(|| Line {
            uri: request.uri().clone(),
            agent: request.headers().get(header::USER_AGENT).cloned(),
            id: id.clone(),
            connection,
            region: None,
        });
        Self {
            _in_flight: in_flight,
            metrics,
            begun: Instant::now(),
            tls: connection.tls,
            method: request.method().clone(),
            route: Route::of(request.uri().path()),
            received: None,
            line,
            traced: None,
            status: 0,
            sent: 0,
            announced: None,
            complete: false,
        }
    }

    /// The span of the request, which is traced or not.
    pub(super) fn span<B>(&mut self, request: &Request<B>, id: &HeaderValue) -> Span {
        let head = span::Head {
            id: id.to_str().unwrap_or_default(),
            method: &self.method,
            route: self.route,
            version: request.version(),
            tls: self.tls,
        };
        // Probes and scrapes are no requests that anybody wonders about.
        if self.metrics.is_none() {
            return span::untraced(head.id);
        }
        let (span, traced) = span::request(&head, request.headers());
        self.traced = traced;
        span
    }

    /// The counter of the request's body, for a request that has one.
    pub(super) fn count_body(&mut self) -> Arc<AtomicU64> {
        self.received.get_or_insert_default().clone()
    }

    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok());
        self.announced = length.and_then(|length| length.parse().ok());
        if let Some(line) = &mut self.line {
            line.region = headers.get(REGION).cloned();
        }
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.complete = bodiless || self.method == Method::HEAD;
    }

    /// Counts `bytes` of the answer's body. hyper stops asking once what was announced is out.
    pub(super) fn hand_over(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.complete |= self.announced == Some(self.sent);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let elapsed = self.begun.elapsed();
        let received = self
            .received
            .as_ref()
            .map_or(0, |count| count.load(Ordering::Relaxed));
        let status = if self.status == 0 { GIVEN_UP } else { self.status };
        if let Some(metrics) = &self.metrics {
            metrics.request_ended(&Observation {
                method: &self.method,
                route: self.route,
                status,
                seconds: elapsed.as_secs_f64(),
                received,
                sent: self.sent,
                trace_id: self.traced.as_ref().map(|traced| traced.trace_id.as_str()),
            });
        }
        if let Some(traced) = &self.traced {
            traced.ended(status, received, self.sent, self.complete);
        }
        let Some(line) = &self.line else { return };
        tracing::info!(
            target: TARGET,
            parent: None,
            method = self.method.as_str(),
            path = &*shown_target(&line.uri),
            status,
            sent = self.sent,
            received,
            seconds = elapsed.as_secs_f64(),
            complete = self.complete,
            agent = &*shown_agent(line.agent.as_ref()),
            peer = %line.connection.peer,
            request_id = line.id.to_str().unwrap_or_default(),
            trace_id = self.traced.as_ref().map(|traced| traced.trace_id.as_str()),
            region = line.region.as_ref().and_then(|region| region.to_str().ok()),
            "request"
        );
    }
}

/// The path, and of the query what is known to be harmless.
fn shown_target(uri: &Uri) -> Cow<'_, str> {
    let path = shortened(uri.path());
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else {
        return Cow::Borrowed(path);
    };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if SHOWN_KEYS.contains(&key) => pair.to_owned(),
        Some((key, _)) => format!("{key}=…"),
        None => "…".to_owned(),
    });
    let shown = shown.collect::<Vec<_>>().join("&");
    Cow::Owned(format!("{path}?{}", shortened(&shown)))
}

fn shown_agent(agent: Option<&HeaderValue>) -> Cow<'_, str> {
    match agent {
        None => Cow::Borrowed(""),
        Some(agent) => match agent.to_str() {
            Ok(text) => Cow::Borrowed(shortened(text)),
            Err(_) => Cow::Owned(agent.as_bytes().escape_ascii().to_string()),
        },
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_SHOWN)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_parts_of_a_query_are_shown() {
        let shown = |uri: &'static str| shown_target(&Uri::from_static(uri)).into_owned();
        assert_eq!(
            shown("/v2/a/tags/list?n=5&last=v1"),
            "/v2/a/tags/list?n=5&last=v1"
        );
        assert_eq!(
            shown("/v2/token?service=x&password=hunter2&hunter3"),
            "/v2/token?service=x&password=…&…"
        );
        assert_eq!(shown("/v2/"), "/v2/");
    }

    #[test]
    fn long_paths_are_cut_on_a_character() {
        let uri: Uri = format!("/{}é", "x".repeat(LONGEST_SHOWN - 2)).parse().unwrap();
        assert_eq!(shown_target(&uri).len(), LONGEST_SHOWN - 1);
    }
}
