//! The OCI distribution API (distribution-spec), one file an endpoint or two.
//!
//! Every request goes the same way: the host says where it is for ([`tenancy`](crate::tenancy)), [`route`] reads
//! the path, [`access`] finds tenant and repository and decides once, and the endpoint does its work on the stores. Errors become the spec's codes in
//! [`error`] and nowhere else. No lock is held while a client is waited for.

mod access;
mod answer;
mod asked;
mod blob;
mod blob_body;
mod cached;
mod catalog;
mod conditions;
mod documents;
mod error;
mod manifest;
mod manifest_put;
mod nearest;
mod paging;
mod query;
mod readers;
mod redirect;
mod referrers;
pub(crate) mod route;
mod state;
mod sweep;
mod tags;
mod token;
pub(crate) mod uploads;
mod versions;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::Router;
use http::{Method, StatusCode};
use tracing::Instrument as _;

use crate::domain::grant::Action;
use access::{Arrival, Wish};
use asked::{Asked, Named};
use cached::Mirrored;
pub use cached::{CacheParts, WarmError, Warmed, Warmer};
use error::{ApiError, Code};
use route::{Endpoint, Route};
pub use state::{OpenError, Parts, Registry};

/// Where access tokens are issued.
const TOKEN_PATH: &str = "/v2/token";

/// The routes of the API: one fallback, since a repository's name may hold any path component, so that
/// paths are read from their end.
pub fn router(registry: Registry) -> Router {
    sweep::start(&registry);
    Router::new().fallback(serve).with_state(registry)
}

async fn serve(State(registry): State<Registry>, request: Request) -> Response {
    registry.traffic.request();
    let head = request.method() == Method::HEAD;
    let mut response = match answer(&registry, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    answer::finish(&mut response, head);
    response
}

async fn answer(registry: &Registry, request: Request) -> Result<Response, ApiError> {
    match request.uri().path() {
        cached::peer::PATH => {
            let (parts, _) = request.into_parts();
            return cached::peer::serve(registry, &parts).await;
        }
        readers::PATH => return readers::hear(registry, request).await,
        _ => {}
    }
    // 1. The host, and the one that it is a mirror for, before anything else is read.
    let arrival = Arrival::of(registry, &request)?;
    let namespace = arrival.via.namespace().map(|namespace| namespace.text.clone());
    let mut response = answer_at(arrival, request)
        .await
        .unwrap_or_else(ApiError::into_response);
    if let Some(namespace) = namespace {
        response
            .headers_mut()
            .insert(answer::NAMESPACE, answer::value(namespace));
    }
    Ok(response)
}

async fn answer_at(arrival: Arrival<'_>, request: Request) -> Result<Response, ApiError> {
    if request.uri().path() == TOKEN_PATH {
        let (parts, body) = request.into_parts();
        return token::issue(arrival, &parts, body).await;
    }

    // 2. What is wanted, and whether it may be.
    let Route { endpoint, name } = route::parse(request.uri().path())?;
    let wish = wish(&endpoint, request.method())?;
    arrival.may_wish(wish)?;
    let (parts, body) = request.into_parts();
    let (asked, repository) = arrival.admit(&parts.headers, name, wish).await?;

    // 3. A reader's own writes, if it says which.
    let mut versions = versions::Versions::of(&asked, &endpoint, &parts.headers);
    versions.wait().await?;

    // 4. The work.
    let work = work(asked, endpoint, repository, parts, body);
    let answered = match wish {
        Wish::Ping | Wish::List | Wish::Do(Action::Pull | Action::Metadata) => work.await,
        // A client that goes away must not cut a write in the middle: what it has sent is stored, and its
        // lease is given back at once.
        Wish::Do(Action::Push | Action::Delete) => match tokio::spawn(work.in_current_span()).await {
            Ok(answer) => answer,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ApiError::of(Code::Unavailable, "the registry is shutting down")),
            },
        },
    };
    versions.tell(answered).await
}

async fn work(
    asked: Asked,
    endpoint: Endpoint,
    repository: Option<Named>,
    parts: http::request::Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let asked = &asked;
    // The grammar gives a repository to exactly the endpoints that have one.
    let named = || {
        repository
            .as_ref()
            .ok_or_else(|| ApiError::of(Code::NameInvalid, "the path names no repository"))
    };
    match endpoint {
        Endpoint::Base => Ok(answer::json(StatusCode::OK, "{}")),
        Endpoint::Discover => Ok(answer::json(StatusCode::OK, r#"{"extensions":[]}"#)),
        Endpoint::Catalog => catalog::list(asked, &parts).await,
        Endpoint::Tags => match Mirrored::of(asked, named()?) {
            Some(mirrored) => mirrored.tags(&parts).await,
            None => tags::list(asked, named()?, &parts).await,
        },
        Endpoint::Referrers(subject) => match Mirrored::of(asked, named()?) {
            Some(mirrored) => mirrored.referrers(&subject, &parts).await,
            None => referrers::list(asked, named()?, &subject, &parts).await,
        },
        Endpoint::Manifest(reference) => match parts.method {
            Method::PUT => manifest_put::put(asked, named()?, &reference, &parts, body).await,
            Method::DELETE => manifest::delete(asked, named()?, &reference).await,
            _ => match Mirrored::of(asked, named()?) {
                Some(mirrored) => mirrored.manifest(&reference, &parts).await,
                None => manifest::get(asked, named()?, &reference, &parts).await,
            },
        },
        Endpoint::Blob(digest) => match parts.method {
            Method::DELETE => blob::delete(asked, named()?, &digest).await,
            _ => match Mirrored::of(asked, named()?) {
                Some(mirrored) => mirrored.blob(&digest, &parts).await,
                None => blob::get(asked, named()?, &digest, &parts).await,
            },
        },
        Endpoint::Uploads => uploads::start::start(asked, named()?, &parts, body).await,
        Endpoint::Upload(id) => match parts.method {
            Method::PATCH => uploads::append::append(asked, named()?, &id, &parts, body).await,
            Method::PUT => uploads::close::close(asked, named()?, &id, &parts, body).await,
            Method::DELETE => uploads::status::cancel(asked, named()?, &id).await,
            _ => uploads::status::get(asked, named()?, &id).await,
        },
    }
}

/// What an endpoint's method needs the right to do; 405 for methods that it does not have.
fn wish(endpoint: &Endpoint, method: &Method) -> Result<Wish, ApiError> {
    let head = *method == Method::HEAD;
    let read = head || *method == Method::GET;
    let look = read.then_some(Wish::Do(Action::Metadata));
    // HEAD shows no content.
    let content = if head {
        look
    } else {
        read.then_some(Wish::Do(Action::Pull))
    };
    let push = Some(Wish::Do(Action::Push));
    let (wish, allow) = match endpoint {
        Endpoint::Base | Endpoint::Discover => (read.then_some(Wish::Ping), "GET, HEAD"),
        Endpoint::Catalog => (read.then_some(Wish::List), "GET, HEAD"),
        Endpoint::Tags | Endpoint::Referrers(_) => (look, "GET, HEAD"),
        Endpoint::Manifest(_) => match *method {
            Method::PUT => (push, ""),
            Method::DELETE => (Some(Wish::Do(Action::Delete)), ""),
            _ => (content, "GET, HEAD, PUT, DELETE"),
        },
        Endpoint::Blob(_) => match *method {
            Method::DELETE => (Some(Wish::Do(Action::Delete)), ""),
            _ => (content, "GET, HEAD, DELETE"),
        },
        Endpoint::Uploads => (
            (*method == Method::POST).then_some(Wish::Do(Action::Push)),
            "POST",
        ),
        Endpoint::Upload(_) => (
            push.filter(|_| read || matches!(*method, Method::PATCH | Method::PUT | Method::DELETE)),
            "GET, HEAD, PATCH, PUT, DELETE",
        ),
    };
    wish.ok_or_else(|| ApiError::method_not_allowed(allow))
}
