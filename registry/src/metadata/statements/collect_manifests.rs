//! The look at a manifest under lock.
//!
//! A manifest goes when no tag points to it, no manifest has it as a child, and its subject is gone; so parents go
//! before their children, and subjects before their referrers, to any depth, without a walk of the graph.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::super::lifecycle::{Collected, Judgement, PARKED};
use super::super::{Limits, Repository, Result, Time};
use super::lookups::{digest as read_digest, size};
use super::manifests::{self, Place, Review};
use super::usage::{self, Growth};
use super::{Connection, dialect, retention, tags};
use crate::domain::{Digest, TagName, attachment};

/// Most tags that stand for others by their names which one look takes up.
const ATTACHED: u32 = 1000;

pub(super) async fn look(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    judgement: &Judgement,
) -> Result<Collected> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Collected::Absent);
    };
    let row = sqlx::query(concat!(
        "SELECT size, leased_until, subject, pulled_at FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
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
    let pulled_at: Option<i64> = row.try_get(3)?;
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
        look_later(c, &place, digest, Time(leased_until)).await?;
        return Ok(Collected::Later);
    }
    let since = Time(review.try_get::<Option<i64>, _>(0)?.unwrap_or(judgement.now.0));
    let condemned = review.try_get::<i16, _>(1)? != 0;
    let ends = match judgement.untagged_after {
        _ if condemned => judgement.now,
        Some(after) => {
            let pulled_at = pulled_at.filter(|_| judgement.pulls_count).map(Time);
            pulled_at.map_or(since, |at| at.max(since)).plus(after)
        }
        None => PARKED,
    };
    if ends > judgement.now {
        look_later(c, &place, digest, ends).await?;
        return Ok(Collected::Later);
    }
    let signatures = drop_attached(c, &place, digest, judgement, since).await?;
    let mut growth = Growth {
        tags: -signatures,
        ..Growth::default()
    };
    // Its signatures go before it, and of very many only some at once.
    let goes = signatures < i64::from(ATTACHED);
    if goes {
        let review = Review {
            due: judgement.review_at,
            since,
            condemned: true,
        };
        manifests::remove(c, &place, digest, &review).await?;
        (growth.bytes, growth.tenant_bytes) = (-bytes, -bytes);
    } else {
        look_later(c, &place, digest, judgement.now).await?;
    }
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    Ok(match goes {
        true => Collected::Done(size(bytes)?),
        false => Collected::Later,
    })
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
         AND ((name >= $4 AND name < $5) OR (name >= $6 AND name < $7)) LIMIT $8",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(&first.0)
    .bind(&first.1)
    .bind(&second.0)
    .bind(&second.1)
    .bind(i64::from(ATTACHED))
    .fetch_all(&mut *c)
    .await?;
    // So many names are not looked into: what has them stays until some of them go.
    if names.len() >= ATTACHED as usize {
        return Ok(true);
    }
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

/// Deletes up to [`ATTACHED`] tags that stand for a manifest which goes; how many.
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
    let mut attached = tags::attached(c, place, subject, ATTACHED).await?;
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
    let aside = sqlx::query(concat!(
        "SELECT 1 FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 AND until <= $4",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(judgement.claimed.0)
    .fetch_optional(&mut *c)
    .await?;
    if aside.is_none() {
        return Ok(Collected::Absent);
    }
    // It may have been pushed again.
    let signatures = match manifests::lock(c, &place, digest).await? {
        Some(_) => 0,
        None => drop_attached(c, &place, digest, judgement, judgement.now).await?,
    };
    let growth = Growth {
        tags: -signatures,
        ..Growth::default()
    };
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    let is_last = signatures < i64::from(ATTACHED);
    let query = match is_last {
        true => {
            "DELETE FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 AND $4 IS NOT NULL"
        }
        false => {
            "UPDATE deleted_manifest SET until = $4 WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3"
        }
    };
    sqlx::query(query)
        .bind(place.tenant)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .bind(judgement.now.0)
        .execute(&mut *c)
        .await?;
    Ok(match is_last {
        true => Collected::Done(0),
        false => Collected::Later,
    })
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

async fn look_later(c: &mut Connection, place: &Place, digest: &Digest, due: Time) -> Result<()> {
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
