//! The side of the store that proves it: walks through every table, and looks at what should belong together.
//!
//! Walks see all tenants, in the order of the primary keys, in bounded pages; nothing but the check of the stores
//! uses them. What must hold: a page is one statement, so that what it says was true at one instant; a repair looks
//! again in its own transaction and only ever asks for something to be looked at, or deleted, later.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Result, TenantId, Time};
use crate::blobs::ObjectKey;
use crate::domain::Digest;

/// A table that is walked for faults. Blobs have a walk of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Repositories.
    Repositories,
    /// Tags.
    Tags,
    /// Manifests.
    Manifests,
    /// What manifests name as config or layers.
    BlobEdges,
    /// What indexes name.
    ChildEdges,
    /// Links of blobs into repositories.
    Links,
}

/// A place in the primary key of any table; what a table's key lacks is ignored. Digests are in their stored form,
/// whether it can be read or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Tenant row id.
    pub tenant: i64,
    /// Repository row id.
    pub repository: i64,
    /// Name of a tag.
    pub name: String,
    /// Digest of a manifest or blob.
    #[serde(with = "hexadecimal")]
    pub digest: Vec<u8>,
    /// Digest of what an edge leads to.
    #[serde(with = "hexadecimal")]
    pub other: Vec<u8>,
}

impl Default for Position {
    /// Before everything.
    fn default() -> Self {
        Self {
            tenant: i64::MIN,
            repository: i64::MIN,
            name: String::new(),
            digest: Vec::new(),
            other: Vec::new(),
        }
    }
}

/// Stored digests in cursors.
mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Behind this row.
    After(Position),
    /// At this row, or where it would be; the page has one row.
    At(Position),
}

impl Start {
    pub(super) fn position(&self) -> &Position {
        match self {
            Self::After(position) | Self::At(position) => position,
        }
    }
}

/// A page of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// How many rows were looked at.
    pub rows: u64,
    /// The last of them; `None` if there are no more.
    pub last: Option<Position>,
    /// What is wrong with some of them.
    pub faults: Vec<Fault>,
}

impl Walked {
    pub(super) fn note(&mut self, at: Position, problem: Option<Problem>) {
        self.rows += 1;
        if let Some(problem) = problem {
            let at = at.clone();
            self.faults.push(Fault { at, problem });
        }
        self.last = Some(at);
    }
}

/// A row that does not fit to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub at: Position,
    /// Why.
    pub problem: Problem,
}

/// Why a row does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Its tenant does not exist.
    NoTenant,
    /// Its repository does not exist.
    NoRepository,
    /// A tag points to a manifest (in stored form) that is not there.
    NoManifest(Vec<u8>),
    /// An edge begins at a manifest that is not there.
    EdgeOfNothing,
    /// The blob is the tenant's, but the repository whose manifest names it has no link to it.
    NotLinked(Presence),
    /// The tenant does not have the blob that a manifest names.
    NoBlob(Presence),
    /// A link leads to a blob that is not there.
    LinkToNothing,
    /// Nothing refers to it, and no review of it is asked for: it would stay for ever.
    Forgotten,
}

/// Whether what is absent was there when the manifest was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It was.
    Certain,
    /// The manifest and the tenant's setting decide: layers may be non-distributable, tenants sparse.
    Unknown,
}

/// A blob in its walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobSeen {
    /// Where.
    pub at: Position,
    /// Its digest; `None` if it cannot be read.
    pub digest: Option<Digest>,
    /// Its object.
    pub key: ObjectKey,
    /// In bytes.
    pub size: u64,
    /// What is wrong with the row itself.
    pub problem: Option<Problem>,
}

/// A manifest with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadSeen {
    /// Where.
    pub at: Position,
    /// As pushed.
    pub media_type: String,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows of each table, in the order of [`Inspection::walk`]'s tables.
    pub rows: [u64; 6],
    /// Blobs.
    pub blobs: u64,
    /// Bytes of blobs.
    pub bytes: u64,
}

/// What places are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name of the tenant.
    pub tenant: Option<String>,
    /// Name of the repository.
    pub repository: Option<String>,
    /// Whether they are being deleted as a whole, row by row.
    pub going: bool,
}

/// Walks and repairs.
#[async_trait]
pub trait Inspection: Send + Sync + 'static {
    /// Counts everything. Proportional to what there is; fails where that takes longer than a statement may.
    async fn totals(&self) -> Result<Totals>;

    /// A page of a table. At `now`, what was touched after `settled` is not yet expected to be referred to.
    async fn walk(&self, table: Table, from: Start, now: Time, settled: Time) -> Result<Walked>;

    /// A page of the blobs.
    async fn blobs(&self, from: Start, now: Time, settled: Time) -> Result<Vec<BlobSeen>>;

    /// A page of the manifests with their bytes, which is cut after `bytes`.
    async fn payloads(&self, from: Start, bytes: u64) -> Result<Vec<PayloadSeen>>;

    /// Which of these objects neither a blob nor an upload nor the queue of deletions knows.
    async fn unknown_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>>;

    /// What the tenant and the repository of a row are called.
    async fn names(&self, tenant: i64, repository: Option<i64>) -> Result<Names>;

    /// Asks for a review of a blob that is still forgotten; false if it is not.
    async fn review_blob(&self, at: &Position, due: Time) -> Result<bool>;

    /// Asks for a review of a manifest without a tag that has none; false if it has.
    async fn review_manifest(&self, at: &Position, due: Time) -> Result<bool>;

    /// Queues an object that is still unknown for its deletion; false if it is known.
    async fn delete_unknown(&self, key: Uuid, due: Time) -> Result<bool>;

    /// Names of up to `limit` repositories that have a blob, and how many there are, counted up to ten times that.
    async fn repositories_of(
        &self,
        tenant: TenantId,
        digest: &Digest,
        limit: u32,
    ) -> Result<(Vec<String>, u64)>;
}
