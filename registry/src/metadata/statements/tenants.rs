//! Tenants and repositories.

use super::super::{MetadataError, NewTenant, Repository, Result, Sparse, Tenant, TenantId, Time};
use super::Connection;
use sqlx::Row as _;

fn tenant(row: &super::dialect::Row) -> Result<Tenant> {
    Ok(Tenant {
        id: TenantId(row.try_get(0)?),
        name: row.try_get(1)?,
        uid: row.try_get(2)?,
        sparse: Sparse::from_stored(row.try_get(3)?),
    })
}

pub(super) async fn all_tenants(c: &mut Connection) -> Result<Vec<Tenant>> {
    let rows = sqlx::query("SELECT id, name, uid, sparse FROM tenant ORDER BY name")
        .fetch_all(&mut *c)
        .await?;
    rows.iter().map(tenant).collect()
}

pub(super) async fn ensure_tenant(c: &mut Connection, new: &NewTenant) -> Result<Tenant> {
    sqlx::query(
        "INSERT INTO tenant (id, name, uid, sparse, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(new.id)
    .bind(new.name.as_str())
    .bind(new.uid.to_string())
    .bind(new.sparse.to_stored())
    .bind(new.now.0)
    .execute(&mut *c)
    .await?;
    let row = sqlx::query("SELECT id, name, uid, sparse FROM tenant WHERE name = $1")
        .bind(new.name.as_str())
        .fetch_one(&mut *c)
        .await?;
    tenant(&row)
}

/// The id of a repository, if it exists.
pub(super) async fn repository_id(c: &mut Connection, repository: &Repository) -> Result<Option<i64>> {
    let found = sqlx::query_scalar("SELECT id FROM repository WHERE tenant_id = $1 AND name = $2")
        .bind(repository.tenant.0)
        .bind(repository.name.as_str())
        .fetch_optional(&mut *c)
        .await?;
    Ok(found)
}

/// The id of a repository, which is made under `new_id` if it does not exist. No row is written or locked
/// when it does, so that pushes into one repository do not wait for each other.
pub(super) async fn ensure_repository(
    c: &mut Connection,
    repository: &Repository,
    new_id: i64,
    now: Time,
) -> Result<i64> {
    if let Some(id) = repository_id(c, repository).await? {
        return Ok(id);
    }
    sqlx::query(
        "INSERT INTO repository (tenant_id, id, name, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, name) DO NOTHING",
    )
    .bind(repository.tenant.0)
    .bind(new_id)
    .bind(repository.name.as_str())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    let made = repository_id(c, repository).await?;
    made.ok_or_else(|| MetadataError::Unavailable("the repository was deleted while it was made".into()))
}

pub(super) async fn repositories(
    c: &mut Connection,
    tenant: TenantId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT name FROM repository WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3",
    )
    .bind(tenant.0)
    .bind(after.unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}
