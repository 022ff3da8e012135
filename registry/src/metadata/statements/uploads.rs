//! Upload sessions.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::{
    Checkpoint, CommitUpload, Linked, MetadataError, NewUpload, OpenUploads, Repository, Result, SessionKey,
    TakeUpload, Taken, TenantId, Time, UploadRow,
};
use super::lookups::{digest, size};
use super::{Connection, dialect};
use crate::blobs::UploadState;

macro_rules! upload_columns {
    () => {
        " id, epoch, writer_until, byte_offset, hash_states, state, digest, committed_at "
    };
}

fn state(text: &str) -> Result<UploadState> {
    serde_json::from_str(text).map_err(|error| MetadataError::Corrupt(format!("upload state: {error}")))
}

fn stored(state: &UploadState) -> Result<String> {
    serde_json::to_string(state).map_err(|error| MetadataError::Corrupt(format!("upload state: {error}")))
}

fn upload_row(row: &dialect::Row) -> Result<UploadRow> {
    let bound: Option<&[u8]> = row.try_get(6)?;
    Ok(UploadRow {
        id: row.try_get(0)?,
        epoch: row.try_get(1)?,
        writer_until: Time(row.try_get(2)?),
        offset: size(row.try_get(3)?)?,
        hash_states: row.try_get(4)?,
        state: state(row.try_get(5)?)?,
        digest: bound.map(digest).transpose()?,
        committed: row.try_get::<Option<i64>, _>(7)?.is_some(),
    })
}

pub(super) async fn create(c: &mut Connection, new: &NewUpload) -> Result<()> {
    sqlx::query(
        "INSERT INTO upload (tenant_id, id, repository, principal, created_at, active_at, hash_states, state) \
         VALUES ($1, $2, $3, $4, $5, $5, $6, $7)",
    )
    .bind(new.repository.tenant.0)
    .bind(new.id)
    .bind(new.repository.name.as_str())
    .bind(&new.principal)
    .bind(new.now.0)
    .bind(&new.hash_states)
    .bind(stored(&new.state)?)
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn end_leases(c: &mut Connection) -> Result<()> {
    sqlx::query("UPDATE upload SET writer_until = 0 WHERE writer_until > 0")
        .execute(&mut *c)
        .await?;
    Ok(())
}

pub(super) async fn count_open(c: &mut Connection) -> Result<Vec<OpenUploads>> {
    let rows = sqlx::query(
        "SELECT tenant_id, count(*), CAST(sum(byte_offset) AS BIGINT) FROM upload WHERE committed_at IS NULL \
         GROUP BY tenant_id",
    )
    .fetch_all(&mut *c)
    .await?;
    let counted = |row: &dialect::Row| {
        Ok(OpenUploads {
            tenant: TenantId(row.try_get(0)?),
            count: size(row.try_get(1)?)?,
            bytes: size(row.try_get(2)?)?,
        })
    };
    rows.iter().map(counted).collect()
}

pub(super) async fn find(c: &mut Connection, key: &SessionKey) -> Result<Option<UploadRow>> {
    let row = sqlx::query(concat!(
        "SELECT",
        upload_columns!(),
        "FROM upload WHERE tenant_id = $1 AND id = $2 AND repository = $3 AND principal = $4"
    ))
    .bind(key.repository.tenant.0)
    .bind(key.id)
    .bind(key.repository.name.as_str())
    .bind(&key.principal)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(upload_row).transpose()
}

pub(super) async fn take(c: &mut Connection, key: &SessionKey, take: &TakeUpload) -> Result<Taken> {
    let closing = take.closing.map(|digest| digest.to_bytes());
    // No lease by a right clock ends later than this: one that does was written by a clock that is ahead, and would
    // keep others waiting for as long as it is. Should that writer live, its epoch is over, and it changes nothing more.
    let latest = take
        .until
        .0
        .saturating_add(take.until.0.saturating_sub(take.now.0));
    let taken = sqlx::query(concat!(
        "UPDATE upload SET epoch = epoch + 1, writer_until = $4, active_at = $5, digest = coalesce(digest, $6) \
         WHERE tenant_id = $1 AND id = $2 AND repository = $3 AND principal = $7 AND committed_at IS NULL \
         AND (writer_until <= $5 OR writer_until > $8) \
         AND ($6 IS NULL OR digest IS NULL OR digest = $6) RETURNING",
        upload_columns!()
    ))
    .bind(key.repository.tenant.0)
    .bind(key.id)
    .bind(key.repository.name.as_str())
    .bind(take.until.0)
    .bind(take.now.0)
    .bind(closing)
    .bind(&key.principal)
    .bind(latest)
    .fetch_optional(&mut *c)
    .await?;
    if let Some(row) = taken {
        return Ok(Taken::Yours(upload_row(&row)?));
    }
    let Some(row) = find(c, key).await? else {
        return Ok(Taken::Gone);
    };
    Ok(match (row.committed, row.digest, take.closing) {
        (true, ..) => Taken::Committed(row),
        (false, Some(bound), Some(asked)) if bound != asked => Taken::OtherDigest(bound),
        _ => Taken::Busy(row),
    })
}

pub(super) async fn checkpoint(
    c: &mut Connection,
    tenant: TenantId,
    id: Uuid,
    now: &Checkpoint,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE upload SET byte_offset = $4, hash_states = $5, state = $6, active_at = $7, writer_until = $8 \
         WHERE tenant_id = $1 AND id = $2 AND epoch = $3 AND committed_at IS NULL",
    )
    .bind(tenant.0)
    .bind(id)
    .bind(now.epoch)
    .bind(i64::try_from(now.offset).unwrap_or(i64::MAX))
    .bind(&now.hash_states)
    .bind(stored(&now.state)?)
    .bind(now.now.0)
    .bind(now.until.0)
    .execute(&mut *c)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn renew(
    c: &mut Connection,
    tenant: TenantId,
    id: Uuid,
    epoch: i64,
    until: Time,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE upload SET writer_until = $4 WHERE tenant_id = $1 AND id = $2 AND epoch = $3 \
         AND committed_at IS NULL",
    )
    .bind(tenant.0)
    .bind(id)
    .bind(epoch)
    .bind(until.0)
    .execute(&mut *c)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn commit(
    c: &mut Connection,
    repository: &Repository,
    commit: &CommitUpload,
) -> Result<Linked> {
    let tenant = repository.tenant.0;
    let digest = commit.digest.to_bytes();
    // 1. The session must still be this writer's.
    let mine = sqlx::query(
        "UPDATE upload SET committed_at = $5, digest = $6, active_at = $5, writer_until = 0 \
         WHERE tenant_id = $1 AND id = $2 AND repository = $3 AND epoch = $4 AND committed_at IS NULL",
    )
    .bind(tenant)
    .bind(commit.id)
    .bind(repository.name.as_str())
    .bind(commit.epoch)
    .bind(commit.now.0)
    .bind(&digest)
    .execute(&mut *c)
    .await?;
    if mine.rows_affected() != 1 {
        return Ok(Linked::Gone);
    }
    // 2. The blob, unless the tenant has it: then ours is a spare copy, deleted later.
    let kept: Uuid = sqlx::query_scalar(
        "INSERT INTO blob (tenant_id, digest, object_key, size, created_at, leased_until) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, digest) DO UPDATE SET leased_until = \
         CASE WHEN blob.leased_until > excluded.leased_until THEN blob.leased_until \
         ELSE excluded.leased_until END RETURNING object_key",
    )
    .bind(tenant)
    .bind(&digest)
    .bind(commit.id)
    .bind(i64::try_from(commit.size).unwrap_or(i64::MAX))
    .bind(commit.now.0)
    .bind(commit.leased_until.0)
    .fetch_one(&mut *c)
    .await?;
    let size = i64::try_from(commit.size).unwrap_or(i64::MAX);
    if kept != commit.id {
        super::objects::enqueue(c, repository.tenant, commit.id, size, commit.spare_due).await?;
    }
    // 3. The link, and the review once the lease has ended.
    let link = super::blobs::Link {
        digest: &commit.digest,
        size,
        stored: size,
        repository_id: commit.repository_id,
        limits: &commit.limits,
        now: commit.now,
    };
    let linked = super::blobs::link(c, repository, &link).await?;
    super::blobs::review_later(c, repository.tenant, &commit.digest, commit.leased_until).await?;
    Ok(linked)
}

pub(super) async fn cancel(c: &mut Connection, key: &SessionKey) -> Result<Option<UploadRow>> {
    let row = sqlx::query(concat!(
        "DELETE FROM upload WHERE tenant_id = $1 AND id = $2 AND repository = $3 AND principal = $4 \
         AND committed_at IS NULL RETURNING",
        upload_columns!()
    ))
    .bind(key.repository.tenant.0)
    .bind(key.id)
    .bind(key.repository.name.as_str())
    .bind(&key.principal)
    .fetch_optional(&mut *c)
    .await?;
    row.as_ref().map(upload_row).transpose()
}

pub(super) async fn expire(c: &mut Connection, before: Time, limit: u32) -> Result<Vec<(Uuid, UploadState)>> {
    let rows = sqlx::query(concat!(
        // Materialised, since a plan that ran the choice again for each row would exceed the limit.
        "WITH idle AS MATERIALIZED (SELECT tenant_id, id FROM upload WHERE active_at < $1 AND writer_until < $1 \
         ORDER BY active_at LIMIT $2",
        for_update_skip_locked!(),
        ") DELETE FROM upload WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM idle) \
         RETURNING id, state, committed_at"
    ))
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let mut expired = Vec::new();
    for row in rows {
        // A committed session's bytes are a blob's.
        if row.try_get::<Option<i64>, _>(2)?.is_none() {
            expired.push((row.try_get(0)?, state(row.try_get(1)?)?));
        }
    }
    Ok(expired)
}

pub(super) async fn live(c: &mut Connection, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let live = sqlx::query_scalar(concat!(
        "SELECT id FROM upload WHERE committed_at IS NULL AND id",
        in_uuids!("$1")
    ))
    .bind(dialect::uuids(ids))
    .fetch_all(&mut *c)
    .await?;
    Ok(live)
}
