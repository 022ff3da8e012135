//! `GET` and `DELETE /v2/<name>/blobs/uploads/<id>` (end-13, end-14): where a session stands; cancel it.

use axum::response::Response;
use http::StatusCode;

use super::super::error::ApiError;
use super::super::{Asked, Named, answer};
use super::{describe, parse_id, unknown};

/// How many bytes the session holds durably.
pub async fn get(asked: &Asked, repository: &Named, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let row = asked
        .registry
        .metadata
        .upload(&asked.session(repository, id))
        .await?;
    let row = row.filter(|row| !row.committed).ok_or_else(|| unknown(id))?;
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    describe(response.headers_mut(), repository, id, row.offset, true);
    Ok(response)
}

/// Cancels the session and frees its bytes.
pub async fn cancel(asked: &Asked, repository: &Named, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    if drop_session(asked, repository, id).await? {
        Ok(answer::empty(StatusCode::NO_CONTENT))
    } else {
        Err(unknown(id))
    }
}

/// Forgets a session, then frees its bytes; false if there is none. Cut in between, the bytes are
/// found by the sweep.
pub(super) async fn drop_session(
    asked: &Asked,
    repository: &Named,
    id: uuid::Uuid,
) -> Result<bool, ApiError> {
    let registry = &asked.registry;
    let Some(row) = registry
        .metadata
        .cancel_upload(&asked.session(repository, id))
        .await?
    else {
        return Ok(false);
    };
    registry.opened.of(asked.tenant.id).ended(row.offset);
    registry.blobs.discard(id, &row.state).await?;
    Ok(true)
}
