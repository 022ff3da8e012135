//! `POST /v2/<name>/blobs/uploads/` (end-4a, end-4b, end-11): start a session, push a blob whole, or mount one.

use axum::body::Body;
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::Body as _;
use uuid::Uuid;

use super::super::error::{ApiError, Code};
use super::super::query::Query;
use super::super::state::Registry;
use super::super::{Asked, Named, answer};
use super::hashes::Hashes;
use super::{Sent, accepted, close};
use crate::domain::grant::Action;
use crate::domain::{Algorithm, Digest, RepositoryName};
use crate::metadata::{
    Linked, MetadataError, MountBlob, NewUpload, OverQuota, Quota, Repository, Time, UploadRow, row_id,
};

/// Most repositories looked at for one to mount from.
const SOURCES: u32 = 100;

/// Starts a session unless the request can be answered at once.
pub async fn start(
    asked: &Asked,
    repository: &Named,
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
        room(asked, repository, 0, None).await?;
        let row = create(asked, repository, Hashes::new(hint)).await?;
        return Ok(accepted(repository, row.id, 0));
    };
    let sent = Sent::of(parts)?;
    let nothing = Digest::of(digest.algorithm(), b"");
    let without_body = sent.length == Some(0) || body.is_end_stream();
    room(asked, repository, 0, sent.length).await?;
    let row = create(asked, repository, Hashes::new(Some(digest.algorithm()))).await?;
    if without_body && digest != nothing {
        // A client that names the digest up front and sends the bytes later.
        return Ok(accepted(repository, row.id, 0));
    }
    // The session's id is known to nobody else, so that its first lease needs no taking, and nobody goes on with it.
    let (id, closing) = (row.id, close::Closing { digest, sent, body });
    let finished = close::finish(asked, repository, row, closing).await;
    if finished.is_err()
        && let Err(error) = super::status::drop_session(asked, repository, id).await
    {
        tracing::debug!(?error, upload = %id, "what was sent in vain stays until its session expires");
    }
    finished
}

/// Links the blob, if the tenant has it where the client says; `None` for every other case alike.
async fn mount(
    asked: &Asked,
    repository: &Named,
    digest: &str,
    from: Option<&str>,
) -> Result<Option<Response>, ApiError> {
    let Ok(digest) = digest.parse::<Digest>() else {
        return Ok(None);
    };
    let Some(from) = source(asked, repository, &digest, from).await? else {
        return Ok(None);
    };
    let registry = &asked.registry;
    let now = Time::now();
    let limits = asked.limits(&repository.name);
    let mount = MountBlob {
        digest,
        from,
        now,
        leased_until: now.plus(registry.delays.lease),
        repository_id: row_id(),
        limits,
    };
    let mounted = asked.registry.metadata.mount_blob(repository, mount).await?;
    match mounted {
        Linked::Done(standing) => {
            let mut response = answer::created(format!("/v2/{}/blobs/{digest}", repository.shown), &digest);
            asked.warn(&mut response, &repository.name, standing, &limits);
            Ok(Some(response))
        }
        Linked::Gone => Ok(None),
        Linked::OverQuota(over) => Err(asked.over_quota(repository, &over)),
    }
}

/// Where a blob may be mounted from: the repository that the client names, or, if it names none, any that it
/// may pull from. `None` if there is no such repository; the inner one stands for all of the tenant's.
async fn source(
    asked: &Asked,
    repository: &Named,
    digest: &Digest,
    from: Option<&str>,
) -> Result<Option<Option<RepositoryName>>, ApiError> {
    if let Some(from) = from {
        return Ok(asked.source(repository, from)?.map(Some));
    }
    // What the login behind an access token may pull counts: a client that names no repository cannot have
    // asked for it in the token's scope.
    let rights = &asked.principal.rights;
    if rights.reaches_all(Action::Pull) {
        return Ok(Some(None));
    }
    let metadata = &asked.registry.metadata;
    let holders = metadata
        .repositories_with(asked.tenant.id, digest, SOURCES)
        .await?;
    let mut names = holders
        .iter()
        .filter_map(|name| name.parse::<RepositoryName>().ok());
    let pullable = |name: &RepositoryName| {
        rights.beyond(name).contains(Action::Pull) || asked.actions_on(name).contains(Action::Pull)
    };
    Ok(names.find(pullable).map(Some))
}

/// By how many bytes a tenant's open uploads may exceed its quota together: which of them fit shows when they are closed, and
/// some may turn out to be there already.
const BEYOND: u64 = 1 << 30;

/// Where an upload ends as far as the quotas go; nothing where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Most bytes of the upload.
    own: Option<u64>,
    /// Most bytes of all open uploads of the tenant.
    all: Option<u64>,
}

impl Room {
    /// Whether so many more bytes fit.
    pub fn fits(&self, own: u64, all: u64, more: u64) -> bool {
        let fits = |room: Option<u64>, taken: u64| room.is_none_or(|room| taken.saturating_add(more) <= room);
        fits(self.own, own) && fits(self.all, all)
    }
}

/// The room for an upload that has `own` bytes and is to get so many more, if that is known. Refuses what is declared to
/// have more. What is sent is counted exactly when it is committed; this keeps it from being sent in vain, and keeps
/// uploads that nobody closes from taking many times the quota.
pub(super) async fn room(
    asked: &Asked,
    repository: &Named,
    own: u64,
    more: Option<u64>,
) -> Result<Room, ApiError> {
    let limits = asked.limits(&repository.name);
    if limits.storage.is_none() && limits.repository_storage.is_none() {
        return Ok(Room::default());
    }
    let standing = asked.registry.metadata.standing(repository).await?;
    let open = asked.registry.opened.of(asked.tenant.id).bytes();
    let more = more.unwrap_or_default().max(1);
    let mut room = Room::default();
    for (quota, usage) in [
        (Quota::Storage, standing.tenant.bytes),
        (Quota::RepositoryStorage, standing.repository.bytes),
    ] {
        let Some(limit) = limits.of(quota) else { continue };
        let left = limit.saturating_sub(usage);
        room.own = Some(room.own.unwrap_or(u64::MAX).min(left));
        if quota == Quota::Storage {
            room.all = Some(left.saturating_add(BEYOND));
        }
        if !room.fits(own, open, more) {
            return Err(asked.over_quota(repository, &OverQuota { quota, usage, limit }));
        }
    }
    Ok(room)
}

async fn create(asked: &Asked, repository: &Named, hashes: Hashes) -> Result<UploadRow, ApiError> {
    let registry = &asked.registry;
    let limit = registry.max_open_uploads;
    if !registry.opened.of(asked.tenant.id).begins(limit) {
        let message = format!("{limit} uploads are open; finish or cancel some of them");
        return Err(
            ApiError::of(Code::TooManyRequests, message).header(RETRY_AFTER, HeaderValue::from_static("60"))
        );
    }
    let by = asked.principal.label.clone();
    Ok(new_session(registry, repository, by, &hashes).await?)
}

/// Makes a session for somebody in a repository.
pub async fn new_session(
    registry: &Registry,
    repository: &Repository,
    principal: String,
    hashes: &Hashes,
) -> Result<UploadRow, MetadataError> {
    let now = Time::now();
    let new = NewUpload {
        repository: repository.clone(),
        id: Uuid::new_v4(),
        principal,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_that_each_fit_do_not_take_many_times_the_quota_together() {
        let (gib, mut open) = (1_u64 << 30, 0);
        let room = Room {
            own: Some(10 * gib),
            all: Some(10 * gib + BEYOND),
        };
        for _ in 0..100 {
            for piece in 0..9 {
                open += if room.fits(piece * gib, open, gib) { gib } else { 0 };
            }
        }
        assert_eq!(open, 11 * gib);
        assert!(!room.fits(10 * gib, 0, 1) && room.fits(10 * gib - 1, 0, 1));
        assert!(Room::default().fits(u64::MAX, u64::MAX, 1));
    }
}
