//! How many uploads each tenant has open and how many bytes they hold.
//!
//! An estimate: what this process takes in and ends is counted at once, what others do when the sweep counts anew. It
//! keeps uploads that are never closed from growing beyond the quota; what is stored is counted exactly at each commit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metadata::{OpenUploads, TenantId};

/// Those of all tenants.
#[derive(Default)]
pub(in crate::distribution) struct Opened(Mutex<HashMap<TenantId, Arc<Open>>>);

/// Those of one tenant.
#[derive(Debug, Default)]
pub(in crate::distribution) struct Open {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Opened {
    /// Those of a tenant.
    pub fn of(&self, tenant: TenantId) -> Arc<Open> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(tenant).or_default().clone()
    }

    /// Takes what was counted in the store.
    pub fn counted(&self, counts: &[OpenUploads]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants: HashSet<TenantId> = counts.iter().map(|counted| counted.tenant).collect();
        all.retain(|tenant, open| {
            open.count.store(0, Relaxed);
            open.bytes.store(0, Relaxed);
            tenants.contains(tenant) || Arc::strong_count(open) > 1
        });
        for counted in counts {
            let open = all.entry(counted.tenant).or_default();
            open.count.store(counted.count, Relaxed);
            open.bytes.store(counted.bytes, Relaxed);
        }
    }
}

impl Open {
    /// Counts a session in; false if there are so many already.
    pub fn begins(&self, most: u64) -> bool {
        let more = |count| (count < most).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Counts a session out that was committed, cancelled or refused, with what it held.
    pub fn ended(&self, bytes: u64) {
        less(&self.count, 1);
        self.freed(bytes);
    }

    /// Bytes have come in.
    pub fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes are no longer an open upload's.
    pub fn freed(&self, bytes: u64) {
        less(&self.bytes, bytes);
    }

    /// Bytes that all of them hold.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// Subtracts without wrapping: an estimate may be too small.
fn less(number: &AtomicU64, by: u64) {
    let _ = number.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(by)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(1);

    #[test]
    fn what_is_counted_takes_the_place_of_the_estimate() {
        let opened = Opened::default();
        assert!(opened.of(TENANT).begins(2) && opened.of(TENANT).begins(2) && !opened.of(TENANT).begins(2));
        opened.of(TENANT).received(100);
        opened.of(TENANT).ended(30);
        assert_eq!(opened.of(TENANT).bytes(), 70);
        opened.of(TENANT).ended(1000);
        assert_eq!(opened.of(TENANT).bytes(), 0);
        opened.counted(&[OpenUploads {
            tenant: TENANT,
            count: 2,
            bytes: 50,
        }]);
        assert!(opened.of(TENANT).bytes() == 50 && !opened.of(TENANT).begins(2));
        opened.counted(&[]);
        assert!(opened.of(TENANT).bytes() == 0 && opened.of(TENANT).begins(2));
    }
}
