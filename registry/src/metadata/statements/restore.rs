//! What was deleted and can be brought back; what became of tags.

use bytes::Bytes;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::lifecycle::{DeletedTag, RestoreTag, Restored, TagEvent};
use super::super::{
    Deletion, MetadataError, Precondition, PutManifest, PutOutcome, Repository, Result, Time, row_id,
};
use super::lookups::digest as read_digest;
use super::manifests::Place;
use super::{Connection, put_manifest};
use crate::domain::manifest::Manifest;
use crate::domain::{Digest, TagName};

/// Keeps the bytes of a manifest that is about to be deleted by its digest.
pub(super) async fn set_aside(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    by: &Deletion,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO deleted_manifest (tenant_id, repository_id, digest, media_type, payload, deleted_at, until) \
         SELECT tenant_id, repository_id, digest, media_type, payload, $4, $5 FROM manifest \
         WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 \
         ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET deleted_at = excluded.deleted_at, \
         until = excluded.until",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(by.now.0)
    .bind(by.until.0)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn deleted_tags(
    c: &mut Connection,
    repository: &Repository,
    before: Option<&(Time, String)>,
    now: Time,
    limit: u32,
) -> Result<Vec<DeletedTag>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let (at, name) = before.map_or((i64::MAX, ""), |(at, name)| (at.0, name.as_str()));
    // A walk of tag_history_deleted backwards. Of several deletions of one tag the newest counts.
    let rows = sqlx::query(
        "SELECT h.name, h.digest, h.at, h.principal, h.until FROM tag_history h \
         WHERE h.tenant_id = $1 AND h.repository_id = $2 AND h.action = 1 AND (h.at, h.name) < ($3, $4) \
         AND h.until > $5 \
         AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = $1 AND t.repository_id = $2 AND t.name = h.name) \
         AND NOT EXISTS (SELECT 1 FROM tag_history l WHERE l.tenant_id = $1 AND l.repository_id = $2 \
           AND l.name = h.name AND l.at > h.at AND l.action = 1) \
         AND (EXISTS (SELECT 1 FROM manifest m WHERE m.tenant_id = $1 AND m.repository_id = $2 AND m.digest = h.digest) \
           OR EXISTS (SELECT 1 FROM deleted_manifest d WHERE d.tenant_id = $1 AND d.repository_id = $2 \
             AND d.digest = h.digest)) \
         ORDER BY h.at DESC, h.name DESC LIMIT $6",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(at)
    .bind(name)
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let tag = |row: &super::dialect::Row| {
        Ok(DeletedTag {
            name: row.try_get(0)?,
            digest: read_digest(row.try_get(1)?)?,
            at: Time(row.try_get(2)?),
            by: row.try_get(3)?,
            until: Time(row.try_get(4)?),
        })
    };
    rows.iter().map(tag).collect()
}

pub(super) async fn restore(
    c: &mut Connection,
    repository: &Repository,
    restore: &RestoreTag,
) -> Result<Restored> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Restored::Gone);
    };
    let present: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT digest FROM tag WHERE tenant_id = $1 AND repository_id = $2 AND name = $3",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(restore.tag.as_str())
    .fetch_optional(&mut *c)
    .await?;
    if let Some(present) = present {
        return Ok(Restored::Exists(read_digest(&present)?));
    }
    // Of several deletions the newest counts, and only that.
    let deleted: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT digest FROM (SELECT digest, until FROM tag_history WHERE tenant_id = $1 AND repository_id = $2 \
         AND name = $3 AND action = 1 ORDER BY at DESC, id DESC LIMIT 1) AS newest WHERE until > $4",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(restore.tag.as_str())
    .bind(restore.now.0)
    .fetch_optional(&mut *c)
    .await?;
    let Some(digest) = deleted.as_deref().map(read_digest).transpose()? else {
        return Ok(Restored::Gone);
    };
    let Some((media_type, payload)) = bytes_of(c, &place, &digest).await? else {
        return Ok(Restored::Gone);
    };
    let manifest = Manifest::read_any(&payload, Some(&media_type))
        .map_err(|error| MetadataError::Corrupt(format!("manifest {digest}: {error}")))?;
    // It is pushed once more, so that all that it speaks of is looked for and locked.
    let put = PutManifest {
        digest,
        payload: Bytes::from(payload),
        manifest,
        tags: vec![restore.tag.clone()],
        precondition: Precondition::Absent,
        sparse: restore.sparse,
        principal: restore.principal.clone(),
        now: restore.now,
        leased_until: restore.leased_until,
        review_at: restore.leased_until,
        lifetime: None,
        repository_id: row_id(),
        immutable: Vec::new(),
        limits: restore.limits,
        announce: restore.announce.clone(),
    };
    match put_manifest::put(c, repository, &put).await? {
        PutOutcome::Stored(_) => {}
        refused => return Ok(Restored::Refused(refused)),
    }
    sqlx::query("DELETE FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(place.tenant)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    Ok(Restored::Done(digest))
}

/// The bytes of a manifest that is there, or that was deleted and is kept aside.
async fn bytes_of(c: &mut Connection, place: &Place, digest: &Digest) -> Result<Option<(String, Vec<u8>)>> {
    for query in [
        "SELECT media_type, payload FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        "SELECT media_type, payload FROM deleted_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
    ] {
        let row = sqlx::query(query)
            .bind(place.tenant)
            .bind(place.repository)
            .bind(digest.to_bytes())
            .fetch_optional(&mut *c)
            .await?;
        if let Some(row) = row {
            return Ok(Some((row.try_get(0)?, row.try_get(1)?)));
        }
    }
    Ok(None)
}

pub(super) async fn history(
    c: &mut Connection,
    repository: &Repository,
    tag: &TagName,
    before: Option<(Time, Uuid)>,
    limit: u32,
) -> Result<Vec<TagEvent>> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Vec::new());
    };
    let (at, id) = before.map_or((i64::MAX, Uuid::max()), |(at, id)| (at.0, id));
    // A walk of the primary key backwards.
    let rows = sqlx::query(
        "SELECT at, id, action, digest, principal FROM tag_history WHERE tenant_id = $1 AND repository_id = $2 \
         AND name = $3 AND (at, id) < ($4, $5) ORDER BY at DESC, id DESC LIMIT $6",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(tag.as_str())
    .bind(at)
    .bind(id)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let event = |row: &super::dialect::Row| {
        Ok(TagEvent {
            at: Time(row.try_get(0)?),
            id: row.try_get(1)?,
            deleted: row.try_get::<i16, _>(2)? == 1,
            digest: read_digest(row.try_get(3)?)?,
            by: row.try_get(4)?,
        })
    };
    rows.iter().map(event).collect()
}

pub(super) async fn forget_history(
    c: &mut Connection,
    repository: &Repository,
    before: Time,
    limit: u32,
) -> Result<u64> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(0);
    };
    let gone = sqlx::query(
        "DELETE FROM tag_history WHERE (tenant_id, repository_id, name, at, id) IN \
         (SELECT tenant_id, repository_id, name, at, id FROM tag_history \
          WHERE tenant_id = $1 AND repository_id = $2 AND at < $3 AND coalesce(until, 0) < $3 LIMIT $4)",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(before.0)
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}
