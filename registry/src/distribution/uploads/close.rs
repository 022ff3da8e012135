//! `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>` (end-6): the last bytes, the digest, the blob.

use axum::body::Body;
use axum::response::Response;
use futures_util::TryStreamExt as _;
use http::request::Parts;
use http_body::Body as _;
use uuid::Uuid;

use super::super::error::{ApiError, Code};
use super::super::query::Query;
use super::super::{Asked, Named, answer};
use super::append::{hashes, receive, release};
use super::hashes::Hashes;
use super::lease::{self, Renewal, Session};
use super::start::room;
use super::writing::Writing;
use super::{Sent, ending, out_of_order, parse_id, unknown};
use crate::blobs::ObjectKey;
use crate::domain::Digest;
use crate::domain::hasher::Hasher;
use crate::metadata::{CommitUpload, Linked, Time, UploadRow, row_id};

/// The end of an upload as the client describes it.
pub(super) struct Closing {
    pub digest: Digest,
    pub sent: Sent,
    pub body: Body,
}

/// Closes a session. Repeating a PUT that succeeded is a success.
pub async fn close(
    asked: &Asked,
    repository: &Named,
    id: &str,
    parts: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let query = Query::of(&parts.uri)?;
    let missing = || {
        ApiError::of(
            Code::DigestInvalid,
            "name the blob's digest: ?digest=<algorithm>:<hex>",
        )
    };
    let digest: Digest = query.first("digest").ok_or_else(missing)?.parse()?;
    let closing = Closing {
        digest,
        sent: Sent::of(parts)?,
        body,
    };
    let (row, waited) = match lease::take(asked, repository, id, Some(digest)).await? {
        Session::Mine { row, waited } => (row, waited),
        Session::Committed(row) if row.digest == Some(digest) => return Ok(created(repository, &digest)),
        Session::Committed(_) => return Err(unknown(id)),
        Session::Bound(bound) => {
            let message =
                format!("this upload is being closed as {bound}; start a new one for other content");
            return Err(ApiError::of(Code::DigestInvalid, message));
        }
    };
    let in_order = closing
        .sent
        .range
        .as_ref()
        .is_none_or(|range| range.start == row.offset);
    if !in_order || (waited && !closing.body.is_end_stream()) {
        release(asked, &row).await?;
        return Err(out_of_order(repository, id, row.offset));
    }
    finish(asked, repository, row, closing).await
}

/// Takes the last bytes, verifies, publishes, commits. The caller holds the lease of `row`.
pub(super) async fn finish(
    asked: &Asked,
    repository: &Named,
    row: UploadRow,
    closing: Closing,
) -> Result<Response, ApiError> {
    let digest = closing.digest;
    let (size, _renewal) = if closing.body.is_end_stream() && row.offset > 0 {
        publish_stored(asked, repository, &row, digest).await?
    } else {
        publish_rest(asked, repository, &row, closing).await?
    };
    let registry = &asked.registry;
    let now = Time::now();
    let limits = asked.limits(&repository.name);
    let commit = CommitUpload {
        id: row.id,
        epoch: row.epoch,
        digest,
        size,
        now,
        leased_until: now.plus(registry.delays.lease),
        repository_id: row_id(),
        limits,
        spare_due: now.plus(registry.delays.object),
    };
    match asked.registry.metadata.commit_upload(repository, commit).await? {
        Linked::Done(standing) => {
            asked.registry.opened.of(asked.tenant.id).ended(size);
            let mut response = created(repository, &digest);
            asked.warn(&mut response, &repository.name, standing, &limits);
            Ok(response)
        }
        Linked::Gone => {
            let registry = &asked.registry;
            ending::free_unowned::<ApiError>(&*registry.metadata, &*registry.blobs, row.id).await?;
            Err(unknown(row.id))
        }
        Linked::OverQuota(over) => {
            // What exceeds a quota is not kept for another try.
            drop_published(asked, repository, row.id).await?;
            Err(asked.over_quota(repository, &over))
        }
    }
}

/// Forgets a session that was published and is not to be kept, and frees its object, unless the session is another
/// writer's by now.
async fn drop_published(asked: &Asked, repository: &Named, id: Uuid) -> Result<(), ApiError> {
    let registry = &asked.registry;
    let key = asked.session(repository, id);
    if let Some(dropped) =
        ending::drop_published::<ApiError>(&*registry.metadata, &*registry.blobs, &key).await?
    {
        registry.opened.of(asked.tenant.id).ended(dropped.offset);
    }
    Ok(())
}

fn created(repository: &Named, digest: &Digest) -> Response {
    answer::created(format!("/v2/{}/blobs/{digest}", repository.shown), digest)
}

/// Publishes a session whose bytes are all stored.
async fn publish_stored(
    asked: &Asked,
    repository: &Named,
    row: &UploadRow,
    digest: Digest,
) -> Result<(u64, Renewal), ApiError> {
    let renewal = Renewal::start(&asked.registry, asked.tenant.id, row.id, row.epoch);
    let computed = hashes(row)?.digest(digest.algorithm());
    if computed.is_some_and(|computed| computed != digest) {
        return Err(mismatch(asked, repository, row, computed).await);
    }
    renewal.confirm().await?;
    let size = asked.registry.blobs.complete(row.id, &row.state).await?;
    if computed.is_none() {
        verify_again(asked, repository, row, digest, size).await?;
    }
    Ok((size, renewal))
}

/// Appends the body and publishes the session.
async fn publish_rest(
    asked: &Asked,
    repository: &Named,
    row: &UploadRow,
    closing: Closing,
) -> Result<(u64, Renewal), ApiError> {
    let Closing { digest, sent, body } = closing;
    // At the first byte it is not too late for the algorithm that the client turns out to use.
    let running = if row.offset == 0 {
        Hashes::new(Some(digest.algorithm()))
    } else {
        hashes(row)?
    };
    let end = sent
        .range
        .map(|range| range.end)
        .or(sent.length.map(|length| row.offset + length));
    let room = match room(asked, repository, row.offset, sent.length).await {
        Ok(room) => room,
        Err(refused) => {
            release(asked, row).await?;
            return Err(refused);
        }
    };
    let mut writing = Writing::open(&asked.registry, asked.tenant.id, row, running, end).await?;
    writing.room = room;
    receive(asked, repository, row, &mut writing, body, end).await?;
    match writing.hashes.digest(digest.algorithm()) {
        Some(computed) if computed == digest => writing.finish().await,
        Some(computed) => Err(mismatch(asked, repository, row, Some(computed)).await),
        None => {
            // Stored first: what is published before it is verified must be what the row says, whoever
            // publishes it.
            let state = writing.settle().await?;
            drop(writing);
            let settled = UploadRow { state, ..row.clone() };
            let renewal = Renewal::start(&asked.registry, asked.tenant.id, row.id, row.epoch);
            let size = asked.registry.blobs.complete(row.id, &settled.state).await?;
            verify_again(asked, repository, &settled, digest, size).await?;
            Ok((size, renewal))
        }
    }
}

/// Reads a published object back for an algorithm that nobody announced; constant memory.
async fn verify_again(
    asked: &Asked,
    repository: &Named,
    row: &UploadRow,
    digest: Digest,
    size: u64,
) -> Result<(), ApiError> {
    let key = ObjectKey::of_upload(row.id);
    let mut hasher = Hasher::new(digest.algorithm());
    if size > 0 {
        let mut bytes = asked.registry.blobs.read(&key, 0..size).await?;
        while let Some(piece) = bytes.try_next().await? {
            hasher.update(&piece);
            tokio::task::yield_now().await;
        }
    }
    if hasher.digest() == digest {
        return Ok(());
    }
    drop_published(asked, repository, row.id).await?;
    Err(other_digest(Some(hasher.digest())))
}

/// Drops the session and its bytes: what does not match is never kept.
async fn mismatch(asked: &Asked, repository: &Named, row: &UploadRow, computed: Option<Digest>) -> ApiError {
    if let Err(error) = super::status::drop_session(asked, repository, row.id).await {
        return error;
    }
    other_digest(computed)
}

fn other_digest(computed: Option<Digest>) -> ApiError {
    let computed = computed.map(|digest| digest.to_string()).unwrap_or_default();
    ApiError::of(
        Code::DigestInvalid,
        format!("the digest of the bytes received is {computed}"),
    )
}
