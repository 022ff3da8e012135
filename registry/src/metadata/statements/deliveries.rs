//! Delivering events: claims, tries, and what is seen of both.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::events::{DeadLetter, Delivery, Tried, WebhookKey, WebhookState};
use super::super::{Result, TenantId, Time};
use super::lookups::size;
use super::outbox::HELD;
use super::{Connection, dialect};

/// Bytes that are kept of why a try failed.
const WHY_LIMIT: usize = 512;
/// Most events that are counted.
const COUNTED: i64 = 100_000;

macro_rules! columns {
    () => {
        " seq, event, type, subject, at, data, attempts, since "
    };
}

fn read(row: &dialect::Row) -> Result<Delivery> {
    Ok(Delivery {
        seq: row.try_get(0)?,
        event: row.try_get(1)?,
        kind: row.try_get(2)?,
        subject: row.try_get(3)?,
        at: Time(row.try_get(4)?),
        data: row.try_get(5)?,
        attempts: size(row.try_get(6)?)?,
        since: Time(row.try_get(7)?),
    })
}

/// What is kept of a failure. Postgres has no text with a NUL in it.
fn kept(why: &str) -> String {
    why[..why.floor_char_boundary(WHY_LIMIT)].replace('\0', " ")
}

// -- Claims ---------------------------------------------------------------------------------------------

pub(super) async fn has_due(c: &mut Connection, now: Time) -> Result<bool> {
    let found = sqlx::query("SELECT 1 FROM webhook WHERE due_at <= $1 AND claimed_until <= $1 LIMIT 1")
        .bind(now.0)
        .fetch_optional(&mut *c)
        .await?;
    Ok(found.is_some())
}

pub(super) async fn claim(
    c: &mut Connection,
    by: Uuid,
    now: Time,
    until: Time,
    limit: u32,
) -> Result<Vec<WebhookKey>> {
    let rows = sqlx::query(concat!(
        // Materialised, since a plan that ran the choice again for each row would exceed the limit.
        "WITH due AS MATERIALIZED (SELECT tenant_id, id FROM webhook WHERE due_at <= $1 AND claimed_until <= $1 \
         ORDER BY due_at LIMIT $2",
        for_update_skip_locked!(),
        ") UPDATE webhook SET claimed_by = $3, claimed_until = $4 \
         WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM due) RETURNING tenant_id, id"
    ))
    .bind(now.0)
    .bind(i64::from(limit))
    .bind(by)
    .bind(until.0)
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(read_key).collect()
}

fn read_key(row: &dialect::Row) -> Result<WebhookKey> {
    Ok(WebhookKey {
        tenant: TenantId(row.try_get(0)?),
        webhook: row.try_get(1)?,
    })
}

/// Locks a webhook: what is written or settled meanwhile comes before or after. False if it is gone.
pub(super) async fn lock(c: &mut Connection, key: &WebhookKey) -> Result<bool> {
    let found = sqlx::query(concat!(
        "SELECT 1 FROM webhook WHERE tenant_id = $1 AND id = $2",
        for_update!()
    ))
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .fetch_optional(&mut *c)
    .await?;
    Ok(found.is_some())
}

pub(super) async fn release(c: &mut Connection, key: &WebhookKey, by: Uuid, then: Time) -> Result<()> {
    if !lock(c, key).await? {
        return Ok(());
    }
    // By delivery_by_due.
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT due_at FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND dead_at IS NULL \
         ORDER BY due_at LIMIT 1",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .fetch_optional(&mut *c)
    .await?;
    sqlx::query(
        "UPDATE webhook SET claimed_until = 0, claimed_by = NULL, due_at = $4 \
         WHERE tenant_id = $1 AND id = $2 AND claimed_by = $3",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(by)
    .bind(next.map_or(HELD, |next| next.max(then.0)))
    .execute(&mut *c)
    .await?;
    Ok(())
}

pub(super) async fn end_claims(c: &mut Connection) -> Result<()> {
    sqlx::query("UPDATE webhook SET claimed_until = 0, claimed_by = NULL WHERE claimed_until > 0")
        .execute(&mut *c)
        .await?;
    Ok(())
}

// -- Tries ----------------------------------------------------------------------------------------------

pub(super) async fn deliverable(
    c: &mut Connection,
    key: &WebhookKey,
    now: Time,
    limit: u32,
) -> Result<Vec<Delivery>> {
    let rows = sqlx::query(concat!(
        "SELECT",
        columns!(),
        "FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND dead_at IS NULL AND due_at <= $3 \
         ORDER BY due_at, seq LIMIT $4"
    ))
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn settle(
    c: &mut Connection,
    key: &WebhookKey,
    seq: i64,
    tried: &Tried,
    now: Time,
) -> Result<()> {
    if !lock(c, key).await? {
        return Ok(());
    }
    let text = match tried {
        Tried::Delivered => {
            "DELETE FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND seq = $3 AND dead_at IS NULL \
             RETURNING place"
        }
        Tried::Again { .. } => {
            "UPDATE delivery SET attempts = attempts + 1, due_at = $4, error = $5 \
             WHERE tenant_id = $1 AND webhook = $2 AND seq = $3 AND dead_at IS NULL RETURNING place"
        }
        Tried::Dead { .. } => {
            "UPDATE delivery SET attempts = attempts + 1, dead_at = $4, error = $5 \
             WHERE tenant_id = $1 AND webhook = $2 AND seq = $3 AND dead_at IS NULL RETURNING place"
        }
    };
    let query = sqlx::query_scalar(text)
        .bind(key.tenant.0)
        .bind(&key.webhook)
        .bind(seq);
    let query = match tried {
        Tried::Delivered => query,
        Tried::Again { at, why } => query.bind(at.0).bind(kept(why)),
        Tried::Dead { why } => query.bind(now.0).bind(kept(why)),
    };
    let place: Option<String> = query.fetch_optional(&mut *c).await?;
    let Some(place) = place else { return Ok(()) };
    note(c, key, tried, now).await?;
    match tried {
        Tried::Again { .. } => Ok(()),
        Tried::Delivered | Tried::Dead { .. } => next_of(c, key, &place, now).await,
    }
}

/// What a webhook is told to have done last.
async fn note(c: &mut Connection, key: &WebhookKey, tried: &Tried, now: Time) -> Result<()> {
    let query = match tried {
        Tried::Delivered => "UPDATE webhook SET delivered_at = $3 WHERE tenant_id = $1 AND id = $2",
        Tried::Again { .. } | Tried::Dead { .. } => {
            "UPDATE webhook SET failed_at = $3, error = $4 WHERE tenant_id = $1 AND id = $2"
        }
    };
    let query = sqlx::query(query)
        .bind(key.tenant.0)
        .bind(&key.webhook)
        .bind(now.0);
    let query = match tried {
        Tried::Delivered => query,
        Tried::Again { why, .. } | Tried::Dead { why } => query.bind(kept(why)),
    };
    query.execute(&mut *c).await?;
    Ok(())
}

/// Lets the oldest event of a place go out, if it waited for one that is done with.
async fn next_of(c: &mut Connection, key: &WebhookKey, place: &str, now: Time) -> Result<()> {
    // By delivery_by_place.
    sqlx::query(
        "UPDATE delivery SET due_at = $4, since = $4 WHERE tenant_id = $1 AND webhook = $2 AND due_at = $5 \
         AND seq = (SELECT min(d.seq) FROM delivery d WHERE d.tenant_id = $1 AND d.webhook = $2 AND d.place = $3 \
           AND d.dead_at IS NULL)",
    )
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(place)
    .bind(now.0)
    .bind(HELD)
    .execute(&mut *c)
    .await?;
    Ok(())
}

// -- What is seen of it ---------------------------------------------------------------------------------

pub(super) async fn states(c: &mut Connection, tenant: TenantId) -> Result<Vec<WebhookState>> {
    // Each count is a walk of delivery_by_due or delivery_dead, cut short.
    let rows = sqlx::query(
        "SELECT w.id, \
         (SELECT count(*) FROM (SELECT 1 FROM delivery d WHERE d.tenant_id = w.tenant_id AND d.webhook = w.id \
            AND d.dead_at IS NULL LIMIT $2) AS waiting), \
         (SELECT count(*) FROM (SELECT 1 FROM delivery d WHERE d.tenant_id = w.tenant_id AND d.webhook = w.id \
            AND d.dead_at IS NOT NULL LIMIT $2) AS dead), \
         (SELECT d.at FROM delivery d WHERE d.tenant_id = w.tenant_id AND d.webhook = w.id \
            AND d.dead_at IS NULL ORDER BY d.seq LIMIT 1), \
         w.delivered_at, w.failed_at, w.error FROM webhook w WHERE w.tenant_id = $1 ORDER BY w.id",
    )
    .bind(tenant.0)
    .bind(COUNTED)
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| {
            let time =
                |at: usize| -> Result<Option<Time>> { Ok(row.try_get::<Option<i64>, _>(at)?.map(Time)) };
            let why: Option<String> = row.try_get(6)?;
            Ok(WebhookState {
                webhook: row.try_get(0)?,
                pending: size(row.try_get(1)?)?,
                dead: size(row.try_get(2)?)?,
                oldest: time(3)?,
                delivered_at: time(4)?,
                failed: time(5)?.map(|at| (at, why.unwrap_or_default())),
            })
        })
        .collect()
}

pub(super) async fn known(
    c: &mut Connection,
    after: Option<&WebhookKey>,
    limit: u32,
) -> Result<Vec<WebhookKey>> {
    let (tenant, webhook) = after.map_or((i64::MIN, ""), |key| (key.tenant.0, key.webhook.as_str()));
    let rows = sqlx::query(
        "SELECT tenant_id, id FROM webhook WHERE (tenant_id, id) > ($1, $2) ORDER BY tenant_id, id LIMIT $3",
    )
    .bind(tenant)
    .bind(webhook)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(read_key).collect()
}

pub(super) async fn dead(
    c: &mut Connection,
    key: &WebhookKey,
    before: i64,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    let rows = sqlx::query(concat!(
        "SELECT",
        columns!(),
        ", dead_at, error FROM delivery WHERE tenant_id = $1 AND webhook = $2 AND dead_at IS NOT NULL AND seq < $3 \
         ORDER BY seq DESC LIMIT $4"
    ))
    .bind(key.tenant.0)
    .bind(&key.webhook)
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(DeadLetter {
                delivery: read(row)?,
                dead_at: Time(row.try_get(8)?),
                why: row.try_get::<Option<String>, _>(9)?.unwrap_or_default(),
            })
        })
        .collect()
}
