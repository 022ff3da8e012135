//! Which objects a bucket that is filled by replication has by now.
//!
//! An object never changes and its key is never used again, so that what was seen stays true until it is deleted; what
//! was missing may arrive any moment.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::Bucket;
use crate::blobs::ObjectKey;
use crate::flights::Flights;

/// How long a look may take.
pub const LOOK: Duration = Duration::from_secs(1);
/// Objects that are remembered to be there, about 150 bytes each, and for how long: a bucket may be emptied.
const THERE: u64 = 100_000;
const THERE_FOR: Duration = Duration::from_secs(3600);
/// Objects that are remembered to be missing, and for how long.
const MISSING: u64 = 10_000;
const MISSING_FOR: Duration = Duration::from_secs(5);

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The object is there in its full size.
    There,
    /// It is not, or not yet.
    Missing,
    /// The bucket gave no answer in time.
    Unknown,
}

/// What is remembered of one bucket.
pub struct Presence {
    there: Cache<ObjectKey, ()>,
    missing: Cache<ObjectKey, ()>,
    looks: Flights<ObjectKey, Found>,
}

impl Default for Presence {
    fn default() -> Self {
        let remember = |most, time| Cache::builder().max_capacity(most).time_to_live(time).build();
        Self {
            there: remember(THERE, THERE_FOR),
            missing: remember(MISSING, MISSING_FOR),
            looks: Flights::default(),
        }
    }
}

impl Presence {
    /// Whether the bucket has the object in this size: as remembered, or by one look for all who ask at once.
    pub async fn of(&self, bucket: &Bucket, key: &ObjectKey, size: u64) -> Found {
        if self.there.contains_key(key) {
            return Found::There;
        }
        if self.missing.contains_key(key) {
            return Found::Missing;
        }
        let look = || {
            let (bucket, key) = (bucket.clone(), key.clone());
            async move { look(&bucket, &key, size).await }
        };
        let (found, begun) = self.looks.share(key.clone(), look).await;
        let found = found.unwrap_or(Found::Unknown);
        match found {
            Found::There if begun => self.there.insert(key.clone(), ()),
            Found::Missing if begun => self.missing.insert(key.clone(), ()),
            Found::There | Found::Missing | Found::Unknown => {}
        }
        found
    }

    /// The object was not where it was remembered to be.
    pub fn has_gone(&self, key: &ObjectKey) {
        self.there.invalidate(key);
        self.missing.insert(key.clone(), ());
    }
}

async fn look(bucket: &Arc<dyn crate::blobs::BlobStore>, key: &ObjectKey, size: u64) -> Found {
    match tokio::time::timeout(LOOK, bucket.size(key)).await {
        Ok(Ok(Some(found))) if found == size => Found::There,
        Ok(Ok(Some(found))) => {
            tracing::warn!(
                object = key.path(),
                found,
                size,
                "an object of a region has another size than at home"
            );
            Found::Missing
        }
        Ok(Ok(None)) => Found::Missing,
        Ok(Err(error)) => {
            tracing::debug!(%error, object = key.path(), "a look for an object failed");
            Found::Unknown
        }
        Err(_) => Found::Unknown,
    }
}
