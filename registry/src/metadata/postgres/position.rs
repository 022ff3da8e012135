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
    lsn(&place).map(end_of_last)
}

/// Bytes of a page of the log, and of the headers that a page may begin with.
const PAGE: u64 = 8192;
const HEADERS: [u64; 2] = [24, 40];

/// Where the last record ends, if the next one would be the first of its page: a standby that has replayed everything
/// stands before the header, which comes with the next record. No record ends inside of a header.
fn end_of_last(next: Lsn) -> Lsn {
    let into = next.0 % PAGE;
    match HEADERS.contains(&into) {
        true => Lsn(next.0 - into),
        false => next,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_of_a_page_is_reached_once_the_page_before_it_is() {
        for (next, expected) in [
            ("0/3000148", "0/3000148"),
            ("0/3002018", "0/3002000"),
            ("1/4000028", "1/4000000"),
            ("0/3002000", "0/3002000"),
        ] {
            assert_eq!(
                end_of_last(next.parse().unwrap()),
                expected.parse().unwrap(),
                "{next}"
            );
        }
    }
}
