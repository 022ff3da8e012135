//! The blob store: where bytes lie, in a folder or in S3.
//!
//! An object is written once, under a key derived from the upload that brought it, and never again:
//! nothing is copied at commit, and deleting an object can never hit a newer upload. Which digest an
//! object holds is the metadata store's knowledge; this module knows keys and bytes only.
//!
//! An upload's progress is an [`UploadState`]: plain data that the caller keeps in the session row, so
//! that any replica can continue from it. Whatever a state describes is durable when it is handed out.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub mod budget;
pub mod folder;
pub mod open;
pub mod s3;
#[cfg(test)]
mod suite;

/// The store's name of one object: `blobs/<2 hex>/<uuid>`, derived from the upload's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectKey(Uuid);

impl ObjectKey {
    /// The key of the object that the upload `id` makes. Upload ids are never reused, so neither are keys.
    pub fn of_upload(id: Uuid) -> Self {
        Self(id)
    }

    /// The upload that made this object.
    pub fn upload(&self) -> Uuid {
        self.0
    }

    /// Path below the store's root.
    pub fn path(&self) -> String {
        format!("blobs/{:02x}/{}", self.shard(), self.0)
    }

    /// The key whose path this is.
    pub fn of_path(path: &str) -> Option<Self> {
        let (_, name) = path.rsplit_once('/')?;
        let key = Self(name.parse().ok()?);
        // A UUID can be written in several ways, of which one names the object.
        (key.path() == path).then_some(key)
    }

    /// The object's directory of 256: the last byte of the id, which is random in every UUID version
    /// that we make.
    pub fn shard(&self) -> u8 {
        self.0.as_bytes()[15]
    }
}

/// What one upload has stored durably so far. Serialised as JSON into the session row; replicas of two
/// releases share rows, so fields are only ever added, with defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// Bytes in a folder's temporary file.
    Folder(folder::State),
    /// Parts and tail segments in an S3 bucket.
    S3(s3::State),
}

impl UploadState {
    /// Number of bytes that this state holds durably.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Folder(state) => state.offset,
            Self::S3(state) => state.offset(),
        }
    }
}

/// A published object as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub key: ObjectKey,
    /// In bytes.
    pub size: u64,
    /// When it was published, by the store's clock.
    pub modified: SystemTime,
}

/// A page of the published objects, in the order of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// At most [`ObjectPage::LIMIT`].
    pub objects: Vec<StoredObject>,
    /// What lies among the objects and is none.
    pub foreign: Foreign,
    /// Where the next page begins (`after`); `None` after the last page.
    pub next: Option<ObjectKey>,
}

impl ObjectPage {
    /// Most objects of a page.
    pub const LIMIT: usize = 1000;
}

/// Files or keys in the place of objects that the registry did not make. Each is in one page of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The paths of the first of them.
    pub paths: Vec<String>,
    /// How many there are in all.
    pub count: u64,
}

impl Foreign {
    /// Most paths that are kept.
    pub const LIMIT: usize = 100;

    fn add(&mut self, path: String) {
        self.count += 1;
        if self.paths.len() < Self::LIMIT {
            self.paths.push(path);
        }
    }

    fn append(&mut self, other: Self) {
        self.count += other.count;
        let room = Self::LIMIT - self.paths.len();
        self.paths.extend(other.paths.into_iter().take(room));
    }
}

/// Why the blob store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The object or the upload's bytes are not there (any more).
    #[error("{what} is not in the blob store")]
    NotFound {
        /// The object's or upload's name.
        what: String,
    },
    /// The store is full, or writing would eat into its reserve.
    #[error("the blob store is full: {0}")]
    Full(String),
    /// The upload outgrew what the store can hold in one object.
    #[error("the upload is too large: {0}")]
    TooLarge(String),
    /// The stored state and the store disagree; the upload cannot go on.
    #[error("the upload cannot be continued: {0}")]
    Broken(String),
    /// The store failed or did not answer; the same call may succeed later.
    #[error("the blob store failed: {0}")]
    Unavailable(String),
}

/// A stream of an object's bytes. Dropping it releases everything it holds.
pub type BlobStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// One writer appending to one upload. After an error, or a call that was dropped before it ended, the
/// writer is of no more use: resume from the last state.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends bytes. Waits while the buffer budget is spent: that wait is the back-pressure on the client.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;

    /// The newest state that has become durable since the last call, if any. Its offset may lie
    /// behind what was written, and is always a boundary at which [`BlobWriter::at_boundary`] was true.
    fn durable(&mut self) -> Option<UploadState>;

    /// Tells whether the bytes written so far end on a boundary at which the store can make a state
    /// durable; the caller then keeps its hash state for this offset. Called after each `write`.
    fn at_boundary(&self) -> bool;

    /// How many more bytes may be written until the next boundary (never 0). The caller splits its
    /// writes there, so that it can take its hash midstate exactly at the boundary.
    fn until_boundary(&self) -> u64;

    /// Makes every byte written so far durable and returns the state to continue from. Gives back all
    /// buffer memory: a caller whose client falls silent flushes, so that silent clients cannot hold the
    /// memory that others wait for. The writer may go on afterwards.
    async fn flush(&mut self) -> Result<UploadState, BlobError>;

    /// Makes the object readable under its key, durably, and returns its size in bytes. Called only by a
    /// writer whose lease the session row still confirms, with the digest verified: a store may tell the
    /// objects of two writers that finish at once apart by their size alone. The state
    /// before it stays valid: after a crash [`BlobStore::complete`] on the last flushed state does the same.
    async fn finish(self: Box<Self>) -> Result<u64, BlobError>;
}

/// A folder or a bucket.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// The state of an upload without bytes. Touches nothing.
    fn begin(&self) -> UploadState;

    /// Continues the upload `id` after `state`. Bytes stored beyond it, by a writer that died, are dropped.
    /// `epoch` is the number of the writer's lease: it names what this writer stores, so that a writer that
    /// lost its lease never overwrites its successor's bytes. `expected` is how many bytes the
    /// whole blob will have, if the client said so; it chooses the part size of large uploads.
    async fn resume(
        &self,
        id: Uuid,
        epoch: i64,
        state: UploadState,
        expected: Option<u64>,
    ) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Publishes the object of an upload whose bytes are all in `state`. Idempotent: an upload that was
    /// completed before, by a call whose answer was lost, is a success.
    async fn complete(&self, id: Uuid, state: &UploadState) -> Result<u64, BlobError>;

    /// Frees everything that the upload `id` may have stored and not published. Idempotent.
    async fn discard(&self, id: Uuid, state: &UploadState) -> Result<(), BlobError>;

    /// Streams `range` (half open, within the object) of an object; memory is constant.
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<BlobStream, BlobError>;

    /// Streams `range` of an upload that is still being written, all of which its writer has handed to the store a
    /// while ago; `None` if the store shows nothing before it is published. What is published meanwhile is not found.
    async fn read_unpublished(&self, _id: Uuid, _range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        Ok(None)
    }

    /// Deletes an object; absent is success.
    async fn delete(&self, key: &ObjectKey) -> Result<(), BlobError>;

    /// The size of a published object in bytes; `None` if there is none of this key.
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, BlobError>;

    /// The page of published objects that follows `after`. What is published or deleted during a walk may be in
    /// it or not; everything else is in it once. Memory is that of the page.
    async fn objects(&self, after: Option<ObjectKey>) -> Result<ObjectPage, BlobError>;

    /// A URL by which a client may GET this object until `lifetime` has passed, or `None` if the store
    /// has no such thing. Signs locally, without a request.
    async fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>, BlobError>;

    /// Whether the store answers; for readiness.
    async fn probe(&self) -> Result<(), BlobError>;

    /// Ids of uploads that have bytes in the store which are not published and are older than `idle`
    /// (leftovers of crashes are among them). At most 1,000 a call, after `after` in the store's own order.
    async fn unpublished(&self, idle: Duration, after: Option<Uuid>) -> Result<Vec<Uuid>, BlobError>;

    /// Frees all unpublished bytes of an upload of which no session row exists any more. Idempotent.
    async fn sweep(&self, id: Uuid) -> Result<(), BlobError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_read_from_its_path_and_from_no_other(id: u128, other in ".{0,60}") {
            let key = ObjectKey::of_upload(Uuid::from_u128(id));
            let path = key.path();
            prop_assert_eq!(ObjectKey::of_path(&path), Some(key));
            prop_assert_eq!(ObjectKey::of_path(&path.to_uppercase()), None);
            prop_assert_eq!(ObjectKey::of_path(&path.replace('-', "")), None);
            if let Some(found) = ObjectKey::of_path(&other) {
                prop_assert_eq!(found.path(), other);
            }
        }
    }
}
