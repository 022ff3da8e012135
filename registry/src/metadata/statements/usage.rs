//! What tenants and repositories store, counted in the transaction that changes it.
//!
//! The counters' rows are locked last, the repository's before the tenant's, so that a push holds them only
//! while it commits. Whoever makes a counter grow sees its exact value, and every other push waits for the
//! outcome: a quota cannot be exceeded by pushing at once.

use sqlx::Row as _;

use super::super::configuration::Usage;
use super::super::{Limits, OverQuota, Quota, Repository, Result, Standing, TenantId, Time};
use super::lookups::size;
use super::{Connection, dialect};
use crate::domain::RepositoryName;

/// The row of the tenant's total.
const TOTAL: i64 = 0;
/// Microseconds for which a noted push stands for those after it that change no counter.
const TOUCHED: i64 = 10_000_000;

/// What a transaction adds; negative where it takes away.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Growth {
    /// Bytes of the repository.
    pub bytes: i64,
    /// Bytes of the tenant, in which a blob of several repositories counts once.
    pub tenant_bytes: i64,
    /// Tags.
    pub tags: i64,
    /// Repositories.
    pub repositories: i64,
    /// Bytes of objects of the tenant in the blob store.
    pub stored: i64,
    /// When a manifest was pushed into the repository, if that is what was done.
    pub pushed_at: Option<Time>,
}

impl Growth {
    fn is_nothing(&self) -> bool {
        self.stored == 0 && self.pushed_at.is_none() && !self.shows()
    }

    /// Whether anything changes that a tenant is told.
    fn shows(&self) -> bool {
        self.bytes != 0 || self.tenant_bytes != 0 || self.tags != 0 || self.repositories != 0
    }
}

/// Adds `growth`; or says which limit that would exceed, and the transaction must then be given up.
pub(super) async fn grow(
    c: &mut Connection,
    tenant: TenantId,
    repository: i64,
    growth: Growth,
    limits: &Limits,
) -> Result<std::result::Result<Option<Standing>, OverQuota>> {
    if growth.is_nothing() {
        return Ok(Ok(None));
    }
    if !growth.shows() {
        if let Some(at) = growth.pushed_at {
            touch(c, tenant, repository, at).await?;
        }
        if growth.stored != 0 {
            grow_tenant(c, tenant, growth).await?;
        }
        return Ok(Ok(None));
    }
    let own = [growth.bytes, growth.tags, 0, 0];
    let own = add(c, tenant, repository, own, growth.pushed_at).await?;
    let total = grow_tenant(c, tenant, growth).await?;
    let checks = [
        (Quota::RepositoryStorage, growth.bytes, own.bytes),
        (Quota::Tags, growth.tags, own.tags),
        (Quota::Storage, growth.tenant_bytes, total.bytes),
        (Quota::Repositories, growth.repositories, total.repositories),
    ];
    for (quota, grown, usage) in checks {
        if let Some(limit) = limits.of(quota)
            && grown > 0
            && usage > limit
        {
            let usage = usage - grown.unsigned_abs();
            return Ok(Err(OverQuota { quota, usage, limit }));
        }
    }
    Ok(Ok(Some(Standing {
        tenant: total,
        repository: own,
    })))
}

/// Notes a push that changes no counter. Not each of many: they would wait for each other at the row.
async fn touch(c: &mut Connection, tenant: TenantId, repository: i64, at: Time) -> Result<()> {
    sqlx::query(
        "UPDATE usage SET pushed_at = $3 WHERE tenant_id = $1 AND repository_id = $2 AND pushed_at < $4",
    )
    .bind(tenant.0)
    .bind(repository)
    .bind(at.0)
    .bind(at.0 - TOUCHED)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// Adds to the tenant's total alone.
pub(super) async fn grow_tenant(c: &mut Connection, tenant: TenantId, growth: Growth) -> Result<Usage> {
    let total = [
        growth.tenant_bytes,
        growth.tags,
        growth.repositories,
        growth.stored,
    ];
    add(c, tenant, TOTAL, total, None).await
}

async fn add(
    c: &mut Connection,
    tenant: TenantId,
    row: i64,
    add: [i64; 4],
    pushed_at: Option<Time>,
) -> Result<Usage> {
    let [bytes, tags, repositories, stored] = add;
    let row = sqlx::query(
        "INSERT INTO usage (tenant_id, repository_id, bytes, tags, repositories, stored, pushed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (tenant_id, repository_id) DO UPDATE SET bytes = usage.bytes + excluded.bytes, \
         tags = usage.tags + excluded.tags, repositories = usage.repositories + excluded.repositories, \
         stored = usage.stored + excluded.stored, pushed_at = CASE WHEN excluded.pushed_at > usage.pushed_at \
         THEN excluded.pushed_at ELSE usage.pushed_at END RETURNING bytes, tags, repositories",
    )
    .bind(tenant.0)
    .bind(row)
    .bind(bytes)
    .bind(tags)
    .bind(repositories)
    .bind(stored)
    .bind(pushed_at.map_or(0, |at| at.0))
    .fetch_one(&mut *c)
    .await?;
    usage(&row, 0)
}

fn usage(row: &dialect::Row, first: usize) -> Result<Usage> {
    // A counter that has drifted, as while a release runs that does not keep it, must not stop a deletion.
    let count = |at: usize| -> Result<u64> { size(row.try_get::<i64, _>(at)?.max(0)) };
    Ok(Usage {
        bytes: count(first)?,
        tags: count(first + 1)?,
        repositories: count(first + 2)?,
    })
}

pub(super) async fn of_tenant(c: &mut Connection, tenant: TenantId) -> Result<Usage> {
    let row = sqlx::query(
        "SELECT bytes, tags, repositories FROM usage WHERE tenant_id = $1 AND repository_id = $2",
    )
    .bind(tenant.0)
    .bind(TOTAL)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map_or(Ok(Usage::default()), |row| usage(row, 0))
}

pub(super) async fn standing(c: &mut Connection, repository: &Repository) -> Result<Standing> {
    let own = of_repository(c, repository.tenant, &repository.name).await?;
    Ok(Standing {
        tenant: of_tenant(c, repository.tenant).await?,
        repository: own.unwrap_or_default(),
    })
}

pub(super) async fn of_repository(
    c: &mut Connection,
    tenant: TenantId,
    name: &RepositoryName,
) -> Result<Option<Usage>> {
    let row = sqlx::query(
        "SELECT coalesce(u.bytes, 0), coalesce(u.tags, 0), coalesce(u.repositories, 0) FROM repository r \
         LEFT JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
         WHERE r.tenant_id = $1 AND r.name = $2",
    )
    .bind(tenant.0)
    .bind(name.as_str())
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(|row| usage(row, 0)).transpose()
}

pub(super) async fn of_repositories(
    c: &mut Connection,
    tenant: TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<(String, Usage)>> {
    let rows = sqlx::query(
        "SELECT r.name, coalesce(u.bytes, 0), coalesce(u.tags, 0), coalesce(u.repositories, 0) FROM repository r \
         LEFT JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
         WHERE r.tenant_id = $1 AND r.name > $2 AND r.name NOT LIKE '%~%' ORDER BY r.name LIMIT $3",
    )
    .bind(tenant.0)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, usage(row, 1)?)))
        .collect()
}
