//! From views to answers: pages, JSON, redirects and failures, each with the headers that keep a browser safe.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;

use super::assets;
use super::content::ContentError;
use super::path::{self, Form, ROOT};
use super::visit::Visit;
use crate::identity::Refusal;
use crate::lifecycle::retention::run::RunError;
use crate::metadata::MetadataError;

/// Nothing but what this host serves, no script or style in the page, nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a page shows.
pub trait View: Serialize {
    /// What the window is called.
    fn title(&self) -> String;

    /// What stands below the header.
    fn body(&self, visit: &Visit) -> Markup;
}

/// A view, as the client wants it.
pub fn view<V: View>(visit: &Visit, view: &V) -> Response {
    match visit.form {
        Form::Html => page_with_twin(visit, &view.title(), &view.body(visit)),
        Form::Json => match serde_json::to_vec(view) {
            Ok(body) => json(StatusCode::OK, body),
            Err(error) => Failure::Ours(error.to_string()).answer(Form::Json, None),
        },
    }
}

/// A page.
pub fn page(status: StatusCode, visit: Option<&Visit>, title: &str, body: &Markup) -> Response {
    html_page(status, layout(visit, None, title, body))
}

/// A page that is JSON too.
fn page_with_twin(visit: &Visit, title: &str, body: &Markup) -> Response {
    let twin = path::as_json(&visit.asked);
    html_page(StatusCode::OK, layout(Some(visit), twin.as_deref(), title, body))
}

fn html_page(status: StatusCode, page: Markup) -> Response {
    let mut response = Response::new(Body::from(page.into_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// JSON.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// On to another page of this host, by GET.
pub fn to(place: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let place = HeaderValue::try_from(place).unwrap_or_else(|_| HeaderValue::from_static(ROOT));
    response.headers_mut().insert(LOCATION, place);
    response
}

/// What every answer carries. Nothing but assets may be kept by whoever lies between: what a page shows depends on
/// who asks.
pub fn finish(response: &mut Response, is_head: bool) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(OPENER, HeaderValue::from_static("same-origin"));
    headers.insert(RESOURCE, HeaderValue::from_static("same-origin"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(VARY, HeaderValue::from_static("cookie, authorization"));
    }
    if is_head {
        let length = http_body::Body::size_hint(response.body()).exact();
        if let Some(length) = length {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Body::empty();
    }
}

fn layout(visit: Option<&Visit>, twin: Option<&str>, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Berth" }
                link rel="stylesheet" href=(assets::style());
                link rel="icon" href=(assets::icon()) type="image/svg+xml";
                script src=(assets::script()) defer {}
                @if let Some(twin) = twin {
                    link rel="alternate" type="application/json" href=(twin);
                }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    a.brand href=(ROOT) {
                        span.mark aria-hidden="true" {}
                        @match visit {
                            Some(visit) => (visit.tenant.name.as_str()),
                            None => "Berth",
                        }
                    }
                    @if let Some(visit) = visit { (person(visit)) }
                }
                main #content { (body) }
                footer {
                    p {
                        "Berth " (env!("CARGO_PKG_VERSION"))
                        @if let Some(twin) = twin {
                            " · " a href=(twin) { "This page as JSON" }
                        }
                    }
                }
            }
        }
    }
}

/// Who is here, and how that can be changed.
fn person(visit: &Visit) -> Markup {
    html! {
        nav.person aria-label="Account" {
            @if visit.is_signed_in() {
                span.who { (visit.principal.label) }
                form method="post" action="/explorer/sign-out" {
                    (visit.form_field())
                    button type="submit" { "Sign out" }
                }
            } @else if visit.is_open {
                span.who title="Nothing is configured, so that this machine needs no credential" { "open" }
            } @else {
                a href=(visit.sign_in_path()) { "Sign in" }
            }
        }
    }
}

/// Why there is no page.
#[derive(Debug)]
pub enum Failure {
    /// It is not there, or not for whoever asks.
    Absent(String),
    /// Somebody must sign in first.
    SignIn,
    /// A credential is not accepted.
    Refused(Refusal),
    /// The rights do not suffice, or the tenant is suspended.
    Denied(String),
    /// What is there does not allow it.
    Conflict(String),
    /// What was sent cannot be read.
    Bad(String),
    /// The method is not one of the page's, which are these.
    Method(&'static str),
    /// Others do the same work, of which only so much is done at once.
    Busy,
    /// A store does not answer.
    Store(String),
    /// Our fault.
    Ours(String),
}

impl Failure {
    /// It is not there.
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent(why.into())
    }

    /// The answer. `visit` is absent where nobody has been recognised.
    pub fn answer(self, form: Form, visit: Option<&Visit>) -> Response {
        if let (Self::SignIn, Form::Html, Some(visit)) = (&self, form, visit) {
            return to(&visit.sign_in_path());
        }
        let (status, code, title, why) = self.told();
        let mut response = match form {
            Form::Json => {
                let body = serde_json::json!({ "errors": [{ "code": code, "message": why }] });
                json(status, body.to_string().into_bytes())
            }
            Form::Html => {
                let body = html! { h1 { (title) } p { (why) } };
                page(status, visit, title, &body)
            }
        };
        let headers = response.headers_mut();
        match self {
            // Browsers would ask for a password that they then keep: pages have a form for that.
            Self::SignIn | Self::Refused(Refusal::Unknown(_) | Refusal::Foreign(_)) if form == Form::Json => {
                let challenge = HeaderValue::from_static("Basic realm=\"Berth\", charset=\"UTF-8\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Self::Refused(Refusal::Throttled(wait)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            Self::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Method(allow) => {
                headers.insert(http::header::ALLOW, HeaderValue::from_static(allow));
            }
            _ => {}
        }
        response
    }

    /// Status, code, title and words.
    fn told(&self) -> (StatusCode, &'static str, &'static str, String) {
        match self {
            Self::Absent(why) => (StatusCode::NOT_FOUND, "NOT_FOUND", "Not found", why.clone()),
            Self::SignIn => {
                let why = "a credential is needed to see this".to_owned();
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Sign in", why)
            }
            Self::Refused(Refusal::Store(error)) => Self::Store(error.to_string()).told(),
            Self::Refused(refusal @ Refusal::Throttled(_)) => (
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "Too many attempts",
                refusal.to_string(),
            ),
            Self::Refused(refusal) => (
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "Not signed in",
                refusal.to_string(),
            ),
            Self::Denied(why) => (StatusCode::FORBIDDEN, "DENIED", "Not allowed", why.clone()),
            Self::Conflict(why) => (StatusCode::CONFLICT, "CONFLICT", "Not done", why.clone()),
            Self::Bad(why) => (
                StatusCode::BAD_REQUEST,
                "BAD_REQUEST",
                "Not understood",
                why.clone(),
            ),
            Self::Method(allow) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "Not understood",
                format!("this page answers to {allow}"),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UNAVAILABLE",
                "Busy",
                "others are being answered the same kind of question; try again in a moment".to_owned(),
            ),
            Self::Store(error) => {
                tracing::error!(error, "a page could not be made");
                let why = "the registry's store does not answer; try again in a moment".to_owned();
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "UNAVAILABLE",
                    "Not available",
                    why,
                )
            }
            Self::Ours(error) => {
                tracing::error!(error, "a page could not be made");
                let why =
                    "the registry met an internal error; its log has the details under this request's id";
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    "Internal error",
                    why.to_owned(),
                )
            }
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Metadata(error) => error.into(),
            other => Self::Conflict(other.to_string()),
        }
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<ContentError> for Failure {
    fn from(error: ContentError) -> Self {
        if let ContentError::Busy = error {
            return Self::Busy;
        }
        Self::Store(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
