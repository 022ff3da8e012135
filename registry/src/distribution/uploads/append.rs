//! `PATCH /v2/<name>/blobs/uploads/<id>` (end-5): append a chunk, or a stream of unknown length.

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http_body::Body as _;

use super::super::error::{ApiError, Code};
use super::super::{Asked, Named};
use super::hashes::Hashes;
use super::lease::{self, Session};
use super::start::room;
use super::writing::{Cut, Writing};
use super::{Sent, accepted, out_of_order, parse_id, unknown};
use crate::metadata::{Checkpoint, Time, UploadRow};

/// Appends the body. A chunk that does not begin where the session stands changes nothing.
pub async fn append(
    asked: &Asked,
    repository: &Named,
    id: &str,
    parts: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let sent = Sent::of(parts)?;
    let (row, waited) = match lease::take(asked, repository, id, None).await? {
        Session::Mine { row, waited } => (row, waited),
        Session::Committed(_) | Session::Bound(_) => return Err(unknown(id)),
    };
    let in_order = sent.range.as_ref().is_none_or(|range| range.start == row.offset);
    // Another writer stored bytes while this request waited: its own bytes are from before.
    if !in_order || waited {
        release(asked, &row).await?;
        return Err(out_of_order(repository, id, row.offset));
    }
    if body.is_end_stream() {
        release(asked, &row).await?;
        return Ok(accepted(repository, id, row.offset));
    }
    let hashes = hashes(&row)?;
    let room = match room(asked, repository, row.offset, sent.length).await {
        Ok(room) => room,
        Err(refused) => {
            release(asked, &row).await?;
            return Err(refused);
        }
    };
    let mut writing = Writing::open(&asked.registry, asked.tenant.id, &row, hashes, None).await?;
    writing.room = room;
    let end = sent.range.map(|range| range.end);
    receive(asked, repository, &row, &mut writing, body, end).await?;
    writing.flush().await?;
    Ok(accepted(repository, id, writing.offset))
}

/// Appends a body that must end at `end`, if that is known. However it fails, the lease is over: the client may
/// send the next request at once.
pub(super) async fn receive(
    asked: &Asked,
    repository: &Named,
    row: &UploadRow,
    writing: &mut Writing,
    body: Body,
    end: Option<u64>,
) -> Result<(), ApiError> {
    match writing.append(body, end).await {
        Ok(()) if end.is_some_and(|end| writing.offset != end) => {
            restore(asked, row, writing.offset).await?;
            let message = "the body is shorter than it was declared to be";
            Err(ApiError::of(Code::SizeInvalid, message))
        }
        Ok(()) => Ok(()),
        Err(Cut::Contradicts(refused)) => {
            restore(asked, row, writing.offset).await?;
            Err(refused)
        }
        Err(Cut::NoRoom(refused)) => {
            // Whoever has taken the session over meanwhile goes on.
            writing.confirm().await?;
            super::status::drop_session(asked, repository, row.id).await?;
            Err(refused)
        }
        Err(Cut::Ended(error)) => {
            release(asked, row).await?;
            Err(error)
        }
    }
}

/// The running hashes of a session.
pub(super) fn hashes(row: &UploadRow) -> Result<Hashes, ApiError> {
    // A newer release wrote it: this replica cannot go on, the client can start again.
    Hashes::from_stored(&row.hash_states)
        .map_err(|error| ApiError::of(Code::BlobUploadUnknown, error.to_string()))
}

/// Ends a lease without having written.
pub(super) async fn release(asked: &Asked, row: &UploadRow) -> Result<(), ApiError> {
    let ended = Time::now();
    asked
        .registry
        .metadata
        .renew_upload(asked.tenant.id, row.id, row.epoch, ended)
        .await?;
    Ok(())
}

/// Puts a session back from this offset to where it stood when the lease was taken, and ends the lease.
async fn restore(asked: &Asked, row: &UploadRow, from: u64) -> Result<(), ApiError> {
    let now = Time::now();
    let before = Checkpoint {
        epoch: row.epoch,
        offset: row.offset,
        hash_states: row.hash_states.clone(),
        state: row.state.clone(),
        now,
        until: now,
    };
    asked
        .registry
        .metadata
        .checkpoint_upload(asked.tenant.id, row.id, before)
        .await?;
    let taken_back = from.saturating_sub(row.offset);
    asked.registry.opened.of(asked.tenant.id).freed(taken_back);
    Ok(())
}
