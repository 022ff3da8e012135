//! Repositories of caches: what another registry has, fetched when it is first asked for (pull-through).
//!
//! ```text
//!   request ─ stored and fresh? ─ yes ─> as from any repository
//!                 │ no
//!                 └─> flight (one a replica) ─> claim (one in all) ─> upstream ─> store
//!                        └ waits ┘                 └ waits ┘
//! ```
//!
//! [`manifest`] answers for manifests and tags, [`blob`] for blobs, [`lists`] for what is listed. [`flights`](crate::flights) and
//! [`claim`] see to it that the upstream is asked once, [`fetch`] brings a blob into the store by a [`session`], [`growing`] is what has
//! arrived of it so far and [`reading`] sends it to a client meanwhile. A registry that only reads serves what is stored
//! ([`offline`]).
//!
//! What must hold: nothing is stored, and no manifest leaves, whose digest was not computed from its bytes; what began
//! for one client goes on without it; a blob's last byte leaves after its digest was found right; an upstream that fails
//! costs nobody what is stored.

mod arriving;
mod blob;
mod claim;
mod fetch;
mod growing;
mod lists;
mod manifest;
mod offline;
pub(super) mod peer;
mod reading;
mod session;
mod spool;
mod state;
mod trouble;
mod upstream_manifest;
mod warm;

use std::sync::Arc;

use axum::response::Response;
use http::header::WARNING;
use http::request::Parts;

pub use self::state::CacheParts;
pub(super) use self::state::Cached;
use self::trouble::Trouble;
pub use self::warm::{WarmError, Warmed, Warmer};
use super::error::{ApiError, Code};
use super::{Asked, Named, answer};
use crate::tenancy::Cache;
use crate::upstream::Remote;

/// A repository that is another registry's.
pub(super) struct Mirrored<'a> {
    asked: &'a Asked,
    repository: &'a Named,
    cache: &'a Arc<Cache>,
    /// How the upstream calls the repository.
    upstream: &'a str,
}

impl<'a> Mirrored<'a> {
    /// The repository as its upstream's, if it is one's.
    pub fn of(asked: &'a Asked, repository: &'a Named) -> Option<Self> {
        let (cache, upstream) = asked.tenant.caches.of(&repository.name)?;
        Some(Self {
            asked,
            repository,
            cache,
            upstream,
        })
    }

    /// A manifest, by tag or digest.
    pub async fn manifest(&self, reference: &str, parts: &Parts) -> Result<Response, ApiError> {
        if self.asked.registry.only_reads() {
            return offline::manifest(self, reference, parts).await;
        }
        manifest::get(self, reference, parts).await
    }

    /// A blob, or a part of it.
    pub async fn blob(&self, digest: &str, parts: &Parts) -> Result<Response, ApiError> {
        if self.asked.registry.only_reads() {
            return offline::blob(self, digest, parts).await;
        }
        blob::get(self, digest, parts).await
    }

    /// A page of tags.
    pub async fn tags(&self, parts: &Parts) -> Result<Response, ApiError> {
        if self.asked.registry.only_reads() {
            return offline::tags(self, parts).await;
        }
        lists::tags(self, parts).await
    }

    /// What refers to a manifest.
    pub async fn referrers(&self, subject: &str, parts: &Parts) -> Result<Response, ApiError> {
        if self.asked.registry.only_reads() {
            return offline::referrers(self, subject, parts).await;
        }
        lists::referrers(self, subject, parts).await
    }

    fn remote(&self) -> Result<Arc<Remote>, Trouble> {
        let remotes = &self.asked.registry.cached.remotes;
        Ok(remotes.of(&self.asked.tenant, self.cache)?)
    }

    /// Refuses what the cache's lists leave out.
    fn allowed(&self, unknown: impl FnOnce() -> ApiError) -> Result<(), ApiError> {
        if self.cache.allows(self.upstream) {
            return Ok(());
        }
        Err(unknown())
    }
}

/// 405 for whoever may push or delete: what is here is the upstream's.
pub(super) fn read_only(repository: &Named, cache: &Cache) -> ApiError {
    let message = format!(
        "{} is read through from {} and takes pulls only; push to and delete from the upstream itself",
        repository.shown, cache.config.upstream.url
    );
    ApiError::of(Code::Unsupported, message)
        .header(http::header::ALLOW, http::HeaderValue::from_static("GET, HEAD"))
}

/// Tells in an answer that it may be out of date (distribution-spec, "Warnings").
fn warn(response: &mut Response, why: &str) {
    let text: String = why
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\\') {
                c
            } else {
                ' '
            }
        })
        .take(200)
        .collect();
    let text = format!("299 - \"served from the cache: {text}\"");
    response.headers_mut().append(WARNING, answer::value(text));
}
