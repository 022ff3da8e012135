//! When a delivery that failed is tried again, and when no more. Pure.

use std::time::Duration;

use crate::metadata::Time;
use crate::metadata::events::Tried;

/// The wait behind the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(3600);

/// For how long deliveries are tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first try to the last.
    pub retry: Duration,
}

/// A try that failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    /// Those before it.
    pub attempts: u64,
    /// From when on it has been tried.
    pub since: Time,
    /// For how long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Why.
    pub why: String,
}

impl Patience {
    /// What becomes of a delivery that failed at `now`. `jitter` from 0 to 1 spreads what failed together.
    pub(super) fn after(self, failed: Failed, now: Time, jitter: f64) -> Tried {
        let doublings = u32::try_from(failed.attempts).unwrap_or(u32::MAX).min(16);
        let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
        let wait = wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let asked = failed.retry_after.unwrap_or_default().min(LONGEST);
        let at = now.plus(wait.max(asked));
        let why = failed.why;
        if at > failed.since.plus(self.retry) {
            return Tried::Dead { why };
        }
        Tried::Again { at, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Patience = Patience {
        retry: Duration::from_secs(24 * 3600),
    };

    fn failed(attempts: u64) -> Failed {
        Failed {
            attempts,
            since: Time(0),
            retry_after: None,
            why: "500".into(),
        }
    }

    fn wait(failed: Failed, jitter: f64) -> i64 {
        match DAY.after(failed, Time(0), jitter) {
            Tried::Again { at, .. } => at.0 / 1_000_000,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_double_up_to_an_hour_and_are_spread() {
        let waits: Vec<i64> = [0, 1, 2, 10, 11, 500].map(|n| wait(failed(n), 1.0)).to_vec();
        assert_eq!(waits, [2, 4, 8, 2048, 3600, 3600]);
        assert_eq!(wait(failed(2), 0.0), 4);
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_but_not_beyond_an_hour() {
        let asked = |seconds| Failed {
            retry_after: Some(Duration::from_secs(seconds)),
            ..failed(0)
        };
        assert_eq!(wait(asked(90), 1.0), 90);
        assert_eq!(wait(asked(1), 1.0), 2);
        assert_eq!(wait(asked(u64::MAX), 1.0), 3600);
    }

    #[test]
    fn a_delivery_is_given_up_when_its_next_try_would_come_too_late() {
        let late = Time(0).plus(DAY.retry).minus(Duration::from_secs(1));
        assert!(matches!(DAY.after(failed(0), late, 1.0), Tried::Dead { .. }));
        let early = Time(0).plus(DAY.retry).minus(Duration::from_secs(3));
        assert!(matches!(DAY.after(failed(0), early, 1.0), Tried::Again { .. }));
    }
}
