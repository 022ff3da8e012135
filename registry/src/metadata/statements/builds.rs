//! What builds are known by: kept with a push as far as the manifest says it, and later what lies behind it.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use super::super::explore::{BuildRow, DueBuild, DueBuilds};
use super::super::{PutManifest, Repository, Result, TenantId, Time};
use super::lookups::digest as read_digest;
use super::manifests::{self, Place};
use super::{Connection, dialect};
use crate::domain::build::{BuildKey, BuildKind};
use crate::domain::{Digest, media_type};

/// Keys that are kept of one reading of a manifest.
const MOST: usize = 64;

/// Notes what a manifest that is new says itself, and that what lies behind it is to be read.
pub(super) async fn pushed(c: &mut Connection, place: &Place, put: &PutManifest) -> Result<()> {
    if let Some(annotations) = put.manifest.annotations.as_deref() {
        let annotations: BTreeMap<String, String> = serde_json::from_str(annotations).unwrap_or_default();
        insert(c, place, &put.digest, &BuildKey::of_annotations(&annotations)).await?;
    }
    let kind = put.manifest.artifact_type.as_deref();
    if kind.is_some_and(media_type::tells_of_builds) {
        sqlx::query(
            "INSERT INTO build_due (tenant_id, repository_id, digest, due_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant_id, repository_id, digest) DO NOTHING",
        )
        .bind(place.tenant)
        .bind(place.repository)
        .bind(put.digest.to_bytes())
        .bind(put.now.0)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

async fn insert(c: &mut Connection, place: &Place, digest: &Digest, keys: &[BuildKey]) -> Result<()> {
    let keys: BTreeSet<&BuildKey> = keys.iter().take(MOST).collect();
    for key in keys {
        sqlx::query(
            "INSERT INTO build_key (tenant_id, kind, value, repository_id, digest) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant_id, value, kind, repository_id, digest) DO NOTHING",
        )
        .bind(place.tenant)
        .bind(number(key.kind))
        .bind(&key.value)
        .bind(place.repository)
        .bind(digest.to_bytes())
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

pub(super) async fn due(c: &mut Connection, now: Time, retry: Time, limit: u32) -> Result<DueBuilds> {
    let rows = sqlx::query(concat!(
        "SELECT tenant_id, repository_id, digest, (SELECT r.name FROM repository r \
           WHERE r.tenant_id = build_due.tenant_id AND r.id = build_due.repository_id) \
         FROM build_due WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
        for_update_skip_locked!()
    ))
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let mut due = Vec::with_capacity(rows.len());
    let seen = rows.len();
    for row in rows {
        let (tenant, id): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let digest: Vec<u8> = row.try_get(2)?;
        let name: Option<String> = row.try_get(3)?;
        // A repository that is being erased has a name that nobody can ask for.
        let name = name.and_then(|name| name.parse().ok());
        let query = match name {
            Some(_) => {
                "UPDATE build_due SET due_at = $4 WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3"
            }
            None => {
                "DELETE FROM build_due WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3 AND $4 > 0"
            }
        };
        sqlx::query(query)
            .bind(tenant)
            .bind(id)
            .bind(&digest)
            .bind(retry.0)
            .execute(&mut *c)
            .await?;
        if let Some(name) = name {
            due.push(DueBuild {
                repository: Repository {
                    tenant: TenantId(tenant),
                    name,
                },
                digest: read_digest(&digest)?,
            });
        }
    }
    Ok(DueBuilds { seen, builds: due })
}

pub(super) async fn note(c: &mut Connection, due: &DueBuild, keys: &[BuildKey]) -> Result<()> {
    let Some(place) = Place::find(c, &due.repository).await? else {
        return Ok(());
    };
    // Locked, so that it does not go meanwhile and leave its keys behind.
    if manifests::lock(c, &place, &due.digest).await?.is_some() {
        insert(c, &place, &due.digest, keys).await?;
    }
    sqlx::query("DELETE FROM build_due WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
        .bind(place.tenant)
        .bind(place.repository)
        .bind(due.digest.to_bytes())
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn find(
    c: &mut Connection,
    tenant: TenantId,
    value: &str,
    limit: u32,
) -> Result<Vec<BuildRow>> {
    // A walk of the primary key.
    let rows = sqlx::query(
        "SELECT k.kind, r.name, k.digest FROM build_key k \
         JOIN repository r ON r.tenant_id = k.tenant_id AND r.id = k.repository_id \
         WHERE k.tenant_id = $1 AND k.value = $2 AND r.name NOT LIKE '%~%' \
         AND EXISTS (SELECT 1 FROM manifest m WHERE m.tenant_id = k.tenant_id \
           AND m.repository_id = k.repository_id AND m.digest = k.digest) \
         ORDER BY k.kind, k.repository_id, k.digest LIMIT $3",
    )
    .bind(tenant.0)
    .bind(value)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let build = |row: &dialect::Row| {
        Ok(BuildRow {
            kind: kind(row.try_get(0)?),
            repository: row.try_get(1)?,
            digest: read_digest(row.try_get(2)?)?,
        })
    };
    rows.iter().map(build).collect()
}

fn number(kind: BuildKind) -> i16 {
    match kind {
        BuildKind::Build => 0,
        BuildKind::Commit => 1,
        BuildKind::Ref => 2,
    }
}

fn kind(number: i16) -> BuildKind {
    match number {
        0 => BuildKind::Build,
        1 => BuildKind::Commit,
        _ => BuildKind::Ref,
    }
}
