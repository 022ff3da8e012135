//! Repositories of a tenant.

use super::super::{MetadataError, Repository, Result, TenantId, Time};
use super::Connection;
use crate::domain::Digest;

/// The id of a repository, if it exists.
pub(super) async fn repository_id(c: &mut Connection, repository: &Repository) -> Result<Option<i64>> {
    let found = sqlx::query_scalar("SELECT id FROM repository WHERE tenant_id = $1 AND name = $2")
        .bind(repository.tenant.0)
        .bind(repository.name.as_str())
        .fetch_optional(&mut *c)
        .await?;
    Ok(found)
}

/// The id of a repository, which is made under `new_id` if it does not exist, and whether it was. No row is written or locked
/// when it does, so that pushes into one repository do not wait for each other.
pub(super) async fn ensure_repository(
    c: &mut Connection,
    repository: &Repository,
    new_id: i64,
    now: Time,
) -> Result<(i64, bool)> {
    if let Some(id) = repository_id(c, repository).await? {
        return Ok((id, false));
    }
    let made = sqlx::query(
        "INSERT INTO repository (tenant_id, id, name, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, name) DO NOTHING",
    )
    .bind(repository.tenant.0)
    .bind(new_id)
    .bind(repository.name.as_str())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    let gone = || MetadataError::Unavailable("the repository was deleted while it was made".into());
    let id = repository_id(c, repository).await?.ok_or_else(gone)?;
    Ok((id, made.rows_affected() == 1))
}

/// A span of names: from the first on, up to but without the second.
type Span = (String, Option<String>);

pub(super) async fn list(
    c: &mut Connection,
    tenant: TenantId,
    span: &Span,
    limit: u32,
) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT name FROM repository WHERE tenant_id = $1 AND name > $2 AND ($3 IS NULL OR name < $3) \
         AND name NOT LIKE '%~%' ORDER BY name LIMIT $4",
    )
    .bind(tenant.0)
    .bind(&span.0)
    .bind(&span.1)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}

/// Names of up to `limit` repositories that have a blob.
pub(super) async fn with_blob(
    c: &mut Connection,
    tenant: TenantId,
    digest: &Digest,
    limit: u32,
) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT r.name FROM repository_blob l JOIN repository r ON r.tenant_id = l.tenant_id \
         AND r.id = l.repository_id WHERE l.tenant_id = $1 AND l.digest = $2 LIMIT $3",
    )
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}
