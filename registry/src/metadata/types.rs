//! What goes into the metadata store and comes out of it: plain data.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use serde::Serialize;
use uuid::Uuid;

use super::configuration::Usage;
use super::events::Announce;
use crate::blobs::{ObjectKey, UploadState};
use crate::domain::manifest::Manifest;
use crate::domain::{Digest, TagName};

/// A tenant's row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub i64);

/// A random row id.
pub fn row_id() -> i64 {
    rand::rng().random_range(1..i64::MAX)
}

/// Microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    /// The wall clock's time.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This much later.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// This much earlier.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

/// Which manifests a tenant accepts although their children are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub enum Sparse {
    /// None.
    #[default]
    Never,
    /// Indexes.
    Indexes,
    /// Indexes and images.
    Always,
}

/// How a manifest is named in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By tag.
    Tag(TagName),
    /// By digest.
    Digest(Digest),
}

/// A manifest without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// Digest in the algorithm that it was pushed by.
    pub digest: Digest,
    /// As pushed, without parameters.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
    /// Until when it is not collected.
    pub leased_until: Time,
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Where its bytes are.
    pub key: ObjectKey,
    /// In bytes.
    pub size: u64,
    /// Until when it is not collected.
    pub leased_until: Time,
}

/// Which referrers to list.
#[derive(Debug, Clone)]
pub struct ReferrersQuery {
    /// The subject's digest as text.
    pub subject: String,
    /// Artifact types to list; empty lists all.
    pub artifact_types: Vec<String>,
    /// The last digest of the page before.
    pub after: Option<Digest>,
    /// Most descriptors of a page.
    pub limit: u32,
    /// Most bytes of a page's descriptors, exceeded only by a page of one.
    pub bytes: u64,
}

/// One page of referrers.
#[derive(Debug, Clone, Default)]
pub struct ReferrersPage {
    /// Descriptors as JSON, by digest.
    pub descriptors: Vec<(Digest, String)>,
    /// Whether more follow.
    pub more: bool,
}

/// A session to make.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// Tenant of the session.
    pub repository: super::Repository,
    /// Random, never reused.
    pub id: Uuid,
    /// Who makes it.
    pub principal: String,
    /// Stored hash states at offset 0.
    pub hash_states: Vec<u8>,
    /// The blob store's state at offset 0.
    pub state: UploadState,
    /// When.
    pub now: Time,
}

/// The uncommitted sessions of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenUploads {
    /// Whose.
    pub tenant: TenantId,
    /// How many.
    pub count: u64,
    /// Bytes that they hold durably.
    pub bytes: u64,
}

/// A session.
#[derive(Debug, Clone)]
pub struct UploadRow {
    /// Its id.
    pub id: Uuid,
    /// Number of the newest writer's lease.
    pub epoch: i64,
    /// End of that lease.
    pub writer_until: Time,
    /// Bytes stored durably.
    pub offset: u64,
    /// Stored hash states at `offset`.
    pub hash_states: Vec<u8>,
    /// The blob store's state at `offset`.
    pub state: UploadState,
    /// Bound by the first closing PUT.
    pub digest: Option<Digest>,
    /// Whether the blob was published.
    pub committed: bool,
}

/// A session as its client names it. It is found by whoever started it, where it was started, and by nobody
/// else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKey {
    /// Where it was started.
    pub repository: super::Repository,
    /// Its id.
    pub id: Uuid,
    /// Who started it.
    pub principal: String,
}

/// A kind of quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Bytes of the tenant.
    Storage,
    /// Repositories of the tenant.
    Repositories,
    /// Tags of a repository.
    Tags,
    /// Bytes of a repository.
    RepositoryStorage,
    /// Manifests that refer to one subject.
    Referrers,
}

/// What a push may not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tenant.
    pub storage: Option<u64>,
    /// Repositories of the tenant.
    pub repositories: Option<u64>,
    /// Tags of the repository.
    pub tags: Option<u64>,
    /// Bytes of the repository.
    pub repository_storage: Option<u64>,
    /// Manifests that refer to one subject.
    pub referrers: Option<u64>,
}

impl Limits {
    /// The limit of this kind.
    pub fn of(&self, quota: Quota) -> Option<u64> {
        match quota {
            Quota::Storage => self.storage,
            Quota::Repositories => self.repositories,
            Quota::Tags => self.tags,
            Quota::RepositoryStorage => self.repository_storage,
            Quota::Referrers => self.referrers,
        }
    }
}

/// A limit that a push would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuota {
    /// Which.
    pub quota: Quota,
    /// What is used without the push.
    pub usage: u64,
    /// The limit.
    pub limit: u64,
}

/// What is stored after a push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// In the tenant.
    pub tenant: Usage,
    /// In the repository.
    pub repository: Usage,
}

/// Outcome of publishing or mounting a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// The repository has it; what is stored now, if that is more than before.
    Done(Option<Standing>),
    /// The session, the lease, or the blob to mount is not there.
    Gone,
    /// That would be too much.
    OverQuota(OverQuota),
}

/// Outcome of deleting a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Done,
    /// It was not there.
    Absent,
    /// This tag points to it and may not be deleted.
    Immutable(String),
}

/// A wish to write.
#[derive(Debug, Clone)]
pub struct TakeUpload {
    /// Now.
    pub now: Time,
    /// End of the lease.
    pub until: Time,
    /// For a closing PUT, the blob's digest.
    pub closing: Option<Digest>,
}

/// Answer to a wish to write.
#[derive(Debug, Clone)]
pub enum Taken {
    /// The lease is the caller's, under the row's epoch.
    Yours(UploadRow),
    /// Another writer holds it.
    Busy(UploadRow),
    /// The session was published under the digest that the row names.
    Committed(UploadRow),
    /// A closing PUT named another digest before.
    OtherDigest(Digest),
    /// There is no such session in this repository.
    Gone,
}

/// Progress of an upload.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The writer's lease.
    pub epoch: i64,
    /// Bytes stored durably.
    pub offset: u64,
    /// Stored hash states at `offset`.
    pub hash_states: Vec<u8>,
    /// The blob store's state at `offset`.
    pub state: UploadState,
    /// Now.
    pub now: Time,
    /// New end of the lease; `now` ends it.
    pub until: Time,
}

/// A blob to publish.
#[derive(Debug, Clone)]
pub struct CommitUpload {
    /// The session.
    pub id: Uuid,
    /// The writer's lease.
    pub epoch: i64,
    /// Digest, verified.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Now.
    pub now: Time,
    /// Until when the blob is not collected.
    pub leased_until: Time,
    /// Row id for the repository, should it be made.
    pub repository_id: i64,
    /// What it may not exceed.
    pub limits: Limits,
    /// When an object that turns out to be a second copy may be deleted.
    pub spare_due: Time,
}

/// A blob to link from elsewhere in the tenant.
#[derive(Debug, Clone)]
pub struct MountBlob {
    /// Which.
    pub digest: Digest,
    /// From where; any repository of the tenant if absent.
    pub from: Option<crate::domain::RepositoryName>,
    /// Now.
    pub now: Time,
    /// Until when the blob is not collected.
    pub leased_until: Time,
    /// Row id for the repository, should it be made.
    pub repository_id: i64,
    /// What it may not exceed.
    pub limits: Limits,
}

/// Outcome of unlinking a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinked {
    /// It is gone from this repository.
    Done,
    /// It was not there.
    Absent,
    /// This manifest of the repository refers to it.
    InUse(Digest),
}

/// What must hold of the tag before it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The tag does not exist (`If-None-Match: *`).
    Absent,
    /// The tag points to one of these (`If-Match`).
    Is(Vec<Digest>),
    /// The tag exists (`If-Match: *`).
    Present,
}

/// A manifest to store.
#[derive(Debug, Clone)]
pub struct PutManifest {
    /// Digest of the payload.
    pub digest: Digest,
    /// The bytes.
    pub payload: Bytes,
    /// What the bytes say.
    pub manifest: Manifest,
    /// Tags to set, distinct.
    pub tags: Vec<TagName>,
    /// What must hold of each tag before.
    pub precondition: Precondition,
    /// Whether absent children are accepted.
    pub sparse: Sparse,
    /// Who pushes.
    pub principal: String,
    /// Now.
    pub now: Time,
    /// Until when the manifest is not collected.
    pub leased_until: Time,
    /// When what a moved tag pointed to is reviewed.
    pub review_at: Time,
    /// How long its tags live, if it says so itself.
    pub lifetime: Option<Duration>,
    /// Row id for the repository, should it be made.
    pub repository_id: i64,
    /// Those of the tags that may not be moved once they are set.
    pub immutable: Vec<TagName>,
    /// What it may not exceed.
    pub limits: Limits,
    /// Who hears of it.
    pub announce: Option<Announce>,
}

/// Outcome of storing a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// Stored and tagged; what is stored now, if that is more than before.
    Stored(Option<Standing>),
    /// These blobs or children are not in the repository.
    Missing(Vec<Digest>),
    /// The precondition does not hold.
    PreconditionFailed,
    /// This tag points elsewhere and may not be moved.
    Immutable(TagName),
    /// That would be too much.
    OverQuota(OverQuota),
}

/// Who deletes, and when.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Who.
    pub principal: String,
    /// Now.
    pub now: Time,
    /// When what has become unreferenced is reviewed.
    pub review_at: Time,
    /// Until when what is deleted can be brought back.
    pub until: Time,
    /// Globs of tags that may not be deleted.
    pub immutable: Vec<String>,
    /// Who hears of it.
    pub announce: Option<Announce>,
}
