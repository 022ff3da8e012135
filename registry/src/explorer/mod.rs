//! The explorer: pages for people, and the same as JSON for programs, at the hosts of tenants beside `/v2/`.
//!
//! ```text
//!   request ─> path ─> visit (whose host, who asks) ─> one page's file ─> view ─┬─> html
//!                                                                               └─> json
//! ```
//!
//! [`path`] reads what is asked for, [`visit`] finds tenant and person and decides what they may see, each page has a
//! file that asks the stores and makes a view, and [`answer`] turns a view into a page or into JSON. [`session`] signs
//! people in and out, [`oidc`] signs them in by an issuer that the tenant trusts. It may use the stores, tenancy and identity.
//!
//! What must hold: a page shows nothing that the API would refuse to the same credential, and takes a constant number of
//! queries of constant size; whatever comes from content is text; a session is good for these pages only, never for
//! `/v2/`; what changes something is a POST that carries the form's token. Pages work without script and load nothing
//! from elsewhere.

mod answer;
pub(crate) mod archive;
mod artifact;
mod assets;
mod builds;
mod change;
mod content;
mod deleted;
mod difference;
mod files;
mod front;
mod history;
mod manifest;
mod oidc;
mod packages;
mod parsed;
pub(crate) mod path;
mod plot;
mod prose;
mod repositories;
mod repository;
mod retention;
mod session;
mod shown;
pub(crate) mod supply;
mod usage;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{Router, any};
use http::Method;

use self::answer::Failure;
use self::parsed::Parsed;
use self::path::{Form, Page, Part};
use self::visit::Visit;
use crate::blobs::BlobStore;
use crate::domain::RepositoryName;
use crate::identity::Identity;
use crate::lifecycle::Keeper;
use crate::metadata::configuration::Configuration;
use crate::metadata::explore::Explore;
use crate::metadata::pull_through::PullThrough;
use crate::metadata::{Store, TenantId};
use crate::shares::{Share, Shares};
use crate::tenancy::origin::Rules;
use crate::tenancy::{Directory, Names, Origin};

/// What the explorer is made of.
pub struct Parts {
    /// What is stored.
    pub metadata: Arc<dyn Store>,
    /// How much each repository stores.
    pub configuration: Arc<dyn Configuration>,
    /// Where people look around in it.
    pub explore: Arc<dyn Explore>,
    /// How caches fare.
    pub pull_through: Arc<dyn PullThrough>,
    /// What becomes of it.
    pub keeper: Arc<Keeper>,
    /// The bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Who lives here.
    pub directory: Arc<Directory>,
    /// Who may do what.
    pub identity: Arc<Identity>,
    /// How hosts are read.
    pub names: Names,
    /// How origins are read.
    pub origins: Rules,
    /// Whether nothing here can be changed.
    pub only_reads: bool,
    /// Whether a request from this machine needs no credential while nothing is configured.
    pub may_be_open: bool,
}

/// The explorer; cheap to clone.
#[derive(Clone)]
pub struct Explorer(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// For manifests whose pages take memory worth counting.
    large: Shares,
    /// For answers that walk a repository's tags.
    walks: Shares,
    /// What was read of blobs.
    parsed: Parsed,
}

/// Large manifests that are made into pages at the same time.
const LARGE_AT_ONCE: u32 = 4;
/// Longest wait for a turn.
const WAIT: Duration = Duration::from_secs(15);
/// Walks of repositories at the same time.
const WALKS_AT_ONCE: u32 = 2;

impl Explorer {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            large: Shares::new(LARGE_AT_ONCE, LARGE_AT_ONCE / 2),
            walks: Shares::new(WALKS_AT_ONCE, WALKS_AT_ONCE / 2),
            parsed: Parsed::default(),
        }))
    }

    /// Waits for a tenant's turn to read documents that take memory worth counting. Whoever waits for long is sent away
    /// rather than queued without an end.
    async fn large(&self, tenant: TenantId) -> Result<Share, Failure> {
        self.0.large.take(tenant, 1, WAIT).await.ok_or(Failure::Busy)
    }

    /// Waits for a tenant's turn to walk a repository's tags, or through what was read of a blob.
    async fn walks(&self, tenant: TenantId) -> Result<Share, Failure> {
        self.0.walks.take(tenant, 1, WAIT).await.ok_or(Failure::Busy)
    }
}

impl std::ops::Deref for Explorer {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// Reads for ever what images say of their builds.
pub async fn follow(explorer: Explorer) {
    builds::reader::follow(explorer).await;
}

/// The routes of the explorer. What they leave is for others.
pub fn router(explorer: Explorer) -> Router {
    Router::new()
        .route("/", any(serve))
        .route("/explorer", any(serve))
        .route("/explorer/", any(serve))
        .route("/explorer/{*path}", any(serve))
        .with_state(explorer)
}

async fn serve(State(explorer): State<Explorer>, request: Request) -> Response {
    explorer.keeper.traffic.request();
    let is_head = *request.method() == Method::HEAD;
    let (form, page) = path::read(request.uri().path());
    let mut response = match page {
        Some(page) => work(&explorer, form, page, request).await,
        None => Failure::absent("there is no such page").answer(form, None),
    };
    answer::finish(&mut response, is_head);
    response
}

async fn work(explorer: &Explorer, form: Form, page: Page, request: Request) -> Response {
    if let Page::Asset(name) = &page {
        return match assets::get(name, request.method()) {
            Ok(response) => response,
            Err(failure) => failure.answer(form, None),
        };
    }
    // A body is nothing that several may look at: what is asked goes on without it.
    let origin = Origin::of(&request, &explorer.origins);
    let (parts, body) = request.into_parts();
    let visit = match Visit::of(explorer, form, origin, &parts).await {
        Ok(visit) => visit,
        Err(failure) => return failure.answer(form, None),
    };
    let answered = match page {
        Page::Front => visit.reads(&parts.method).map(|()| front::to_repositories()),
        Page::SignIn => session::sign_in(&visit, &parts, body).await,
        Page::SignInByIssuer => oidc::begin(&visit, &parts, body).await,
        Page::Callback => oidc::complete(&visit, &parts).await,
        Page::SignOut => session::sign_out(&visit, &parts, body).await,
        Page::Repositories => repositories::get(&visit, &parts).await,
        Page::Usage => usage::get(&visit, &parts).await,
        Page::Builds(id) => builds::get(&visit, id, &parts).await,
        Page::Repository(name) => repository::get(&visit, name, &parts).await,
        Page::Manifest(name, reference) => manifest::get(&visit, name, reference, &parts).await,
        Page::Of(name, part) => about(&visit, name, part, &parts, body).await,
        // Answered above, before anybody is recognised.
        Page::Asset(_) => Err(Failure::absent("there is no such page")),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(failure) => failure.answer(form, Some(&visit)),
    };
    visit.renew(&mut response);
    visit.remember(&mut response);
    response
}

async fn about(
    visit: &Visit,
    name: RepositoryName,
    part: Part,
    parts: &http::request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    match part {
        Part::Deleted => deleted::get(visit, name, parts).await,
        Part::Usage => usage::repository::get(visit, name, parts).await,
        Part::History(tag) => history::get(visit, name, tag, parts).await,
        Part::Retention(tag) => retention::get(visit, name, tag, parts).await,
        Part::Delete(reference) => change::delete(visit, name, reference, parts, body).await,
        Part::Restore => change::restore(visit, name, parts, body).await,
        Part::Retag => change::retag(visit, name, parts, body).await,
        Part::Difference => difference::get(visit, name, parts).await,
        Part::Files(digest) => files::get(visit, name, digest, parts).await,
        Part::Packages(digest) => packages::get(visit, name, digest, parts).await,
    }
}
