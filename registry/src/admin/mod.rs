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
mod collection;
mod configure;
mod fsck;
mod key;
pub mod manifests;
mod objects;
mod openapi;
mod patience;
mod pull_through;
mod reports;
mod retention;
mod tags;
mod tokens;
mod usage;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, header};
use tokio::sync::Mutex;

use crate::audit::{Event, Outcome};
use crate::distribution::Warmer;
use crate::identity::Identity;
use crate::lifecycle::Keeper;
use crate::lifecycle::fsck::Fsck;
use crate::metadata::configuration::Configuration;
use crate::metadata::events::Events;
use crate::tenancy::{Directory, Tenant};
use crate::upstream::Remotes;
use crate::webhooks::Webhooks;
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
    /// What is kept.
    pub keeper: Arc<Keeper>,
    /// Held while a round of collection is under way that was asked for.
    pub collecting: Arc<Mutex<()>>,
    /// Why the last of these failed.
    pub collecting_failed: collection::LastRound,
    /// The check of the stores.
    pub fsck: Fsck,
    /// Other registries.
    pub remotes: Arc<Remotes>,
    /// What fetches from them before anybody asks; nothing where nobody is served.
    pub warmer: Option<Warmer>,
    /// What webhooks are told.
    pub events: Arc<dyn Events>,
    /// What delivers it; nothing where nobody is served.
    pub webhooks: Option<Arc<Webhooks>>,
}

impl Admin {
    /// Keeps in the audit trail what was asked for; `tenant` if it was about one. Before the answer: a process that only
    /// asks the stores ends with it.
    async fn note(
        &self,
        tenant: Option<&Tenant>,
        action: &'static str,
        object: &str,
        outcome: Outcome,
        detail: &str,
    ) {
        let audit = self.identity.audit();
        audit.add(Event {
            tenant: tenant.map_or((0, String::new()), |tenant| {
                (tenant.id.0, tenant.name.to_string())
            }),
            actor: "admin".to_owned(),
            action,
            object: object.to_owned(),
            outcome,
            detail: detail.to_owned(),
            address: None,
        });
        audit.flush().await;
    }
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

/// The same for a registry that only reads: what would change anything is the primary's.
pub fn reading_router(keys: AdminKeys, admin: Admin) -> Router {
    router(keys.clone(), admin)
        .layer(middleware::from_fn(only_reads))
        .layer(middleware::from_fn_with_state(keys, authorise))
}

async fn only_reads(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let message = "this registry only reads; ask the admin API of its primary";
    (
        [(header::ALLOW, "GET, HEAD")],
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "ReadOnly", message),
    )
        .into_response()
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
