//! Which requests and tasks are traced.
//!
//! Who has no parent is traced by chance. Who comes with one that is not recorded is not traced either; who comes with
//! one that is, is: but anybody can send a `traceparent`, so only so many a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::figures::{Figure, count};
use super::traceparent::Parent;

/// Requests that are traced a second because their clients say so, of one replica.
const BY_CLIENTS: u64 = 100;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing is recorded.
    Not,
    /// It begins a trace.
    Root,
    /// It goes on with its caller's.
    Follows(Parent),
}

/// Decides.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Of 2^64 random numbers, as many are below it as are to be traced; nothing if all are.
    below: Option<u64>,
    begun: Instant,
    /// The second in the upper half, and how many clients had their way in it.
    clients: AtomicU64,
}

impl Sampler {
    /// Traces this share, 0 to 1, of what has no parent.
    pub(super) fn new(share: f64) -> Self {
        // As many as the type can tell apart; the cast saturates.
        let below = (share < 1.0).then_some((share * 2_f64.powi(64)) as u64);
        Self {
            below,
            begun: Instant::now(),
            clients: AtomicU64::new(0),
        }
    }

    /// What becomes of a request, or of a task, which has no parent.
    pub(super) fn decide(&self, parent: Option<Parent>) -> Decision {
        match parent {
            None => self.by_chance(rand::random()),
            Some(parent) if !parent.sampled => Decision::Not,
            Some(parent) if self.is_allowed(self.begun.elapsed().as_secs()) => Decision::Follows(parent),
            Some(_) => {
                count(Figure::Refused, 1);
                Decision::Not
            }
        }
    }

    fn by_chance(&self, random: u64) -> Decision {
        match self.below {
            Some(below) if random >= below => Decision::Not,
            _ => Decision::Root,
        }
    }

    /// Whether one more of this second may have its way.
    fn is_allowed(&self, second: u64) -> bool {
        let one_more = |seen: u64| {
            let (of, many) = (seen >> 32, seen & u64::from(u32::MAX));
            let many = if of == second { many } else { 0 };
            (many < BY_CLIENTS).then_some((second << 32) | (many + 1))
        };
        self.clients
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_traces_the_share_that_is_wanted() {
        let half = Sampler::new(0.5);
        assert_eq!(half.by_chance((1 << 63) - 1), Decision::Root);
        assert_eq!(half.by_chance(1 << 63), Decision::Not);
        for random in [0, 1, u64::MAX] {
            assert_eq!(Sampler::new(0.0).by_chance(random), Decision::Not);
            assert_eq!(Sampler::new(1.0).by_chance(random), Decision::Root);
        }
    }

    #[test]
    fn clients_have_their_way_so_many_times_a_second() {
        let sampler = Sampler::new(0.0);
        let allowed = |second| (0..2 * BY_CLIENTS).filter(|_| sampler.is_allowed(second)).count() as u64;
        assert_eq!(allowed(7), BY_CLIENTS);
        assert_eq!(allowed(7), 0);
        assert_eq!(allowed(8), BY_CLIENTS);
    }
}
