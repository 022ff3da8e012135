//! Work that many ask for at once and that is done once: on one replica.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::Instrument as _;

type Running<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// Work under way, by what it is about.
pub struct Flights<K, V>(Running<K, V>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Takes work out of the list when it ends, however it ends.
struct Ending<K: Eq + Hash, V>(Running<K, V>, K);

impl<K: Eq + Hash, V> Drop for Ending<K, V> {
    fn drop(&mut self) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.1);
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What comes of the work that is under way, or of this if none is; it goes on when whoever asked for it goes away.
    /// The flag says whether it was begun here. `None` if it ended without an answer.
    pub async fn share<F>(&self, key: K, work: impl FnOnce() -> F) -> (Option<V>, bool)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut outcome, begun) = {
            let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(&key) {
                Some(outcome) => (outcome.clone(), false),
                None => {
                    let (done, outcome) = watch::channel(None);
                    running.insert(key.clone(), outcome.clone());
                    let ending = Ending(self.0.clone(), key);
                    let work = work();
                    let task = async move {
                        let value = work.await;
                        // Out of the list first: whoever comes now sees what was stored.
                        drop(ending);
                        let _ = done.send(Some(value));
                    };
                    tokio::spawn(task.in_current_span());
                    (outcome, true)
                }
            }
        };
        let value = outcome.wait_for(Option::is_some).await;
        (value.ok().and_then(|value| value.clone()), begun)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_piece_of_work_and_the_next_begins_anew() {
        let (flights, count) = (Flights::<u8, u32>::default(), Arc::new(AtomicU32::new(0)));
        let ask = || {
            flights.share(1, || {
                let count = count.clone();
                async move {
                    tokio::task::yield_now().await;
                    count.fetch_add(1, Ordering::SeqCst)
                }
            })
        };
        let all = join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(|(value, _)| *value == Some(0)));
        assert_eq!(all.iter().filter(|(_, begun)| *begun).count(), 1);
        assert_eq!(ask().await, (Some(1), true));
    }

    #[tokio::test]
    async fn work_goes_on_when_whoever_asked_for_it_goes_away() {
        let flights = Flights::<u8, u32>::default();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (gone, told) = (go.clone(), done.clone());
        let asked = flights.share(1, || async move {
            gone.notified().await;
            told.notify_one();
            7
        });
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(1), asked)
                .await
                .is_err()
        );
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn work_that_panics_leaves_nothing_behind() {
        let flights = Flights::<u8, u32>::default();
        let (value, _) = flights
            .share(1, || async { std::panic::resume_unwind(Box::new("quietly")) })
            .await;
        assert_eq!(value, None);
        assert_eq!(flights.share(1, || async { 2 }).await, (Some(2), true));
    }
}
