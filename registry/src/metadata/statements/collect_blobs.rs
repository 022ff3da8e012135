//! The look at a blob under lock: it goes from a repository when no manifest there speaks of it, and altogether when no
//! repository has it.

use sqlx::Row as _;

use super::super::lifecycle::{CollectBlob, Collected};
use super::super::{Result, TenantId, Time};
use super::lookups::size;
use super::unlink_blob::Locked;
use super::{Connection, dialect};
use crate::domain::Digest;

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

pub(super) async fn look(c: &mut Connection, collect: &CollectBlob) -> Result<Collected> {
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
    let blob = Locked {
        tenant: *tenant,
        digest: &key,
        object: row.try_get(2)?,
        size: bytes,
    };
    if blob.unlink(c, &unlinked, collect.object_due).await? {
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
