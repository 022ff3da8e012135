//! The OCI distribution API (distribution-spec), one file an endpoint or two.
//!
//! Every request goes the same way: [`route`] reads the path, [`resolve`] finds the tenant and repository,
//! [`access`] decides once, and the endpoint does its work on the stores. Errors become the spec's codes in
//! [`error`] and nowhere else. No lock is held while a client is waited for.

mod access;
mod answer;
mod blob;
mod blob_body;
mod catalog;
mod conditions;
mod error;
mod manifest;
mod manifest_put;
mod paging;
mod query;
mod redirect;
mod referrers;
mod resolve;
mod route;
mod state;
mod sweep;
mod tags;
mod uploads;

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::Router;
use http::request::Parts;
use http::{Method, StatusCode};
use tracing::Instrument as _;

use crate::metadata::{Repository, TenantId};
use crate::server::Connection;
use access::Action;
use error::{ApiError, Code};
use resolve::Target;
use route::{Endpoint, Route};
pub use state::{OpenError, Registry};

/// The routes of the API: one fallback, since a repository's name may hold any path component, so that
/// paths are read from their end.
pub fn router(registry: Registry) -> Router {
    sweep::start(&registry);
    Router::new().fallback(serve).with_state(registry)
}

async fn serve(State(registry): State<Registry>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let mut response = match answer(&registry, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    answer::finish(&mut response, head);
    response
}

async fn answer(registry: &Registry, request: Request) -> Result<Response, ApiError> {
    let Route { endpoint, name } = route::parse(request.uri().path())?;
    let action = action(&endpoint, request.method())?;
    let Target { tenant, repository } = resolve::resolve(registry, name);
    let connection = request.extensions().get::<Connection>().copied();
    let principal = access::decide(registry, &request, connection.map(peer), action)?;
    let asked = Asked {
        registry: registry.clone(),
        tenant,
        principal,
    };
    let (parts, body) = request.into_parts();
    let work = work(asked, endpoint, repository, parts, body);
    match action {
        Action::Ping | Action::Pull => work.await,
        // A client that goes away must not cut a write in the middle: what it has sent is stored, and its
        // lease is given back at once.
        Action::Push | Action::Delete => match tokio::spawn(work.in_current_span()).await {
            Ok(answer) => answer,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ApiError::of(Code::Unavailable, "the registry is shutting down")),
            },
        },
    }
}

async fn work(
    asked: Asked,
    endpoint: Endpoint,
    repository: Option<Repository>,
    parts: Parts,
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
        Endpoint::Tags => tags::list(asked, named()?, &parts).await,
        Endpoint::Referrers(subject) => referrers::list(asked, named()?, &subject, &parts).await,
        Endpoint::Manifest(reference) => match parts.method {
            Method::PUT => manifest_put::put(asked, named()?, &reference, &parts, body).await,
            Method::DELETE => manifest::delete(asked, named()?, &reference).await,
            _ => manifest::get(asked, named()?, &reference, &parts).await,
        },
        Endpoint::Blob(digest) => match parts.method {
            Method::DELETE => blob::delete(asked, named()?, &digest).await,
            _ => blob::get(asked, named()?, &digest, &parts).await,
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

fn peer(connection: Connection) -> SocketAddr {
    connection.peer
}

/// What an endpoint's method needs the right to do; 405 for methods that it does not have.
fn action(endpoint: &Endpoint, method: &Method) -> Result<Action, ApiError> {
    let read = matches!(*method, Method::GET | Method::HEAD);
    let (action, allow) = match endpoint {
        Endpoint::Base | Endpoint::Discover => (read.then_some(Action::Ping), "GET, HEAD"),
        Endpoint::Catalog | Endpoint::Tags | Endpoint::Referrers(_) => {
            (read.then_some(Action::Pull), "GET, HEAD")
        }
        Endpoint::Manifest(_) => match *method {
            Method::PUT => (Some(Action::Push), ""),
            Method::DELETE => (Some(Action::Delete), ""),
            _ => (read.then_some(Action::Pull), "GET, HEAD, PUT, DELETE"),
        },
        Endpoint::Blob(_) => match *method {
            Method::DELETE => (Some(Action::Delete), ""),
            _ => (read.then_some(Action::Pull), "GET, HEAD, DELETE"),
        },
        Endpoint::Uploads => ((*method == Method::POST).then_some(Action::Push), "POST"),
        Endpoint::Upload(_) => (
            (read || matches!(*method, Method::PATCH | Method::PUT | Method::DELETE)).then_some(Action::Push),
            "GET, HEAD, PATCH, PUT, DELETE",
        ),
    };
    action.ok_or_else(|| ApiError::method_not_allowed(allow))
}

/// One request that may go on: where, and by whom.
struct Asked {
    registry: Registry,
    tenant: TenantId,
    principal: String,
}
