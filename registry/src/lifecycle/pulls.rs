//! Pulls, in batches: when, each tag and manifest at most once an hour; and how many there were.
//!
//! A killed process loses the notes of its last seconds. What must not be lost, that a tag of an ephemeral repository
//! lives on, is written before the answer and only remembered here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::metadata::lifecycle::{Lifecycle, Pull};
use crate::metadata::{TenantId, Time};

/// Between two batches.
const EVERY: Duration = Duration::from_secs(5);
/// Between two batches with numbers: batches without them, and one.
const COUNTED: u32 = 6;
/// How often the same is noted at most; the store keeps to it as well.
const ONCE: Duration = Duration::from_secs(3600);
/// Pulls remembered as noted; of more, some are written again.
const REMEMBERED: u64 = 100_000;
/// Pulls of one statement batch.
const BATCH: usize = 200;
/// Most tags and manifests whose pulls wait to be written; beyond them pulls go unnoted and uncounted.
const WAITING: usize = 100_000;

/// Pulls that have been served.
pub struct Pulls {
    noted: Cache<Pull, ()>,
    renewed: Cache<Pull, ()>,
    waiting: Mutex<Waiting>,
    /// Another registry counts them.
    is_elsewhere: AtomicBool,
}

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    /// Of which there has been a pull that is not noted yet.
    new: Vec<Pull>,
    counts: HashMap<Pull, u64>,
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
            is_elsewhere: AtomicBool::default(),
        }
    }
}

impl Pulls {
    /// Notes a pull, and counts it.
    pub fn note(&self, pull: Pull) {
        self.note_several(pull, 1);
    }

    /// Notes that there were so many pulls.
    pub fn note_several(&self, pull: Pull, times: u64) {
        let Some(pull) = self.count(pull, times) else {
            return;
        };
        if self.noted.contains_key(&pull) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.new.len() < WAITING {
            waiting.new.push(pull.clone());
            drop(waiting);
            self.noted.insert(pull, ());
        }
    }

    /// Counts pulls; gives them back if they are the first since the numbers were last written.
    fn count(&self, pull: Pull, times: u64) -> Option<Pull> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.counts.get_mut(&pull) {
            *count = count.saturating_add(times);
            return None;
        }
        if waiting.counts.len() < WAITING {
            waiting.counts.insert(pull.clone(), times);
        }
        Some(pull)
    }

    /// From now on another registry counts them, and nothing is written here.
    pub fn count_elsewhere(&self) {
        self.is_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Takes the numbers that wait, for another registry that is to count them. Nothing is left to be noted here.
    pub fn take(&self) -> Vec<(Pull, u64)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.new.clear();
        std::mem::take(&mut waiting.counts).into_iter().collect()
    }

    /// Gives back numbers that were taken.
    pub fn put_back(&self, counts: Vec<(Pull, u64)>) {
        for (pull, times) in counts {
            self.count(pull, times);
        }
    }

    /// How many tags and manifests have numbers that wait.
    pub fn waiting(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.counts.len()
    }

    /// Whether the life of a tag has been begun anew within the hour.
    pub fn is_renewed(&self, pull: &Pull) -> bool {
        self.renewed.contains_key(pull)
    }

    /// Remembers that the life of a tag was begun anew, by a pull.
    pub fn renewed(&self, pull: Pull) {
        self.renewed.insert(pull.clone(), ());
        self.count(pull, 1);
    }

    /// Writes what waits, unless another registry counts it.
    pub async fn flush(&self, store: &dyn Lifecycle) {
        if self.is_elsewhere.load(Ordering::Relaxed) {
            return;
        }
        self.write_new(store).await;
        self.write_counts(store).await;
    }

    async fn write_new(&self, store: &dyn Lifecycle) {
        let mut pulls = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut waiting.new)
        };
        pulls.sort_by(|a, b| order(a).cmp(&order(b)));
        for batch in pulls.chunks(BATCH) {
            if let Err(error) = store.record_pulls(batch.to_vec(), Time::now()).await {
                tracing::warn!(%error, pulls = batch.len(), "pulls could not be noted; the next ones will be");
                for pull in batch {
                    self.noted.invalidate(pull);
                }
            }
        }
    }

    async fn write_counts(&self, store: &dyn Lifecycle) {
        let mut counts: Vec<(Pull, u64)> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut waiting.counts).into_iter().collect()
        };
        counts.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
        for batch in counts.chunks(BATCH) {
            if let Err(error) = store.count_pulls(batch.to_vec()).await {
                // A statement that failed may have been done all the same: counted too little rather than too much.
                tracing::warn!(%error, "pulls of {} tags and manifests went uncounted", batch.len());
            }
        }
    }

    /// Writes what waits, every few seconds, for ever.
    pub async fn follow(self: Arc<Self>, store: Arc<dyn Lifecycle>) {
        loop {
            for _ in 1..COUNTED {
                tokio::time::sleep(EVERY).await;
                self.write_new(&*store).await;
            }
            tokio::time::sleep(EVERY).await;
            self.flush(&*store).await;
        }
    }
}

/// Manifests before tags, each by name, as everywhere.
fn order(pull: &Pull) -> (TenantId, bool, &str) {
    (
        pull.repository.tenant,
        pull.tag.is_some(),
        pull.repository.name.as_str(),
    )
}
