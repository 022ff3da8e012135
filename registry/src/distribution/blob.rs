//! `GET`, `HEAD` and `DELETE /v2/<name>/blobs/<digest>` (end-2, end-10).

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;

use super::answer::CONTENT_DIGEST;
use super::error::{ApiError, Code};
use super::nearest::{Nearest, REGION};
use super::{Asked, Named, answer, blob_body, conditions, redirect};
use crate::audit::Outcome;
use crate::domain::digest::{Digest, DigestError};
use crate::domain::range::{self, Requested};
use crate::metadata::{BlobRow, Time, Unlinked};

/// Sends a blob, a part of it, or the way to it. HEAD never touches the blob store.
pub(super) async fn get(
    asked: &Asked,
    repository: &Named,
    reference: &str,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let digest = parse(reference)?;
    let unknown = || {
        ApiError::of(
            Code::BlobUnknown,
            format!("{digest} is not in {}", repository.shown),
        )
    };
    let blob = asked
        .registry
        .metadata
        .blob(repository, &digest)
        .await?
        .ok_or_else(unknown)?;
    let sent = send_found(asked, repository, &digest, &blob, parts).await?;
    sent.ok_or_else(unknown)
}

/// Sends a blob that was found in the repository; `None` if it has gone since.
pub(super) async fn send_found(
    asked: &Asked,
    repository: &Named,
    digest: &Digest,
    blob: &BlobRow,
    parts: &Parts,
) -> Result<Option<Response>, ApiError> {
    let registry = &asked.registry;
    let is_head = parts.method == Method::HEAD;
    if is_head {
        let now = Time::now();
        // Whoever is told that a blob exists, by 304 too, may go on to push a manifest of it.
        if !registry.only_reads()
            && blob.leased_until < now.plus(registry.delays.lease_least())
            && !registry
                .metadata
                .lease_blob(repository, digest, now.plus(registry.delays.lease))
                .await?
        {
            return Ok(None);
        }
    }
    if conditions::has_it(&parts.headers, digest) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        describe(response.headers_mut(), digest);
        response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(Some(response));
    }
    if is_head {
        let mut response = Response::new(Body::empty());
        whole(response.headers_mut(), digest, blob.size);
        return Ok(Some(response));
    }
    let requested = requested(&parts.headers, blob.size, digest);
    if let Requested::Unsatisfiable = requested {
        return Err(unsatisfiable(blob.size));
    }
    let from = Nearest::of(asked, &parts.headers, blob).await?;
    // Object stores disagree on what to say to several ranges and to ranges that make no sense.
    if matches!(requested, Requested::Whole | Requested::One(_))
        && redirect::wanted(asked.redirect(), &parts.headers)
    {
        let is_followed = |url: &str| redirect::is_followed(asked.redirect(), &parts.headers, url);
        if let Some((url, region)) = from.link(is_followed).await? {
            let mut response = found_elsewhere(&url, digest)?;
            tell(&mut response, region);
            return Ok(Some(response));
        }
    }
    send(from, blob.size, digest, requested).await.map(Some)
}

/// Says which region's bucket it was.
fn tell(response: &mut Response, region: Option<HeaderValue>) {
    response.headers_mut().extend(region.map(|name| (REGION, name)));
}

/// Which bytes of a blob of `size` a request wants.
pub(super) fn requested(headers: &HeaderMap, size: u64, digest: &Digest) -> Requested {
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok());
    match asked.filter(|_| conditions::range_counts(headers, digest)) {
        Some(text) => range::requested(text, size),
        None => Requested::Whole,
    }
}

async fn send(from: Nearest, size: u64, digest: &Digest, requested: Requested) -> Result<Response, ApiError> {
    match requested {
        Requested::Whole => {
            let (body, region) = blob_body::whole(&from, 0..size).await?;
            let mut response = Response::new(body);
            whole(response.headers_mut(), digest, size);
            tell(&mut response, region);
            Ok(response)
        }
        Requested::One(range) => {
            let length = range.end - range.start;
            let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let (body, region) = blob_body::whole(&from, range).await?;
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            whole(response.headers_mut(), digest, length);
            tell(&mut response, region);
            response
                .headers_mut()
                .insert(CONTENT_RANGE, answer::value(content_range));
            Ok(response)
        }
        Requested::Many(ranges) => {
            let (body, length, content_type) = blob_body::multipart(from, ranges, size);
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            whole(response.headers_mut(), digest, length);
            response
                .headers_mut()
                .insert(CONTENT_TYPE, answer::value(content_type));
            Ok(response)
        }
        Requested::Unsatisfiable => Err(unsatisfiable(size)),
    }
}

fn unsatisfiable(size: u64) -> ApiError {
    let message = format!("the blob has {size} bytes; ask for some of them");
    ApiError::of(Code::RangeInvalid, message).header(CONTENT_RANGE, answer::value(format!("bytes */{size}")))
}

/// Headers of a full or partial answer of `length` bytes.
pub(super) fn whole(headers: &mut HeaderMap, digest: &Digest, length: u64) {
    describe(headers, digest);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A browser must never show a blob as a page of this host.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
}

fn describe(headers: &mut HeaderMap, digest: &Digest) {
    let digest = digest.to_string();
    headers.insert(ETAG, answer::value(format!("\"{digest}\"")));
    headers.insert(CONTENT_DIGEST, answer::value(digest));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
}

fn found_elsewhere(url: &str, digest: &Digest) -> Result<Response, ApiError> {
    let mut response = answer::empty(StatusCode::TEMPORARY_REDIRECT);
    let headers = response.headers_mut();
    let location =
        HeaderValue::try_from(url).map_err(|error| ApiError::of(Code::Unknown, error.to_string()))?;
    headers.insert(LOCATION, location);
    headers.insert(CONTENT_DIGEST, answer::value(digest.to_string()));
    // The URL is a secret for as long as it lives.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(response)
}

/// Unlinks a blob from this repository, unless a manifest here refers to it.
pub(super) async fn delete(asked: &Asked, repository: &Named, reference: &str) -> Result<Response, ApiError> {
    let digest = parse(reference)?;
    let registry = &asked.registry;
    let review_at = Time::now().plus(registry.delays.review);
    match registry
        .metadata
        .unlink_blob(repository, &digest, review_at)
        .await?
    {
        Unlinked::Done => {
            asked.audit(
                "delete",
                &format!("{}@{digest}", repository.name),
                Outcome::Done,
                "blob",
            );
            Ok(answer::empty(StatusCode::ACCEPTED))
        }
        Unlinked::Absent => Err(ApiError::of(
            Code::BlobUnknown,
            format!("{digest} is not in {}", repository.shown),
        )),
        Unlinked::InUse(manifest) => {
            let message = format!("manifest {manifest} refers to this blob; delete the manifest first");
            Err(ApiError::of(Code::Unsupported, message).detail(json!({ "manifest": manifest.to_string() })))
        }
    }
}

/// A blob's digest in a path. Content of an algorithm that is not computed here cannot be here.
pub(super) fn parse(reference: &str) -> Result<Digest, ApiError> {
    reference.parse().map_err(|error: DigestError| match error {
        DigestError::Unsupported(_) => ApiError::of(Code::BlobUnknown, error.to_string()),
        DigestError::Malformed => error.into(),
    })
}
