//! What there is only so much of, such as turns at work or memory, taken by tenants.
//!
//! A tenant has at most its share of it at a time, so that none keeps the others waiting with all there is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metadata::TenantId;

/// Tenants that are known before those that have and want nothing are looked for.
const KNOWN: usize = 1024;

/// So many units of something.
pub struct Shares {
    all: Arc<Semaphore>,
    each: Mutex<Each>,
    share: u32,
}

/// What is left of each tenant's share, for as long as it has or wants something: two counts for one tenant would be two
/// shares.
struct Each {
    tenants: HashMap<TenantId, Weak<Semaphore>>,
    /// With so many of them it is looked who has and wants nothing.
    crowded: usize,
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
            each: Mutex::new(Each {
                tenants: HashMap::new(),
                crowded: KNOWN,
            }),
            share: share.min(all),
        }
    }

    /// Units for a tenant; `None` if they are not free within `patience`, or are more than its share. First come, first
    /// served.
    pub async fn take(&self, tenant: TenantId, units: u32, patience: Duration) -> Option<Share> {
        if units > self.share {
            return None;
        }
        let (own, all) = (self.of(tenant), self.all.clone());
        let both = async {
            // The tenant's own first: whoever has too much waits for itself.
            let own = own.acquire_many_owned(units).await.ok()?;
            let all = all.acquire_many_owned(units).await.ok()?;
            Some(Share { own, all })
        };
        tokio::time::timeout(patience, both).await.ok().flatten()
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = each.tenants.get(&tenant).and_then(Weak::upgrade) {
            return own;
        }
        if each.tenants.len() >= each.crowded {
            each.tenants.retain(|_, own| own.strong_count() > 0);
            each.crowded = KNOWN.max(each.tenants.len() * 2);
        }
        let own = Arc::new(Semaphore::new(self.share as usize));
        each.tenants.insert(tenant, Arc::downgrade(&own));
        own
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

    #[tokio::test(start_paused = true)]
    async fn a_share_stays_the_same_however_many_tenants_come_and_go() {
        let shares = Shares::new(3, 2);
        let one = TenantId(0);
        let mut held = shares.take(one, 1, SOON).await.unwrap();
        for other in 1..40_000 {
            assert!(shares.take(TenantId(other), 2, SOON).await.is_some());
        }
        held.merge(shares.take(one, 1, SOON).await.unwrap());
        assert!(shares.take(one, 1, SOON).await.is_none());
        assert!(shares.each.lock().unwrap().tenants.len() <= KNOWN);
    }
}
