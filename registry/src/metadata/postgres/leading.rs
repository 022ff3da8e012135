//! Whether connections lead to the primary.
//!
//! An address can lead to a standby for a while: after a failover, or by a proxy that is behind. Pulls are served there, but what is
//! read there is older than what is acknowledged elsewhere once the address leads to the primary again. Writes notice by
//! themselves; reads would go on for as long as their connections live. So connections to a standby live for seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Connection;

/// How long a connection to a standby is used.
const USED_FOR: Duration = Duration::from_secs(3);
/// After one was seen, every connection is asked for this long; longer than the pool lets any live.
const WATCHED_FOR: Duration = Duration::from_secs(3600);
/// How often it is said that a connection leads to a standby.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// What is known of where connections lead.
pub(super) struct Leading {
    began: Instant,
    /// Until when every connection is asked, in seconds from then.
    watched_until: AtomicU64,
    /// Until when it is not said again that one leads to a standby, in the same way.
    said_until: AtomicU64,
}

impl Default for Leading {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            watched_until: AtomicU64::new(0),
            said_until: AtomicU64::new(0),
        }
    }
}

impl Leading {
    /// Looks where a new connection leads.
    pub async fn connected(&self, connection: &mut Connection) -> sqlx::Result<()> {
        if is_standby(connection).await? {
            // All connections are made anew every few seconds meanwhile.
            let now = self.began.elapsed().as_secs();
            if now >= self.said_until.load(Ordering::Relaxed) {
                self.said_until
                    .store(now + SAID_EVERY.as_secs(), Ordering::Relaxed);
                tracing::warn!(
                    "the metadata store's address leads to a standby: pulls are served, pushes are refused"
                );
            }
            let until = self.began.elapsed() + WATCHED_FOR;
            self.watched_until.fetch_max(until.as_secs(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether a connection of this age may be used once more.
    pub async fn is_of_use(&self, connection: &mut Connection, age: Duration) -> sqlx::Result<bool> {
        let is_watched = self.began.elapsed().as_secs() < self.watched_until.load(Ordering::Relaxed);
        if !is_watched || age < USED_FOR {
            return Ok(true);
        }
        Ok(!is_standby(connection).await?)
    }
}

/// Engines that speak as Postgres does and have no standbys may not know the question.
async fn is_standby(connection: &mut Connection) -> sqlx::Result<bool> {
    let asked = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection);
    match timeout(ASKED_WITHIN, asked).await {
        Ok(Err(sqlx::Error::Database(_))) => Ok(false),
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
