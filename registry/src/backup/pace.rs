//! Most bytes a second, over all threads that copy.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A limit that threads share; cheap to clone.
#[derive(Clone)]
pub struct Pace {
    /// Bytes a second.
    rate: Option<u64>,
    /// When the next bytes may pass.
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// At most so many bytes a second, or as fast as it goes.
    pub fn new(rate: Option<u64>) -> Self {
        Self {
            rate: rate.filter(|rate| *rate > 0),
            next: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// When bytes that have been handled now may be followed by others. Time that nobody used is not saved up.
    fn until(&self, bytes: usize) -> Option<Instant> {
        let rate = self.rate?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let took = Duration::from_nanos(
            u64::try_from(bytes as u128 * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        *next = (*next).max(Instant::now()) + took;
        Some(*next)
    }

    /// Waits, blocking, after bytes have been handled.
    pub(super) fn wait(&self, bytes: usize) {
        if let Some(until) = self.until(bytes) {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// The same without blocking.
    pub(super) async fn rest(&self, bytes: usize) {
        if let Some(until) = self.until(bytes) {
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_rate() {
        let pace = Pace::new(Some(1000));
        let begun = Instant::now();
        let ends: Vec<Instant> = (0..10).filter_map(|_| pace.clone().until(100)).collect();
        assert_eq!(ends.len(), 10);
        assert!(ends[9] >= begun + Duration::from_secs(1));
        assert!(Pace::new(None).until(1).is_none() && Pace::new(Some(0)).until(1).is_none());
    }
}
