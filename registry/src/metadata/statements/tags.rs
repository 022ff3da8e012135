//! Setting and deleting tags, with their history.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use super::super::{Deletion, Limits, MetadataError, Precondition, PutManifest, Repository, Result, Time};
use super::lookups::digest as read_digest;
use super::manifests::{Place, Review};
use super::outbox::{self, Told};
use super::usage::{self, Growth};
use super::{Connection, dialect};
use crate::domain::{Digest, TagName, attachment};

/// What came of setting tags.
pub(super) enum Set {
    /// They are set.
    Done {
        /// How many of them were not there before.
        made: i64,
        /// Those that were not there, or pointed elsewhere.
        moved: BTreeSet<String>,
    },
    /// The precondition does not hold for one of them.
    PreconditionFailed,
    /// This one points elsewhere and may not be moved.
    Immutable(TagName),
}

/// Sets the tags of a push.
pub(super) async fn set(c: &mut Connection, place: &Place, put: &PutManifest) -> Result<Set> {
    if put.tags.is_empty() {
        return Ok(Set::Done {
            made: 0,
            moved: BTreeSet::new(),
        });
    }
    // In order, and each once: two pushes that make the same tags must not wait for each other.
    let names: BTreeSet<&str> = put.tags.iter().map(TagName::as_str).collect();
    let before = look(c, place, &names).await?;
    let holds = match &put.precondition {
        Precondition::None => true,
        Precondition::Absent => before.is_empty(),
        Precondition::Present => before.len() == names.len(),
        Precondition::Is(digests) => {
            before.len() == names.len() && before.values().all(|digest| digests.contains(digest))
        }
    };
    if !holds {
        return Ok(Set::PreconditionFailed);
    }
    let moved = |tag: &&TagName| {
        before
            .get(tag.as_str())
            .is_some_and(|digest| *digest != put.digest)
    };
    if let Some(tag) = put.immutable.iter().find(moved) {
        return Ok(Set::Immutable(tag.clone()));
    }
    let new: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !before.contains_key(*name))
        .collect();
    // What another push has made since the look is not overwritten: the transaction begins again.
    if insert(c, place, put, &new).await? != new.len() as u64 {
        return Err(MetadataError::Conflict("another push sets the same tags".into()));
    }
    let old: Vec<&str> = before.keys().map(String::as_str).collect();
    update(c, place, put, &old).await?;
    let moved: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| before.get(*name) != Some(&put.digest))
        .collect();
    record(c, place, &moved, put).await?;
    let made = i64::try_from(names.len() - before.len()).unwrap_or(i64::MAX);
    let dropped: BTreeSet<Digest> = before
        .into_values()
        .filter(|digest| *digest != put.digest)
        .collect();
    // Untagged, it waits for a rule on untagged manifests.
    let untagged = Review {
        due: put.review_at,
        since: put.now,
        condemned: false,
    };
    review(c, place, &dropped, &untagged).await?;
    let moved = moved.into_iter().map(str::to_owned).collect();
    Ok(Set::Done { made, moved })
}

/// Those of the tags that exist, locked.
async fn look(c: &mut Connection, place: &Place, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Digest>> {
    let rows = sqlx::query(concat!(
        "SELECT name, digest FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name",
        in_texts!("$3"),
        "ORDER BY name",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().copied()))
    .fetch_all(&mut *c)
    .await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert(row.try_get(0)?, read_digest(row.try_get(1)?)?);
    }
    Ok(found)
}

/// Makes tags; how many of them were not there.
async fn insert(c: &mut Connection, place: &Place, put: &PutManifest, names: &[&str]) -> Result<u64> {
    if names.is_empty() {
        return Ok(0);
    }
    let made = sqlx::query(concat!(
        "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by, lifetime, \
         expires_at) SELECT $1, $2, listed.name, $4, $5, $5, $6, $7, $8 FROM",
        text_rows!("$3"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, name) DO NOTHING"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().copied()))
    .bind(put.digest.to_bytes())
    .bind(put.now.0)
    .bind(&put.principal)
    .bind(lifetime(put))
    .bind(put.lifetime.map(|lifetime| put.now.plus(lifetime).0))
    .execute(&mut *c)
    .await?;
    Ok(made.rows_affected())
}

/// Moves tags that exist and are locked.
async fn update(c: &mut Connection, place: &Place, put: &PutManifest, names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "UPDATE tag SET digest = $4, pushed_at = $5, pushed_by = $6, lifetime = $7, expires_at = $8 \
         WHERE tenant_id = $1 AND repository_id = $2 AND name",
        in_texts!("$3"),
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().copied()))
    .bind(put.digest.to_bytes())
    .bind(put.now.0)
    .bind(&put.principal)
    .bind(lifetime(put))
    .bind(put.lifetime.map(|lifetime| put.now.plus(lifetime).0))
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// In microseconds.
fn lifetime(put: &PutManifest) -> Option<i64> {
    put.lifetime.map(|lifetime| Time(0).plus(lifetime).0)
}

async fn record(c: &mut Connection, place: &Place, names: &[&str], put: &PutManifest) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO tag_history (tenant_id, repository_id, name, at, id, action, digest, principal) \
         SELECT $1, $2, listed.name, $4,",
        random_uuid!(),
        ", 0, $5, $6 FROM",
        text_rows!("$3")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().copied()))
    .bind(put.now.0)
    .bind(put.digest.to_bytes())
    .bind(&put.principal)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// Asks for a review of manifests that have lost a reference. The newest loss says whether they are condemned; a
/// review that is asked for already does not come sooner.
pub(super) async fn review(
    c: &mut Connection,
    place: &Place,
    digests: &BTreeSet<Digest>,
    review: &Review,
) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since, condemned) \
         SELECT $1, $2, listed.digest, $4, $5, $6 FROM",
        digest_rows!("$3"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET",
        newest_review!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests))
    .bind(review.due.0)
    .bind(review.since.0)
    .bind(i16::from(review.condemned))
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// How tags go.
pub(super) struct Going<'a> {
    /// On whose behalf.
    pub principal: &'a str,
    /// Now.
    pub now: Time,
    /// Until when they can be brought back.
    pub until: Option<Time>,
    /// What becomes of what they pointed to.
    pub review: Review,
}

/// Deletes tags that are locked and point to `digests`, and keeps their history. The counters are the caller's.
pub(super) async fn delete_named(
    c: &mut Connection,
    place: &Place,
    names: &[String],
    digests: &BTreeSet<Digest>,
    going: &Going<'_>,
) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO tag_history (tenant_id, repository_id, name, at, id, action, digest, principal, until) \
         SELECT tenant_id, repository_id, name, $4,",
        random_uuid!(),
        ", 1, digest, $5, $6 FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name",
        in_texts!("$3")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().map(String::as_str)))
    .bind(going.now.0)
    .bind(going.principal)
    .bind(going.until.map(|until| until.0))
    .execute(&mut *c)
    .await?;
    sqlx::query(concat!(
        "DELETE FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name",
        in_texts!("$3")
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names.iter().map(String::as_str)))
    .execute(&mut *c)
    .await?;
    review(c, place, digests, &going.review).await
}

pub(super) async fn delete(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
    by: &Deletion,
) -> Result<bool> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(false);
    };
    let found = look(c, &place, &BTreeSet::from([tag.as_str()])).await?;
    if found.is_empty() {
        return Ok(false);
    }
    let (names, digests): (Vec<String>, BTreeSet<Digest>) = found.into_iter().unzip();
    let going = Going {
        principal: &by.principal,
        now: by.now,
        until: Some(by.until),
        // What a person untags stays, unless a rule on untagged manifests says otherwise.
        review: Review {
            due: by.review_at,
            since: by.now,
            condemned: false,
        },
    };
    if let Some(announce) = &by.announce {
        let described = outbox::describe(c, &place, &digests).await?;
        let told = Told {
            tag: Some(tag.as_str()),
            digest: digests.first(),
        };
        let by = (by.principal.as_str(), by.now);
        outbox::tell(c, repository, announce, by, &[told], &described).await?;
    }
    delete_named(c, &place, &names, &digests, &going).await?;
    let growth = Growth {
        tags: -1,
        ..Growth::default()
    };
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    Ok(true)
}

/// A tag of a manifest that may not be deleted.
pub(super) async fn immutable(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    globs: &[String],
) -> Result<Option<String>> {
    if globs.is_empty() {
        return Ok(None);
    }
    let found = sqlx::query_scalar(concat!(
        "SELECT name FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $4 \
         AND EXISTS (SELECT 1 FROM",
        text_rows!("$3"),
        "WHERE tag.name",
        matches_tag!(),
        "listed.name) LIMIT 1"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::tag_patterns(globs))
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    Ok(found)
}

/// Locks every tag that points to a manifest: a push that moves one of them comes before the rest of the
/// transaction or after it.
pub(super) async fn lock_all_of(c: &mut Connection, place: &Place, digest: &Digest) -> Result<()> {
    sqlx::query(concat!(
        "SELECT count(*) FROM (SELECT name FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 \
         ORDER BY name",
        for_update!(),
        ") AS locked"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// The tags that point to a manifest, in order.
pub(super) async fn names_of(c: &mut Connection, place: &Place, digest: &Digest) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT name FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 ORDER BY name",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .fetch_all(&mut *c)
    .await?;
    Ok(names)
}

/// Deletes every tag that points to a manifest, in two statements however many there are; how many there were.
pub(super) async fn delete_all_of(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    by: &Deletion,
) -> Result<i64> {
    sqlx::query(concat!(
        "INSERT INTO tag_history (tenant_id, repository_id, name, at, id, action, digest, principal, until) \
         SELECT tenant_id, repository_id, name, $4,",
        random_uuid!(),
        ", 1, digest, $5, $6 FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(by.now.0)
    .bind(&by.principal)
    .bind(by.until.0)
    .execute(&mut *c)
    .await?;
    let deleted = sqlx::query("DELETE FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(place.tenant)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    Ok(i64::try_from(deleted.rows_affected()).unwrap_or(i64::MAX))
}

/// Up to `limit` tags that stand for a manifest by their name, with what they point to, locked. One walk of the primary key:
/// the name alone comes before all that go on after it.
pub(super) async fn attached(
    c: &mut Connection,
    place: &Place,
    subject: &Digest,
    limit: u32,
) -> Result<Vec<(String, Digest)>> {
    let [exact, from, to] = attachment::tags(subject);
    let rows = sqlx::query(concat!(
        "SELECT name, digest FROM tag WHERE tenant_id = $1 AND repository_id = $2 \
         AND name >= $3 AND name < $5 AND (name = $3 OR name >= $4) ORDER BY name LIMIT $6",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(exact)
    .bind(from)
    .bind(to)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, read_digest(row.try_get(1)?)?)))
        .collect()
}
