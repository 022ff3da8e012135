//! The side of the store that looks after what is kept: retention, restores, collection, purges, metering, and the
//! jobs that replicas share.
//!
//! What must hold: a tag, manifest or blob is only deleted in a transaction that has locked it and looked again at
//! whatever refers to it; every deletion puts what it has let go into a queue in the same transaction; bytes go last,
//! through `object_deletion`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Repository, Result, TenantId, Time};
use crate::domain::{Digest, TagName};

mod rows;

pub use rows::*;

/// Retention, restores, collection, jobs, metering.
#[async_trait]
pub trait Lifecycle: Send + Sync + 'static {
    // -- Tags ---------------------------------------------------------------------------------------

    /// A page of a repository's tags.
    async fn tags_by_push(&self, repository: &Repository, page: TagPage) -> Result<Vec<TagRow>>;

    /// One tag.
    async fn tag_detail(&self, repository: &Repository, tag: &TagName) -> Result<Option<TagDetail>>;

    /// The newest push and the newest pull of a repository.
    async fn last_times(&self, repository: &Repository) -> Result<(Option<Time>, Option<Time>)>;

    /// Deletes tags that are still as they were seen; how many. What they pointed to is condemned.
    async fn drop_tags(&self, repository: &Repository, tags: DropTags) -> Result<u64>;

    /// Up to `limit` tags whose annotation lets them end after `after` and by `now`, in this order.
    async fn expired_tags(&self, after: Time, now: Time, limit: u32) -> Result<Vec<ExpiredTag>>;

    /// How many bytes of a repository would go with these manifests, were each to lose as many tags as it says.
    async fn reclaimable(&self, repository: &Repository, digests: BTreeMap<Digest, u64>) -> Result<u64>;

    /// Notes pulls at `now`; each tag and manifest at most once an hour.
    async fn record_pulls(&self, pulls: Vec<Pull>, now: Time) -> Result<()>;

    /// Counts pulls: those by tag at the tag, those by digest at the manifest.
    async fn count_pulls(&self, pulls: Vec<(Pull, u64)>) -> Result<()>;

    /// Begins the life of a tag anew; false if it does not point to `digest`.
    async fn renew_tag(
        &self,
        repository: &Repository,
        tag: &TagName,
        digest: &Digest,
        now: Time,
    ) -> Result<bool>;

    /// Up to `limit` tags deleted before `before` that can still be brought back at `now`, newest first.
    async fn deleted_tags(
        &self,
        repository: &Repository,
        before: Option<(Time, String)>,
        now: Time,
        limit: u32,
    ) -> Result<Vec<DeletedTag>>;

    /// Brings a tag back.
    async fn restore_tag(&self, repository: &Repository, restore: RestoreTag) -> Result<Restored>;

    /// What became of a tag before `before`, newest first.
    async fn tag_history(
        &self,
        repository: &Repository,
        tag: &TagName,
        before: Option<(Time, Uuid)>,
        limit: u32,
    ) -> Result<Vec<TagEvent>>;

    /// Forgets up to `limit` entries of tags' history in a repository that are older than `before`.
    async fn forget_history(&self, repository: &Repository, before: Time, limit: u32) -> Result<u64>;

    // -- Collection ---------------------------------------------------------------------------------

    /// How many looks at candidates get on best together; where they share a commit, more than where each takes a
    /// connection.
    fn looks_at_once(&self) -> usize;

    /// Up to `limit` candidates due at `now`, each put off until `retry` in case the look at it fails.
    async fn candidates(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<Candidate>>;

    /// Puts a candidate off until `until`, unless it has been asked for anew since it was put off until `claimed`.
    async fn put_off(&self, candidate: &Candidate, claimed: Time, until: Time) -> Result<()>;

    /// Looks at a manifest, and deletes it if nothing refers to it and its time has come.
    async fn collect_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected>;

    /// Up to `limit` names of repositories that link a blob of which no manifest of theirs speaks.
    async fn unused_links(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>>;

    /// Looks at a blob: unlinks it where nothing uses it, and deletes it once no repository links it.
    async fn collect_blob(&self, blob: CollectBlob) -> Result<Collected>;

    /// Unlinks a blob whose object is gone, whatever uses it, and deletes it once no repository links it, with its bytes
    /// from the counters. Manifests that name it stay.
    async fn forget_blob(&self, blob: ForgetBlob) -> Result<Forgotten>;

    /// Forgets a manifest that was deleted by its digest, and the signatures that stood for it by name.
    async fn forget_deleted(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected>;

    /// Looks again, at `due`, at those manifests of a repository that wait for a rule; how many.
    async fn unpark(&self, repository: &Repository, due: Time) -> Result<u64>;

    /// How much waits.
    async fn queues(&self, now: Time) -> Result<Queues>;

    // -- Purges -------------------------------------------------------------------------------------

    /// Up to `limit` purges that are due.
    async fn purges(&self, now: Time, limit: u32) -> Result<Vec<Purge>>;

    /// Up to `limit` purges, due or not, after a tenant and repository.
    async fn pending_purges(&self, after: (i64, String), limit: u32) -> Result<Vec<Purge>>;

    /// Gives up what a repository stores: at once nobody sees it any more, and it is purged.
    async fn erase_repository(&self, repository: &Repository, erase: EraseRepository) -> Result<Erased>;

    /// Deletes up to `limit` rows of each kind.
    async fn purge(&self, purge: &Purge, now: Time, object_due: Time, limit: u32) -> Result<PurgeStep>;

    // -- Jobs ---------------------------------------------------------------------------------------

    /// A job.
    async fn job(&self, key: &JobKey) -> Result<Option<Job>>;

    /// Jobs of a kind that are due by `due`, with their tenants and names, after a tenant and name.
    async fn jobs(
        &self,
        kind: JobKind,
        due: Time,
        after: (i64, String),
        limit: u32,
    ) -> Result<Vec<(TenantId, String, Job)>>;

    /// Makes a job, or replaces it whoever does it.
    async fn put_job(&self, key: &JobKey, due_at: Time, state: String) -> Result<()>;

    /// Makes a job due at `due_at`, if it would be later.
    async fn advance_job(&self, key: &JobKey, due_at: Time) -> Result<bool>;

    /// Takes a job that is due and that nobody else does.
    async fn claim_job(&self, key: &JobKey, by: &str, now: Time, until: Time) -> Result<Option<Job>>;

    /// Stores what a job keeps, if it is still `by`'s. With `due_at` it is due then.
    async fn save_job(
        &self,
        key: &JobKey,
        by: &str,
        state: String,
        due_at: Option<Time>,
        claimed_until: Time,
    ) -> Result<bool>;

    /// Forgets a job.
    async fn drop_job(&self, key: &JobKey) -> Result<()>;

    // -- Metering -----------------------------------------------------------------------------------

    /// Adds what is stored now for these hours (first and last, since 1970) and ends the job, if it is still `by`'s.
    async fn sample(
        &self,
        key: &JobKey,
        by: &str,
        hours: (i64, i64),
        state: String,
        next: Time,
    ) -> Result<bool>;

    /// What was stored in a month.
    async fn month(&self, query: MonthQuery) -> Result<Vec<MonthUsage>>;

    /// What a tenant stored, hour by hour, from `from` on.
    async fn samples(&self, tenant: TenantId, from: i64, limit: u32) -> Result<Vec<Sample>>;

    /// Forgets samples older than `before` (hours since 1970).
    async fn forget_samples(&self, before: i64, limit: u32) -> Result<u64>;

    /// What the installation stores.
    async fn storage(&self) -> Result<Storage>;

    /// The `limit` tenants that store the most, the largest first.
    async fn largest_tenants(&self, limit: u32) -> Result<Vec<TenantTotal>>;

    /// Counts a tenant's things again and corrects its counters. Proportional to what it has.
    async fn recount(&self, tenant: TenantId) -> Result<Vec<Drift>>;

    /// Row ids of up to `limit` tenants after `after`, deleted ones included.
    async fn tenant_ids(&self, after: i64, limit: u32) -> Result<Vec<i64>>;
}
