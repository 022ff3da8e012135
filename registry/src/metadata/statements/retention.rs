//! Tags as retention sees them: by push, with their pulls, and their deletion.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::Row as _;

use super::super::lifecycle::{DropTags, ExpiredTag, Pull, TagDetail, TagPage, TagRow};
use super::super::{Limits, Repository, Result, TenantId, Time};
use super::lookups::{digest as read_digest, size};
use super::manifests::Place;
use super::outbox::{self, Told};
use super::usage::{self, Growth};
use super::{Connection, dialect, repositories, tags};
use crate::domain::{Digest, TagName, attachment};

/// Pulls and renewals are noted once in this many microseconds.
const HOUR: i64 = 3_600_000_000;

/// What the index tag_by_push holds of a tag.
macro_rules! tag_columns {
    () => {
        " t.name, t.digest, t.pushed_at, t.renewed_at, "
    };
}

/// The last pull, by name or by digest, and how many there were by name.
macro_rules! pulled {
    () => {
        " CASE WHEN coalesce(m.pulled_at, 0) > coalesce(t.pulled_at, 0) THEN m.pulled_at ELSE t.pulled_at END, t.pulls "
    };
}

fn tag_row(row: &dialect::Row) -> Result<TagRow> {
    let time = |at: usize| -> Result<Option<Time>> { Ok(row.try_get::<Option<i64>, _>(at)?.map(Time)) };
    Ok(TagRow {
        name: row.try_get(0)?,
        digest: read_digest(row.try_get(1)?)?,
        pushed_at: Time(row.try_get(2)?),
        renewed_at: time(3)?,
        pulled_at: time(4)?,
        pulls: size(row.try_get(5)?)?,
        attached: false,
    })
}

pub(super) async fn by_push(
    c: &mut Connection,
    repository: &Repository,
    page: &TagPage,
) -> Result<Vec<TagRow>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    // Two walks of tag_by_push: the rest of the tags pushed at the time of the last one, which come by name, then all
    // older ones. A row comparison cannot say both orders at once.
    let (at, name) = page.after.clone().unwrap_or((Time(i64::MAX), String::new()));
    let before = page.before.unwrap_or(Time(i64::MAX));
    let mut found = Vec::new();
    if page.after.is_some() && at < before {
        found = walk(c, &place, page, [at.0, at.0], &name, page.limit).await?;
    }
    let missing = page.limit - u32::try_from(found.len()).unwrap_or(page.limit);
    if missing > 0 {
        let newest = before.0.min(at.0).saturating_sub(1);
        found.extend(walk(c, &place, page, [i64::MIN, newest], "", missing).await?);
    }
    attach(c, &place, &mut found).await?;
    Ok(found)
}

/// Tags pushed within `span` (both ends included), behind `name` where the span is one time.
async fn walk(
    c: &mut Connection,
    place: &Place,
    page: &TagPage,
    span: [i64; 2],
    name: &str,
    limit: u32,
) -> Result<Vec<TagRow>> {
    let query = match page.pulls {
        // The index alone, without a look at each tag.
        false => concat!(
            "SELECT",
            tag_columns!(),
            "NULL, CAST(0 AS BIGINT) FROM tag t WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.pushed_at BETWEEN $3 AND $4 \
             AND t.name > $5 ORDER BY t.pushed_at DESC, t.name LIMIT $6"
        ),
        true => concat!(
            "SELECT",
            tag_columns!(),
            pulled!(),
            "FROM tag t LEFT JOIN manifest m ON m.tenant_id = t.tenant_id \
             AND m.repository_id = t.repository_id AND m.digest = t.digest \
             WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.pushed_at BETWEEN $3 AND $4 \
             AND t.name > $5 ORDER BY t.pushed_at DESC, t.name LIMIT $6"
        ),
    };
    let rows = sqlx::query(query)
        .bind(place.tenant)
        .bind(place.repository)
        .bind(span[0])
        .bind(span[1])
        .bind(name)
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    rows.iter().map(tag_row).collect()
}

/// Marks those that stand for a manifest that is there.
async fn attach(c: &mut Connection, place: &Place, found: &mut [TagRow]) -> Result<()> {
    let subjects: BTreeSet<Digest> = found
        .iter()
        .filter_map(|tag| attachment::subject(&tag.name))
        .collect();
    if subjects.is_empty() {
        return Ok(());
    }
    let there = existing(c, place, &subjects).await?;
    for tag in found {
        // One that is named after its own manifest is a name like any other.
        let stands_for = attachment::subject(&tag.name).filter(|subject| *subject != tag.digest);
        tag.attached = stands_for.is_some_and(|subject| there.contains(&subject));
    }
    Ok(())
}

/// Those of the manifests that a repository has, or could have again.
pub(super) async fn existing(
    c: &mut Connection,
    place: &Place,
    digests: &BTreeSet<Digest>,
) -> Result<BTreeSet<Digest>> {
    if digests.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query(concat!(
        "SELECT digest FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest",
        in_digests!("$3"),
        "UNION SELECT digest FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest",
        in_digests!("$3")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(|row| read_digest(row.try_get(0)?)).collect()
}

/// Tags by name, with their pulls.
pub(super) async fn named(
    c: &mut Connection,
    repository: &Repository,
    names: &[TagName],
) -> Result<Vec<TagRow>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(concat!(
        "SELECT",
        tag_columns!(),
        pulled!(),
        "FROM tag t LEFT JOIN manifest m ON m.tenant_id = t.tenant_id \
         AND m.repository_id = t.repository_id AND m.digest = t.digest \
         WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.name",
        in_texts!("$3"),
        "ORDER BY t.name"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().map(TagName::as_str)))
    .fetch_all(&mut *c)
    .await?;
    let mut found = rows.iter().map(tag_row).collect::<Result<Vec<_>>>()?;
    attach(c, &place, &mut found).await?;
    Ok(found)
}

pub(super) async fn one(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
) -> Result<Option<TagDetail>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(None);
    };
    let row = sqlx::query(concat!(
        "SELECT",
        tag_columns!(),
        pulled!(),
        ", t.pushed_by, t.expires_at FROM tag t LEFT JOIN manifest m ON m.tenant_id = t.tenant_id \
         AND m.repository_id = t.repository_id AND m.digest = t.digest \
         WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.name = $3"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(tag.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut found = [tag_row(&row)?];
    attach(c, &place, &mut found).await?;
    let [seen] = found;
    Ok(Some(TagDetail {
        row: seen,
        pushed_by: row.try_get(6)?,
        expires_at: row.try_get::<Option<i64>, _>(7)?.map(Time),
    }))
}

pub(super) async fn last_times(
    c: &mut Connection,
    repository: &Repository,
) -> Result<(Option<Time>, Option<Time>)> {
    let row = sqlx::query(
        "SELECT (SELECT max(t.pushed_at) FROM tag t WHERE t.tenant_id = r.tenant_id AND t.repository_id = r.id), \
         u.pushed_at, r.pulled_at FROM repository r \
         LEFT JOIN usage u ON u.tenant_id = r.tenant_id AND u.repository_id = r.id \
         WHERE r.tenant_id = $1 AND r.name = $2",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(row) = row else { return Ok((None, None)) };
    let time = |at: usize| -> Result<Option<i64>> { Ok(row.try_get::<Option<i64>, _>(at)?) };
    // A release that does not note it may run beside this one.
    let pushed = time(0)?.max(time(1)?.filter(|at| *at > 0));
    Ok((pushed.map(Time), time(2)?.map(Time)))
}

pub(super) async fn drop_tags(c: &mut Connection, repository: &Repository, drop: &DropTags) -> Result<u64> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(0);
    };
    let seen: Vec<_> = drop
        .tags
        .iter()
        .map(|tag| {
            let renewed = tag.renewed_at.map_or(0, |at| at.0);
            json!([
                tag.name,
                hex::encode(tag.digest.to_bytes()),
                tag.pushed_at.0,
                renewed
            ])
        })
        .collect();
    // In order, so that pushes of several of these tags do not wait for each other.
    let rows = sqlx::query(concat!(
        // One look at the primary key for each: in this order, whatever the planner thinks.
        "SELECT t.name, t.digest FROM",
        seen_tags!("$3"),
        "CROSS JOIN tag t WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.name = listed.name \
         AND t.digest = listed.digest AND t.pushed_at = listed.pushed_at \
         AND coalesce(t.renewed_at, 0) = listed.renewed_at ORDER BY t.name",
        for_update!("t")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(serde_json::Value::from(seen).to_string())
    .fetch_all(&mut *c)
    .await?;
    let mut names: Vec<String> = Vec::with_capacity(rows.len());
    let mut pointed = Vec::with_capacity(rows.len());
    for row in &rows {
        names.push(row.try_get(0)?);
        pointed.push(read_digest(row.try_get(1)?)?);
    }
    let digests: BTreeSet<Digest> = pointed.iter().copied().collect();
    if let Some(announce) = &drop.announce {
        let described = outbox::describe(c, &place, &digests).await?;
        let told: Vec<Told<'_>> = names
            .iter()
            .zip(&pointed)
            .map(|(tag, digest)| Told {
                tag: Some(tag),
                digest: Some(digest),
            })
            .collect();
        let by = (drop.principal.as_str(), drop.now);
        outbox::tell(c, repository, announce, by, &told, &described).await?;
    }
    let by = tags::Going {
        principal: &drop.principal,
        now: drop.now,
        until: Some(drop.until),
        review: super::manifests::Review {
            due: drop.until,
            since: drop.now,
            condemned: true,
        },
    };
    tags::delete_named(c, &place, &names, &digests, &by).await?;
    let gone = i64::try_from(names.len()).unwrap_or(i64::MAX);
    let growth = Growth {
        tags: -gone,
        ..Growth::default()
    };
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    Ok(names.len() as u64)
}

pub(super) async fn expired(
    c: &mut Connection,
    after: Time,
    now: Time,
    limit: u32,
) -> Result<Vec<ExpiredTag>> {
    // A walk of tag_by_expiry.
    let rows = sqlx::query(concat!(
        "SELECT",
        tag_columns!(),
        "t.pulled_at, t.pulls, t.tenant_id, r.name, t.expires_at FROM tag t JOIN repository r ON r.tenant_id = t.tenant_id AND r.id = t.repository_id \
         WHERE t.expires_at > $1 AND t.expires_at <= $2 ORDER BY t.expires_at LIMIT $3"
    ))
    .bind(after.0)
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ExpiredTag {
                tenant: TenantId(row.try_get(6)?),
                repository: row.try_get(7)?,
                row: tag_row(row)?,
                at: Time(row.try_get(8)?),
            })
        })
        .collect()
}

pub(super) async fn reclaimable(
    c: &mut Connection,
    repository: &Repository,
    digests: &BTreeMap<Digest, u64>,
) -> Result<u64> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(0);
    };
    // A manifest that has further tags stays.
    let digests = &exclusive(c, &place, digests).await?;
    // Everything below the manifests; of it, what can be entered from outside; everything below that stays. Sizes are
    // looked up one by one, and SQLite keeps the order of a CROSS JOIN: else it may walk all of a repository.
    let bytes: i64 = sqlx::query_scalar(concat!(
        "WITH RECURSIVE reached(digest) AS (SELECT listed.digest FROM",
        digest_rows!("$3"),
        and_below!("reached"),
        "), stays(digest) AS (SELECT e.digest FROM reached e WHERE e.digest",
        not_in_digests!("$3"),
        "AND EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.digest = e.digest) \
         OR EXISTS (SELECT 1 FROM manifest_child p WHERE p.tenant_id = $1 AND p.repository_id = $2 \
            AND p.child = e.digest AND p.parent NOT IN (SELECT digest FROM reached)) \
         ",
        and_below!("stays"),
        "), goes(digest) AS (SELECT digest FROM reached EXCEPT SELECT digest FROM stays), \
         named(blob) AS (SELECT b.blob FROM goes g CROSS JOIN manifest_blob b \
            WHERE b.tenant_id = $1 AND b.repository_id = $2 AND b.manifest = g.digest \
            UNION SELECT k.child FROM goes g CROSS JOIN manifest_child k \
            WHERE k.tenant_id = $1 AND k.repository_id = $2 AND k.parent = g.digest AND k.kind <> 0), \
         alone(blob) AS (SELECT n.blob FROM named n \
            WHERE NOT EXISTS (SELECT 1 FROM manifest_blob u WHERE u.tenant_id = $1 AND u.blob = n.blob \
              AND u.repository_id = $2 AND u.manifest NOT IN (SELECT digest FROM goes)) \
            AND NOT EXISTS (SELECT 1 FROM manifest_child u WHERE u.tenant_id = $1 AND u.repository_id = $2 \
              AND u.child = n.blob AND u.kind <> 0 AND u.parent NOT IN (SELECT digest FROM goes))) \
         SELECT CAST(coalesce((SELECT sum((SELECT m.size FROM manifest m WHERE m.tenant_id = $1 \
            AND m.repository_id = $2 AND m.digest = g.digest)) FROM goes g), 0) \
          + coalesce((SELECT sum((SELECT b.size FROM blob b WHERE b.tenant_id = $1 AND b.digest = a.blob \
            AND EXISTS (SELECT 1 FROM repository_blob l WHERE l.tenant_id = $1 AND l.repository_id = $2 \
              AND l.digest = a.blob))) FROM alone a), 0) AS BIGINT)"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests))
    .fetch_one(&mut *c)
    .await?;
    size(bytes)
}

/// Those of the manifests that have no more tags than the number says.
async fn exclusive(
    c: &mut Connection,
    place: &Place,
    digests: &BTreeMap<Digest, u64>,
) -> Result<Vec<Digest>> {
    let rows = sqlx::query(concat!(
        "SELECT digest, count(*) FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest",
        in_digests!("$3"),
        "GROUP BY digest"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests.keys()))
    .fetch_all(&mut *c)
    .await?;
    let mut tags = BTreeMap::new();
    for row in &rows {
        tags.insert(read_digest(row.try_get(0)?)?, size(row.try_get(1)?)?);
    }
    let alone =
        |(digest, doomed): &(&Digest, &u64)| tags.get(digest).copied().unwrap_or_default() <= **doomed;
    Ok(digests.iter().filter(alone).map(|(digest, _)| *digest).collect())
}

/// After this long a pull is noted again. Replicas remember a pull for an hour from the request on, and write it seconds later:
/// the next one that they let through must not come too soon for the row.
const NOTED_AGAIN: i64 = HOUR - 60_000_000;

/// Where a pull by digest counts: at that manifest and at all that reach it.
const PULLED_BY_DIGEST: &str = "WITH RECURSIVE above(digest) AS (SELECT digest FROM manifest \
     WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 UNION SELECT k.parent FROM above \
     JOIN manifest_child k ON k.tenant_id = $1 AND k.repository_id = $2 AND k.child = above.digest) \
     UPDATE manifest SET pulled_at = $4 WHERE tenant_id = $1 AND repository_id = $2 \
     AND digest IN (SELECT digest FROM above) AND coalesce(pulled_at, 0) < $5";

pub(super) async fn record_pulls(c: &mut Connection, pulls: &[Pull], now: Time) -> Result<()> {
    for pull in pulls {
        let Some(place) = Place::find(c, &pull.repository).await? else {
            continue;
        };
        let query = match &pull.tag {
            None => sqlx::query(PULLED_BY_DIGEST)
                .bind(place.tenant)
                .bind(place.repository)
                .bind(pull.digest.to_bytes()),
            Some(tag) => sqlx::query(
                "UPDATE tag SET pulled_at = $4 WHERE tenant_id = $1 AND repository_id = $2 AND name = $3 \
                 AND coalesce(pulled_at, 0) < $5",
            )
            .bind(place.tenant)
            .bind(place.repository)
            .bind(tag.as_str()),
        };
        query
            .bind(now.0)
            .bind(now.0 - NOTED_AGAIN)
            .execute(&mut *c)
            .await?;
        repository_pulled(c, place.tenant, place.repository, now).await?;
    }
    Ok(())
}

pub(super) async fn count_pulls(c: &mut Connection, pulls: &[(Pull, u64)]) -> Result<()> {
    let mut found: Option<(&Repository, Option<Place>)> = None;
    for (pull, count) in pulls {
        // Those of one repository follow each other.
        let place = match &found {
            Some((repository, place)) if *repository == &pull.repository => place,
            _ => {
                let place = Place::find(c, &pull.repository).await?;
                &found.insert((&pull.repository, place)).1
            }
        };
        let Some(place) = place else { continue };
        let query = match &pull.tag {
            None => sqlx::query(
                "UPDATE manifest SET pulls = pulls + $4 WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
            )
            .bind(place.tenant)
            .bind(place.repository)
            .bind(pull.digest.to_bytes()),
            Some(tag) => sqlx::query(
                "UPDATE tag SET pulls = pulls + $4 WHERE tenant_id = $1 AND repository_id = $2 AND name = $3",
            )
            .bind(place.tenant)
            .bind(place.repository)
            .bind(tag.as_str()),
        };
        query
            .bind(i64::try_from(*count).unwrap_or(i64::MAX))
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

async fn repository_pulled(c: &mut Connection, tenant: i64, repository: i64, now: Time) -> Result<()> {
    sqlx::query(
        "UPDATE repository SET pulled_at = $3 WHERE tenant_id = $1 AND id = $2 AND coalesce(pulled_at, 0) < $4",
    )
    .bind(tenant)
    .bind(repository)
    .bind(now.0)
    .bind(now.0 - HOUR)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn renew(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
    digest: &Digest,
    now: Time,
) -> Result<bool> {
    let Some(id) = repositories::repository_id(c, repository).await? else {
        return Ok(false);
    };
    let renewed = sqlx::query(
        "UPDATE tag SET renewed_at = $5, pulled_at = $5, \
         expires_at = CASE WHEN lifetime IS NULL THEN expires_at ELSE $5 + lifetime END \
         WHERE tenant_id = $1 AND repository_id = $2 AND name = $3 AND digest = $4",
    )
    .bind(repository.tenant.0)
    .bind(id)
    .bind(tag.as_str())
    .bind(digest.to_bytes())
    .bind(now.0)
    .execute(&mut *c)
    .await?;
    if renewed.rows_affected() == 0 {
        return Ok(false);
    }
    repository_pulled(c, repository.tenant.0, id, now).await?;
    Ok(true)
}
