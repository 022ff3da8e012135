//! From a parsed request to its answer: limits, id, span, panic guard, account.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use http::{HeaderName, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tower::Service;
use tracing::Instrument;

use super::access_log::Account;
use super::activity::Activity;
use super::request_body::RequestBody;
use super::request_id::RequestIds;
use super::response_body::ResponseBody;
use super::{Connection, HEADERS_LIMIT, Limits, URL_LIMIT, answer};
use crate::ops::metrics::Metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the connections of one listener share.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) ids: RequestIds,
    pub(super) limits: Limits,
    pub(super) metrics: Option<Arc<Metrics>>,
}

/// Serves the requests of one connection.
pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self
            .activity
            .request_started(request.version() == Version::HTTP_2);
        let id = self.shared.ids.accept_or_make(request.headers().get(&REQUEST_ID));
        let metrics = self.shared.metrics.clone();
        let mut account = Account::open(&request, in_flight, metrics, &id, self.connection);
        let span = account.span(&request, &id);

        let refusal = refusal(&request);
        let request = self.prepared(request, &mut account);
        let mut router = self.shared.router.clone();
        let work = async move {
            let answered = match refusal {
                Some(refusal) => refusal,
                None => match AssertUnwindSafe(router.call(request)).catch_unwind().await {
                    Ok(Ok(answered)) => answered,
                    Err(panic) => panicked(&*panic),
                },
            };
            account.answered(answered.status(), answered.headers());
            let mut answered = answered.map(|body| ResponseBody::new(body, account));
            answered.headers_mut().insert(&REQUEST_ID, id);
            Ok(answered)
        };
        Box::pin(work.instrument(span))
    }
}

impl Handler {
    /// The request as routes see it.
    fn prepared(&self, request: Request<Incoming>, account: &mut Account) -> Request<Body> {
        let Limits {
            body_timeout,
            min_rate,
            ..
        } = self.shared.limits;
        let (mut head, body) = request.into_parts();
        head.extensions.insert(self.connection);
        let body = if http_body::Body::is_end_stream(&body) {
            Body::empty()
        } else {
            Body::new(RequestBody::new(
                body,
                body_timeout,
                min_rate,
                account.count_body(),
            ))
        };
        Request::from_parts(head, body)
    }
}

/// The answer to a request whose URL or headers are larger than a route should see.
fn refusal<B>(request: &Request<B>) -> Option<Response<Body>> {
    let uri = request.uri();
    let url = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if url > URL_LIMIT {
        let message = "the URL is longer than 16 KiB";
        return Some(answer::error(StatusCode::URI_TOO_LONG, "SIZE_INVALID", message));
    }
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    if request.headers().iter().map(line).sum::<usize>() > HEADERS_LIMIT {
        let message = "the headers are larger than 64 KiB";
        return Some(answer::error(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "SIZE_INVALID",
            message,
        ));
    }
    // RFC 9112 section 3.2: two readers would take two hosts from it.
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        let message = "the request names more than one host";
        return Some(answer::error(StatusCode::BAD_REQUEST, "UNSUPPORTED", message));
    }
    None
}

/// The answer to a request whose handler panicked.
fn panicked(panic: &(dyn Any + Send)) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(
        panic = text,
        "a request's handler panicked; the request is answered with 500"
    );
    let message = "the registry met an internal error; its log has the details under this request's id";
    answer::error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
}
