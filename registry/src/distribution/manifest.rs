//! `GET`, `HEAD` and `DELETE /v2/<name>/manifests/<reference>` (end-3, end-9).

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::CONTENT_DIGEST;
use super::error::{ApiError, Code};
use super::{Asked, Named, answer, conditions};
use crate::audit::Outcome;
use crate::domain::digest::{Digest, DigestError};
use crate::domain::grant::Action;
use crate::metadata::lifecycle::Pull;
use crate::metadata::{Deleted, ManifestRow, Reference, Time};

/// Tags that live for less have their lives begun anew by each HEAD of a pusher.
const BRIEFLY: Duration = Duration::from_secs(2 * 3600);

/// Sends a manifest exactly as it was pushed, whatever `Accept` says.
pub(super) async fn get(
    asked: &Asked,
    repository: &Named,
    reference: &str,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let registry = &asked.registry;
    let unknown = || {
        ApiError::of(
            Code::ManifestUnknown,
            format!("there is no {reference} in {}", repository.shown),
        )
    };
    let reference = parse(reference)?.ok_or_else(unknown)?;
    let row = registry
        .metadata
        .manifest(repository, &reference)
        .await?
        .ok_or_else(unknown)?;
    let found = Found { row, payload: None };
    let sent = send(asked, repository, &reference, found, parts).await?;
    sent.ok_or_else(unknown)
}

/// A manifest that is to be sent.
pub(super) struct Found {
    /// What it is.
    pub row: ManifestRow,
    /// Its bytes, if they are at hand.
    pub payload: Option<Bytes>,
}

/// Sends a manifest that was found under a reference; `None` if it has gone since.
pub(super) async fn send(
    asked: &Asked,
    repository: &Named,
    reference: &Reference,
    found: Found,
    parts: &Parts,
) -> Result<Option<Response>, ApiError> {
    let registry = &asked.registry;
    let Found {
        row,
        payload: at_hand,
    } = found;
    if at_hand.is_none() && !pulled(asked, repository, reference, &row.digest, &parts.method).await? {
        return Ok(None);
    }
    let is_head = parts.method == Method::HEAD;
    if is_head {
        let now = Time::now();
        // Whoever is told that a manifest exists, by 304 too, may go on to push an index of it.
        if !registry.only_reads()
            && row.leased_until < now.plus(registry.delays.lease_least())
            && !registry
                .metadata
                .lease_manifest(repository, &row.digest, now.plus(registry.delays.lease))
                .await?
        {
            return Ok(None);
        }
    }
    if conditions::has_it(&parts.headers, &row.digest) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        describe(response.headers_mut(), &row, reference);
        response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(Some(response));
    }
    let bytes = if is_head {
        Bytes::new()
    } else {
        let bytes = match at_hand {
            Some(bytes) => Some(bytes),
            None => payload(asked, repository, &row).await?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        bytes
    };
    let mut response = Response::new(Body::from(bytes));
    describe(response.headers_mut(), &row, reference);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(row.size));
    Ok(Some(response))
}

/// Counts a pull: a GET or HEAD by tag, since some clients resolve tags by HEAD alone, or a GET by digest. A HEAD by
/// someone who may push begins the life of the tag anew before it is answered: a client that is told that the tag
/// is there already does not push it again. False if the tag has just gone or moved.
async fn pulled(
    asked: &Asked,
    repository: &Named,
    reference: &Reference,
    digest: &Digest,
    method: &Method,
) -> Result<bool, ApiError> {
    let registry = &asked.registry;
    let tag = match reference {
        Reference::Tag(tag) => Some(tag.clone()),
        Reference::Digest(_) if method == Method::HEAD => return Ok(true),
        Reference::Digest(_) => None,
    };
    let pull = Pull {
        repository: repository.repository.clone(),
        tag,
        digest: *digest,
    };
    // The primary counts it. A new life begins there alone: whoever pushes asks there.
    if let Some(reading) = &registry.reading {
        if reading.primary.is_some() {
            registry.pulls.note(pull);
        }
        return Ok(true);
    }
    // Once an hour is enough only for what lives for hours.
    let lives_briefly = || {
        let lifetime = asked.tenant.repositories.ephemeral(&repository.name);
        lifetime.is_some_and(|lifetime| lifetime < BRIEFLY)
    };
    if method == Method::HEAD
        && let Some(tag) = &pull.tag
        && (!registry.pulls.is_renewed(&pull) || lives_briefly())
        && asked.actions_on(&repository.name).contains(Action::Push)
    {
        let renewed = registry
            .lifecycle
            .renew_tag(repository, tag, digest, Time::now())
            .await;
        let renewed = match renewed {
            // Nodes pull by credentials that may push, too. Where tags end, whoever skips a push relies on the new life.
            Err(error)
                if error.is_of_writes_alone()
                    && asked.tenant.repositories.ephemeral(&repository.name).is_none() =>
            {
                registry.pulls.note(pull);
                return Ok(true);
            }
            renewed => renewed?,
        };
        if renewed {
            registry.pulls.renewed(pull);
        }
        return Ok(renewed);
    }
    registry.pulls.note(pull);
    Ok(true)
}

/// The bytes, from memory or the store; `None` if the manifest was deleted just now.
async fn payload(asked: &Asked, repository: &Named, row: &ManifestRow) -> Result<Option<Bytes>, ApiError> {
    let registry = &asked.registry;
    // The key holds the tenant: what another tenant has read must not show in how fast an answer is.
    let key = (asked.tenant.id, row.digest);
    if let Some(payload) = registry.payloads.get(&key) {
        return Ok(Some(payload));
    }
    let payload = registry
        .metadata
        .manifest_payload(repository, &row.digest)
        .await?;
    if let Some(payload) = &payload {
        registry.payloads.insert(key, payload.clone());
    }
    Ok(payload)
}

fn describe(headers: &mut HeaderMap, row: &ManifestRow, reference: &Reference) {
    let digest = row.digest.to_string();
    headers.insert(ETAG, answer::value(format!("\"{digest}\"")));
    headers.insert(CONTENT_DIGEST, answer::value(digest));
    headers.insert(CONTENT_TYPE, answer::value(row.media_type.as_str()));
    let caching = match reference {
        Reference::Digest(_) => "private, max-age=31536000, immutable",
        Reference::Tag(_) => "no-cache",
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
}

/// Deletes a tag, or a manifest with the tags that point to it.
pub(super) async fn delete(asked: &Asked, repository: &Named, reference: &str) -> Result<Response, ApiError> {
    let unknown = || {
        ApiError::of(
            Code::ManifestUnknown,
            format!("there is no {reference} in {}", repository.shown),
        )
    };
    let parsed = parse(reference)?.ok_or_else(unknown)?;
    match asked.changes().delete(repository, &parsed).await? {
        Deleted::Done => {}
        Deleted::Absent => return Err(unknown()),
        Deleted::Immutable(tag) => return Err(asked.immutable(repository, &tag)),
    }
    asked.audit(
        "delete",
        &format!("{}:{reference}", repository.name),
        Outcome::Done,
        "",
    );
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// A tag or digest in a path; `None` for what no manifest can have: names that are no tags, and digests of
/// algorithms that are not computed here.
pub(super) fn parse(reference: &str) -> Result<Option<Reference>, ApiError> {
    if !reference.contains(':') {
        return Ok(reference.parse().ok().map(Reference::Tag));
    }
    match reference.parse::<Digest>() {
        Ok(digest) => Ok(Some(Reference::Digest(digest))),
        Err(DigestError::Unsupported(_)) => Ok(None),
        Err(error @ DigestError::Malformed) => Err(error.into()),
    }
}
