//! Content that goes as a whole: a repository's, or all that a tenant has.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::lifecycle::{EraseRepository, Erased, Purge, PurgeStep};
use super::super::{Limits, MetadataError, Repository, Result, TenantId, Time};
use super::outbox::{self, Described, Told};
use super::usage::{self, Growth};
use super::{Connection, config, dialect, pull_through};

/// On whose behalf repositories are erased, as events tell it.
const ERASER: &str = "admin";
/// Looks at a purge again after this many microseconds if it is not done.
const AGAIN: i64 = 5_000_000;

pub(super) async fn due(c: &mut Connection, now: Time, limit: u32) -> Result<Vec<Purge>> {
    // Put off at once, so that of several replicas one does it.
    let rows = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT tenant_id, repository FROM purge WHERE due_at <= $1 ORDER BY due_at LIMIT $3",
        for_update_skip_locked!(),
        ") UPDATE purge SET due_at = $2 WHERE (tenant_id, repository) IN (SELECT tenant_id, repository FROM due) \
         RETURNING tenant_id, repository, requested_at, \
         coalesce((SELECT name FROM tenant t WHERE t.id = purge.tenant_id), '')"
    ))
    .bind(now.0)
    .bind(now.0 + AGAIN)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(purge_row).collect()
}

pub(super) async fn pending(c: &mut Connection, after: &(i64, String), limit: u32) -> Result<Vec<Purge>> {
    let rows = sqlx::query(
        "SELECT p.tenant_id, p.repository, p.requested_at, \
         coalesce((SELECT name FROM tenant t WHERE t.id = p.tenant_id), '') FROM purge p \
         WHERE (p.tenant_id, p.repository) > ($1, $2) ORDER BY p.tenant_id, p.repository LIMIT $3",
    )
    .bind(after.0)
    .bind(&after.1)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(purge_row).collect()
}

fn purge_row(row: &dialect::Row) -> Result<Purge> {
    Ok(Purge {
        tenant: TenantId(row.try_get(0)?),
        repository: row.try_get(1)?,
        requested_at: Time(row.try_get(2)?),
        tenant_name: row.try_get(3)?,
    })
}

/// Asks for the deletion of a repository, or, with an empty name, of all that a tenant has.
pub(super) async fn ask(c: &mut Connection, tenant: i64, repository: &str, now: Time) -> Result<()> {
    sqlx::query(
        "INSERT INTO purge (tenant_id, repository, due_at, requested_at) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (tenant_id, repository) DO NOTHING",
    )
    .bind(tenant)
    .bind(repository)
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// Takes a repository's name away and asks for the deletion of what is stored under the new one, in one transaction:
/// whatever is pushed under its name from then on stays. No name of a client's has a '~'.
pub(super) async fn erase(
    c: &mut Connection,
    repository: &Repository,
    erase: &EraseRepository,
) -> Result<Erased> {
    let tenant = repository.tenant.0;
    // Whoever declares the repository anew waits, with all that is pushed to it from then on.
    let current = config::hold(c).await?;
    if erase.term.is_some_and(|term| term < current) {
        return Ok(Erased::StaleTerm { current });
    }
    match config::declared(c, tenant, &erase.object).await? {
        Some((name, uid)) if name == repository.name.as_str() => {
            if erase.only_of.is_some() && erase.only_of != uid {
                return Ok(Erased::Replaced);
            }
        }
        _ => return Ok(Erased::NotDeclared),
    }
    pull_through::forget_repository(c, repository).await?;
    let retired: Option<String> = sqlx::query_scalar(
        "UPDATE repository SET name = name || '~' || id WHERE tenant_id = $1 AND name = $2 RETURNING name",
    )
    .bind(tenant)
    .bind(repository.name.as_str())
    .fetch_optional(&mut *c)
    .await?;
    if let Some(retired) = retired {
        if let Some(announce) = &erase.announce {
            let told = Told {
                tag: None,
                digest: None,
            };
            let by = (ERASER, erase.now);
            outbox::tell(c, repository, announce, by, &[told], &Described::new()).await?;
        }
        ask(c, tenant, &retired, erase.now).await?;
    }
    Ok(Erased::Done)
}

pub(super) async fn step(
    c: &mut Connection,
    purge: &Purge,
    now: Time,
    object_due: Time,
    limit: u32,
) -> Result<PurgeStep> {
    let mut step = match purge.repository.as_str() {
        "" => tenant(c, purge.tenant, object_due, limit).await?,
        _ => repository(c, purge, now, limit).await?,
    };
    if step.done {
        finish(c, purge, &mut step).await?;
    }
    Ok(step)
}

async fn finish(c: &mut Connection, purge: &Purge, step: &mut PurgeStep) -> Result<()> {
    let tenant = purge.tenant.0;
    if !purge.repository.is_empty() {
        let Some(id) = repository_of(c, purge).await? else {
            return forget(c, purge).await;
        };
        // Blobs that are still leased keep their links for a while.
        let linked: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 LIMIT 1) \
             AS links",
        )
        .bind(tenant)
        .bind(id)
        .fetch_one(&mut *c)
        .await?;
        if linked > 0 {
            step.done = false;
            return Ok(());
        }
        for query in [
            "DELETE FROM usage_daily WHERE tenant_id = $1 AND repository_id = $2",
            "DELETE FROM usage WHERE tenant_id = $1 AND repository_id = $2",
            "DELETE FROM repository WHERE tenant_id = $1 AND id = $2",
        ] {
            sqlx::query(query).bind(tenant).bind(id).execute(&mut *c).await?;
        }
        let growth = Growth {
            repositories: -1,
            ..Growth::default()
        };
        usage::grow_tenant(c, purge.tenant, growth).await?;
    } else {
        // What was stored in past months stays, to be billed, and so does the row that names it.
        for query in [
            "DELETE FROM usage_daily WHERE tenant_id = $1",
            "DELETE FROM usage WHERE tenant_id = $1",
            "DELETE FROM job WHERE tenant_id = $1",
            "DELETE FROM cache_figures WHERE tenant_id = $1",
            "DELETE FROM webhook WHERE tenant_id = $1",
        ] {
            sqlx::query(query).bind(tenant).execute(&mut *c).await?;
        }
    }
    forget(c, purge).await
}

async fn forget(c: &mut Connection, purge: &Purge) -> Result<()> {
    sqlx::query("DELETE FROM purge WHERE tenant_id = $1 AND repository = $2")
        .bind(purge.tenant.0)
        .bind(&purge.repository)
        .execute(&mut *c)
        .await?;
    Ok(())
}

async fn repository_of(c: &mut Connection, purge: &Purge) -> Result<Option<i64>> {
    Ok(
        sqlx::query_scalar("SELECT id FROM repository WHERE tenant_id = $1 AND name = $2")
            .bind(purge.tenant.0)
            .bind(&purge.repository)
            .fetch_optional(&mut *c)
            .await?,
    )
}

/// Up to `$3` rows of a repository's table, by its key.
macro_rules! some_of {
    ($table:literal, $key:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE tenant_id = $1 AND repository_id = $2 AND (",
            $key,
            ") IN (SELECT ",
            $key,
            " FROM ",
            $table,
            " WHERE tenant_id = $1 AND repository_id = $2 LIMIT $3)"
        )
    };
}

async fn repository(c: &mut Connection, purge: &Purge, now: Time, limit: u32) -> Result<PurgeStep> {
    let tenant = purge.tenant;
    let mut step = PurgeStep::default();
    let Some(id) = repository_of(c, purge).await? else {
        step.done = true;
        return Ok(step);
    };
    let mut growth = Growth::default();
    let bytes: Vec<i64> = sqlx::query_scalar(concat!(some_of!("manifest", "digest"), " RETURNING size"))
        .bind(tenant.0)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    growth.bytes = -bytes.iter().sum::<i64>();
    growth.tenant_bytes = growth.bytes;
    step.deleted += bytes.len() as u64;
    for (query, is_tag) in [
        (some_of!("tag", "name"), true),
        (some_of!("manifest_blob", "manifest, blob"), false),
        (some_of!("manifest_child", "parent, child"), false),
        (some_of!("referrer", "subject, digest"), false),
        (some_of!("review_manifest", "digest"), false),
        (some_of!("build_key", "value, kind, digest"), false),
        (some_of!("build_due", "digest"), false),
        (some_of!("deleted_manifest", "digest"), false),
        (some_of!("tag_history", "name, at, id"), false),
    ] {
        let gone = sqlx::query(query)
            .bind(tenant.0)
            .bind(id)
            .bind(i64::from(limit))
            .execute(&mut *c)
            .await?
            .rows_affected();
        if is_tag {
            growth.tags = -i64::try_from(gone).unwrap_or(i64::MAX);
        }
        step.deleted += gone;
    }
    step.done = step.deleted == 0;
    if step.done {
        // What it linked is looked at by the collector, which keeps the counters.
        sqlx::query(
            "INSERT INTO review_blob (tenant_id, digest, due_at) SELECT tenant_id, digest, $3 FROM repository_blob \
             WHERE tenant_id = $1 AND repository_id = $2 ORDER BY digest ON CONFLICT (tenant_id, digest) DO NOTHING",
        )
        .bind(tenant.0)
        .bind(id)
        .bind(now.0)
        .execute(&mut *c)
        .await?;
    }
    let _ = usage::grow(c, tenant, id, growth, &Limits::default()).await?;
    Ok(step)
}

/// Up to `$2` rows of a tenant's table, by its key.
macro_rules! some_of_tenant {
    ($table:literal, $key:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE tenant_id = $1 AND (",
            $key,
            ") IN (SELECT ",
            $key,
            " FROM ",
            $table,
            " WHERE tenant_id = $1 LIMIT $2)"
        )
    };
}

async fn tenant(c: &mut Connection, tenant: TenantId, object_due: Time, limit: u32) -> Result<PurgeStep> {
    let mut step = PurgeStep::default();
    let rows = sqlx::query(concat!(
        some_of_tenant!("upload", "id"),
        " RETURNING id, state, committed_at"
    ))
    .bind(tenant.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    step.deleted += rows.len() as u64;
    for row in &rows {
        if row.try_get::<Option<i64>, _>(2)?.is_none() {
            let state = serde_json::from_str(row.try_get(1)?)
                .map_err(|error| MetadataError::Corrupt(format!("upload state: {error}")))?;
            step.uploads.push((row.try_get::<Uuid, _>(0)?, state));
        }
    }
    let rows = sqlx::query(concat!(
        some_of_tenant!("blob", "digest"),
        " RETURNING object_key, size"
    ))
    .bind(tenant.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    step.deleted += rows.len() as u64;
    for row in &rows {
        super::objects::enqueue(c, tenant, row.try_get(0)?, row.try_get(1)?, object_due).await?;
    }
    for query in [
        some_of_tenant!("tag", "repository_id, name"),
        some_of_tenant!("manifest", "repository_id, digest"),
        some_of_tenant!("manifest_blob", "repository_id, manifest, blob"),
        some_of_tenant!("manifest_child", "repository_id, parent, child"),
        some_of_tenant!("referrer", "repository_id, subject, digest"),
        some_of_tenant!("review_manifest", "repository_id, digest"),
        some_of_tenant!("build_key", "value, kind, repository_id, digest"),
        some_of_tenant!("build_due", "repository_id, digest"),
        some_of_tenant!("review_blob", "digest"),
        some_of_tenant!("deleted_manifest", "repository_id, digest"),
        some_of_tenant!("tag_history", "repository_id, name, at, id"),
        some_of_tenant!("repository_blob", "repository_id, digest"),
        some_of_tenant!("cached_tag", "repository, tag"),
        some_of_tenant!("upstream_claim", "repository, what"),
        some_of_tenant!("delivery", "webhook, seq"),
        some_of_tenant!("told", "name"),
    ] {
        let gone = sqlx::query(query)
            .bind(tenant.0)
            .bind(i64::from(limit))
            .execute(&mut *c)
            .await?;
        step.deleted += gone.rows_affected();
    }
    if step.deleted > 0 {
        return Ok(step);
    }
    let gone = sqlx::query(some_of_tenant!("repository", "id"))
        .bind(tenant.0)
        .bind(i64::from(limit))
        .execute(&mut *c)
        .await?;
    step.deleted += gone.rows_affected();
    if step.deleted == 0 {
        // Its last objects wait for their delay.
        let waiting = sqlx::query("SELECT 1 FROM object_deletion WHERE tenant_id = $1 LIMIT 1")
            .bind(tenant.0)
            .fetch_optional(&mut *c)
            .await?;
        step.done = waiting.is_none();
    }
    Ok(step)
}
