//! How far a registry that only reads is behind its primary, and waiting until it is not.
//!
//! One task asks the database, no request does; requests read what it has seen, or wait until it has seen enough. It
//! uses the metadata store's [`Position`]. [`pulls`] tells the primary what has been pulled meanwhile.
//!
//! What must hold: what is told of a standby's age is never younger than it is, but for the time that a broken link to
//! the primary takes to be noticed by the standby (`wal_receiver_timeout`).

mod figures;
pub mod pulls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::metadata::position::{Lsn, Position};

pub use figures::Figures;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The same while somebody waits.
const WAITED_FOR: Duration = Duration::from_millis(50);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(3);
/// What was seen is this old at most if the database answers.
const FRESH: Duration = Duration::from_secs(5);

/// What was last seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Lsn,
    behind: Duration,
    since: Instant,
}

/// A database that is read from, as it follows another one.
pub struct Standby {
    position: Arc<dyn Position>,
    seen: watch::Sender<Option<Seen>>,
    max_lag: Duration,
    waiting: AtomicU64,
    /// Somebody has begun to wait.
    look_now: Notify,
}

/// How the standby stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Everything before it can be read.
    pub at: Lsn,
    /// How old what can be read may be.
    pub behind: Duration,
}

/// One who waits; counted until dropped.
struct Waiter<'s>(&'s Standby);

impl<'s> Waiter<'s> {
    fn of(standby: &'s Standby) -> Self {
        standby.waiting.fetch_add(1, Ordering::Relaxed);
        standby.look_now.notify_one();
        Self(standby)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Standby {
    /// Begins to look, for ever. Beyond `max_lag` there is a [`Standby::warning`].
    pub fn follow(position: Arc<dyn Position>, max_lag: Duration) -> Arc<Self> {
        let standby = Arc::new(Self {
            position,
            seen: watch::Sender::new(None),
            max_lag,
            waiting: AtomicU64::new(0),
            look_now: Notify::new(),
        });
        tokio::spawn(standby.clone().look_for_ever());
        standby
    }

    async fn look_for_ever(self: Arc<Self>) {
        let mut failed = String::new();
        loop {
            let now = Instant::now();
            let failure = match tokio::time::timeout(LOOK, self.position.replayed()).await {
                Ok(Ok(Some(replayed))) => {
                    self.seen.send_replace(Some(Seen {
                        at: replayed.at,
                        behind: replayed.behind,
                        since: now,
                    }));
                    String::new()
                }
                Ok(Ok(None)) => "it has no log".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("it did not answer within {} s", LOOK.as_secs()),
            };
            if failure != failed && !failure.is_empty() {
                tracing::warn!(failure, "how far the standby is behind is not known");
            }
            failed = failure;
            let pause = match self.waiting.load(Ordering::Relaxed) {
                0 => EVERY,
                _ => WAITED_FOR,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Not at once again and again, however many come.
                () = self.look_now.notified() => tokio::time::sleep(WAITED_FOR.min(pause)).await,
            }
        }
    }

    /// How it stands; nothing before the database has told.
    pub fn standing(&self) -> Option<Standing> {
        let seen = (*self.seen.borrow())?;
        let age = seen.since.elapsed();
        // Whatever has not been seen for a while may have stood still for as long.
        let unseen = if age > FRESH { age } else { Duration::ZERO };
        Some(Standing {
            at: seen.at,
            behind: seen.behind.saturating_add(unseen),
        })
    }

    /// Waits until everything before a place can be read, for `limit` at most; false if it cannot be by then.
    pub async fn has_come_to(&self, place: Lsn, limit: Duration) -> bool {
        let mut seen = self.seen.subscribe();
        let is_there = |seen: &Option<Seen>| seen.is_some_and(|seen| seen.at >= place);
        if is_there(&seen.borrow()) {
            return true;
        }
        let _waiter = Waiter::of(self);
        let come = seen.wait_for(is_there);
        matches!(tokio::time::timeout(limit, come).await, Ok(Ok(_)))
    }

    /// What whoever runs the registry should know.
    pub fn warning(&self) -> Option<String> {
        let Some(Standing { behind, .. }) = self.standing() else {
            return Some("metadata: how far the standby is behind is not known".to_owned());
        };
        let (behind, most) = (behind.as_secs(), self.max_lag.as_secs());
        (behind > most).then(|| format!("metadata: the standby is {behind} s behind; --max-lag is {most} s"))
    }
}

impl std::fmt::Debug for Standby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Standby")
    }
}

#[cfg(test)]
mod tests;
