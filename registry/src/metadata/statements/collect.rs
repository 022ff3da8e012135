//! What is due for collection, and how much waits. The looks at it are `collect_manifests` and `collect_blobs`.

use sqlx::Row as _;

use super::super::lifecycle::{Candidate, PARKED, Queues};
use super::super::{Repository, Result, TenantId, Time};
use super::Connection;
use super::lookups::{digest as read_digest, size};
use super::manifests::Place;

pub(super) async fn candidates(
    c: &mut Connection,
    now: Time,
    retry: Time,
    limit: u32,
) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    let rows = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT tenant_id, repository_id, digest FROM review_manifest WHERE due_at <= $1 \
         ORDER BY due_at LIMIT $3",
        for_update_skip_locked!(),
        ") UPDATE review_manifest SET due_at = $2 WHERE (tenant_id, repository_id, digest) IN \
         (SELECT tenant_id, repository_id, digest FROM due) RETURNING tenant_id, \
         (SELECT name FROM repository r WHERE r.tenant_id = review_manifest.tenant_id \
          AND r.id = review_manifest.repository_id), digest"
    ))
    .bind(now.0)
    .bind(retry.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    for row in &rows {
        if let Some(name) = row.try_get::<Option<String>, _>(1)? {
            let digest = read_digest(row.try_get(2)?)?;
            found.push(Candidate::Manifest(TenantId(row.try_get(0)?), name, digest));
        }
    }
    let rows = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT tenant_id, digest FROM review_blob WHERE due_at <= $1 \
         ORDER BY due_at LIMIT $3",
        for_update_skip_locked!(),
        ") UPDATE review_blob SET due_at = $2 WHERE (tenant_id, digest) IN (SELECT tenant_id, digest FROM due) \
         RETURNING tenant_id, digest"
    ))
    .bind(now.0)
    .bind(retry.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    for row in &rows {
        found.push(Candidate::Blob(
            TenantId(row.try_get(0)?),
            read_digest(row.try_get(1)?)?,
        ));
    }
    // Put off like the others: whether a tag can be brought back is what its history says.
    let rows = sqlx::query(concat!(
        "WITH due AS MATERIALIZED (SELECT tenant_id, repository_id, digest FROM deleted_manifest WHERE until <= $1 \
         ORDER BY until LIMIT $3",
        for_update_skip_locked!(),
        ") UPDATE deleted_manifest SET until = $2 WHERE (tenant_id, repository_id, digest) IN \
         (SELECT tenant_id, repository_id, digest FROM due) RETURNING tenant_id, \
         (SELECT name FROM repository r WHERE r.tenant_id = deleted_manifest.tenant_id \
          AND r.id = deleted_manifest.repository_id), digest"
    ))
    .bind(now.0)
    .bind(retry.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    for row in &rows {
        if let Some(name) = row.try_get::<Option<String>, _>(1)? {
            let digest = read_digest(row.try_get(2)?)?;
            found.push(Candidate::Deleted(TenantId(row.try_get(0)?), name, digest));
        }
    }
    Ok(found)
}

pub(super) async fn put_off(
    c: &mut Connection,
    candidate: &Candidate,
    claimed: Time,
    until: Time,
) -> Result<()> {
    let (query, tenant, name, digest) = match candidate {
        Candidate::Manifest(tenant, name, digest) => (
            "UPDATE review_manifest SET due_at = $5 WHERE tenant_id = $1 AND digest = $3 AND due_at <= $4 \
             AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2)",
            tenant,
            name.as_str(),
            digest,
        ),
        Candidate::Blob(tenant, digest) => (
            "UPDATE review_blob SET due_at = $5 WHERE tenant_id = $1 AND digest = $3 AND due_at <= $4 AND $2 = ''",
            tenant,
            "",
            digest,
        ),
        Candidate::Deleted(tenant, name, digest) => (
            "UPDATE deleted_manifest SET until = $5 WHERE tenant_id = $1 AND digest = $3 AND until <= $4 \
             AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2)",
            tenant,
            name.as_str(),
            digest,
        ),
    };
    sqlx::query(query)
        .bind(tenant.0)
        .bind(name)
        .bind(digest.to_bytes())
        .bind(claimed.0)
        .bind(until.0)
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn unpark(c: &mut Connection, repository: &Repository, due: Time) -> Result<u64> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(0);
    };
    let unparked = sqlx::query(
        "UPDATE review_manifest SET due_at = $3 WHERE tenant_id = $1 AND repository_id = $2 AND due_at > $3 \
         AND condemned = 0",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(unparked.rows_affected())
}

pub(super) async fn queues(c: &mut Connection, now: Time) -> Result<Queues> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM review_manifest WHERE due_at < $1 LIMIT $2) AS a), \
         (SELECT count(*) FROM (SELECT 1 FROM review_blob LIMIT $2) AS b), \
         (SELECT count(*) FROM (SELECT 1 FROM object_deletion LIMIT $2) AS d), \
         (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM (SELECT size FROM object_deletion LIMIT $2) AS e), \
         (SELECT min(due_at) FROM review_manifest), (SELECT min(due_at) FROM review_blob), \
         (SELECT min(due_at) FROM object_deletion)",
    )
    .bind(PARKED.0)
    .bind(i64::from(Queues::MOST))
    .fetch_one(&mut *c)
    .await?;
    let mut oldest = None;
    for at in 4..7 {
        let due: Option<i64> = row.try_get(at)?;
        if let Some(due) = due.filter(|due| *due <= now.0) {
            oldest = Some(oldest.map_or(due, |oldest: i64| oldest.min(due)));
        }
    }
    Ok(Queues {
        manifests: size(row.try_get(0)?)?,
        blobs: size(row.try_get(1)?)?,
        objects: size(row.try_get(2)?)?,
        object_bytes: size(row.try_get(3)?)?,
        oldest_due: oldest.map(Time),
    })
}
