//! The side of the store that says who may do what: tenants, configuration objects, tokens, usage, replicas
//! and the audit trail.
//!
//! Specs are text here: what they mean, and whether they are valid, is the admin API's business. What must
//! hold: changes of configuration are totally ordered by [`Object::version`], and whoever has read up to a
//! version has seen every change up to it; a name that only one object may hold is held by one.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Result, TenantId, Time};
use crate::domain::{RepositoryName, TenantName};

/// Longest name of a configuration object in bytes: `<namespace>/<name>` of Kubernetes fits.
pub const OBJECT_NAME_LIMIT: usize = 320;

/// What a configuration object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// The tenant itself; its name is empty.
    Tenant,
    /// A declared or shaped repository.
    Repository,
    /// A retention policy.
    RetentionPolicy,
    /// A pull-through cache.
    Cache,
}

impl ObjectKind {
    pub(super) fn to_stored(self) -> i16 {
        match self {
            Self::Tenant => 0,
            Self::Repository => 1,
            Self::RetentionPolicy => 2,
            Self::Cache => 3,
        }
    }

    pub(super) fn from_stored(stored: i16) -> Option<Self> {
        [Self::Tenant, Self::Repository, Self::RetentionPolicy, Self::Cache]
            .into_iter()
            .find(|kind| kind.to_stored() == stored)
    }

    /// As the admin API's paths name it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Repository => "repositories",
            Self::RetentionPolicy => "retention-policies",
            Self::Cache => "caches",
        }
    }
}

/// What the sealed secrets of an object belong to: elsewhere they cannot be opened.
pub fn secret_place(tenant: &str, kind: ObjectKind, name: &str) -> String {
    format!("{tenant}/{}/{name}", kind.text())
}

/// A configuration object, or what is left of a deleted one.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its tenant.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: String,
    /// The tenant's uid, new whenever a tenant of this name is made again.
    pub tenant_uid: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Unique in its tenant and kind; empty for the tenant itself.
    pub name: String,
    /// Of its source, if that has one.
    pub uid: Option<String>,
    /// Of its source.
    pub generation: i64,
    /// JSON; `None` once it was deleted.
    pub spec: Option<String>,
    /// Hash of the spec, as the writer computed it.
    pub hash: String,
    /// Made by a first run and never configured since.
    pub built_in: bool,
    /// The version of the configuration that brought it.
    pub version: i64,
}

/// Where a walk through the objects goes on: after this version, tenant, kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectCursor {
    /// Version.
    pub version: i64,
    /// Tenant row id.
    pub tenant: i64,
    /// Stored kind.
    pub kind: i16,
    /// Name.
    pub name: String,
}

impl ObjectCursor {
    /// Everything after `version`.
    pub fn after(version: i64) -> Self {
        Self {
            version,
            tenant: i64::MAX,
            ..Self::default()
        }
    }

    /// Everything after `object`.
    pub fn behind(object: &Object) -> Self {
        Self {
            version: object.version,
            tenant: object.tenant.0,
            kind: object.kind.to_stored(),
            name: object.name.clone(),
        }
    }
}

/// A name that only one object may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A host, in the installation.
    Host(String),
    /// A name on the apex host, in the installation.
    Apex(String),
    /// A declared repository, in its tenant.
    Repository(String),
    /// A further name of a repository, in its tenant.
    Alias(String),
    /// The prefix of a cache, in its tenant.
    Prefix(String),
    /// A registry that a cache mirrors, in its tenant.
    Mirror(String),
}

impl Claim {
    /// Whether it is of the installation, its stored kind, its name.
    pub(super) fn to_stored(&self) -> (bool, i16, &str) {
        match self {
            Self::Host(name) => (true, 0, name),
            Self::Apex(name) => (true, 1, name),
            Self::Repository(name) | Self::Alias(name) => (false, 2, name),
            Self::Prefix(name) => (false, 3, name),
            Self::Mirror(name) => (false, 4, name),
        }
    }
}

/// The new content of an object.
#[derive(Debug, Clone)]
pub struct NewSpec {
    /// Of its source.
    pub uid: Option<String>,
    /// Of its source.
    pub generation: i64,
    /// JSON.
    pub json: String,
    /// Hash of what it says; equal hashes are equal specs.
    pub hash: String,
    /// Names that it holds.
    pub claims: Vec<Claim>,
}

/// What becomes of an object.
#[derive(Debug, Clone)]
pub enum Wish {
    /// It is this.
    Put(NewSpec),
    /// It is gone. A tenant takes its objects and tokens with it; what it stores stays.
    Delete,
    /// A tenant is gone, and so is what it stores: nothing of it comes back when its name is used again.
    Erase,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The tenant; made by a put of the tenant itself.
    pub tenant: TenantName,
    /// What.
    pub kind: ObjectKind,
    /// Its name; empty for the tenant itself.
    pub name: String,
    /// Uid of its source, if the change is meant for that one's object alone and not for another of its name.
    pub only_of: Option<String>,
    /// What becomes of it.
    pub wish: Wish,
}

/// Changes that are made together or not at all.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// In this order.
    pub changes: Vec<Change>,
    /// The writer's fencing token, if it has one.
    pub term: Option<i64>,
    /// Now.
    pub now: Time,
    /// What the audit trail says of them.
    pub audit: Vec<AuditRecord>,
}

/// What came of a change of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenChange {
    /// It is so.
    Done,
    /// There is no such token in the tenant.
    Missed,
    /// A writer of a later term has taken over.
    StaleTerm {
        /// The present term.
        current: i64,
    },
}

/// What came of a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The configuration says so from this version on; `changed` objects differ.
    Done {
        /// Version of the configuration.
        version: i64,
        /// Number of objects that were not so before.
        changed: usize,
    },
    /// A writer of a later term has taken over.
    StaleTerm {
        /// The present term.
        current: i64,
    },
    /// There is no such tenant.
    NoTenant(String),
    /// The object of change number `at` comes from another source than the change is meant for.
    Replaced {
        /// Position in the set.
        at: usize,
    },
    /// Another object holds a name that change number `at` claims.
    Taken {
        /// Position in the set.
        at: usize,
        /// The name.
        claim: Claim,
        /// Who holds it, in words.
        by: String,
    },
}

/// A tenant of a first run.
#[derive(Debug, Clone)]
pub struct FirstTenant {
    /// DNS label.
    pub name: TenantName,
    /// Its spec as JSON.
    pub spec: String,
    /// When.
    pub now: Time,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose.
    pub tenant: TenantId,
    /// Public part of the token.
    pub id: String,
    /// `user`, `organization` or `project`: what it stands for.
    pub kind: String,
    /// For people; several tokens may share it while one replaces another.
    pub name: String,
    /// For people.
    pub description: String,
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    /// JSON.
    pub grants: String,
    /// When it was made.
    pub created_at: Time,
    /// By whom.
    pub created_by: String,
    /// From when on it is refused.
    pub expires_at: Option<Time>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Time>,
}

/// What is stored, logically: bytes of distinct blobs and of manifests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Tags.
    pub tags: u64,
    /// Repositories; of a repository's own usage 0.
    pub repositories: u64,
}

/// What a replica says about itself.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Random, new with each start.
    pub id: Uuid,
    /// Name of its machine.
    pub host: String,
    /// Start of the process.
    pub started_at: Time,
    /// When it last said so.
    pub seen_at: Time,
    /// Version of the configuration that it serves.
    pub version: i64,
    /// Ids of the signing keys that it knows.
    pub keys: Vec<String>,
    /// Objects whose newest spec it cannot read: `<kind>/<tenant>/<name>`.
    pub failed: Vec<String>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Tenant row id; 0 for the installation.
    pub tenant_id: i64,
    /// The tenant's name, or empty.
    pub tenant: String,
    /// Random; orders what happened at one time.
    pub id: Uuid,
    /// When.
    pub at: Time,
    /// Who.
    pub actor: String,
    /// What was done or tried, like `push` or `token.create`.
    pub action: String,
    /// On what.
    pub object: String,
    /// `done`, `denied` or `failed`.
    pub outcome: String,
    /// Why, or with what.
    pub detail: String,
    /// From where.
    pub address: String,
    /// How often in short succession.
    pub count: i64,
}

/// Which part of the audit trail, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Of this tenant alone, by row id.
    pub tenant: Option<i64>,
    /// Older than this record.
    pub before: Option<(Time, Uuid)>,
    /// Not older than this.
    pub since: Option<Time>,
    /// At most this many.
    pub limit: u32,
}

/// Tenants, configuration, tokens, usage, replicas, audit.
#[async_trait]
pub trait Configuration: Send + Sync + 'static {
    // -- Configuration ------------------------------------------------------------------------------

    /// Makes the tenant of a first run, unless there is one of that name.
    async fn first_tenant(&self, tenant: FirstTenant) -> Result<()>;

    /// The number of changes so far.
    async fn version(&self) -> Result<i64>;

    /// Returns when another process may have changed the configuration; only shortens the wait of those who
    /// ask for the version now and then. May never return.
    async fn changed(&self);

    /// Up to `limit` objects after `cursor`, by version, deleted ones included.
    async fn objects(&self, cursor: ObjectCursor, limit: u32) -> Result<Vec<Object>>;

    /// One object as it is.
    async fn object(&self, tenant: &TenantName, kind: ObjectKind, name: &str) -> Result<Option<Object>>;

    /// Makes changes, all or none.
    async fn apply(&self, changes: ChangeSet) -> Result<Applied>;

    /// Takes over from all earlier writers.
    async fn new_term(&self) -> Result<i64>;

    /// Forgets objects deleted before `before`.
    async fn forget_deleted(&self, before: Time) -> Result<()>;

    // -- Replicas -----------------------------------------------------------------------------------

    /// Stores what a replica says.
    async fn heartbeat(&self, replica: Replica) -> Result<()>;

    /// Forgets a replica that ends.
    async fn leave(&self, id: Uuid) -> Result<()>;

    /// Replicas seen since `since`; older ones are forgotten.
    async fn replicas(&self, since: Time) -> Result<Vec<Replica>>;

    // -- Tokens -------------------------------------------------------------------------------------

    /// The token of this id, whichever tenant's.
    async fn token(&self, id: &str) -> Result<Option<TokenRow>>;

    /// Stores a token; one of this id in the tenant is replaced. Missed if the id is another tenant's.
    async fn put_token(&self, token: TokenRow, term: Option<i64>, audit: AuditRecord) -> Result<TokenChange>;

    /// Gives a token other grants; missed if the tenant has none of this id.
    async fn regrant_token(
        &self,
        tenant: TenantId,
        id: &str,
        grants: String,
        term: Option<i64>,
        audit: AuditRecord,
    ) -> Result<TokenChange>;

    /// Lets a token end at `at` if it would live longer; false if there is none.
    async fn expire_token(&self, tenant: TenantId, id: &str, at: Time, audit: AuditRecord) -> Result<bool>;

    /// Removes a token; missed if there is none.
    async fn revoke_token(
        &self,
        tenant: TenantId,
        id: &str,
        term: Option<i64>,
        audit: AuditRecord,
    ) -> Result<TokenChange>;

    /// Up to `limit` tokens of a tenant after id `after`.
    async fn tokens(&self, tenant: TenantId, after: String, limit: u32) -> Result<Vec<TokenRow>>;

    /// Notes that tokens were used at `at`.
    async fn tokens_used(&self, ids: Vec<String>, at: Time) -> Result<()>;

    // -- Usage --------------------------------------------------------------------------------------

    /// What a tenant stores.
    async fn usage(&self, tenant: TenantId) -> Result<Usage>;

    /// What one repository stores; `None` if it does not exist.
    async fn repository_usage(&self, tenant: TenantId, name: &RepositoryName) -> Result<Option<Usage>>;

    /// What up to `limit` repositories after `after` store, by name.
    async fn repository_usages(
        &self,
        tenant: TenantId,
        after: String,
        limit: u32,
    ) -> Result<Vec<(String, Usage)>>;

    // -- Audit --------------------------------------------------------------------------------------

    /// Adds to the trail.
    async fn record(&self, records: Vec<AuditRecord>) -> Result<()>;

    /// A part of the trail.
    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRecord>>;

    /// Forgets up to `limit` records older than `before`; how many were forgotten.
    async fn forget_audit(&self, before: Time, limit: u32) -> Result<u64>;
}

/// How long after its last heartbeat a replica counts as live.
pub const REPLICA_LIFE: Duration = Duration::from_secs(20);
