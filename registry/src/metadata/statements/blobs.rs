//! Blobs and their links to repositories.

use sqlx::Row as _;

use super::super::{Limits, Linked, MountBlob, Repository, Result, TenantId, Time, Unlinked};
use super::Connection;
use super::lookups::digest as read_digest;
use super::usage::{self, Growth};
use crate::domain::Digest;

/// A blob to link.
pub(super) struct Link<'a> {
    pub digest: &'a Digest,
    pub size: i64,
    /// Bytes that have come into the blob store for it.
    pub stored: i64,
    /// Row id for the repository, should it be made.
    pub repository_id: i64,
    pub limits: &'a Limits,
    pub now: Time,
}

/// Links a blob of the tenant, whose row is locked, into a repository, which is made if need be.
pub(super) async fn link(c: &mut Connection, into: &Repository, link: &Link<'_>) -> Result<Linked> {
    let Link {
        digest, size, now, ..
    } = *link;
    let (repository, made) = super::repositories::ensure_repository(c, into, link.repository_id, now).await?;
    let new = sqlx::query(
        "INSERT INTO repository_blob (tenant_id, repository_id, digest, linked_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, repository_id, digest) DO NOTHING",
    )
    .bind(into.tenant.0)
    .bind(repository)
    .bind(digest.to_bytes())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    if new.rows_affected() == 0 {
        sqlx::query(
            "UPDATE repository_blob SET linked_at = $4 WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        )
        .bind(into.tenant.0)
        .bind(repository)
        .bind(digest.to_bytes())
        .bind(now.0)
        .execute(&mut *c)
        .await?;
        let growth = Growth {
            stored: link.stored,
            ..Growth::default()
        };
        let _ = usage::grow(c, into.tenant, repository, growth, link.limits).await?;
        return Ok(Linked::Done(None));
    }
    let first = links(c, into.tenant, digest).await? == 1;
    let growth = Growth {
        bytes: size,
        tenant_bytes: if first { size } else { 0 },
        tags: 0,
        repositories: made.into(),
        stored: link.stored,
        pushed_at: None,
    };
    Ok(
        match usage::grow(c, into.tenant, repository, growth, link.limits).await? {
            Ok(standing) => Linked::Done(standing),
            Err(over) => Linked::OverQuota(over),
        },
    )
}

/// How many repositories have a blob, counted up to two.
async fn links(c: &mut Connection, tenant: TenantId, digest: &Digest) -> Result<i64> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT 2) AS links",
    )
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .fetch_one(&mut *c)
    .await?;
    Ok(count)
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

pub(super) async fn mount(c: &mut Connection, into: &Repository, mount: &MountBlob) -> Result<Linked> {
    let tenant = into.tenant.0;
    let digest = mount.digest.to_bytes();
    // The blob's row is locked by extending its lease, so that collection cannot come between.
    let size: Option<i64> = sqlx::query_scalar(
        "UPDATE blob SET leased_until = CASE WHEN leased_until > $3 THEN leased_until ELSE $3 END \
         WHERE tenant_id = $1 AND digest = $2 AND EXISTS (SELECT 1 FROM repository_blob l \
         JOIN repository r ON r.tenant_id = l.tenant_id AND r.id = l.repository_id \
         WHERE l.tenant_id = $1 AND l.digest = $2 AND ($4 IS NULL OR r.name = $4)) RETURNING size",
    )
    .bind(tenant)
    .bind(&digest)
    .bind(mount.leased_until.0)
    .bind(mount.from.as_ref().map(|name| name.to_string()))
    .fetch_optional(&mut *c)
    .await?;
    let Some(size) = size else { return Ok(Linked::Gone) };
    let linked = link(
        c,
        into,
        &Link {
            digest: &mount.digest,
            size,
            stored: 0,
            repository_id: mount.repository_id,
            limits: &mount.limits,
            now: mount.now,
        },
    )
    .await?;
    review_later(c, into.tenant, &mount.digest, mount.leased_until).await?;
    Ok(linked)
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
    if leased.rows_affected() != 1 {
        return Ok(false);
    }
    // The update may have waited for a collection that has unlinked it here and kept the blob for others.
    let linked = sqlx::query(
        "SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $3 \
         AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2)",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    Ok(linked.is_some())
}

pub(super) async fn unlink(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    review_at: Time,
) -> Result<Unlinked> {
    let tenant = repository.tenant.0;
    let Some(id) = super::repositories::repository_id(c, repository).await? else {
        return Ok(Unlinked::Absent);
    };
    // The lock waits for manifests that are just being pushed on this blob; the next statement sees them.
    // The blob's own row too, which orders this with links that other repositories make or drop.
    let found: Option<i64> = sqlx::query_scalar(concat!(
        "SELECT b.size FROM blob b JOIN repository_blob l ON l.tenant_id = b.tenant_id AND l.digest = b.digest \
         WHERE l.tenant_id = $1 AND l.repository_id = $2 AND l.digest = $3",
        for_update!()
    ))
    .bind(tenant)
    .bind(id)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    let Some(size) = found else {
        return Ok(Unlinked::Absent);
    };
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
    review_later(c, repository.tenant, digest, review_at).await?;
    let last = links(c, repository.tenant, digest).await? == 0;
    let growth = Growth {
        bytes: -size,
        tenant_bytes: if last { -size } else { 0 },
        ..Growth::default()
    };
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, id, growth, &Limits::default()).await?;
    Ok(Unlinked::Done)
}
