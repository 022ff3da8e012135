//! How long to wait before an object that failed is tried again: twice as long each time, up to five minutes,
//! with jitter, from the start again after a success. kube-runtime schedules retries but has no such limiter.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rand::RngExt as _;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Mutex<HashMap<String, u32>>,
}

impl Failures {
    /// Counts a failure of the object; when to try again.
    pub fn next(&self, object: &str) -> Duration {
        let mut counts = self.lock();
        let count = counts.entry(object.to_owned()).or_default();
        let wait = delay(*count);
        *count = count.saturating_add(1);
        wait
    }

    /// How often it has failed in a row.
    pub fn of(&self, object: &str) -> u32 {
        self.lock().get(object).copied().unwrap_or_default()
    }

    /// The object is well, or gone.
    pub fn reset(&self, object: &str) {
        self.lock().remove(object);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        // A panic elsewhere leaves the counts usable.
        self.counts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How long to wait after so many failures in a row before the last.
pub fn delay(failures: u32) -> Duration {
    jittered(nominal(failures))
}

fn nominal(failures: u32) -> Duration {
    LONGEST.min(FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)))
}

/// A time within a quarter of `delay`, so that what failed together does not return together.
pub fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let delays: Vec<u64> = (0..12).map(|n| nominal(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(nominal(u32::MAX), LONGEST);
    }

    #[test]
    fn a_success_starts_from_the_beginning() {
        let failures = Failures::default();
        for _ in 0..6 {
            failures.next("a");
        }
        assert!(failures.next("a") > Duration::from_secs(40));
        failures.reset("a");
        assert!(failures.next("a") < Duration::from_secs(2));
        assert_eq!((failures.of("a"), failures.of("b")), (1, 0));
    }
}
