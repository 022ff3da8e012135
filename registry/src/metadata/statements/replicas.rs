//! What the replicas say about themselves.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::configuration::Replica;
use super::super::{MetadataError, Result, Time};
use super::{Connection, dialect};

/// Replicas that were not seen for this long, in microseconds, are forgotten.
const FORGOTTEN: i64 = 3_600_000_000;

fn list(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text).map_err(|error| MetadataError::Corrupt(format!("list of a replica: {error}")))
}

fn stored(list: &[String]) -> String {
    serde_json::Value::from(list.to_vec()).to_string()
}

fn replica(row: &dialect::Row) -> Result<Replica> {
    Ok(Replica {
        id: row.try_get(0)?,
        host: row.try_get(1)?,
        started_at: Time(row.try_get(2)?),
        seen_at: Time(row.try_get(3)?),
        version: row.try_get(4)?,
        keys: list(row.try_get(5)?)?,
        failed: list(row.try_get(6)?)?,
    })
}

pub(super) async fn heartbeat(c: &mut Connection, replica: &Replica) -> Result<()> {
    sqlx::query(
        "INSERT INTO replica (id, host, started_at, seen_at, version, keys, failed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, \
         version = excluded.version, keys = excluded.keys, failed = excluded.failed",
    )
    .bind(replica.id)
    .bind(&replica.host)
    .bind(replica.started_at.0)
    .bind(replica.seen_at.0)
    .bind(replica.version)
    .bind(stored(&replica.keys))
    .bind(stored(&replica.failed))
    .execute(&mut *c)
    .await?;
    sqlx::query("DELETE FROM replica WHERE seen_at < $1")
        .bind(replica.seen_at.0 - FORGOTTEN)
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn leave(c: &mut Connection, id: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM replica WHERE id = $1")
        .bind(id)
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn since(c: &mut Connection, since: Time) -> Result<Vec<Replica>> {
    let rows = sqlx::query(
        "SELECT id, host, started_at, seen_at, version, keys, failed FROM replica WHERE seen_at >= $1 \
         ORDER BY started_at, id",
    )
    .bind(since.0)
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(replica).collect()
}
