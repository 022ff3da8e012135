//! One region: its bucket, whether it answers, and what it has.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Bucket;
use super::file::BucketPlan;
use super::presence::{Found, LOOK, Presence};
use super::relay::relay;
use crate::blobs::budget::Budget;
use crate::blobs::open::{OpenError, open_brief};
use crate::blobs::{BlobError, BlobStream, ObjectKey};

/// Between two looks whether the bucket answers.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// What a bucket was asked for by requests, since the process began.
#[derive(Default)]
pub struct Tally {
    /// Clients that were sent to it.
    pub redirected: AtomicU64,
    /// Answers that its bytes were streamed into.
    pub streamed: AtomicU64,
    /// Requests that went home since it lacked the object,
    pub missing: AtomicU64,
    /// since it does not answer,
    pub away: AtomicU64,
    /// or since its bytes broke off.
    pub broken: AtomicU64,
}

/// One region.
pub struct Region {
    name: String,
    bucket: Bucket,
    globally_replicated: bool,
    presence: Presence,
    /// Whether the bucket answered when it was last asked anything.
    up: AtomicBool,
    pub(super) tally: Tally,
}

impl Region {
    /// Opens the bucket without a request to it. It counts as away until it has answered.
    pub(super) async fn open(name: &str, plan: &BucketPlan, budget: Budget) -> Result<Self, OpenError> {
        Ok(Self::new(
            name,
            open_brief(&plan.url, budget).await?,
            plan.globally_replicated,
        ))
    }

    pub(super) fn new(name: &str, bucket: Bucket, globally_replicated: bool) -> Self {
        Self {
            name: name.to_owned(),
            bucket,
            globally_replicated,
            presence: Presence::default(),
            up: AtomicBool::new(false),
            tally: Tally::default(),
        }
    }

    /// As the file calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Whether the bucket answers, as far as is known.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether an object can be read here.
    pub async fn holds(&self, key: &ObjectKey, size: u64) -> bool {
        let found = if !self.is_up() {
            Found::Unknown
        } else if self.globally_replicated {
            Found::There
        } else {
            self.presence.of(&self.bucket, key, size).await
        };
        match found {
            Found::There => true,
            Found::Missing => {
                count(&self.tally.missing);
                false
            }
            Found::Unknown => {
                count(&self.tally.away);
                self.turned(false);
                false
            }
        }
    }

    /// Where a client gets an object that is here; `None` if it is to be had at home instead.
    pub async fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Option<String> {
        match self.bucket.presign(key, lifetime).await {
            Ok(url) => url,
            Err(error) => {
                tracing::warn!(region = self.name, %error, "no link into a region; clients go home");
                None
            }
        }
    }

    /// A client was sent here.
    pub fn redirected(&self) {
        count(&self.tally.redirected);
    }

    /// Streams a part of an object that is here, and goes on at home should it break off; `None` if it is to be read
    /// at home from its first byte.
    pub async fn read(
        self: &Arc<Self>,
        home: &Bucket,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Option<BlobStream> {
        match tokio::time::timeout(LOOK, self.bucket.read(key, range.clone())).await {
            Ok(Ok(stream)) => {
                count(&self.tally.streamed);
                Some(relay(self.clone(), stream, home.clone(), key.clone(), range))
            }
            Ok(Err(BlobError::NotFound { .. })) => {
                count(&self.tally.missing);
                self.presence.has_gone(key);
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(region = self.name, %error, "a region's object cannot be read");
                count(&self.tally.away);
                self.turned(false);
                None
            }
            Err(_) => {
                count(&self.tally.away);
                self.turned(false);
                None
            }
        }
    }

    /// The bytes of an object broke off.
    pub(super) fn broke(&self, why: &str) {
        tracing::warn!(
            region = self.name,
            why,
            "a region's bytes broke off; the rest comes from home"
        );
        count(&self.tally.broken);
        self.turned(false);
    }

    /// Looks for ever whether the bucket answers, so that it is no request that finds out.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            let answer = tokio::time::timeout(LOOK, self.bucket.probe()).await;
            if let Ok(Err(error)) = &answer {
                tracing::debug!(region = self.name, %error, "a region's bucket");
            }
            self.turned(matches!(answer, Ok(Ok(()))));
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    fn turned(&self, is_up: bool) {
        if self.up.swap(is_up, Ordering::Relaxed) == is_up {
            return;
        }
        match is_up {
            true => tracing::info!(region = self.name, "the region's bucket answers"),
            false => tracing::warn!(
                region = self.name,
                "the region's bucket does not answer; reads go home"
            ),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
