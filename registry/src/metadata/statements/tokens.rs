//! Tokens, by their hash.

use sqlx::Row as _;

use super::super::configuration::{AuditRecord, TokenChange, TokenRow};
use super::super::{Result, TenantId, Time};
use super::{Connection, audit, config, dialect};

macro_rules! token_columns {
    () => {
        " t.tenant_id, t.id, t.kind, t.name, t.description, t.hash, t.grants, t.created_at, t.created_by, \
          t.expires_at, t.last_used_at "
    };
}

fn token(row: &dialect::Row) -> Result<TokenRow> {
    Ok(TokenRow {
        tenant: TenantId(row.try_get(0)?),
        id: row.try_get(1)?,
        kind: row.try_get(2)?,
        name: row.try_get(3)?,
        description: row.try_get(4)?,
        hash: row.try_get(5)?,
        grants: row.try_get(6)?,
        created_at: Time(row.try_get(7)?),
        created_by: row.try_get(8)?,
        expires_at: row.try_get::<Option<i64>, _>(9)?.map(Time),
        last_used_at: row.try_get::<Option<i64>, _>(10)?.map(Time),
    })
}

/// The tokens of these ids, at the places of their questions.
pub(super) async fn by_ids(c: &mut Connection, ids: &[&String]) -> Result<Vec<Option<TokenRow>>> {
    let rows = sqlx::query(concat!(
        "SELECT",
        token_columns!(),
        "FROM token t WHERE t.id",
        in_texts!("$1")
    ))
    .bind(dialect::texts(ids.iter().map(|id| id.as_str())))
    .fetch_all(&mut *c)
    .await?;
    let found: Vec<TokenRow> = rows.iter().map(token).collect::<Result<_>>()?;
    let answer = |id: &&String| found.iter().find(|token| token.id == **id).cloned();
    Ok(ids.iter().map(answer).collect())
}

pub(super) async fn list(
    c: &mut Connection,
    tenant: TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<TokenRow>> {
    let rows = sqlx::query(concat!(
        "SELECT",
        token_columns!(),
        "FROM token t WHERE t.tenant_id = $1 AND t.id > $2 ORDER BY t.id LIMIT $3"
    ))
    .bind(tenant.0)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(token).collect()
}

pub(super) async fn put(
    c: &mut Connection,
    token: &TokenRow,
    term: Option<i64>,
    record: &AuditRecord,
) -> Result<TokenChange> {
    if let Some(current) = config::overthrown(c, term).await? {
        return Ok(TokenChange::StaleTerm { current });
    }
    let written = sqlx::query(
        "INSERT INTO token (tenant_id, id, kind, name, description, hash, grants, created_at, created_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, \
         name = excluded.name, description = excluded.description, hash = excluded.hash, \
         grants = excluded.grants, expires_at = excluded.expires_at WHERE token.tenant_id = excluded.tenant_id",
    )
    .bind(token.tenant.0)
    .bind(&token.id)
    .bind(&token.kind)
    .bind(&token.name)
    .bind(&token.description)
    .bind(&token.hash)
    .bind(&token.grants)
    .bind(token.created_at.0)
    .bind(&token.created_by)
    .bind(token.expires_at.map(|at| at.0))
    .execute(&mut *c)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(TokenChange::Missed);
    }
    audit::insert(c, std::slice::from_ref(record)).await?;
    Ok(TokenChange::Done)
}

/// The token's id, and its new grants.
pub(super) async fn regrant(
    c: &mut Connection,
    tenant: TenantId,
    (id, grants): (&str, &str),
    term: Option<i64>,
    record: &AuditRecord,
) -> Result<TokenChange> {
    if let Some(current) = config::overthrown(c, term).await? {
        return Ok(TokenChange::StaleTerm { current });
    }
    let changed = sqlx::query("UPDATE token SET grants = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant.0)
        .bind(id)
        .bind(grants)
        .execute(&mut *c)
        .await?;
    if changed.rows_affected() == 0 {
        return Ok(TokenChange::Missed);
    }
    audit::insert(c, std::slice::from_ref(record)).await?;
    Ok(TokenChange::Done)
}

pub(super) async fn expire(
    c: &mut Connection,
    tenant: TenantId,
    id: &str,
    at: Time,
    record: &AuditRecord,
) -> Result<bool> {
    let ended = sqlx::query(
        "UPDATE token SET expires_at = CASE WHEN expires_at < $3 THEN expires_at ELSE $3 END \
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant.0)
    .bind(id)
    .bind(at.0)
    .execute(&mut *c)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    audit::insert(c, std::slice::from_ref(record)).await?;
    Ok(true)
}

pub(super) async fn revoke(
    c: &mut Connection,
    tenant: TenantId,
    id: &str,
    term: Option<i64>,
    record: &AuditRecord,
) -> Result<TokenChange> {
    if let Some(current) = config::overthrown(c, term).await? {
        return Ok(TokenChange::StaleTerm { current });
    }
    let gone = sqlx::query("DELETE FROM token WHERE tenant_id = $1 AND id = $2")
        .bind(tenant.0)
        .bind(id)
        .execute(&mut *c)
        .await?;
    if gone.rows_affected() == 0 {
        return Ok(TokenChange::Missed);
    }
    audit::insert(c, std::slice::from_ref(record)).await?;
    Ok(TokenChange::Done)
}

pub(super) async fn used(c: &mut Connection, ids: &[String], at: Time) -> Result<()> {
    sqlx::query(concat!(
        "UPDATE token SET last_used_at = $2 WHERE (last_used_at IS NULL OR last_used_at < $2) AND id",
        in_texts!("$1")
    ))
    .bind(dialect::texts(ids.iter().map(String::as_str)))
    .bind(at.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}
