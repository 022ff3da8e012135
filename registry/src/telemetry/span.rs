//! The spans, and all that is ever told in them.
//!
//! Names and attributes follow OpenTelemetry's semantic conventions. A request's span is the one that its log lines carry
//! too: `request_id` and `trace_id` are fields of both, everything else is told to the trace alone. Around it no span is
//! recorded that has no recorded parent, so that a request which is not traced costs nothing.

use http::{HeaderMap, Method, Version};
use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tracing::{Instrument as _, Metadata, Span, field, info_span, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::SAMPLER;
use super::sampling::Decision;
use super::traceparent::Parent;
use crate::ops::route::Route;

/// Target of spans that begin here, beside those of requests.
const TASK: &str = "trace_task";
/// Target of spans within others.
const WITHIN: &str = "trace";
/// Target of requests' spans.
const REQUEST: &str = "request";
/// The field that tells the spans of requests that are traced from the others.
const TRACED: &str = "trace_id";

/// Whether a span is recorded wherever it is made.
pub(super) fn is_root(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && (metadata.target() == TASK
            || (metadata.target() == REQUEST && metadata.fields().field(TRACED).is_some()))
}

/// Whether a span is recorded within another one that is.
pub(super) fn is_child(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == WITHIN
}

/// A request that is traced.
#[derive(Debug, Clone)]
pub struct Traced {
    span: Span,
    /// Its trace, as 32 digits.
    pub trace_id: String,
}

/// What is known of a request when its head has come.
#[derive(Debug)]
pub struct Head<'a> {
    /// Its id, as its answer carries it.
    pub id: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its class; the path is not told.
    pub route: Route,
    /// The protocol.
    pub version: Version,
    /// Whether TLS ends here.
    pub tls: bool,
}

/// The span of a request that is not traced: its log lines have its id.
pub fn untraced(id: &str) -> Span {
    info_span!(target: REQUEST, "request", request_id = id)
}

/// The span of a request, and its trace if it is traced.
pub fn request(head: &Head<'_>, headers: &HeaderMap) -> (Span, Option<Traced>) {
    let Some(sampler) = SAMPLER.get() else {
        return (untraced(head.id), None);
    };
    let parent = match sampler.decide(Parent::of(headers)) {
        Decision::Not => return (untraced(head.id), None),
        Decision::Root => None,
        Decision::Follows(parent) => Some(parent),
    };
    let span = info_span!(
        target: REQUEST,
        parent: None,
        "request",
        request_id = head.id,
        trace_id = field::Empty,
        otel.kind = "server",
    );
    if let Some(parent) = parent {
        // It has not begun yet.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent.context()));
    }
    let context = span.context();
    let recorded = context.span();
    recorded.update_name(format!("{} {}", head.method, head.route.label()));
    recorded.set_attributes([
        KeyValue::new("http.request.method", head.method.to_string()),
        KeyValue::new("http.route", head.route.label()),
        KeyValue::new("network.protocol.version", version(head.version)),
        KeyValue::new("url.scheme", if head.tls { "https" } else { "http" }),
    ]);
    let trace_id = recorded.span_context().trace_id().to_string();
    span.record(TRACED, &trace_id);
    let traced = Traced {
        span: span.clone(),
        trace_id,
    };
    (span, Some(traced))
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

impl Traced {
    /// What came of the request, whose span ends now: what it has begun may go on without it.
    pub fn ended(&self, status: u16, received: u64, sent: u64, complete: bool) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let context = self.span.context();
        let span = context.span();
        span.set_attributes([
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("http.request.body.size", number(received)),
            KeyValue::new("http.response.body.size", number(sent)),
            KeyValue::new("berth.complete", complete),
        ]);
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Tells whose the present request is.
pub fn belongs_to(tenant: &str, repository: Option<&str>) {
    if SAMPLER.get().is_none() {
        return;
    }
    let context = Span::current().context();
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    span.set_attribute(KeyValue::new("berth.tenant", tenant.to_owned()));
    if let Some(repository) = repository {
        span.set_attribute(KeyValue::new("berth.repository", repository.to_owned()));
    }
}

/// A question to the metadata store. `asked` names it by the path of the function that asks, as `type_name` tells it.
pub async fn statement<T, E>(
    system: &'static str,
    asked: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = trace_span!(
        target: WITHIN,
        "statement",
        otel.name = function_of(asked),
        otel.kind = "client",
        otel.status_code = field::Empty,
        db.system.name = system,
        db.operation.name = function_of(asked),
    );
    noting_failure(span, work).await
}

/// A request to another registry. No header tells it of the trace: that would tie a tenant's pulls together for it.
pub async fn upstream<T, E>(
    method: &Method,
    host: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = trace_span!(
        target: WITHIN,
        "upstream",
        otel.kind = "client",
        otel.status_code = field::Empty,
        http.request.method = method.as_str(),
        server.address = host,
    );
    noting_failure(span, work).await
}

/// Whoever waits says of itself what has failed; what an error says may hold what must not be told.
async fn noting_failure<T, E>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let noted = span.clone();
    let outcome = work.instrument(span).await;
    if outcome.is_err() {
        noted.record("otel.status_code", "ERROR");
    }
    outcome
}

/// A call of the object store, ended when it is dropped. Its requests carry no header of the trace, which they would
/// have to sign.
pub fn object_call(operation: &str) -> Span {
    trace_span!(
        target: WITHIN,
        "object store",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = field::Empty,
        rpc.system = "aws-api",
        rpc.service = "S3",
        rpc.method = operation,
    )
}

/// The span of something that no request waits for, sampled as requests without a parent are.
pub fn task(name: &'static str) -> Span {
    match SAMPLER.get().map(|sampler| sampler.decide(None)) {
        None | Some(Decision::Not | Decision::Follows(_)) => Span::none(),
        Some(Decision::Root) => trace_span!(target: TASK, parent: None, "task", otel.name = name),
    }
}

/// The name of the function around a closure, of the closure's type's name, without its parameters.
fn function_of(path: &'static str) -> &'static str {
    let function = path.split("::{{closure}}").next().unwrap_or(path);
    let (mut depth, mut end) = (0_usize, function.len());
    for (place, letter) in function.char_indices().rev() {
        match letter {
            '>' => depth += 1,
            '<' => {
                depth = depth.saturating_sub(1);
                end = place;
            }
            ':' if depth == 0 => return &function[place + 1..end],
            _ => {}
        }
    }
    &function[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of<F: Fn()>(_: F) -> &'static str {
        function_of(std::any::type_name::<F>())
    }

    #[test]
    fn a_statement_is_called_by_the_function_that_asks_it() {
        assert_eq!(
            name_of(|| ()),
            "a_statement_is_called_by_the_function_that_asks_it"
        );
        for path in [
            "a::b::<impl a::C for d::E<f>>::tags<'_, g::H<i>>::{{closure}}::{{closure}}",
            "a::b<c>::tags::{{closure}}",
            "tags<'_>",
        ] {
            assert_eq!(function_of(path), "tags", "{path}");
        }
        assert_eq!(function_of("plain"), "plain");
    }
}
