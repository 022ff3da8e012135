//! What there is only so much of, such as turns at work or memory, taken by tenants.
//!
//! A tenant has at most its share of it at a time, so that none keeps the others waiting with all there is.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metadata::TenantId;

/// Tenants whose shares are counted.
const TENANTS: u64 = 10_000;

/// So many units of something.
pub struct Shares {
    all: Arc<Semaphore>,
    each: Cache<TenantId, Arc<Semaphore>>,
    share: u32,
}

/// Units that were taken; given back when dropped.
#[derive(Debug)]
pub struct Share {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Shares {
    /// `all` units, of which one tenant has at most `share`.
    pub fn new(all: u32, share: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all as usize)),
            each: Cache::new(TENANTS),
            share: share.min(all),
        }
    }

    /// Units for a tenant; `None` if they are not free within `patience`, or are more than its share. First come, first
    /// served.
    pub async fn take(&self, tenant: TenantId, units: u32, patience: Duration) -> Option<Share> {
        if units > self.share {
            return None;
        }
        let fresh = || Arc::new(Semaphore::new(self.share as usize));
        let (own, all) = (self.each.get_with(tenant, fresh), self.all.clone());
        let both = async {
            // The tenant's own first: whoever has too much waits for itself.
            let own = own.acquire_many_owned(units).await.ok()?;
            let all = all.acquire_many_owned(units).await.ok()?;
            Some(Share { own, all })
        };
        tokio::time::timeout(patience, both).await.ok().flatten()
    }
}

impl Share {
    /// Joins two shares of one tenant into one.
    pub fn merge(&mut self, other: Share) {
        self.own.merge(other.own);
        self.all.merge(other.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_tenant_with_its_share_waits_for_itself_and_leaves_the_rest_to_others() {
        let shares = Shares::new(3, 2);
        let (one, other) = (TenantId(1), TenantId(2));
        let mut held = shares.take(one, 1, SOON).await.unwrap();
        held.merge(shares.take(one, 1, SOON).await.unwrap());
        assert!(shares.take(one, 1, SOON).await.is_none());
        let _last = shares.take(other, 1, SOON).await.unwrap();
        assert!(shares.take(other, 1, SOON).await.is_none());
        drop(held);
        assert!(shares.take(one, 2, SOON).await.is_some());
        assert!(shares.take(one, 3, SOON).await.is_none(), "more than a share");
    }
}
