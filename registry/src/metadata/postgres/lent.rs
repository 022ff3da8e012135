//! Connections that are lent for one piece of work, and given up if the database is silent.
//!
//! A machine that loses its power says nothing: whatever waits for it waits until TCP gives up, a quarter of an hour or
//! for ever. So every wait has a limit, also the one for a connection that comes back: what does not answer is closed,
//! and its place in the pool is free for a connection to wherever the database is by then.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgPool, Postgres};

use super::Connection;
use crate::metadata::{MetadataError, Result};

/// How long a connection that comes back may take to show that it is of further use.
const RETURNED_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection that was idle may take to show that it is of use; another one is tried then.
const TRIED_WITHIN: Duration = Duration::from_secs(1);

/// Whether the database is still there at the other end.
pub(super) async fn is_alive(connection: &mut Connection) -> sqlx::Result<()> {
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let tried = tokio::time::timeout(TRIED_WITHIN, connection.ping());
    tried.await.map_err(silent)?
}

/// A connection of the pool. It goes back when this value is dropped.
pub(super) struct Lent {
    connection: PoolConnection<Postgres>,
    is_done_with: bool,
}

impl Lent {
    pub(super) async fn of(pool: &PgPool) -> Result<Self> {
        Ok(Self {
            connection: pool.acquire().await?,
            is_done_with: false,
        })
    }

    /// It is of no further use: nobody gets it after this.
    pub(super) fn close(mut self) {
        self.is_done_with = true;
        self.connection.close_on_drop();
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.is_done_with {
            return;
        }
        // The pool's own way back waits without a limit for the database to say that all is well.
        let returning = self.connection.return_to_pool();
        runtime.spawn(async move {
            if tokio::time::timeout(RETURNED_WITHIN, returning).await.is_err() {
                tracing::warn!("a connection to the metadata store was given up: it does not answer");
            }
        });
    }
}

/// What comes of the work, or an error if nothing has by then.
pub(super) async fn answered<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_| MetadataError::Unavailable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.map_err(silent)?
}
