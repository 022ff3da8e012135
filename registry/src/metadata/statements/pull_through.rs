//! What replicas share about other registries: checks of tags, claims, figures of caches.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::pull_through::{CacheFigures, CacheNews, ClaimKey, Claimed, TakeClaim};
use super::super::{MetadataError, Repository, Result, TenantId, Time};
use super::lookups::size;
use super::{Connection, dialect};
use crate::domain::{Digest, TagName};

/// Bytes that are kept of why a cache failed.
const WHY_LIMIT: usize = 1024;

// -- Tags -----------------------------------------------------------------------------------------------

pub(super) async fn tag_checked(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
) -> Result<Option<Time>> {
    let checked: Option<i64> = sqlx::query_scalar(
        "SELECT k.checked_at FROM cached_tag k \
         WHERE k.tenant_id = $1 AND k.repository = $2 AND k.tag = $3 \
         AND EXISTS (SELECT 1 FROM repository r WHERE r.tenant_id = $1 AND r.name = $2)",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(tag.as_str())
    .fetch_optional(&mut *c)
    .await?;
    Ok(checked.map(Time))
}

pub(super) async fn note_tag_checked(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
    now: Time,
) -> Result<()> {
    dialect::forgetful(c).await?;
    sqlx::query(
        "INSERT INTO cached_tag (tenant_id, repository, tag, checked_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, repository, tag) DO UPDATE SET checked_at = excluded.checked_at \
         WHERE cached_tag.checked_at < excluded.checked_at",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(tag.as_str())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

// -- Claims ---------------------------------------------------------------------------------------------
//
// They are on the way of a client's first byte, and one that is forgotten costs a request to the upstream.

pub(super) async fn take_claim(c: &mut Connection, key: &ClaimKey, take: &TakeClaim) -> Result<Claimed> {
    dialect::forgetful(c).await?;
    loop {
        if let Some(yours) = seize(c, key, take).await? {
            return Ok(yours);
        }
        if let Some(busy) = held(c, key).await? {
            return Ok(busy);
        }
        // It was given up between the two: it is free.
    }
}

/// Makes the claim the taker's, unless another holds it. Of many that do so at once each waits for the one before it,
/// and sees its lease.
async fn seize(c: &mut Connection, key: &ClaimKey, take: &TakeClaim) -> Result<Option<Claimed>> {
    let row = sqlx::query(
        "INSERT INTO upstream_claim (tenant_id, repository, what, holder, address, held_until) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (tenant_id, repository, what) DO UPDATE SET holder = excluded.holder, \
         address = excluded.address, held_until = excluded.held_until \
         WHERE upstream_claim.held_until <= $7 OR upstream_claim.holder = excluded.holder RETURNING upload",
    )
    .bind(key.repository.tenant.0)
    .bind(key.repository.name.as_str())
    .bind(&key.what)
    .bind(take.holder)
    .bind(&take.address)
    .bind(take.until.0)
    .bind(take.now.0)
    .fetch_optional(&mut *c)
    .await?;
    row.map(|row| {
        Ok(Claimed::Yours {
            upload: row.try_get(0)?,
        })
    })
    .transpose()
}

/// By whom the claim is held, if anybody holds it.
async fn held(c: &mut Connection, key: &ClaimKey) -> Result<Option<Claimed>> {
    let row = sqlx::query(
        "SELECT address, held_until FROM upstream_claim WHERE tenant_id = $1 AND repository = $2 AND what = $3",
    )
    .bind(key.repository.tenant.0)
    .bind(key.repository.name.as_str())
    .bind(&key.what)
    .fetch_optional(&mut *c)
    .await?;
    row.map(|row| {
        Ok(Claimed::Busy {
            address: row.try_get(0)?,
            until: Time(row.try_get(1)?),
        })
    })
    .transpose()
}

pub(super) async fn renew_claim(
    c: &mut Connection,
    key: &ClaimKey,
    holder: Uuid,
    upload: Option<Uuid>,
    until: Time,
) -> Result<bool> {
    dialect::forgetful(c).await?;
    // Without an upload, the one that was noted stays: bytes that are there already are worth finding.
    let renewed = sqlx::query(
        "UPDATE upstream_claim SET held_until = $5, upload = coalesce($6, upload) \
         WHERE tenant_id = $1 AND repository = $2 AND what = $3 AND holder = $4",
    )
    .bind(key.repository.tenant.0)
    .bind(key.repository.name.as_str())
    .bind(&key.what)
    .bind(holder)
    .bind(until.0)
    .bind(upload)
    .execute(&mut *c)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

pub(super) async fn release_claim(c: &mut Connection, key: &ClaimKey, holder: Uuid) -> Result<()> {
    dialect::forgetful(c).await?;
    sqlx::query(
        "DELETE FROM upstream_claim WHERE tenant_id = $1 AND repository = $2 AND what = $3 AND holder = $4",
    )
    .bind(key.repository.tenant.0)
    .bind(key.repository.name.as_str())
    .bind(&key.what)
    .bind(holder)
    .execute(&mut *c)
    .await?;
    Ok(())
}

// -- What goes ------------------------------------------------------------------------------------------

pub(super) async fn forget(c: &mut Connection, claims: Time, checks: Time, limit: u32) -> Result<u64> {
    let mut forgotten = 0;
    // Materialised, since a plan that ran the choice again for each row would exceed the limit. Locked, since a lease
    // may be renewed meanwhile.
    for (query, before) in [
        (
            // By upstream_claim_by_end.
            concat!(
                "WITH ended AS MATERIALIZED (SELECT tenant_id, repository, what FROM upstream_claim \
                 WHERE held_until < $1 ORDER BY held_until LIMIT $2",
                for_update_skip_locked!(),
                ") DELETE FROM upstream_claim WHERE (tenant_id, repository, what) IN \
                 (SELECT tenant_id, repository, what FROM ended)"
            ),
            claims,
        ),
        (
            // By cached_tag_by_check.
            concat!(
                "WITH old AS MATERIALIZED (SELECT tenant_id, repository, tag FROM cached_tag \
                 WHERE checked_at < $1 ORDER BY checked_at LIMIT $2",
                for_update_skip_locked!(),
                ") DELETE FROM cached_tag WHERE (tenant_id, repository, tag) IN \
                 (SELECT tenant_id, repository, tag FROM old)"
            ),
            checks,
        ),
    ] {
        let gone = sqlx::query(query)
            .bind(before.0)
            .bind(i64::from(limit))
            .execute(&mut *c)
            .await?;
        forgotten += gone.rows_affected();
    }
    Ok(forgotten)
}

/// Forgets the checks and claims of a repository, which is about to lose its name.
pub(super) async fn forget_repository(c: &mut Connection, repository: &Repository) -> Result<()> {
    for query in [
        "DELETE FROM cached_tag WHERE tenant_id = $1 AND repository = $2",
        "DELETE FROM upstream_claim WHERE tenant_id = $1 AND repository = $2",
    ] {
        sqlx::query(query)
            .bind(repository.tenant.0)
            .bind(repository.name.as_str())
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

// -- What is stored -------------------------------------------------------------------------------------

pub(super) async fn names_blob(
    c: &mut Connection,
    repository: &Repository,
    blob: &Digest,
) -> Result<Option<Digest>> {
    // By manifest_blob_by_blob. Of a manifest that was deleted and can be brought back, the edges stay.
    let manifest: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT b.manifest FROM manifest_blob b WHERE b.tenant_id = $1 AND b.blob = $3 \
         AND b.repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2) \
         AND EXISTS (SELECT 1 FROM manifest m WHERE m.tenant_id = b.tenant_id \
           AND m.repository_id = b.repository_id AND m.digest = b.manifest) LIMIT 1",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(blob.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    let digest = |stored: Vec<u8>| {
        Digest::from_bytes(&stored)
            .ok_or_else(|| MetadataError::Corrupt(format!("digest {}", hex::encode(&stored))))
    };
    manifest.map(digest).transpose()
}

pub(super) async fn stored_below(c: &mut Connection, tenant: TenantId, prefix: &str) -> Result<(u64, u64)> {
    // '0' is what follows '/', and no name begins with a '~'.
    let (first, end) = match prefix {
        "" => (String::new(), "~".to_owned()),
        _ => (format!("{prefix}/"), format!("{prefix}0")),
    };
    // By the unique index of repositories' names. A name with a '~' is of one that goes.
    let row = sqlx::query(
        "SELECT count(*), CAST(coalesce(sum(u.bytes), 0) AS BIGINT) FROM repository r \
         LEFT JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
         WHERE r.tenant_id = $1 AND r.name > $2 AND r.name < $3 AND r.name NOT LIKE '%~%'",
    )
    .bind(tenant.0)
    .bind(first)
    .bind(end)
    .fetch_one(&mut *c)
    .await?;
    // A counter that has drifted says nothing rather than to fail.
    Ok((size(row.try_get(0)?)?, size(row.try_get::<i64, _>(1)?.max(0))?))
}

// -- Figures --------------------------------------------------------------------------------------------

/// Of a column the value that is newer by another one.
macro_rules! newest {
    ($column:literal, $at:literal) => {
        concat!(
            $column,
            " = CASE WHEN excluded.",
            $at,
            " IS NULL OR excluded.",
            $at,
            " < cache_figures.",
            $at,
            " THEN cache_figures.",
            $column,
            " ELSE excluded.",
            $column,
            " END "
        )
    };
}

pub(super) async fn add_news(
    c: &mut Connection,
    tenant: TenantId,
    cache: &str,
    news: &CacheNews,
) -> Result<()> {
    let (rate_limit, rate_remaining, rate_at) = match news.rate_limit {
        Some((limit, remaining, at)) => (Some(stored(limit)), Some(stored(remaining)), Some(at.0)),
        None => (None, None, None),
    };
    let (failed_at, why) = match &news.failed {
        Some((at, why)) => (Some(at.0), Some(kept(why))),
        None => (None, None),
    };
    sqlx::query(concat!(
        "INSERT INTO cache_figures (tenant_id, cache, hits, misses, bytes_saved, bytes_fetched, rate_limit, \
           rate_remaining, rate_at, reached_at, failed_at, why) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (tenant_id, cache) DO UPDATE SET hits = cache_figures.hits + excluded.hits, \
         misses = cache_figures.misses + excluded.misses, \
         bytes_saved = cache_figures.bytes_saved + excluded.bytes_saved, \
         bytes_fetched = cache_figures.bytes_fetched + excluded.bytes_fetched, ",
        newest!("rate_limit", "rate_at"),
        ",",
        newest!("rate_remaining", "rate_at"),
        ",",
        newest!("rate_at", "rate_at"),
        ",",
        newest!("reached_at", "reached_at"),
        ",",
        newest!("why", "failed_at"),
        ",",
        newest!("failed_at", "failed_at")
    ))
    .bind(tenant.0)
    .bind(cache)
    .bind(stored(news.hits))
    .bind(stored(news.misses))
    .bind(stored(news.bytes_saved))
    .bind(stored(news.bytes_fetched))
    .bind(rate_limit)
    .bind(rate_remaining)
    .bind(rate_at)
    .bind(news.reached_at.map(|at| at.0))
    .bind(failed_at)
    .bind(why)
    .execute(&mut *c)
    .await?;
    Ok(())
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is kept of why a cache failed. Postgres has no text with a NUL in it.
fn kept(why: &str) -> String {
    why[..why.floor_char_boundary(WHY_LIMIT)].replace('\0', " ")
}

pub(super) async fn figures(c: &mut Connection, tenant: TenantId, cache: &str) -> Result<CacheFigures> {
    let row = sqlx::query(
        "SELECT hits, misses, bytes_saved, bytes_fetched, rate_limit, rate_remaining, rate_at, reached_at, \
         failed_at, why FROM cache_figures WHERE tenant_id = $1 AND cache = $2",
    )
    .bind(tenant.0)
    .bind(cache)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map_or(Ok(CacheFigures::default()), read_figures)
}

fn read_figures(row: &dialect::Row) -> Result<CacheFigures> {
    let time = |at: usize| -> Result<Option<Time>> { Ok(row.try_get::<Option<i64>, _>(at)?.map(Time)) };
    let rate_limit = match time(6)? {
        Some(at) => Some((size(row.try_get(4)?)?, size(row.try_get(5)?)?, at)),
        None => None,
    };
    let failed = match time(8)? {
        Some(at) => Some((at, row.try_get(9)?)),
        None => None,
    };
    Ok(CacheFigures {
        hits: size(row.try_get(0)?)?,
        misses: size(row.try_get(1)?)?,
        bytes_saved: size(row.try_get(2)?)?,
        bytes_fetched: size(row.try_get(3)?)?,
        rate_limit,
        reached_at: time(7)?,
        failed,
    })
}

pub(super) async fn keep_figures(c: &mut Connection, tenant: TenantId, caches: &[String]) -> Result<()> {
    sqlx::query(concat!(
        "DELETE FROM cache_figures WHERE tenant_id = $1 AND NOT (cache",
        in_texts!("$2"),
        ")"
    ))
    .bind(tenant.0)
    .bind(dialect::texts(caches.iter().map(String::as_str)))
    .execute(&mut *c)
    .await?;
    Ok(())
}
