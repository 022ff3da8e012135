//! The metadata store: everything but blob bytes, in SQLite or Postgres.
//!
//! Traits by capability, of which [`Store`] is the first, written once: the statements live in `statements/` and
//! are compiled against each database, since nearly all of them are the same text in both dialects; what differs sits
//! in `sqlite/dialect.rs` and `postgres/dialect.rs`. Every method is one transaction with a constant number of round
//! trips. `tenant_id` leads every key, and no method reads across tenants.
//!
//! Lock order in every transaction: blobs by digest, manifests by digest, tags by name, webhooks by id, counters.

// The statements are compiled once a database, on purpose.
#![allow(clippy::duplicate_mod)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::blobs::{ObjectKey, UploadState};
use crate::domain::{Digest, RepositoryName, TagName};
use configuration::Configuration;

mod batch;
mod cached;
pub mod configuration;
pub mod copies;
pub mod events;
pub mod explore;
pub mod inspection;
pub mod lifecycle;
mod outcome;
pub mod position;
mod postgres;
pub mod pull_through;
mod sqlite;
#[cfg(test)]
mod suite;
pub mod survey;
pub mod transfer;
mod types;

pub use types::*;

/// What a store answers.
pub type Result<T> = std::result::Result<T, MetadataError>;

/// Why the store could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetadataError {
    /// The URL names no store.
    #[error("--metadata {url}: {why}")]
    Url {
        /// As given, without password.
        url: String,
        /// What to change.
        why: String,
    },
    /// The schema could not be brought up to date.
    #[error("the metadata schema could not be migrated: {0}")]
    Migration(String),
    /// The schema lacks migrations that this release needs, and was not to be migrated.
    #[error("the metadata schema is older than this release needs: run `berth-registry migrate` first")]
    Behind,
    /// It is only a part of a store.
    #[error(
        "a conversion into this metadata store has not ended: run the same `berth-registry convert` again"
    )]
    Unfinished,
    /// The store was opened for reading alone.
    #[error("this registry only reads")]
    OnlyRead,
    /// The database failed or did not answer; the same call may succeed later.
    #[error("the metadata store failed: {0}")]
    Unavailable(String),
    /// The database answers, but takes no writes: a standby, or a server that was told so.
    #[error("the metadata store takes no writes: {0}")]
    ReadOnly(String),
    /// There is no room left for what was to be written.
    #[error("the metadata store is full: {0}")]
    Full(String),
    /// The database aborted the transaction for the sake of others, again and again.
    #[error("the metadata store is busy: {0}")]
    Conflict(String),
    /// A stored value cannot be read.
    #[error("the metadata store holds an unreadable value: {0}")]
    Corrupt(String),
}

impl MetadataError {
    /// Whether the store answers, but has no room for writes or takes none: what is read is as good as ever.
    pub fn is_of_writes_alone(&self) -> bool {
        matches!(self, Self::ReadOnly(_) | Self::Full(_))
    }
}

impl From<sqlx::Error> for MetadataError {
    fn from(error: sqlx::Error) -> Self {
        let told = error.to_string();
        match error
            .as_database_error()
            .and_then(|database| database.code())
            .as_deref()
        {
            // SQLSTATE of serialization_failure and deadlock_detected.
            Some("40001" | "40P01") => Self::Conflict(told),
            // read_only_sql_transaction.
            Some("25006") => Self::ReadOnly(told),
            // disk_full, and SQLITE_FULL.
            Some("53100" | "13") => Self::Full(told),
            _ => Self::Unavailable(told),
        }
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to bring the schema up to date, under a lock.
    pub migrate: bool,
    /// Connections of the Postgres pool.
    pub connections: u32,
    /// Whether to use server-side prepared statements (off behind a transaction pooler).
    pub prepared: bool,
    /// Whether nothing is written, whatever is asked for: the database may be a standby.
    pub read_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            migrate: true,
            connections: 20,
            prepared: true,
            read_only: false,
        }
    }
}

/// The sides of one store, a trait each.
#[derive(Clone)]
pub struct Opened {
    /// What is stored.
    pub store: Arc<dyn Store>,
    /// Who may do what with it.
    pub configuration: Arc<dyn Configuration>,
    /// What is kept of it, and what goes.
    pub lifecycle: Arc<dyn lifecycle::Lifecycle>,
    /// Where people look around in it.
    pub explore: Arc<dyn explore::Explore>,
    /// Whether it all fits together.
    pub inspection: Arc<dyn inspection::Inspection>,
    /// What replicas share about other registries.
    pub pull_through: Arc<dyn pull_through::PullThrough>,
    /// What webhooks are told.
    pub events: Arc<dyn events::Events>,
    /// Where it stands.
    pub position: Arc<dyn position::Position>,
}

/// Opens the store that `url` names: `sqlite:<file>` or `postgres://…`.
pub async fn open(url: &str, options: &Options) -> Result<Opened> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let store = Arc::new(sqlite::SqliteStore::open(std::path::Path::new(path), options).await?);
        let cached = Arc::new(cached::Cached::new(store.clone()));
        return Ok(Opened {
            store: cached.clone(),
            lifecycle: cached,
            explore: store.clone(),
            inspection: store.clone(),
            pull_through: store.clone(),
            events: store.clone(),
            position: store.clone(),
            configuration: store,
        });
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let store = Arc::new(postgres::PostgresStore::open(url, options).await?);
        return Ok(Opened {
            store: store.clone(),
            lifecycle: store.clone(),
            explore: store.clone(),
            inspection: store.clone(),
            pull_through: store.clone(),
            events: store.clone(),
            position: store.clone(),
            configuration: store,
        });
    }
    // A password can only stand before an '@'.
    let shown = url.rsplit('@').next().unwrap_or_default().to_owned();
    Err(MetadataError::Url {
        url: shown,
        why: "use sqlite:<file> or postgres://<host>/<database>".into(),
    })
}

/// Brings the schema of the store that `url` names up to date.
pub async fn migrate(url: &str, options: &Options) -> Result<()> {
    open(
        url,
        &Options {
            migrate: true,
            ..options.clone()
        },
    )
    .await
    .map(drop)
}

/// The metadata store.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether the store answers.
    async fn probe(&self) -> Result<()>;

    // -- Reading ------------------------------------------------------------------------------------

    /// What a tag or digest of a repository resolves to. Sees every push acknowledged before the call.
    async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Option<ManifestRow>>;

    /// The bytes of a manifest of this repository.
    async fn manifest_payload(&self, repository: &Repository, digest: &Digest) -> Result<Option<Bytes>>;

    /// A blob that is linked in this repository.
    async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobRow>>;

    /// Up to `limit` tags after `after`, bytewise ascending; `None` if the repository does not exist.
    async fn tags(
        &self,
        repository: &Repository,
        after: Option<String>,
        limit: u32,
    ) -> Result<Option<Vec<String>>>;

    /// Up to `limit` repository names of a tenant after `after`, and before `end` if there is one, bytewise
    /// ascending.
    async fn repositories(
        &self,
        tenant: TenantId,
        after: String,
        end: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>>;

    /// Names of up to `limit` repositories of a tenant that have a blob.
    async fn repositories_with(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>>;

    /// What a repository and its tenant store.
    async fn standing(&self, repository: &Repository) -> Result<Standing>;

    /// Descriptors of the manifests whose subject is `query.subject`.
    async fn referrers(&self, repository: &Repository, query: &ReferrersQuery) -> Result<ReferrersPage>;

    // -- Leases -------------------------------------------------------------------------------------

    /// Extends the lease of a manifest of this repository; false if it is gone.
    async fn lease_manifest(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool>;

    /// Extends the lease of a blob linked in this repository; false if it is gone.
    async fn lease_blob(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool>;

    // -- Uploads ------------------------------------------------------------------------------------

    /// Makes a session.
    async fn create_upload(&self, upload: NewUpload) -> Result<()>;

    /// The uncommitted sessions of each tenant that has any; proportional to them, not for a request's path.
    async fn open_uploads(&self) -> Result<Vec<OpenUploads>>;

    /// Ends the leases of all writers. Only for a process that knows that it is alone with the store: what
    /// holds a lease then is a writer that died with an earlier process.
    async fn end_leases(&self) -> Result<()>;

    /// The session of this key.
    async fn upload(&self, key: &SessionKey) -> Result<Option<UploadRow>>;

    /// Takes the writer's lease of a session by compare-and-set. `closing` binds the digest of the blob.
    async fn take_upload(&self, key: &SessionKey, take: TakeUpload) -> Result<Taken>;

    /// Stores progress and renews (or, with an `until` that is past, ends) the lease; false if the lease was lost.
    async fn checkpoint_upload(&self, tenant: TenantId, id: Uuid, checkpoint: Checkpoint) -> Result<bool>;

    /// Renews the lease alone; false if it was lost.
    async fn renew_upload(&self, tenant: TenantId, id: Uuid, epoch: i64, until: Time) -> Result<bool>;

    /// Publishes the session's blob and links it.
    async fn commit_upload(&self, repository: &Repository, commit: CommitUpload) -> Result<Linked>;

    /// Forgets an uncommitted session and returns it, so that its bytes can be freed.
    async fn cancel_upload(&self, key: &SessionKey) -> Result<Option<UploadRow>>;

    /// Forgets up to `limit` sessions idle since before `before`, of all tenants, and returns those whose
    /// bytes must be freed.
    async fn expire_uploads(&self, before: Time, limit: u32) -> Result<Vec<(Uuid, UploadState)>>;

    /// Which of these sessions, of any tenant, still exist and are not committed.
    async fn live_uploads(&self, ids: &[Uuid]) -> Result<Vec<Uuid>>;

    /// Which of these objects, of any tenant, a blob refers to.
    async fn live_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>>;

    // -- Blobs --------------------------------------------------------------------------------------

    /// Links a blob of `from`, or, without it, of any repository of the tenant, into `into`.
    async fn mount_blob(&self, into: &Repository, mount: MountBlob) -> Result<Linked>;

    /// Unlinks a blob from this repository, and asks for its review.
    async fn unlink_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        review_at: Time,
    ) -> Result<Unlinked>;

    // -- Manifests and tags -------------------------------------------------------------------------

    /// Stores a manifest, its edges and its tags.
    async fn put_manifest(&self, repository: &Repository, put: PutManifest) -> Result<PutOutcome>;

    /// Deletes a manifest and the tags that point to it.
    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        by: Deletion,
    ) -> Result<Deleted>;

    /// Deletes a tag; false if it is not there.
    async fn delete_tag(&self, repository: &Repository, tag: &TagName, by: Deletion) -> Result<bool>;

    // -- Objects to delete --------------------------------------------------------------------------

    /// Up to `limit` objects that are due for deletion at `now`; each is put off until `retry` in case the
    /// deletion fails.
    async fn due_objects(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<(TenantId, ObjectKey)>>;

    /// Forgets an object that has been deleted.
    async fn forget_object(&self, tenant: TenantId, key: &ObjectKey) -> Result<()>;
}

/// Longest wait for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A repository of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: RepositoryName,
}
