//! Blobs and their links to repositories.

use sqlx::Row as _;

use super::super::{MountBlob, Repository, Result, TenantId, Time, Unlinked};
use super::Connection;
use super::lookups::digest as read_digest;
use crate::domain::Digest;

/// How long after its last reference goes a blob is reviewed, in microseconds.
const REVIEW_DELAY: i64 = 3_600_000_000;

/// Links a blob of the tenant into a repository, which is made under `repository_id` if need be.
pub(super) async fn link(
    c: &mut Connection,
    into: &Repository,
    digest: &Digest,
    repository_id: i64,
    now: Time,
) -> Result<()> {
    let repository = super::tenants::ensure_repository(c, into, repository_id, now).await?;
    sqlx::query(
        "INSERT INTO repository_blob (tenant_id, repository_id, digest, linked_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET linked_at = excluded.linked_at",
    )
    .bind(into.tenant.0)
    .bind(repository)
    .bind(digest.to_bytes())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// Asks for a review of a blob at `due`, or later if one is asked for already.
pub(super) async fn review_later(
    c: &mut Connection,
    tenant: TenantId,
    digest: &Digest,
    due: Time,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO review_blob (tenant_id, digest, due_at) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant_id, digest) DO UPDATE SET due_at = excluded.due_at \
         WHERE review_blob.due_at < excluded.due_at",
    )
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn mount(c: &mut Connection, into: &Repository, mount: &MountBlob) -> Result<bool> {
    let tenant = into.tenant.0;
    let digest = mount.digest.to_bytes();
    // The blob's row is locked by extending its lease, so that collection cannot come between.
    let leased = sqlx::query(
        "UPDATE blob SET leased_until = CASE WHEN leased_until > $3 THEN leased_until ELSE $3 END \
         WHERE tenant_id = $1 AND digest = $2 AND EXISTS (SELECT 1 FROM repository_blob l \
         JOIN repository r ON r.tenant_id = l.tenant_id AND r.id = l.repository_id \
         WHERE l.tenant_id = $1 AND l.digest = $2 AND ($4 IS NULL OR r.name = $4))",
    )
    .bind(tenant)
    .bind(&digest)
    .bind(mount.leased_until.0)
    .bind(mount.from.as_ref().map(|name| name.to_string()))
    .execute(&mut *c)
    .await?;
    if leased.rows_affected() == 0 {
        return Ok(false);
    }
    link(c, into, &mount.digest, mount.repository_id, mount.now).await?;
    review_later(c, into.tenant, &mount.digest, mount.leased_until).await?;
    Ok(true)
}

pub(super) async fn lease(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    until: Time,
) -> Result<bool> {
    let leased = sqlx::query(
        "UPDATE blob SET leased_until = CASE WHEN leased_until > $4 THEN leased_until ELSE $4 END \
         WHERE tenant_id = $1 AND digest = $3 AND EXISTS (SELECT 1 FROM repository_blob WHERE tenant_id = $1 \
         AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2) AND digest = $3)",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(digest.to_bytes())
    .bind(until.0)
    .execute(&mut *c)
    .await?;
    Ok(leased.rows_affected() == 1)
}

pub(super) async fn unlink(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    now: Time,
) -> Result<Unlinked> {
    let tenant = repository.tenant.0;
    let Some(id) = super::tenants::repository_id(c, repository).await? else {
        return Ok(Unlinked::Absent);
    };
    // The lock waits for manifests that are just being pushed on this blob; the next statement sees them.
    let found = sqlx::query(concat!(
        "SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        for_update!()
    ))
    .bind(tenant)
    .bind(id)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    if found.is_none() {
        return Ok(Unlinked::Absent);
    }
    let user = sqlx::query(
        "SELECT manifest FROM manifest_blob WHERE tenant_id = $1 AND blob = $3 AND repository_id = $2 \
         UNION ALL SELECT parent FROM manifest_child WHERE tenant_id = $1 AND repository_id = $2 \
         AND child = $3 AND kind <> 0 LIMIT 1",
    )
    .bind(tenant)
    .bind(id)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    if let Some(row) = user {
        return Ok(Unlinked::InUse(read_digest(row.try_get(0)?)?));
    }
    sqlx::query("DELETE FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(tenant)
        .bind(id)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    review_later(c, repository.tenant, digest, Time(now.0 + REVIEW_DELAY)).await?;
    Ok(Unlinked::Done)
}
