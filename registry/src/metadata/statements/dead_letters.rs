//! Events that are given up, sent again, or forgotten.

use std::collections::BTreeSet;

use super::super::events::{Replay, WebhookKey};
use super::super::{Result, Time};
use super::Connection;
use super::deliveries::lock;
use super::outbox::HELD;

/// Why an event was given up that was never tried.
const GIVEN_UP_BEHIND: &str = "an older event of its place was tried in vain until this one's time was over";

pub(super) async fn give_up_held(
    c: &mut Connection,
    key: &WebhookKey,
    seq: i64,
    before: Time,
    now: Time,
    limit: u32,
) -> Result<u64> {
    if !lock(c, key).await? {
        return Ok(0);
    }
    // By delivery_by_place.
    let gone = sqlx::query(
        "UPDATE delivery SET dead_at = $5, error = $6 WHERE tenant_id = $1 AND webhook = $2 AND seq IN (\
           SELECT d.seq FROM delivery d JOIN delivery first ON first.tenant_id = d.tenant_id \
             AND first.webhook = d.webhook AND first.place = d.place \
           WHERE first.tenant_id = $1 AND first.webhook = $2 AND first.seq = $3 AND first.dead_at IS NULL \
             AND d.tenant_id = $1 AND d.webhook = $2 AND d.dead_at IS NULL AND d.due_at = $8 AND d.since < $4 \
           ORDER BY d.seq LIMIT $7)",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(seq)
    .bind(before.0)
    .bind(now.0)
    .bind(GIVEN_UP_BEHIND)
    .bind(i64::from(limit))
    .bind(HELD)
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn replay(c: &mut Connection, key: &WebhookKey, which: &Replay, now: Time) -> Result<u64> {
    if !lock(c, key).await? {
        return Ok(0);
    }
    let (event, limit) = match which {
        Replay::One(event) => (Some(*event), 1),
        Replay::Oldest(limit) => (None, i64::from(*limit)),
    };
    let seqs: Vec<i64> = sqlx::query_scalar(
        "SELECT seq FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND dead_at IS NOT NULL \
         AND ($3 IS NULL OR event = $3) ORDER BY seq LIMIT $4",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(event)
    .bind(limit)
    .fetch_all(&mut *c)
    .await?;
    for seq in &seqs {
        // Behind older ones of its place that wait; before newer ones, of which one may be on its way already.
        sqlx::query(
            "UPDATE delivery SET dead_at = NULL, attempts = 0, since = $4, due_at = CASE WHEN EXISTS (SELECT 1 \
               FROM delivery d WHERE d.tenant_id = $1 AND d.webhook = $2 AND d.place = delivery.place \
               AND d.dead_at IS NULL) THEN $5 ELSE $4 END \
             WHERE tenant_id = $1 AND webhook = $2 AND seq = $3",
        )
        .bind(key.tenant.0)
        .bind(&key.webhook)
        .bind(seq)
        .bind(now.0)
        .bind(HELD)
        .execute(&mut *c)
        .await?;
    }
    if !seqs.is_empty() {
        wake(c, key, now).await?;
    }
    Ok(seqs.len() as u64)
}

pub(super) async fn forget_dead(c: &mut Connection, before: Time, limit: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM delivery WHERE (tenant_id, webhook, seq) IN (SELECT tenant_id, webhook, seq FROM delivery \
         WHERE dead_at IS NOT NULL AND dead_at < $1 ORDER BY dead_at LIMIT $2)",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn drop_webhook(
    c: &mut Connection,
    key: &WebhookKey,
    before: Time,
    now: Time,
    limit: u32,
) -> Result<u64> {
    if !lock(c, key).await? {
        return Ok(0);
    }
    let places: Vec<String> = sqlx::query_scalar(
        "DELETE FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND seq IN (SELECT seq FROM delivery \
         WHERE tenant_id = $1 AND webhook = $2 AND at < $4 ORDER BY seq LIMIT $3) RETURNING place",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(i64::from(limit))
    .bind(before.0)
    .fetch_all(&mut *c)
    .await?;
    let gone = places.len() as u64;
    // The webhook may be configured again, and then nothing else would let them out.
    for place in places.into_iter().collect::<BTreeSet<_>>() {
        release_held(c, key, &place, now).await?;
    }
    if gone < u64::from(limit) {
        sqlx::query(
            "DELETE FROM webhook WHERE tenant_id = $1 AND id = $2 AND NOT EXISTS (SELECT 1 FROM delivery d \
             WHERE d.tenant_id = $1 AND d.webhook = $2)",
        )
        .bind(key.tenant.0)
        .bind(&key.webhook)
        .execute(&mut *c)
        .await?;
    }
    Ok(gone)
}

/// Lets the oldest event of a place go out if it waits, unless another one of the place is on its way.
async fn release_held(c: &mut Connection, key: &WebhookKey, place: &str, now: Time) -> Result<()> {
    // By delivery_by_place, both.
    let released = sqlx::query(
        "UPDATE delivery SET due_at = $4, since = $4 WHERE tenant_id = $1 AND webhook = $2 AND due_at = $5 \
         AND seq = (SELECT min(d.seq) FROM delivery d WHERE d.tenant_id = $1 AND d.webhook = $2 AND d.place = $3 \
           AND d.dead_at IS NULL) \
         AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.tenant_id = $1 AND d.webhook = $2 AND d.place = $3 \
           AND d.dead_at IS NULL AND d.due_at <> $5)",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(place)
    .bind(now.0)
    .bind(HELD)
    .execute(&mut *c)
    .await?
    .rows_affected();
    if released > 0 {
        wake(c, key, now).await?;
    }
    Ok(())
}

/// Lets a webhook have a turn at `now`.
async fn wake(c: &mut Connection, key: &WebhookKey, now: Time) -> Result<()> {
    sqlx::query("UPDATE webhook SET due_at = $3 WHERE tenant_id = $1 AND id = $2 AND due_at > $3")
        .bind(key.tenant.0)
        .bind(&key.webhook)
        .bind(now.0)
        .execute(&mut *c)
        .await?;
    Ok(())
}
