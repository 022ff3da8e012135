//! Where the primary's log stands, and how far this database has come in it.

use std::time::Duration;

use sqlx::Row as _;

use super::super::position::{Lsn, Position, Replayed};
use super::super::{MetadataError, Result};
use super::PostgresStore;
use super::dialect::Connection;

#[async_trait::async_trait]
impl Position for PostgresStore {
    async fn written(&self) -> Result<Option<Lsn>> {
        self.read((), |c, ()| Box::pin(written(c))).await.map(Some)
    }

    async fn replayed(&self) -> Result<Option<Replayed>> {
        self.read((), |c, ()| Box::pin(replayed(c))).await.map(Some)
    }
}

/// Where the next record would be: behind that of every transaction that has been committed.
async fn written(c: &mut Connection) -> Result<Lsn> {
    let place: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
        .fetch_one(c)
        .await?;
    lsn(&place)
}

/// A standby that follows a primary and has replayed all that has come is up to date, however old the last transaction
/// is. One that is cut off knows the time of the last transaction alone, or, before the first, of its own start.
async fn replayed(c: &mut Connection) -> Result<Replayed> {
    let row = sqlx::query(
        "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text, \
         CASE WHEN NOT pg_is_in_recovery() THEN 0 \
         WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0 \
         ELSE extract(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) END::double precision",
    )
    .fetch_one(c)
    .await?;
    let place: Option<String> = row.try_get(0)?;
    let seconds: f64 = row.try_get(1)?;
    let behind = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    Ok(Replayed {
        at: lsn(&place.unwrap_or_default())?,
        behind,
    })
}

fn lsn(text: &str) -> Result<Lsn> {
    text.parse()
        .map_err(|error| MetadataError::Corrupt(format!("the place {text:?} in the database's log: {error}")))
}
