//! What is stored over time, and whether the counters are right.

use sqlx::Row as _;

use super::super::configuration::Usage;
use super::super::explore::{Day, Month};
use super::super::lifecycle::{Drift, JobKey, MonthQuery, MonthUsage, Sample, Storage, TenantTotal};
use super::super::{Repository, Result, TenantId, Time};
use super::lookups::size;
use super::manifests::Place;
use super::{Connection, dialect};

/// A counter is never told to be negative.
fn counter(stored: i64) -> Result<u64> {
    size(stored.max(0))
}

/// The month of an hour: year times 100, plus 1 to 12, in UTC.
fn month_of(hour: i64) -> i64 {
    time::OffsetDateTime::from_unix_timestamp(hour.saturating_mul(3600)).map_or(0, |time| {
        i64::from(time.year()) * 100 + i64::from(u8::from(time.month()))
    })
}

pub(super) async fn sample(
    c: &mut Connection,
    key: &JobKey,
    by: &str,
    hours: (i64, i64),
    state: &str,
    next: Time,
) -> Result<bool> {
    // In one transaction with the samples: no hour counts twice.
    if !super::jobs::save(c, key, by, state, Some(next), Time(0)).await? {
        return Ok(false);
    }
    days(c, hours.1.div_euclid(24)).await?;
    let mut months: Vec<(i64, i64)> = Vec::new();
    for hour in hours.0..=hours.1 {
        sqlx::query(
            "INSERT INTO usage_hourly (tenant_id, hour, bytes, stored, tags, repositories) \
             SELECT tenant_id, $1, bytes, stored, tags, repositories FROM usage WHERE repository_id = 0 \
             ON CONFLICT (tenant_id, hour) DO NOTHING",
        )
        .bind(hour)
        .execute(&mut *c)
        .await?;
        let month = month_of(hour);
        match months.last_mut() {
            Some((last, hours)) if *last == month => *hours += 1,
            _ => months.push((month, 1)),
        }
    }
    for (month, hours) in months {
        sqlx::query(
            "INSERT INTO usage_monthly (tenant_id, month, repository_id, byte_hours) \
             SELECT tenant_id, $1, repository_id, bytes * $2 FROM usage WHERE bytes > 0 \
             ON CONFLICT (tenant_id, month, repository_id) DO UPDATE SET \
             byte_hours = usage_monthly.byte_hours + excluded.byte_hours",
        )
        .bind(month)
        .bind(hours)
        .execute(&mut *c)
        .await?;
    }
    Ok(true)
}

/// What repositories store on a day, as far as it is not what they stored before.
async fn days(c: &mut Connection, day: i64) -> Result<()> {
    sqlx::query(
        "INSERT INTO usage_daily (tenant_id, repository_id, day, bytes) \
         SELECT u.tenant_id, u.repository_id, $1, u.bytes FROM usage u WHERE u.repository_id <> 0 AND u.bytes <> \
           coalesce((SELECT d.bytes FROM usage_daily d WHERE d.tenant_id = u.tenant_id \
             AND d.repository_id = u.repository_id ORDER BY d.day DESC LIMIT 1), 0) \
         ON CONFLICT (tenant_id, repository_id, day) DO UPDATE SET bytes = excluded.bytes",
    )
    .bind(day)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// A walk of the primary key backwards: the days asked for, and the one before them.
pub(super) async fn days_of(
    c: &mut Connection,
    repository: &Repository,
    from: i64,
    limit: u32,
) -> Result<Vec<Day>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(
        "SELECT day, bytes FROM usage_daily WHERE tenant_id = $1 AND repository_id = $2 AND day >= coalesce((SELECT \
         max(day) FROM usage_daily WHERE tenant_id = $1 AND repository_id = $2 AND day < $3), $3) \
         ORDER BY day DESC LIMIT $4",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let day = |row: &dialect::Row| {
        Ok(Day {
            day: row.try_get(0)?,
            bytes: counter(row.try_get(1)?)?,
        })
    };
    rows.iter().rev().map(day).collect()
}

pub(super) async fn months_of(c: &mut Connection, repository: &Repository, limit: u32) -> Result<Vec<Month>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(
        "SELECT month, byte_hours FROM usage_monthly WHERE tenant_id = $1 AND repository_id = $2 \
         ORDER BY month DESC LIMIT $3",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let month = |row: &dialect::Row| {
        Ok(Month {
            month: row.try_get(0)?,
            byte_hours: counter(row.try_get(1)?)?,
        })
    };
    rows.iter().rev().map(month).collect()
}

pub(super) async fn month(c: &mut Connection, query: &MonthQuery) -> Result<Vec<MonthUsage>> {
    // What was stored then and what is stored now may each be without the other.
    let rows = sqlx::query(
        "SELECT k.tenant_id, t.name, k.repository_id, r.name, coalesce(h.byte_hours, 0), coalesce(u.bytes, 0), \
           coalesce(u.tags, 0), coalesce(u.repositories, 0), coalesce(u.stored, 0) \
         FROM (SELECT tenant_id, repository_id FROM usage_monthly WHERE month = $1 AND ($2 IS NULL OR tenant_id = $2) \
           AND ($3 OR repository_id = 0) AND (tenant_id, repository_id) > ($4, $5) \
           UNION SELECT tenant_id, repository_id FROM usage WHERE ($2 IS NULL OR tenant_id = $2) \
           AND ($3 OR repository_id = 0) AND (tenant_id, repository_id) > ($4, $5) \
           ORDER BY tenant_id, repository_id LIMIT $6) AS k \
         JOIN tenant t ON t.id = k.tenant_id \
         LEFT JOIN usage_monthly h ON h.tenant_id = k.tenant_id AND h.month = $1 AND h.repository_id = k.repository_id \
         LEFT JOIN usage u ON u.tenant_id = k.tenant_id AND u.repository_id = k.repository_id \
         LEFT JOIN repository r ON r.tenant_id = k.tenant_id AND r.id = k.repository_id \
         ORDER BY k.tenant_id, k.repository_id",
    )
    .bind(query.month)
    .bind(query.tenant.map(|tenant| tenant.0))
    .bind(query.repositories)
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(i64::from(query.limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(month_usage).collect()
}

fn month_usage(row: &dialect::Row) -> Result<MonthUsage> {
    let repository_id: i64 = row.try_get(2)?;
    let name: Option<String> = row.try_get(3)?;
    let gone = || format!("(deleted {repository_id})");
    Ok(MonthUsage {
        tenant: TenantId(row.try_get(0)?),
        tenant_name: row.try_get(1)?,
        repository_id,
        repository: (repository_id != 0).then(|| name.unwrap_or_else(gone)),
        byte_hours: counter(row.try_get(4)?)?,
        usage: Usage {
            bytes: counter(row.try_get(5)?)?,
            tags: counter(row.try_get(6)?)?,
            repositories: counter(row.try_get(7)?)?,
        },
        stored: counter(row.try_get(8)?)?,
    })
}

pub(super) async fn samples(
    c: &mut Connection,
    tenant: TenantId,
    from: i64,
    limit: u32,
) -> Result<Vec<Sample>> {
    let rows = sqlx::query(
        "SELECT hour, bytes, stored FROM usage_hourly WHERE tenant_id = $1 AND hour >= $2 ORDER BY hour LIMIT $3",
    )
    .bind(tenant.0)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let sample = |row: &dialect::Row| {
        Ok(Sample {
            hour: row.try_get(0)?,
            bytes: counter(row.try_get(1)?)?,
            stored: counter(row.try_get(2)?)?,
        })
    };
    rows.iter().map(sample).collect()
}

pub(super) async fn forget_samples(c: &mut Connection, before: i64, limit: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM usage_hourly WHERE (tenant_id, hour) IN (SELECT tenant_id, hour FROM usage_hourly \
         WHERE hour < $1 LIMIT $2)",
    )
    .bind(before)
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}

/// Forgets what repositories stored before an hour, but for the last of it, from which a curve goes on.
pub(super) async fn forget_days(c: &mut Connection, before: i64, limit: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM usage_daily WHERE (tenant_id, repository_id, day) IN (SELECT d.tenant_id, d.repository_id, d.day \
         FROM usage_daily d WHERE d.day < $1 AND EXISTS (SELECT 1 FROM usage_daily l WHERE l.tenant_id = d.tenant_id \
         AND l.repository_id = d.repository_id AND l.day > d.day AND l.day <= $1) LIMIT $2)",
    )
    .bind(before.div_euclid(24))
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn storage(c: &mut Connection) -> Result<Storage> {
    let row = sqlx::query(
        "SELECT (SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM usage WHERE repository_id = 0), \
         (SELECT CAST(coalesce(sum(stored), 0) AS BIGINT) FROM usage WHERE repository_id = 0), \
         (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM object_deletion), \
         (SELECT CAST(coalesce(sum(byte_offset), 0) AS BIGINT) FROM upload WHERE committed_at IS NULL)",
    )
    .fetch_one(&mut *c)
    .await?;
    Ok(Storage {
        logical: counter(row.try_get(0)?)?,
        stored: counter(row.try_get(1)?)?,
        garbage: counter(row.try_get(2)?)?,
        uploads: counter(row.try_get(3)?)?,
    })
}

pub(super) async fn largest(c: &mut Connection, limit: u32) -> Result<Vec<TenantTotal>> {
    let rows = sqlx::query(
        "SELECT tenant_id, bytes, tags, repositories FROM usage WHERE repository_id = 0 \
         ORDER BY bytes DESC, tenant_id LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let total = |row: &dialect::Row| {
        Ok(TenantTotal {
            tenant: TenantId(row.try_get(0)?),
            bytes: counter(row.try_get(1)?)?,
            tags: counter(row.try_get(2)?)?,
            repositories: counter(row.try_get(3)?)?,
        })
    };
    rows.iter().map(total).collect()
}

/// Counter and recount of each of a tenant's counters, by one statement, so that both are of one moment.
const RECOUNT: &str = "SELECT 0 AS repository_id, '' AS name, \
       coalesce((SELECT bytes FROM usage WHERE tenant_id = $1 AND repository_id = 0), 0) AS bytes, \
       CAST((SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.tenant_id = $1 AND EXISTS (SELECT 1 \
         FROM repository_blob l WHERE l.tenant_id = $1 AND l.digest = b.digest)) \
       + (SELECT coalesce(sum(m.size), 0) FROM manifest m WHERE m.tenant_id = $1) AS BIGINT) AS found_bytes, \
       coalesce((SELECT tags FROM usage WHERE tenant_id = $1 AND repository_id = 0), 0) AS tags, \
       (SELECT count(*) FROM tag t WHERE t.tenant_id = $1) AS found_tags, \
       coalesce((SELECT repositories FROM usage WHERE tenant_id = $1 AND repository_id = 0), 0) AS repositories, \
       (SELECT count(*) FROM repository r WHERE r.tenant_id = $1) AS found_repositories, \
       coalesce((SELECT stored FROM usage WHERE tenant_id = $1 AND repository_id = 0), 0) AS stored, \
       CAST((SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.tenant_id = $1) \
       + (SELECT coalesce(sum(o.size), 0) FROM object_deletion o WHERE o.tenant_id = $1) AS BIGINT) AS found_stored \
     UNION ALL SELECT r.id, r.name, coalesce(u.bytes, 0), \
       CAST((SELECT coalesce(sum(b.size), 0) FROM repository_blob l JOIN blob b ON b.tenant_id = l.tenant_id \
         AND b.digest = l.digest WHERE l.tenant_id = $1 AND l.repository_id = r.id) \
       + (SELECT coalesce(sum(m.size), 0) FROM manifest m WHERE m.tenant_id = $1 AND m.repository_id = r.id) AS BIGINT), \
       coalesce(u.tags, 0), (SELECT count(*) FROM tag t WHERE t.tenant_id = $1 AND t.repository_id = r.id), 0, 0, 0, 0 \
     FROM repository r LEFT JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
     WHERE r.tenant_id = $1";

/// The counters that are wrong.
pub(super) async fn drifts(c: &mut Connection, tenant: TenantId) -> Result<Vec<Drift>> {
    let found = wrong(c, tenant).await?;
    Ok(found.into_iter().map(|(_, drift)| drift).collect())
}

/// Corrects the counters that are wrong.
pub(super) async fn recount(c: &mut Connection, tenant: TenantId) -> Result<Vec<Drift>> {
    let mut drifts = Vec::new();
    for (id, drift) in wrong(c, tenant).await? {
        correct(c, tenant, id, drift.counter, drift.found - drift.counted).await?;
        drifts.push(drift);
    }
    Ok(drifts)
}

/// The counters that are wrong, with their repositories' row ids.
async fn wrong(c: &mut Connection, tenant: TenantId) -> Result<Vec<(i64, Drift)>> {
    dialect::unhurried(c).await?;
    let rows = sqlx::query(RECOUNT).bind(tenant.0).fetch_all(&mut *c).await?;
    let mut drifts = Vec::new();
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        let name: String = row.try_get(1)?;
        for (at, counter) in [(2, "bytes"), (4, "tags"), (6, "repositories"), (8, "stored")] {
            let (counted, found): (i64, i64) = (row.try_get(at)?, row.try_get(at + 1)?);
            if counted != found {
                let repository = name.clone();
                let drift = Drift {
                    repository,
                    counter,
                    counted,
                    found,
                };
                drifts.push((id, drift));
            }
        }
    }
    Ok(drifts)
}

macro_rules! correction {
    ($counter:literal) => {
        concat!(
            "INSERT INTO usage (tenant_id, repository_id, ",
            $counter,
            ") VALUES ($1, $2, $3) \
             ON CONFLICT (tenant_id, repository_id) DO UPDATE SET ",
            $counter,
            " = usage.",
            $counter,
            " + excluded.",
            $counter
        )
    };
}

/// By the difference, which stays right whatever has been counted since the look.
async fn correct(
    c: &mut Connection,
    tenant: TenantId,
    repository: i64,
    counter: &str,
    by: i64,
) -> Result<()> {
    let query = match counter {
        "bytes" => correction!("bytes"),
        "tags" => correction!("tags"),
        "repositories" => correction!("repositories"),
        _ => correction!("stored"),
    };
    sqlx::query(query)
        .bind(tenant.0)
        .bind(repository)
        .bind(by)
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn tenant_ids(c: &mut Connection, after: i64, limit: u32) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar("SELECT id FROM tenant WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    Ok(ids)
}
