//! Finding, locking and deleting manifests; [`super::put_manifest`] stores them.

use std::collections::BTreeSet;

use super::super::{Deleted, Deletion, Limits, Repository, Result, Time};
use super::outbox::{self, Told};
use super::usage::{self, Growth};
use super::{Connection, tags};
use crate::domain::Digest;

/// Where a manifest or tag goes.
pub(super) struct Place {
    pub tenant: i64,
    pub repository: i64,
}

impl Place {
    /// Of a repository that exists.
    pub(super) async fn find(c: &mut Connection, repository: &Repository) -> Result<Option<Self>> {
        let id = super::repositories::repository_id(c, repository).await?;
        Ok(id.map(|id| Self {
            tenant: repository.tenant.0,
            repository: id,
        }))
    }
}

/// A review of a manifest to come.
#[derive(Clone, Copy)]
pub(super) struct Review {
    /// When.
    pub due: Time,
    /// When it lost its last name.
    pub since: Time,
    /// Whether it goes then, should nothing refer to it.
    pub condemned: bool,
}

pub(super) async fn lease(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    until: Time,
) -> Result<bool> {
    let leased = sqlx::query(
        "UPDATE manifest SET leased_until = CASE WHEN leased_until > $4 THEN leased_until ELSE $4 END \
         WHERE tenant_id = $1 AND digest = $3 \
         AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2)",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(digest.to_bytes())
    .bind(until.0)
    .execute(&mut *c)
    .await?;
    Ok(leased.rows_affected() == 1)
}

/// Deletes a manifest and the tags that point to it. It can be brought back for a while; its children, its referrers
/// and its blobs wait as long.
pub(super) async fn delete(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
    by: &Deletion,
) -> Result<Deleted> {
    let Some(place) = Place::find(c, repository).await? else {
        return Ok(Deleted::Absent);
    };
    let Some(size) = lock(c, &place, digest).await? else {
        return Ok(Deleted::Absent);
    };
    tags::lock_all_of(c, &place, digest).await?;
    if let Some(tag) = tags::immutable(c, &place, digest, &by.immutable).await? {
        return Ok(Deleted::Immutable(tag));
    }
    if let Some(announce) = &by.announce {
        let names = tags::names_of(c, &place, digest).await?;
        let described = outbox::describe(c, &place, &BTreeSet::from([*digest])).await?;
        let digest = Some(digest);
        let tags = names.iter().map(|tag| Told {
            tag: Some(tag),
            digest,
        });
        let told: Vec<Told<'_>> = tags.chain([Told { tag: None, digest }]).collect();
        let by = (by.principal.as_str(), by.now);
        outbox::tell(c, repository, announce, by, &told, &described).await?;
    }
    let tags = tags::delete_all_of(c, &place, digest, by).await?;
    // Also if it cannot be brought back: what stood for it by name is dropped with it.
    super::restore::set_aside(c, &place, digest, by).await?;
    let review = Review {
        due: by.until.max(by.review_at),
        since: by.now,
        condemned: true,
    };
    remove(c, &place, digest, &review).await?;
    let growth = Growth {
        bytes: -size,
        tenant_bytes: -size,
        tags: -tags,
        ..Growth::default()
    };
    // What shrinks exceeds nothing.
    let _ = usage::grow(c, repository.tenant, place.repository, growth, &Limits::default()).await?;
    Ok(Deleted::Done)
}

/// Whether a repository has a manifest.
pub(super) async fn exists(c: &mut Connection, place: &Place, digest: &Digest) -> Result<bool> {
    let found =
        sqlx::query("SELECT 1 FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
            .bind(place.tenant)
            .bind(place.repository)
            .bind(digest.to_bytes())
            .fetch_optional(&mut *c)
            .await?;
    Ok(found.is_some())
}

/// Locks a manifest; its size.
pub(super) async fn lock(c: &mut Connection, place: &Place, digest: &Digest) -> Result<Option<i64>> {
    let size = sqlx::query_scalar(concat!(
        "SELECT size FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        for_update!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    Ok(size)
}

/// Deletes a manifest that is locked, with its edges. What it spoke of, and what speaks of it, is reviewed.
pub(super) async fn remove(
    c: &mut Connection,
    place: &Place,
    digest: &Digest,
    review: &Review,
) -> Result<()> {
    // A child that was absent when the parent was pushed may have come since, as a blob or as a manifest.
    for query in [
        "INSERT INTO review_blob (tenant_id, digest, due_at) SELECT tenant_id, blob, $4 FROM manifest_blob \
         WHERE tenant_id = $1 AND repository_id = $2 AND manifest = $3 ORDER BY blob \
         ON CONFLICT (tenant_id, digest) DO UPDATE SET due_at = excluded.due_at \
         WHERE review_blob.due_at < excluded.due_at",
        "INSERT INTO review_blob (tenant_id, digest, due_at) SELECT tenant_id, child, $4 FROM manifest_child \
         WHERE tenant_id = $1 AND repository_id = $2 AND parent = $3 AND kind <> 0 ORDER BY child \
         ON CONFLICT (tenant_id, digest) DO UPDATE SET due_at = excluded.due_at \
         WHERE review_blob.due_at < excluded.due_at",
    ] {
        sqlx::query(query)
            .bind(place.tenant)
            .bind(place.repository)
            .bind(digest.to_bytes())
            .bind(review.due.0)
            .execute(&mut *c)
            .await?;
    }
    sqlx::query(concat!(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since, condemned) \
         SELECT tenant_id, repository_id, child, $4, $5, $6 FROM manifest_child \
         WHERE tenant_id = $1 AND repository_id = $2 AND parent = $3 AND kind <> 1 ORDER BY child \
         ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET",
        newest_review!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_bytes())
    .bind(review.due.0)
    .bind(review.since.0)
    .bind(i16::from(review.condemned))
    .execute(&mut *c)
    .await?;
    sqlx::query(concat!(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since, condemned) \
         SELECT tenant_id, repository_id, digest, $4, $5, $6 FROM referrer \
         WHERE tenant_id = $1 AND repository_id = $2 AND subject = $3 ORDER BY digest \
         ON CONFLICT (tenant_id, repository_id, digest) DO UPDATE SET",
        newest_review!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(digest.to_string())
    .bind(review.due.0)
    .bind(review.since.0)
    .bind(i16::from(review.condemned))
    .execute(&mut *c)
    .await?;
    for removal in [
        "DELETE FROM manifest_blob WHERE tenant_id = $1 AND repository_id = $2 AND manifest = $3",
        "DELETE FROM manifest_child WHERE tenant_id = $1 AND repository_id = $2 AND parent = $3",
        "DELETE FROM referrer WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        "DELETE FROM review_manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        "DELETE FROM build_key WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        "DELETE FROM build_due WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
        "DELETE FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
    ] {
        sqlx::query(removal)
            .bind(place.tenant)
            .bind(place.repository)
            .bind(digest.to_bytes())
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}
