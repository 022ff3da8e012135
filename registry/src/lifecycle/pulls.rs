//! Pulls, noted in batches, each tag and manifest at most once an hour.
//!
//! A killed process loses the notes of its last seconds. What must not be lost, that a tag of an ephemeral repository
//! lives on, is written before the answer and only remembered here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::metadata::Time;
use crate::metadata::lifecycle::{Lifecycle, Pull};

/// Between two batches.
const EVERY: Duration = Duration::from_secs(5);
/// How often the same is noted at most; the store keeps to it as well.
const ONCE: Duration = Duration::from_secs(3600);
/// Pulls remembered as noted; of more, some are written again.
const REMEMBERED: u64 = 100_000;
/// Pulls of one statement batch.
const BATCH: usize = 200;
/// Most pulls that wait to be written; beyond them pulls go unnoted.
const WAITING: usize = 100_000;

/// Pulls that have been served.
pub struct Pulls {
    noted: Cache<Pull, ()>,
    renewed: Cache<Pull, ()>,
    waiting: Mutex<HashSet<Pull>>,
}

impl Default for Pulls {
    fn default() -> Self {
        let remember = || {
            Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(ONCE)
                .build()
        };
        Self {
            noted: remember(),
            renewed: remember(),
            waiting: Mutex::default(),
        }
    }
}

impl Pulls {
    /// Notes a pull.
    pub fn note(&self, pull: Pull) {
        if self.noted.contains_key(&pull) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.insert(pull.clone());
            drop(waiting);
            self.noted.insert(pull, ());
        }
    }

    /// Whether the life of a tag has been begun anew within the hour.
    pub fn is_renewed(&self, pull: &Pull) -> bool {
        self.renewed.contains_key(pull)
    }

    /// Remembers that the life of a tag was begun anew.
    pub fn renewed(&self, pull: Pull) {
        self.renewed.insert(pull, ());
    }

    /// Writes what waits.
    pub async fn flush(&self, store: &dyn Lifecycle) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        let mut pulls: Vec<Pull> = waiting.into_iter().collect();
        // Manifests before tags, each by name, as everywhere.
        pulls.sort_by(|a, b| {
            let key = |pull: &Pull| {
                (
                    pull.repository.tenant,
                    pull.tag.is_some(),
                    pull.repository.name.to_string(),
                )
            };
            key(a).cmp(&key(b))
        });
        for batch in pulls.chunks(BATCH) {
            if let Err(error) = store.record_pulls(batch.to_vec(), Time::now()).await {
                tracing::warn!(%error, pulls = batch.len(), "pulls could not be noted; the next ones will be");
                for pull in batch {
                    self.noted.invalidate(pull);
                }
            }
        }
    }

    /// Writes what waits, every few seconds, for ever.
    pub async fn follow(self: Arc<Self>, store: Arc<dyn Lifecycle>) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.flush(&*store).await;
        }
    }
}
