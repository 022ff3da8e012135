//! `POST /v2/<name>/blobs/uploads/` (end-4a, end-4b, end-11): start a session, push a blob whole, or mount one.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::Body as _;
use uuid::Uuid;

use super::super::error::{ApiError, Code};
use super::super::query::Query;
use super::super::{Asked, answer, state};
use super::hashes::Hashes;
use super::{Sent, accepted, close};
use crate::domain::{Algorithm, Digest, RepositoryName};
use crate::metadata::{MountBlob, NewUpload, Repository, Time, UploadRow};

/// Starts a session unless the request can be answered at once.
pub async fn start(
    asked: &Asked,
    repository: &Repository,
    parts: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    debug_assert_eq!(parts.method, Method::POST);
    let query = Query::of(&parts.uri)?;
    if let Some(digest) = query.first("mount")
        && let Some(response) = mount(asked, repository, digest, query.first("from")).await?
    {
        return Ok(response);
    }
    let digest: Option<Digest> = match query.first("mount") {
        // A refused mount is a session, whatever else the query says.
        Some(_) => None,
        None => query.first("digest").map(str::parse).transpose()?,
    };
    let hint: Option<Algorithm> = query.first("digest-algorithm").map(str::parse).transpose()?;
    let Some(digest) = digest else {
        let row = create(asked, repository, Hashes::new(hint)).await?;
        return Ok(accepted(repository, row.id, 0));
    };
    let sent = Sent::of(parts)?;
    let nothing = Digest::of(digest.algorithm(), b"");
    let without_body = sent.length == Some(0) || body.is_end_stream();
    let row = create(asked, repository, Hashes::new(Some(digest.algorithm()))).await?;
    if without_body && digest != nothing {
        // A client that names the digest up front and sends the bytes later.
        return Ok(accepted(repository, row.id, 0));
    }
    // The session's id is known to nobody else, so that its first lease needs no taking.
    let closing = close::Closing { digest, sent, body };
    close::finish(asked, repository, row, closing).await
}

/// Links the blob, if the tenant has it where the client says; `None` for every other case alike.
async fn mount(
    asked: &Asked,
    repository: &Repository,
    digest: &str,
    from: Option<&str>,
) -> Result<Option<Response>, ApiError> {
    let Ok(digest) = digest.parse::<Digest>() else {
        return Ok(None);
    };
    let from: Option<RepositoryName> = match from.map(str::parse).transpose() {
        Ok(from) => from,
        Err(_) => return Ok(None),
    };
    let now = Time::now();
    let mount = MountBlob {
        digest,
        from,
        now,
        leased_until: now.plus(state::LEASE),
        repository_id: state::row_id(),
    };
    let mounted = asked.registry.metadata.mount_blob(repository, mount).await?;
    Ok(mounted.then(|| answer::created(format!("/v2/{}/blobs/{digest}", repository.name), &digest)))
}

async fn create(asked: &Asked, repository: &Repository, hashes: Hashes) -> Result<UploadRow, ApiError> {
    let registry = &asked.registry;
    let limit = registry.max_open_uploads;
    if registry.open_uploads.fetch_add(1, Ordering::Relaxed) >= limit {
        registry.open_uploads.fetch_sub(1, Ordering::Relaxed);
        let message = format!("{limit} uploads are open; finish or cancel some of them");
        return Err(
            ApiError::of(Code::TooManyRequests, message).header(RETRY_AFTER, HeaderValue::from_static("60"))
        );
    }
    let now = Time::now();
    let new = NewUpload {
        repository: repository.clone(),
        id: Uuid::new_v4(),
        principal: asked.principal.clone(),
        hash_states: hashes.to_stored(),
        state: registry.blobs.begin(),
        now,
    };
    let row = UploadRow {
        id: new.id,
        epoch: 0,
        writer_until: Time(0),
        offset: 0,
        hash_states: new.hash_states.clone(),
        state: new.state.clone(),
        digest: None,
        committed: false,
    };
    registry.metadata.create_upload(new).await?;
    Ok(row)
}
