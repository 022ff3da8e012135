//! What goes into the store of what is kept and comes out of it: plain data.

use std::time::Duration;

use uuid::Uuid;

use crate::blobs::{ObjectKey, UploadState};
use crate::domain::glob::TagGlob;
use crate::domain::{Digest, TagName};
use crate::metadata::configuration::Usage;
use crate::metadata::events::Announce;
use crate::metadata::{Limits, PutOutcome, Repository, Sparse, TenantId, Time};

/// When a review waits for a rule that nobody has made yet.
pub const PARKED: Time = Time(i64::MAX);

// -- Tags -----------------------------------------------------------------------------------------------

/// A tag as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// Its name.
    pub name: String,
    /// What it points to.
    pub digest: Digest,
    /// Its last push.
    pub pushed_at: Time,
    /// The last HEAD by someone who may push.
    pub renewed_at: Option<Time>,
    /// Its last pull, by name or by a digest that it reaches, if that was asked for.
    pub pulled_at: Option<Time>,
    /// How often it was asked for by name, if that was asked for.
    pub pulls: u64,
    /// Whether it is a signature or the like, by its name, of a manifest of this repository: it stays with that.
    pub attached: bool,
}

/// All that is known of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagDetail {
    /// As retention sees it, pulls included.
    pub row: TagRow,
    /// Who pushed it last.
    pub pushed_by: String,
    /// When its annotation lets it end.
    pub expires_at: Option<Time>,
}

/// A tag whose annotation lets it end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredTag {
    /// Whose.
    pub tenant: TenantId,
    /// In which of its repositories.
    pub repository: String,
    /// Which; pulls and attachment are not looked up.
    pub row: TagRow,
    /// When.
    pub at: Time,
}

/// Which part of a repository's tags, newest push first, ties by name.
#[derive(Debug, Clone, Default)]
pub struct TagPage {
    /// Behind this tag.
    pub after: Option<(Time, String)>,
    /// Pushed before this.
    pub before: Option<Time>,
    /// Whether pulls are looked up, which costs two lookups each.
    pub pulls: bool,
    /// At most this many.
    pub limit: u32,
}

/// Tags to delete, as they were seen: what has been pushed or renewed since stays.
#[derive(Debug, Clone)]
pub struct DropTags {
    /// Which.
    pub tags: Vec<TagRow>,
    /// On whose behalf.
    pub principal: String,
    /// Now.
    pub now: Time,
    /// Until when they can be brought back; what they alone pointed to goes then.
    pub until: Time,
    /// Who hears of it.
    pub announce: Option<Announce>,
}

/// A pull to be noted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pull {
    /// Where.
    pub repository: Repository,
    /// By this tag, or else by digest.
    pub tag: Option<TagName>,
    /// What was pulled.
    pub digest: Digest,
}

/// A deleted tag that can be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTag {
    /// Its name.
    pub name: String,
    /// What it pointed to.
    pub digest: Digest,
    /// When it was deleted.
    pub at: Time,
    /// By whom.
    pub by: String,
    /// Until when it can be brought back.
    pub until: Time,
}

/// One entry of a tag's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEvent {
    /// When.
    pub at: Time,
    /// Orders what happened at one time.
    pub id: Uuid,
    /// Whether it was deleted; else pushed.
    pub deleted: bool,
    /// What it pointed to from then on, or until then.
    pub digest: Digest,
    /// By whom.
    pub by: String,
}

/// A tag to bring back.
#[derive(Debug, Clone)]
pub struct RestoreTag {
    /// Which.
    pub tag: TagName,
    /// Who asks.
    pub principal: String,
    /// Now.
    pub now: Time,
    /// Until when its manifest is not collected.
    pub leased_until: Time,
    /// What it may not exceed.
    pub limits: Limits,
    /// Whether absent children are accepted.
    pub sparse: Sparse,
    /// Who hears of it.
    pub announce: Option<Announce>,
}

/// Outcome of bringing a tag back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It points to this again.
    Done(Digest),
    /// It was not deleted, or too long ago.
    Gone,
    /// It exists, and points to this.
    Exists(Digest),
    /// What it pointed to cannot be stored again.
    Refused(PutOutcome),
}

// -- Collection -----------------------------------------------------------------------------------------

/// A candidate of collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// A manifest, of this repository by name.
    Manifest(TenantId, String, Digest),
    /// A blob.
    Blob(TenantId, Digest),
    /// A manifest that was deleted by its digest and can no longer be brought back.
    Deleted(TenantId, String, Digest),
}

/// What decides about a manifest that nothing refers to.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Now.
    pub now: Time,
    /// Until when the candidate was put off: a review that is due later has been asked for anew.
    pub claimed: Time,
    /// For how long manifests without a tag stay; for ever if absent.
    pub untagged_after: Option<Duration>,
    /// Whether each pull begins that time anew.
    pub pulls_count: bool,
    /// Tags that may not be deleted.
    pub immutable: Vec<TagGlob>,
    /// When what has lost a reference is looked at.
    pub review_at: Time,
}

/// A blob to look at.
#[derive(Debug, Clone)]
pub struct CollectBlob {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its digest.
    pub digest: Digest,
    /// Repositories, by name, from which it may be unlinked.
    pub among: Vec<String>,
    /// Now.
    pub now: Time,
    /// Until when the candidate was put off: a review that is due later has been asked for anew.
    pub claimed: Time,
    /// When its object may be deleted.
    pub object_due: Time,
}

/// What came of a look at a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// It is gone; this many bytes are no longer counted.
    Done(u64),
    /// Something refers to it.
    Kept,
    /// It is looked at again later.
    Later,
    /// It was gone already.
    Absent,
}

/// A blob whose object is gone.
#[derive(Debug, Clone)]
pub struct ForgetBlob {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its digest.
    pub digest: Digest,
    /// The object that is gone.
    pub object: ObjectKey,
    /// Repositories, by name, from which it is unlinked.
    pub among: Vec<String>,
    /// When the object is deleted, should it have turned up by then.
    pub object_due: Time,
}

/// What became of a blob that was to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is.
    Wholly,
    /// Further repositories have it.
    InPart,
    /// It was not there, or lies in another object by now.
    Changed,
}

/// How much waits for collection. Counts are exact up to [`Queues::MOST`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queues {
    /// Manifests to be looked at, without those that wait for a rule.
    pub manifests: u64,
    /// Blobs to be looked at.
    pub blobs: u64,
    /// Objects to be deleted.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// When the oldest of all was due.
    pub oldest_due: Option<Time>,
}

impl Queues {
    /// Where counting ends.
    pub const MOST: u32 = 100_000;
}

/// Content to be deleted as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Whose.
    pub tenant: TenantId,
    /// Name of the tenant, as it is now.
    pub tenant_name: String,
    /// Name of the repository; empty for the whole tenant.
    pub repository: String,
    /// When it was asked for.
    pub requested_at: Time,
}

/// A repository to give up.
#[derive(Debug, Clone)]
pub struct EraseRepository {
    /// The object of configuration that declares it by its name.
    pub object: String,
    /// The uid that the object must have at its source, if that matters.
    pub only_of: Option<String>,
    /// The writer's fencing token, if it has one.
    pub term: Option<i64>,
    /// Now.
    pub now: Time,
    /// Who hears of it.
    pub announce: Option<Announce>,
}

/// Outcome of giving a repository up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// Nothing of it is seen any more.
    Done,
    /// The object does not declare it.
    NotDeclared,
    /// The object is another one of the same name by now.
    Replaced,
    /// A writer of a later term has taken over.
    StaleTerm {
        /// The present term.
        current: i64,
    },
}

/// One step of a purge.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PurgeStep {
    /// Sessions whose bytes must be freed.
    pub uploads: Vec<(Uuid, UploadState)>,
    /// Rows deleted.
    pub deleted: u64,
    /// Whether nothing is left.
    pub done: bool,
}

// -- Jobs -----------------------------------------------------------------------------------------------

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// A run of a retention policy.
    Retention,
    /// The expiry of tags in ephemeral repositories.
    Expiry,
    /// The hourly sample of what is stored.
    Sample,
    /// The nightly recount.
    Recount,
    /// The switch of the collector.
    Collection,
    /// The check of both stores against each other.
    Fsck,
    /// Until when no object is deleted, as its due time.
    Hold,
}

impl JobKind {
    /// Stored form of [`JobKind::Hold`], which is looked for in copies too.
    pub(in crate::metadata) const HOLD: i16 = 12;

    pub(in crate::metadata) fn to_stored(self) -> i16 {
        match self {
            Self::Retention => 0,
            Self::Expiry => 1,
            Self::Sample => 2,
            Self::Recount => 3,
            Self::Collection => 4,
            Self::Fsck => 9,
            Self::Hold => Self::HOLD,
        }
    }
}

/// Which job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// For whom; 0 for the installation.
    pub tenant: TenantId,
    /// What for.
    pub kind: JobKind,
    /// Which of the kind, or empty.
    pub name: String,
}

impl JobKey {
    /// The one job of this kind of the installation.
    pub fn of(kind: JobKind) -> Self {
        Self {
            tenant: TenantId(0),
            kind,
            name: String::new(),
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When it is to be done.
    pub due_at: Time,
    /// Until when somebody does it.
    pub claimed_until: Time,
    /// Who.
    pub claimed_by: String,
    /// What it keeps between its runs, as JSON.
    pub state: String,
}

// -- Metering -------------------------------------------------------------------------------------------

/// What was stored in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthUsage {
    /// Tenant row id.
    pub tenant: TenantId,
    /// Name of the tenant.
    pub tenant_name: String,
    /// Row id of the repository; 0 for the tenant as a whole.
    pub repository_id: i64,
    /// Its name; `None` for the tenant as a whole.
    pub repository: Option<String>,
    /// Bytes times hours.
    pub byte_hours: u64,
    /// What is stored now.
    pub usage: Usage,
    /// Bytes of its objects now, those included that are about to be deleted; of repositories 0.
    pub stored: u64,
}

/// Which months to list.
#[derive(Debug, Clone)]
pub struct MonthQuery {
    /// Year times 100, plus 1 to 12.
    pub month: i64,
    /// Of this tenant alone.
    pub tenant: Option<TenantId>,
    /// Repositories too.
    pub repositories: bool,
    /// Behind this tenant and repository (row ids).
    pub after: (i64, i64),
    /// At most this many.
    pub limit: u32,
}

/// What a tenant stored at the beginning of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Hours since 1970.
    pub hour: i64,
    /// Bytes of distinct blobs and of manifests.
    pub bytes: u64,
    /// Bytes of objects.
    pub stored: u64,
}

/// What the whole installation stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storage {
    /// What tenants are told that they store.
    pub logical: u64,
    /// Bytes of objects that a blob refers to or that wait for their deletion.
    pub stored: u64,
    /// Of these, bytes that wait for their deletion.
    pub garbage: u64,
    /// Bytes of open uploads.
    pub uploads: u64,
}

/// What one tenant stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantTotal {
    /// Whose.
    pub tenant: TenantId,
    /// Bytes, as it is told.
    pub bytes: u64,
    /// Tags.
    pub tags: u64,
    /// Repositories.
    pub repositories: u64,
}

/// A counter that was not what a recount found; it has been corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Name of the repository; empty for the tenant's total.
    pub repository: String,
    /// Which counter.
    pub counter: &'static str,
    /// What it said.
    pub counted: i64,
    /// What is there.
    pub found: i64,
}
