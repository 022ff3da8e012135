//! Objects of the blob store: which are referred to, and which are to be deleted.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Limits, Result, TenantId, Time};
use super::usage::{self, Growth};
use super::{Connection, dialect};
use crate::blobs::ObjectKey;

pub(super) async fn enqueue(
    c: &mut Connection,
    tenant: TenantId,
    key: Uuid,
    size: i64,
    due: Time,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO object_deletion (tenant_id, object_key, due_at, size) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, object_key) DO NOTHING",
    )
    .bind(tenant.0)
    .bind(key)
    .bind(due.0)
    .bind(size)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn due(
    c: &mut Connection,
    now: Time,
    retry: Time,
    limit: u32,
) -> Result<Vec<(TenantId, ObjectKey)>> {
    let rows = sqlx::query(concat!(
        // Materialised, since a plan that ran the choice again for each row would exceed the limit.
        "WITH due AS MATERIALIZED (SELECT tenant_id, object_key FROM object_deletion WHERE due_at <= $1 \
         ORDER BY due_at LIMIT $3",
        for_update_skip_locked!(),
        ") UPDATE object_deletion SET due_at = $2, attempts = attempts + 1 \
         WHERE (tenant_id, object_key) IN (SELECT tenant_id, object_key FROM due) RETURNING tenant_id, object_key"
    ))
    .bind(now.0)
    .bind(retry.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| Ok((TenantId(row.try_get(0)?), ObjectKey::of_upload(row.try_get(1)?))))
        .collect()
}

pub(super) async fn forget(c: &mut Connection, tenant: TenantId, key: Uuid) -> Result<()> {
    let size: Option<i64> = sqlx::query_scalar(
        "DELETE FROM object_deletion WHERE tenant_id = $1 AND object_key = $2 RETURNING size",
    )
    .bind(tenant.0)
    .bind(key)
    .fetch_optional(&mut *c)
    .await?;
    let growth = Growth {
        stored: -size.unwrap_or_default(),
        ..Growth::default()
    };
    let _ = usage::grow(c, tenant, 0, growth, &Limits::default()).await?;
    Ok(())
}

/// Which of `keys` a blob refers to, by `blob_by_object`.
pub(super) async fn live(c: &mut Connection, keys: &[Uuid]) -> Result<Vec<Uuid>> {
    let live = sqlx::query_scalar(concat!(
        "SELECT object_key FROM blob WHERE object_key",
        in_uuids!("$1")
    ))
    .bind(dialect::uuids(keys))
    .fetch_all(&mut *c)
    .await?;
    Ok(live)
}
