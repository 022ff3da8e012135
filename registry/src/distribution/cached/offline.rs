//! Caches of a registry that only reads: what its primary has fetched, as while an upstream does not answer.
//!
//! It could fetch and not keep, and would so cost the upstream's limits for each pull; that is the primary's to do.

use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use super::super::error::{ApiError, Code};
use super::super::manifest::{self as stored_manifest, Found};
use super::super::{blob as stored_blob, referrers as stored_referrers, tags as stored_tags};
use super::manifest::meant;
use super::{Mirrored, warn};
use crate::metadata::Reference;

/// Why what is served may be out of date.
const WHY: &str = "this registry only reads and does not ask the upstream";

/// A manifest that is stored.
pub(super) async fn manifest(
    at: &Mirrored<'_>,
    reference: &str,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let parsed = meant(at, reference)?;
    let row = at
        .asked
        .registry
        .metadata
        .manifest(at.repository, &parsed)
        .await?;
    let Some(row) = row else {
        return Err(elsewhere(at, reference));
    };
    let found = Found { row, payload: None };
    let sent = stored_manifest::send(at.asked, at.repository, &parsed, found, parts).await?;
    let mut response = sent.ok_or_else(|| elsewhere(at, reference))?;
    if matches!(&parsed, Reference::Tag(tag) if !at.cache.pins(tag)) {
        warn(&mut response, WHY);
    }
    Ok(response)
}

/// A blob that is stored, or a part of it.
pub(super) async fn blob(at: &Mirrored<'_>, reference: &str, parts: &Parts) -> Result<Response, ApiError> {
    let digest = stored_blob::parse(reference)?;
    let shown = &at.repository.shown;
    at.allowed(|| ApiError::of(Code::BlobUnknown, format!("{digest} is not in {shown}")))?;
    let row = at.asked.registry.metadata.blob(at.repository, &digest).await?;
    let Some(row) = row else {
        return Err(elsewhere(at, reference));
    };
    let sent = stored_blob::send_found(at.asked, at.repository, &digest, &row, parts).await?;
    sent.ok_or_else(|| elsewhere(at, reference))
}

/// The tags that are stored.
pub(super) async fn tags(at: &Mirrored<'_>, parts: &Parts) -> Result<Response, ApiError> {
    let shown = &at.repository.shown;
    at.allowed(|| ApiError::of(Code::NameUnknown, format!("there is no repository {shown}")))?;
    let listed = stored_tags::list(at.asked, at.repository, parts).await;
    let mut response = listed.map_err(|error| match error.code() {
        Some(Code::NameUnknown) => elsewhere(at, "a list of tags"),
        _ => error,
    })?;
    warn(&mut response, WHY);
    Ok(response)
}

/// The referrers that are stored; that there are none is not known.
pub(super) async fn referrers(at: &Mirrored<'_>, subject: &str, parts: &Parts) -> Result<Response, ApiError> {
    let shown = &at.repository.shown;
    at.allowed(|| ApiError::of(Code::NameUnknown, format!("there is no repository {shown}")))?;
    let mut response = stored_referrers::list(at.asked, at.repository, subject, parts).await?;
    if stored_referrers::none(at.asked, at.repository, subject).await? {
        return Err(elsewhere(at, subject));
    }
    warn(&mut response, WHY);
    Ok(response)
}

/// As while the upstream is away: a client goes on to its next mirror.
fn elsewhere(at: &Mirrored<'_>, what: &str) -> ApiError {
    let message = format!(
        "{what} of {} is not cached, and {WHY}; pull it from the primary first",
        at.repository.shown
    );
    ApiError::of(Code::Unavailable, message).status(StatusCode::BAD_GATEWAY)
}
