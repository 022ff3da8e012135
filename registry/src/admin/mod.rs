//! The admin API: the one door by which tenants, repositories, policies, caches and tokens are configured.
//!
//! The operator, the command line and a folder of manifests all go through [`Configurator`], which checks a
//! change, seals its secrets and applies it; the handlers here only read requests and write answers. The routes
//! and their OpenAPI document are one table ([`routes`]). It may use every part but `cli`.
//!
//! What must hold: nothing is answered without the admin key; a change that was answered is served by this
//! replica and, within a second, by all; a put repeated changes nothing; no answer holds a secret, but for the
//! one that hands over a new token.

mod answer;
mod configure;
mod key;
pub mod manifests;
mod objects;
mod openapi;
mod reports;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

use crate::identity::Identity;
use crate::metadata::configuration::Configuration;
use crate::tenancy::Directory;
use answer::Failure;
pub use configure::{Configurator, ConfigureError, Spec, Wanted, Writer};
pub use key::AdminKeys;

/// Largest body in bytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct Admin {
    /// Changes.
    pub configurator: Arc<Configurator>,
    /// What is stored of the configuration.
    pub store: Arc<dyn Configuration>,
    /// What this replica serves of it.
    pub directory: Arc<Directory>,
    /// Who is known.
    pub identity: Arc<Identity>,
}

/// All paths, behind the key. Without it everything is 401, so that paths cannot be told apart.
pub fn router(keys: AdminKeys, admin: Admin) -> Router {
    let mut router = Router::new();
    for route in openapi::routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "NotFound", "there is no such path"))
        .method_not_allowed_fallback(async || {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path does not take this method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(keys, authorise))
        .with_state(admin)
}

async fn authorise(State(keys): State<AdminKeys>, request: Request, next: Next) -> Response {
    if keys.admit(request.headers()) {
        return next.run(request).await;
    }
    let message = "send the admin key as Authorization: Bearer <key>";
    (
        [(header::WWW_AUTHENTICATE, "Bearer realm=\"berth-admin\"")],
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", message),
    )
        .into_response()
}
