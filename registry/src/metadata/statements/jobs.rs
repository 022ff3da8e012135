//! Jobs that replicas share: who does what until when.

use sqlx::Row as _;

use super::super::lifecycle::{Job, JobKey, JobKind};
use super::super::{Result, TenantId, Time};
use super::{Connection, dialect};

fn job(row: &dialect::Row) -> Result<Job> {
    Ok(Job {
        due_at: Time(row.try_get(0)?),
        claimed_until: Time(row.try_get(1)?),
        claimed_by: row.try_get(2)?,
        state: row.try_get(3)?,
    })
}

pub(super) async fn find(c: &mut Connection, key: &JobKey) -> Result<Option<Job>> {
    let row = sqlx::query(
        "SELECT due_at, claimed_until, claimed_by, state FROM job WHERE tenant_id = $1 AND kind = $2 AND name = $3",
    )
    .bind(key.tenant.0)
    .bind(key.kind.to_stored())
    .bind(&key.name)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(job).transpose()
}

pub(super) async fn list(
    c: &mut Connection,
    kind: JobKind,
    due: Time,
    after: &(i64, String),
    limit: u32,
) -> Result<Vec<(TenantId, String, Job)>> {
    let rows = sqlx::query(
        "SELECT due_at, claimed_until, claimed_by, state, tenant_id, name FROM job WHERE kind = $1 AND due_at <= $5 \
         AND (tenant_id, name) > ($2, $3) ORDER BY tenant_id, name LIMIT $4",
    )
    .bind(kind.to_stored())
    .bind(after.0)
    .bind(&after.1)
    .bind(i64::from(limit))
    .bind(due.0)
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| Ok((TenantId(row.try_get(4)?), row.try_get(5)?, job(row)?)))
        .collect()
}

pub(super) async fn put(c: &mut Connection, key: &JobKey, due_at: Time, state: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO job (tenant_id, kind, name, due_at, state) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (tenant_id, kind, name) DO UPDATE SET due_at = excluded.due_at, state = excluded.state, \
         claimed_until = 0, claimed_by = ''",
    )
    .bind(key.tenant.0)
    .bind(key.kind.to_stored())
    .bind(&key.name)
    .bind(due_at.0)
    .bind(state)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn advance(c: &mut Connection, key: &JobKey, due_at: Time) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE job SET due_at = $4 WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND due_at > $4",
    )
    .bind(key.tenant.0)
    .bind(key.kind.to_stored())
    .bind(&key.name)
    .bind(due_at.0)
    .execute(&mut *c)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn claim(
    c: &mut Connection,
    key: &JobKey,
    by: &str,
    now: Time,
    until: Time,
) -> Result<Option<Job>> {
    let row = sqlx::query(
        "UPDATE job SET claimed_by = $4, claimed_until = $6 WHERE tenant_id = $1 AND kind = $2 AND name = $3 \
         AND due_at <= $5 AND (claimed_until <= $5 OR claimed_by = $4) \
         RETURNING due_at, claimed_until, claimed_by, state",
    )
    .bind(key.tenant.0)
    .bind(key.kind.to_stored())
    .bind(&key.name)
    .bind(by)
    .bind(now.0)
    .bind(until.0)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(job).transpose()
}

pub(super) async fn save(
    c: &mut Connection,
    key: &JobKey,
    by: &str,
    state: &str,
    due_at: Option<Time>,
    claimed_until: Time,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE job SET state = $5, due_at = coalesce($6, due_at), claimed_until = $7 \
         WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND claimed_by = $4",
    )
    .bind(key.tenant.0)
    .bind(key.kind.to_stored())
    .bind(&key.name)
    .bind(by)
    .bind(state)
    .bind(due_at.map(|at| at.0))
    .bind(claimed_until.0)
    .execute(&mut *c)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn drop_job(c: &mut Connection, key: &JobKey) -> Result<()> {
    sqlx::query("DELETE FROM job WHERE tenant_id = $1 AND kind = $2 AND name = $3")
        .bind(key.tenant.0)
        .bind(key.kind.to_stored())
        .bind(&key.name)
        .execute(&mut *c)
        .await?;
    Ok(())
}
