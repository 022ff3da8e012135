//! What replicas share about other registries: which tags were looked at when, who fetches what, and how caches fare.
//!
//! A claim is a lease on one piece of work: a tag to be compared with the upstream's, a manifest or a blob to be
//! fetched. Whoever holds it asks the upstream, everybody else waits; when its holder dies the lease ends, and another
//! takes the work over. A claim decides only who asks: what is stored is fenced by upload sessions and digests.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Repository, Result, TenantId, Time};
use crate::domain::{Digest, TagName};

/// A piece of work in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    /// Where.
    pub repository: Repository,
    /// What, like `tag:latest`, `manifest:sha256:…` or `blob:sha256:…`. At most 256 bytes.
    pub what: String,
}

/// A wish to do it.
#[derive(Debug, Clone)]
pub struct TakeClaim {
    /// Who: random, one a piece of work.
    pub holder: Uuid,
    /// Where other replicas reach the holder, if they do.
    pub address: Option<String>,
    /// Now.
    pub now: Time,
    /// End of the lease.
    pub until: Time,
}

/// Answer to a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The lease is the caller's. `upload` is what an earlier holder noted, if its lease ended before it let go.
    Yours {
        /// The upload session that it was filling.
        upload: Option<Uuid>,
    },
    /// Another holds it.
    Busy {
        /// Where it is reached, if it is.
        address: Option<String>,
        /// When its lease ends, unless it is renewed.
        until: Time,
    },
}

/// What has happened to a cache, on one replica since it last said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheNews {
    /// Requests answered without the upstream's bytes.
    pub hits: u64,
    /// Requests for which bytes were fetched.
    pub misses: u64,
    /// Bytes sent to clients that were not fetched for them.
    pub bytes_saved: u64,
    /// Bytes fetched from the upstream.
    pub bytes_fetched: u64,
    /// Limit, what is left of it, and when the upstream said so.
    pub rate_limit: Option<(u64, u64, Time)>,
    /// When the upstream last answered as it should.
    pub reached_at: Option<Time>,
    /// When it last did not, and why. At most 1 KiB of text is kept.
    pub failed: Option<(Time, String)>,
}

/// How a cache fares: the news of all replicas, counts summed up, of the rest what is newest.
pub type CacheFigures = CacheNews;

/// Tags' checks, claims, figures.
#[async_trait]
pub trait PullThrough: Send + Sync + 'static {
    /// When a tag was last found to be as the upstream has it; `None` if never, or if the repository is gone.
    async fn tag_checked(&self, repository: &Repository, tag: &TagName) -> Result<Option<Time>>;

    /// Notes that a tag is as the upstream has it at `now`; an earlier time than what is noted changes nothing.
    async fn note_tag_checked(&self, repository: &Repository, tag: &TagName, now: Time) -> Result<()>;

    /// Takes the claim on a piece of work, if it is free, its lease has ended, or the caller holds it already.
    async fn take_claim(&self, key: &ClaimKey, take: TakeClaim) -> Result<Claimed>;

    /// Renews a lease, and notes the upload session that is being filled; false if it was lost.
    async fn renew_claim(
        &self,
        key: &ClaimKey,
        holder: Uuid,
        upload: Option<Uuid>,
        until: Time,
    ) -> Result<bool>;

    /// Gives a claim up. Of no effect if it is another's by now.
    async fn release_claim(&self, key: &ClaimKey, holder: Uuid) -> Result<()>;

    /// Forgets claims whose leases ended before `claims`, and checks of tags before `checks`, at most `limit` of each;
    /// how many it were.
    async fn forget_pull_through(&self, claims: Time, checks: Time, limit: u32) -> Result<u64>;

    /// A manifest of the repository that names a blob, if there is one.
    async fn names_blob(&self, repository: &Repository, blob: &Digest) -> Result<Option<Digest>>;

    /// Adds news of a cache, by its object's name.
    async fn add_cache_news(&self, tenant: TenantId, cache: &str, news: CacheNews) -> Result<()>;

    /// How a cache fares; nothing has happened to one that is not known.
    async fn cache_figures(&self, tenant: TenantId, cache: &str) -> Result<CacheFigures>;

    /// Forgets how caches of a tenant fared that are not among these.
    async fn keep_cache_figures(&self, tenant: TenantId, caches: &[String]) -> Result<()>;

    /// Number of repositories whose names begin with `prefix/`, or of all if it is empty, and their bytes summed up: what two of them share counts
    /// in both.
    async fn stored_below(&self, tenant: TenantId, prefix: &str) -> Result<(u64, u64)>;
}
