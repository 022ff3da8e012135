//! Collection: who is due, and the look at each of them under lock.
//!
//! A manifest goes when no tag points to it, no manifest has it as a child, and its subject is gone; so parents go
//! before their children, and subjects before their referrers, to any depth, without a walk of the graph. A blob goes
//! from a repository when no manifest there speaks of it, and altogether when no repository has it.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::super::lifecycle::{Candidate, CollectBlob, Collected, Judgement, PARKED, Queues};
use super::super::{Limits, Repository, Result, TenantId, Time};
use super::lookups::{digest as read_digest, size};
use super::manifests::{self, Place, Review};
use super::usage::{self, Growth};
use super::{Connection, dialect, objects, retention, tags};
use crate::domain::{Digest, TagName, attachment};

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
    let rows = sqlx::query(
        "SELECT d.tenant_id, r.name, d.digest FROM deleted_manifest d JOIN repository r \
         ON r.tenant_id = d.tenant_id AND r.id = d.repository_id WHERE d.until <= $1 ORDER BY d.until LIMIT $2",
    )
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    for row in &rows {
        let digest = read_digest(row.try_get(2)?)?;
        found.push(Candidate::Deleted(
            TenantId(row.try_get(0)?),
            row.try_get(1)?,
            digest,
        ));
    }
    Ok(found)
}

pub(super) async fn manifest(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    judgement: &Judgement,
) -> Result<Collected> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Collected::Absent);
    };
    let row = sqlx::query(concat!(
        "SELECT size, leased_until, subject FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = row else {
        settle(c, &place, digest).await?;
        return Ok(Collected::Absent);
    };
    let (bytes, leased_until): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let subject: Option<String> = row.try_get(2)?;
    // The review too: whoever drops a reference asks for it once more, before this or after it.
    let review = sqlx::query(concat!(
        "SELECT since, condemned, due_at FROM review_manifest \
         WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    let Some(review) = review else {
        return Ok(Collected::Absent);
    };
    if review.try_get::<i64, _>(2)? > judgement.claimed.0 {
        return Ok(Collected::Later);
    }
    // With the lock: whoever speaks of it, or names it, has committed or waits.
    if referred_to(c, &place, digest, subject.and_then(|text| text.parse().ok())).await? {
        settle(c, &place, digest).await?;
        return Ok(Collected::Kept);
    }
    if leased_until > judgement.now.0 {
        put_off(c, &place, digest, Time(leased_until)).await?;
        return Ok(Collected::Later);
    }
    let since = Time(review.try_get::<Option<i64>, _>(0)?.unwrap_or(judgement.now.0));
    let condemned = review.try_get::<i16, _>(1)? != 0;
    let ends = match judgement.untagged_after {
        _ if condemned => judgement.now,
        Some(after) => since.plus(after),
        None => PARKED,
    };
    if ends > judgement.now {
        put_off(c, &place, digest, ends).await?;
        return Ok(Collected::Later);
    }
    let review = Review {
        due: judgement.review_at,
        since,
        condemned: true,
    };
    manifests::remove(c, &place, digest, &review).await?;
    let signatures = drop_attached(c, &place, digest, judgement, since).await?;
    let growth = Growth {
        bytes: -bytes,
        tenant_bytes: -bytes,
        tags: -signatures,
        ..Growth::default()
    };
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    Ok(Collected::Done(size(bytes)?))
}

/// Whether anything keeps a manifest that is locked. What lies below the manifest itself is no reason to keep it.
async fn referred_to(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    subject: Option<Digest>,
) -> Result<bool> {
    let [first, second] = attachment::spans();
    // Tags of any other name, then parents: one look at an index each.
    let direct = sqlx::query(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 \
         AND NOT (name >= $4 AND name < $5) AND NOT (name >= $6 AND name < $7)) \
         OR EXISTS (SELECT 1 FROM manifest_child WHERE tenant_id = $1 AND repository_id = $2 AND child = $3)",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(&first.0)
    .bind(&first.1)
    .bind(&second.0)
    .bind(&second.1)
    .fetch_optional(&mut *c)
    .await?;
    if direct.is_some() {
        return Ok(true);
    }
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 \
         AND ((name >= $4 AND name < $5) OR (name >= $6 AND name < $7))",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(&first.0)
    .bind(&first.1)
    .bind(&second.0)
    .bind(&second.1)
    .fetch_all(&mut *c)
    .await?;
    let mut stand_for = BTreeSet::new();
    for name in &names {
        match attachment::subject(name) {
            Some(subject) if subject != *digest => drop(stand_for.insert(subject)),
            // It only begins like one, or is named after its own manifest.
            Some(_) | None => return Ok(true),
        }
    }
    // What can still be brought back keeps its signatures by name; its referrers are reviewed when it no longer can.
    let mut there = retention::existing(c, place, &stand_for).await?;
    // A tag whose subject is not here is a tag like any other.
    if stand_for.iter().any(|subject| !there.contains(subject)) {
        return Ok(true);
    }
    if let Some(subject) = subject
        && manifests::exists(c, place, &subject).await?
    {
        there.insert(subject);
    }
    let below = descendants_among(c, place, digest, &there).await?;
    Ok(there.iter().any(|subject| !below.contains(subject)))
}

/// Those of `wanted` that lie below a manifest.
async fn descendants_among(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    wanted: &BTreeSet<Digest>,
) -> Result<BTreeSet<Digest>> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query(concat!(
        "WITH RECURSIVE below(digest) AS (SELECT child FROM manifest_child \
         WHERE tenant_id = $1 AND repository_id = $2 AND parent = $3 \
         UNION SELECT k.child FROM below JOIN manifest_child k ON k.tenant_id = $1 AND k.repository_id = $2 \
         AND k.parent = below.digest) SELECT digest FROM below WHERE digest",
        in_digests!("$4")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(dialect::digests(wanted))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(|row| read_digest(row.try_get(0)?)).collect()
}

/// Deletes the tags that stood for a manifest which is gone; how many.
async fn drop_attached(
    c: &mut Connection,
    place: &Place,
    subject: &Digest,
    judgement: &Judgement,
    since: Time,
) -> Result<i64> {
    let may_go = |name: &str| match name.parse::<TagName>() {
        Ok(tag) => !judgement.immutable.iter().any(|glob| glob.matches(tag.as_str())),
        Err(_) => true,
    };
    let mut attached = tags::attached(c, place, subject).await?;
    attached.retain(|(name, _)| may_go(name));
    let (names, digests): (Vec<String>, BTreeSet<Digest>) = attached.into_iter().unzip();
    let going = tags::Going {
        principal: "collection",
        now: judgement.now,
        until: None,
        review: Review {
            due: judgement.review_at,
            since,
            condemned: true,
        },
    };
    tags::delete_named(c, place, &names, &digests, &going).await?;
    Ok(i64::try_from(names.len()).unwrap_or(i64::MAX))
}

pub(super) async fn forget_deleted(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    judgement: &Judgement,
) -> Result<Collected> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Collected::Absent);
    };
    let gone = sqlx::query(
        "DELETE FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 AND until <= $4",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(judgement.now.0)
    .execute(&mut *c)
    .await?;
    if gone.rows_affected() == 0 {
        return Ok(Collected::Absent);
    }
    if manifests::lock(c, &place, digest).await?.is_none() {
        let signatures = drop_attached(c, &place, digest, judgement, judgement.now).await?;
        let growth = Growth {
            tags: -signatures,
            ..Growth::default()
        };
        let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    }
    Ok(Collected::Done(0))
}

/// Ends a review.
async fn settle(c: &mut Connection, place: &Place, digest: &Digest) -> Result<()> {
    sqlx::query("DELETE FROM review_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(place.tenant)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    Ok(())
}

async fn put_off(c: &mut Connection, place: &Place, digest: &Digest, due: Time) -> Result<()> {
    sqlx::query(
        "UPDATE review_manifest SET due_at = $4 WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(due.0)
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

/// What a manifest of the link's repository says of the blob: by `manifest_blob_by_blob`, then by
/// `manifest_child_by_child`. `l` is the link.
macro_rules! unused {
    () => {
        " NOT EXISTS (SELECT 1 FROM manifest_blob u WHERE u.tenant_id = l.tenant_id AND u.blob = l.digest \
           AND u.repository_id = l.repository_id) \
          AND NOT EXISTS (SELECT 1 FROM manifest_child u WHERE u.tenant_id = l.tenant_id \
           AND u.repository_id = l.repository_id AND u.child = l.digest AND u.kind <> 0) "
    };
}

pub(super) async fn unused_links(
    c: &mut Connection,
    tenant: TenantId,
    digest: &Digest,
    limit: u32,
) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(concat!(
        "SELECT r.name FROM repository_blob l JOIN repository r ON r.tenant_id = l.tenant_id \
         AND r.id = l.repository_id WHERE l.tenant_id = $1 AND l.digest = $2 AND",
        unused!(),
        "LIMIT $3"
    ))
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}

pub(super) async fn blob(c: &mut Connection, collect: &CollectBlob) -> Result<Collected> {
    let CollectBlob {
        tenant, digest, now, ..
    } = collect;
    let key = digest.to_bytes();
    let row = sqlx::query(concat!(
        "SELECT size, leased_until, object_key FROM blob WHERE tenant_id = $1 AND digest = $2",
        for_update!()
    ))
    .bind(tenant.0)
    .bind(&key)
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = row else {
        forget_review(c, *tenant, &key).await?;
        return Ok(Collected::Absent);
    };
    let (bytes, leased_until): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    // Locked: whoever drops a reference asks for a review once more, before this or after it.
    let due: Option<i64> = sqlx::query_scalar(concat!(
        "SELECT due_at FROM review_blob WHERE tenant_id = $1 AND digest = $2",
        for_update!()
    ))
    .bind(tenant.0)
    .bind(&key)
    .fetch_optional(&mut *c)
    .await?;
    if due.is_some_and(|due| due > collect.claimed.0) {
        return Ok(Collected::Later);
    }
    if leased_until > now.0 {
        put_off_blob(c, *tenant, &key, Time(leased_until)).await?;
        return Ok(Collected::Later);
    }
    let unlinked: Vec<i64> = sqlx::query_scalar(concat!(
        "SELECT l.repository_id FROM repository_blob l JOIN repository r ON r.tenant_id = l.tenant_id \
         AND r.id = l.repository_id WHERE l.tenant_id = $1 AND l.digest = $2 AND r.name",
        in_texts!("$3"),
        "AND",
        unused!(),
        "ORDER BY l.repository_id"
    ))
    .bind(tenant.0)
    .bind(&key)
    .bind(dialect::texts(collect.among.iter().map(String::as_str)))
    .fetch_all(&mut *c)
    .await?;
    for repository in &unlinked {
        sqlx::query(
            "DELETE FROM repository_blob WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        )
        .bind(tenant.0)
        .bind(repository)
        .bind(&key)
        .execute(&mut *c)
        .await?;
    }
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT 1) AS links",
    )
    .bind(tenant.0)
    .bind(&key)
    .fetch_one(&mut *c)
    .await?;
    let goes = left == 0;
    if goes {
        sqlx::query("DELETE FROM blob WHERE tenant_id = $1 AND digest = $2")
            .bind(tenant.0)
            .bind(&key)
            .execute(&mut *c)
            .await?;
        objects::enqueue(c, *tenant, row.try_get(2)?, bytes, collect.object_due).await?;
    }
    for (at, repository) in unlinked.iter().enumerate() {
        let last = goes && at + 1 == unlinked.len();
        let growth = Growth {
            bytes: -bytes,
            tenant_bytes: if last { -bytes } else { 0 },
            ..Growth::default()
        };
        let _ = usage::grow(c, *tenant, *repository, growth, &Limits::default()).await?;
    }
    if goes {
        forget_review(c, *tenant, &key).await?;
        return Ok(Collected::Done(size(bytes)?));
    }
    // Other repositories may have stopped using it since the caller looked.
    let more = sqlx::query(concat!(
        "SELECT 1 FROM repository_blob l WHERE l.tenant_id = $1 AND l.digest = $2 AND",
        unused!(),
        "LIMIT 1"
    ))
    .bind(tenant.0)
    .bind(&key)
    .fetch_optional(&mut *c)
    .await?;
    match more {
        Some(_) => put_off_blob(c, *tenant, &key, *now).await?,
        None => forget_review(c, *tenant, &key).await?,
    }
    Ok(match more {
        Some(_) => Collected::Later,
        None => Collected::Kept,
    })
}

async fn forget_review(c: &mut Connection, tenant: TenantId, digest: &[u8]) -> Result<()> {
    sqlx::query("DELETE FROM review_blob WHERE tenant_id = $1 AND digest = $2")
        .bind(tenant.0)
        .bind(digest)
        .execute(&mut *c)
        .await?;
    Ok(())
}

async fn put_off_blob(c: &mut Connection, tenant: TenantId, digest: &[u8], due: Time) -> Result<()> {
    sqlx::query("UPDATE review_blob SET due_at = $3 WHERE tenant_id = $1 AND digest = $2")
        .bind(tenant.0)
        .bind(digest)
        .bind(due.0)
        .execute(&mut *c)
        .await?;
    Ok(())
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
