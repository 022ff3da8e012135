//! How far something is that takes long, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters that the work raises and somebody else reads.
#[derive(Debug, Default)]
pub struct Progress {
    step: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

/// The counters at one moment. What has a total of 0 is not counted in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What is being done.
    pub step: &'static str,
    /// Rows or objects done with.
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// Bytes done with.
    pub done_bytes: u64,
    /// Of how many.
    pub total_bytes: u64,
}

impl Progress {
    /// A step begins.
    pub fn begin(&self, step: &'static str, total: u64, total_bytes: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Rows or objects were done with.
    pub fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes were done with.
    pub fn add_bytes(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn seen(&self) -> Seen {
        Seen {
            step: *self.step.lock().unwrap_or_else(PoisonError::into_inner),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }
}
