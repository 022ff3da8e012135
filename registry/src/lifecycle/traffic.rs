//! What looks after content gives way to requests: while they come, it rests as long as each piece of its work took.
//!
//! The share that is left to it is a constant one, so that it gets on however long the traffic lasts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// For how many milliseconds after a request more are expected.
const LASTS: u64 = 100;
/// No request yet.
const NEVER: u64 = u64::MAX;

/// The requests of the registry's listener.
#[derive(Debug)]
pub struct Traffic {
    begun: Instant,
    /// When the last request came, in milliseconds since `begun`.
    last: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(NEVER),
        }
    }
}

impl Traffic {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// A request has come.
    pub fn request(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// Whether requests are coming.
    pub fn is_busy(&self) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != NEVER && self.now().saturating_sub(last) < LASTS
    }

    /// Rests after some work, if requests are coming.
    pub async fn rest(&self, work: Duration) {
        if self.is_busy() {
            tokio::time::sleep(work).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_rests_only_while_requests_come() {
        let (traffic, work) = (Traffic::default(), Duration::from_millis(2 * LASTS));
        let rested = async || {
            let begun = Instant::now();
            traffic.rest(work).await;
            begun.elapsed()
        };
        assert_eq!(rested().await, Duration::ZERO, "there was none yet");
        traffic.request();
        assert_eq!(rested().await, work);
        assert_eq!(rested().await, Duration::ZERO, "there was none for a while");
        traffic.request();
        assert!(traffic.is_busy());
    }
}
