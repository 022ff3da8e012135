//! One at a time: what two tags have in common is looked at and copied by one of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// A lock for each key in use. It holds nothing for keys that nobody waits for.
pub(super) struct Locks<K>(RefCell<HashMap<K, std::sync::Arc<Mutex<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// A key that is taken.
pub(super) struct Taken<K: Eq + Hash + Clone> {
    locks: Rc<Locks<K>>,
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Locks<K> {
    /// Waits until nobody else has this key.
    pub(super) async fn take(self: &Rc<Self>, key: K) -> Taken<K> {
        let lock = self.0.borrow_mut().entry(key.clone()).or_default().clone();
        let guard = lock.lock_owned().await;
        Taken {
            locks: self.clone(),
            key,
            guard: Some(guard),
        }
    }
}

impl<K: Eq + Hash + Clone> Drop for Taken<K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.locks.0.borrow_mut();
        // Nobody but the map has it: nobody waits.
        if locks
            .get(&self.key)
            .is_some_and(|lock| std::sync::Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_by_one_and_forgotten_by_the_last() {
        let locks = Rc::new(Locks::<u32>::default());
        let first = locks.take(1).await;
        let mut second = Box::pin(locks.take(1));
        assert!(futures_util::poll!(&mut second).is_pending(), "one at a time");
        drop(locks.take(2).await);
        drop(first);
        drop(second.await);
        assert!(locks.0.borrow().is_empty());
    }
}
