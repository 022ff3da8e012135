//! The global buffer budget: all upload buffers of the process together stay below it.
//!
//! Waiting for memory is back-pressure on the client's socket, never an allocation.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are granted in steps of this size.
const STEP: u64 = 64 * 1024;

/// A shared number of bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    steps: Arc<Semaphore>,
    total: u32,
}

/// Bytes granted; given back on drop.
#[derive(Debug)]
pub struct Grant {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`, at least one step.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from((bytes / STEP).max(1)).unwrap_or(u32::MAX);
        Self {
            steps: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Steps that `bytes` take; a request larger than the whole budget is granted the whole budget,
    /// so that a small budget slows down and never locks up.
    fn steps_for(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(STEP))
            .unwrap_or(u32::MAX)
            .clamp(1, self.total)
    }

    /// Takes bytes if they are free now.
    pub fn try_take(&self, bytes: u64) -> Option<Grant> {
        let permit = self
            .steps
            .clone()
            .try_acquire_many_owned(self.steps_for(bytes))
            .ok()?;
        Some(Grant { permit })
    }

    /// Waits, first come first served, until the bytes are free.
    pub async fn take(&self, bytes: u64) -> Grant {
        let permit = self.steps.clone().acquire_many_owned(self.steps_for(bytes)).await;
        // The semaphore is never closed.
        Grant {
            permit: permit.expect("the budget's semaphore is never closed"),
        }
    }

    /// Bytes that are free now.
    pub fn free(&self) -> u64 {
        self.steps.available_permits() as u64 * STEP
    }
}

impl Grant {
    /// Joins two grants into one.
    pub fn merge(&mut self, other: Grant) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grant_larger_than_the_budget_takes_it_all_and_gives_it_back() {
        let budget = Budget::new(1024 * 1024);
        let all = budget.take(u64::MAX).await;
        assert!(budget.try_take(1).is_none());
        drop(all);
        assert_eq!(budget.free(), 1024 * 1024);
    }
}
