//! The audit trail.

use sqlx::Row as _;

use super::super::configuration::{AuditQuery, AuditRecord};
use super::super::{Result, Time};
use super::{Connection, dialect};

pub(super) async fn insert(c: &mut Connection, records: &[AuditRecord]) -> Result<()> {
    for record in records {
        sqlx::query(
            "INSERT INTO audit (tenant_id, at, id, tenant, actor, action, object, outcome, detail, address, count) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(record.tenant_id)
        .bind(record.at.0)
        .bind(record.id)
        .bind(&record.tenant)
        .bind(&record.actor)
        .bind(&record.action)
        .bind(&record.object)
        .bind(&record.outcome)
        .bind(&record.detail)
        .bind(&record.address)
        .bind(record.count)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

fn record(row: &dialect::Row) -> Result<AuditRecord> {
    Ok(AuditRecord {
        tenant_id: row.try_get(0)?,
        at: Time(row.try_get(1)?),
        id: row.try_get(2)?,
        tenant: row.try_get(3)?,
        actor: row.try_get(4)?,
        action: row.try_get(5)?,
        object: row.try_get(6)?,
        outcome: row.try_get(7)?,
        detail: row.try_get(8)?,
        address: row.try_get(9)?,
        count: row.try_get(10)?,
    })
}

macro_rules! audit_page {
    ($of:literal) => {
        concat!(
            "SELECT tenant_id, at, id, tenant, actor, action, object, outcome, detail, address, count FROM audit \
             WHERE ",
            $of,
            " AND (at, id) < ($2, $3) AND at >= $4 ORDER BY at DESC, id DESC LIMIT $5"
        )
    };
}

pub(super) async fn list(c: &mut Connection, query: &AuditQuery) -> Result<Vec<AuditRecord>> {
    // By the primary key for one tenant, by audit_by_time for all.
    let statement = match query.tenant {
        Some(_) => audit_page!("tenant_id = $1"),
        None => audit_page!("$1 = 0"),
    };
    let (at, id) = query.before.unwrap_or((Time(i64::MAX), uuid::Uuid::max()));
    let rows = sqlx::query(statement)
        .bind(query.tenant.unwrap_or_default())
        .bind(at.0)
        .bind(id)
        .bind(query.since.map_or(0, |since| since.0))
        .bind(i64::from(query.limit))
        .fetch_all(&mut *c)
        .await?;
    rows.iter().map(record).collect()
}

pub(super) async fn forget(c: &mut Connection, before: Time, limit: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM audit WHERE (tenant_id, at, id) IN (SELECT tenant_id, at, id FROM audit WHERE at < $1 \
         ORDER BY at, id LIMIT $2)",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}
