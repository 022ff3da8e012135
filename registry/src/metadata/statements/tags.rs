//! Setting and deleting tags, with their history.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use super::super::{Deletion, Precondition, PutManifest, Repository, Result, Time};
use super::lookups::digest as read_digest;
use super::manifests::Place;
use super::{Connection, dialect};
use crate::domain::{Digest, TagName};

/// Sets the tags of a push; false if the precondition does not hold for one of them.
pub(super) async fn set(c: &mut Connection, place: &Place, put: &PutManifest) -> Result<bool> {
    if put.tags.is_empty() {
        return Ok(true);
    }
    // In order, and each once: two pushes that make the same tags must not wait for each other.
    let names: BTreeSet<&str> = put.tags.iter().map(TagName::as_str).collect();
    let names = || names.iter().copied();
    let rows = sqlx::query(concat!(
        "SELECT name, digest FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name",
        in_texts!("$3"),
        "ORDER BY name",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::texts(names()))
    .fetch_all(&mut *c)
    .await?;
    let mut before: BTreeMap<String, Digest> = BTreeMap::new();
    for row in &rows {
        before.insert(row.try_get(0)?, read_digest(row.try_get(1)?)?);
    }
    let holds = match &put.precondition {
        Precondition::None => true,
        Precondition::Absent => before.is_empty(),
        Precondition::Present => before.len() == names().count(),
        Precondition::Is(digests) => {
            before.len() == names().count() && before.values().all(|digest| digests.contains(digest))
        }
    };
    if !holds {
        return Ok(false);
    }
    let upsert = concat!(
        "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by) \
         SELECT $1, $2, listed.name, $4, $5, $5, $6 FROM",
        text_rows!("$3"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, name) DO UPDATE SET digest = excluded.digest, \
         pushed_at = excluded.pushed_at, pushed_by = excluded.pushed_by"
    );
    // A tag that another push made since the look above is a conflict, not something to overwrite.
    let insert_new = concat!(
        "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by) \
         SELECT $1, $2, listed.name, $4, $5, $5, $6 FROM",
        text_rows!("$3"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, name) DO NOTHING"
    );
    let statement = if put.precondition == Precondition::Absent {
        insert_new
    } else {
        upsert
    };
    let written = sqlx::query(statement)
        .bind(place.tenant)
        .bind(place.repository)
        .bind(dialect::texts(names()))
        .bind(put.digest.to_bytes())
        .bind(put.now.0)
        .bind(&put.principal)
        .execute(&mut *c)
        .await?;
    if written.rows_affected() != names().count() as u64 {
        return Ok(false);
    }
    let moved: Vec<&str> = names()
        .filter(|name| before.get(*name) != Some(&put.digest))
        .collect();
    record(c, place, &moved, put).await?;
    let dropped: BTreeSet<Digest> = before
        .into_values()
        .filter(|digest| *digest != put.digest)
        .collect();
    review(c, place, &dropped, put.review_at).await?;
    Ok(true)
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

/// Asks for a review of manifests that a tag no longer points to.
async fn review(c: &mut Connection, place: &Place, digests: &BTreeSet<Digest>, due: Time) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at) \
         SELECT $1, $2, listed.digest, $4 FROM",
        digest_rows!("$3"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET due_at = excluded.due_at \
         WHERE review_manifest.due_at < excluded.due_at"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests))
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
    by: &Deletion,
) -> Result<bool> {
    let Some(id) = super::tenants::repository_id(c, repository).await? else {
        return Ok(false);
    };
    let place = Place {
        tenant: repository.tenant.0,
        repository: id,
    };
    let deleted: Option<Vec<u8>> = sqlx::query_scalar(
        "DELETE FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name = $3 RETURNING digest",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(tag.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(digest) = deleted else { return Ok(false) };
    sqlx::query(concat!(
        "INSERT INTO tag_history (tenant_id, repository_id, name, at, id, action, digest, principal) \
         VALUES ($1, $2, $3, $4,",
        random_uuid!(),
        ", 1, $5, $6)"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(tag.as_str())
    .bind(by.now.0)
    .bind(&digest)
    .bind(&by.principal)
    .execute(&mut *c)
    .await?;
    review(c, &place, &BTreeSet::from([read_digest(&digest)?]), by.review_at).await?;
    Ok(true)
}

/// Deletes every tag that points to a manifest, in three statements however many there are.
pub(super) async fn delete_all_of(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    by: &Deletion,
) -> Result<()> {
    // Locked first, by name: a push that moves one of them comes before all of this or after it.
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
    sqlx::query(concat!(
        "INSERT INTO tag_history (tenant_id, repository_id, name, at, id, action, digest, principal) \
         SELECT tenant_id, repository_id, name, $4,",
        random_uuid!(),
        ", 1, digest, $5 FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(by.now.0)
    .bind(&by.principal)
    .execute(&mut *c)
    .await?;
    sqlx::query("DELETE FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(place.tenant)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    Ok(())
}
