//! What the check of the stores reads besides pages of all tables, and what it has done about what it finds.

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::inspection::*;
use super::super::{Result, TenantId, Time};
use super::lookups::size;
use super::{Connection, Database, dialect, inspection_pages as pages};
use crate::domain::Digest;

#[async_trait]
impl Inspection for Database {
    async fn totals(&self) -> Result<Totals> {
        self.read((), |c, ()| Box::pin(totals(c))).await
    }

    async fn walk(&self, table: Table, from: Start, now: Time, settled: Time) -> Result<Walked> {
        self.read((table, from, now, settled), |c, (table, from, now, settled)| {
            Box::pin(pages::walk(c, *table, from, *now, *settled))
        })
        .await
    }

    async fn blobs(&self, from: Start, now: Time, settled: Time) -> Result<Vec<BlobSeen>> {
        self.read((from, now, settled), |c, (from, now, settled)| {
            Box::pin(pages::blobs(c, from, *now, *settled))
        })
        .await
    }

    async fn payloads(&self, from: Start, bytes: u64) -> Result<Vec<PayloadSeen>> {
        self.read((from, bytes), |c, (from, bytes)| {
            Box::pin(pages::payloads(c, from, *bytes))
        })
        .await
    }

    async fn unknown_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>> {
        self.read(keys.to_vec(), |c, keys| Box::pin(unknown_objects(c, keys)))
            .await
    }

    async fn names(&self, tenant: i64, repository: Option<i64>) -> Result<Names> {
        self.read((tenant, repository), |c, (tenant, repository)| {
            Box::pin(names(c, *tenant, *repository))
        })
        .await
    }

    async fn review_blob(&self, at: &Position, due: Time) -> Result<bool> {
        self.write_later((at.clone(), due), |c, (at, due)| {
            Box::pin(review_blob(c, at, *due))
        })
        .await
    }

    async fn review_manifest(&self, at: &Position, due: Time) -> Result<bool> {
        self.write_later((at.clone(), due), |c, (at, due)| {
            Box::pin(review_manifest(c, at, *due))
        })
        .await
    }

    async fn delete_unknown(&self, key: Uuid, due: Time) -> Result<bool> {
        self.write_later((key, due), |c, (key, due)| {
            Box::pin(delete_unknown(c, *key, *due))
        })
        .await
    }

    async fn repositories_of(
        &self,
        tenant: TenantId,
        digest: &Digest,
        limit: u32,
    ) -> Result<(Vec<String>, u64)> {
        self.read((tenant, *digest, limit), |c, (tenant, digest, limit)| {
            Box::pin(repositories_of(c, *tenant, digest, *limit))
        })
        .await
    }
}

async fn totals(c: &mut Connection) -> Result<Totals> {
    let mut totals = Totals::default();
    for (rows, count) in totals.rows.iter_mut().zip([
        "SELECT count(*) FROM repository",
        "SELECT count(*) FROM tag",
        "SELECT count(*) FROM manifest",
        "SELECT count(*) FROM manifest_blob",
        "SELECT count(*) FROM manifest_child",
        "SELECT count(*) FROM repository_blob",
    ]) {
        *rows = size(sqlx::query_scalar(count).fetch_one(&mut *c).await?)?;
    }
    let row = sqlx::query("SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob")
        .fetch_one(&mut *c)
        .await?;
    (totals.blobs, totals.bytes) = (size(row.try_get(0)?)?, size(row.try_get(1)?)?);
    Ok(totals)
}

/// Blobs are asked first, by their index: what the smaller tables know is left over from few pages.
async fn unknown_objects(c: &mut Connection, keys: &[Uuid]) -> Result<Vec<Uuid>> {
    let mut unknown = keys.to_vec();
    for known in [
        concat!("SELECT object_key FROM blob WHERE object_key", in_uuids!("$1")),
        concat!(
            "SELECT id FROM upload WHERE committed_at IS NULL AND id",
            in_uuids!("$1")
        ),
        concat!(
            "SELECT object_key FROM object_deletion WHERE object_key",
            in_uuids!("$1")
        ),
        // An upload may have been committed since the first look.
        concat!("SELECT object_key FROM blob WHERE object_key", in_uuids!("$1")),
    ] {
        if unknown.is_empty() {
            break;
        }
        let known: Vec<Uuid> = sqlx::query_scalar(known)
            .bind(dialect::uuids(&unknown))
            .fetch_all(&mut *c)
            .await?;
        unknown.retain(|key| !known.contains(key));
    }
    Ok(unknown)
}

async fn names(c: &mut Connection, tenant: i64, repository: Option<i64>) -> Result<Names> {
    let row = sqlx::query(
        "SELECT t.name, r.name, \
           EXISTS (SELECT 1 FROM purge g WHERE g.tenant_id = k.tenant_id AND (g.repository = '' OR g.repository = r.name \
             OR (r.name IS NULL AND k.repository_id IS NOT NULL))) \
         FROM (SELECT CAST($1 AS BIGINT) AS tenant_id, CAST($2 AS BIGINT) AS repository_id) AS k \
         LEFT JOIN tenant t ON t.id = k.tenant_id \
         LEFT JOIN repository r ON r.tenant_id = k.tenant_id AND r.id = k.repository_id",
    )
    .bind(tenant)
    .bind(repository)
    .fetch_one(&mut *c)
    .await?;
    Ok(Names {
        tenant: row.try_get(0)?,
        repository: row.try_get(1)?,
        going: row.try_get(2)?,
    })
}

async fn review_blob(c: &mut Connection, at: &Position, due: Time) -> Result<bool> {
    let asked = sqlx::query(
        "INSERT INTO review_blob (tenant_id, digest, due_at) SELECT b.tenant_id, b.digest, $3 FROM blob b \
         WHERE b.tenant_id = $1 AND b.digest = $2 AND NOT EXISTS (SELECT 1 FROM repository_blob l \
           WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest) \
         ON CONFLICT (tenant_id, digest) DO NOTHING",
    )
    .bind(at.tenant)
    .bind(&at.digest)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(asked.rows_affected() == 1)
}

async fn review_manifest(c: &mut Connection, at: &Position, due: Time) -> Result<bool> {
    let asked = sqlx::query(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since) \
         SELECT m.tenant_id, m.repository_id, m.digest, $4, m.pushed_at FROM manifest m \
         WHERE m.tenant_id = $1 AND m.repository_id = $2 AND m.digest = $3 \
         AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = m.tenant_id \
           AND t.repository_id = m.repository_id AND t.digest = m.digest) \
         ON CONFLICT (tenant_id, repository_id, digest) DO NOTHING",
    )
    .bind(at.tenant)
    .bind(at.repository)
    .bind(&at.digest)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(asked.rows_affected() == 1)
}

/// Whose the object was is not known: it is queued for the installation.
async fn delete_unknown(c: &mut Connection, key: Uuid, due: Time) -> Result<bool> {
    if unknown_objects(c, &[key]).await?.is_empty() {
        return Ok(false);
    }
    let queued = sqlx::query(
        "INSERT INTO object_deletion (tenant_id, object_key, due_at) VALUES (0, $1, $2) \
         ON CONFLICT (tenant_id, object_key) DO NOTHING",
    )
    .bind(key)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(queued.rows_affected() == 1)
}

async fn repositories_of(
    c: &mut Connection,
    tenant: TenantId,
    digest: &Digest,
    limit: u32,
) -> Result<(Vec<String>, u64)> {
    let names = super::repositories::with_blob(c, tenant, digest, limit).await?;
    if names.len() < limit as usize {
        let count = names.len() as u64;
        return Ok((names, count));
    }
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT $3) AS links",
    )
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .bind(i64::from(limit) * 10)
    .fetch_one(&mut *c)
    .await?;
    Ok((names, size(count)?))
}
