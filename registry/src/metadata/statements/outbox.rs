//! Writing events, in the transaction of what they tell.
//!
//! A webhook's row is locked behind tags and before the counters. While it is held the events' numbers are in the order
//! of commits, and whoever settles the event before one of the same place waits, or sees the new one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::events::{Announce, Kind, NewEvent};
use super::super::{Repository, Result, TenantId, Time};
use super::lookups::digest as read_digest;
use super::manifests::Place;
use super::{Connection, dialect};
use crate::domain::Digest;

/// When what waits for another event is due.
pub(super) const HELD: i64 = i64::MAX;

/// One thing that has happened in a repository.
pub(super) struct Told<'a> {
    /// To this tag; else to the manifest, or to the repository as a whole.
    pub tag: Option<&'a str>,
    /// The manifest that it is about.
    pub digest: Option<&'a Digest>,
}

/// What is known of a manifest: its media type and size.
pub(super) type Described = BTreeMap<Digest, (String, i64)>;

/// One event's row.
struct Row {
    kind: Kind,
    subject: String,
    place: String,
    data: String,
}

/// What is known of these manifests.
pub(super) async fn describe(
    c: &mut Connection,
    place: &Place,
    digests: &BTreeSet<Digest>,
) -> Result<Described> {
    if digests.is_empty() {
        return Ok(Described::new());
    }
    let rows = sqlx::query(concat!(
        "SELECT digest, media_type, size FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest",
        in_digests!("$3"),
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(digests))
    .fetch_all(&mut *c)
    .await?;
    rows.iter()
        .map(|row| Ok((read_digest(row.try_get(0)?)?, (row.try_get(1)?, row.try_get(2)?))))
        .collect()
}

/// Tells of what has happened in a repository.
pub(super) async fn tell(
    c: &mut Connection,
    repository: &Repository,
    announce: &Announce,
    (actor, now): (&str, Time),
    told: &[Told<'_>],
    described: &Described,
) -> Result<()> {
    let name = repository.name.as_str();
    let row = |told: &Told<'_>| {
        let (subject, place) = match (told.tag, told.digest) {
            (Some(tag), _) => (format!("{name}:{tag}"), format!("{name}:{tag}")),
            (None, Some(digest)) => (format!("{name}@{digest}"), format!("{name}@{digest}")),
            (None, None) => (name.to_owned(), name.to_owned()),
        };
        let mut data = Map::new();
        data.insert("repository".into(), name.into());
        if let Some(tag) = told.tag {
            data.insert("tag".into(), tag.into());
        }
        if let Some(digest) = told.digest {
            data.insert("digest".into(), digest.to_string().into());
            if let Some((media_type, size)) = described.get(digest) {
                data.insert("mediaType".into(), media_type.as_str().into());
                data.insert("size".into(), (*size).into());
            }
        }
        data.insert("actor".into(), actor.into());
        Row {
            kind: announce.kind,
            subject,
            place,
            data: Value::Object(data).to_string(),
        }
    };
    let rows: Vec<Row> = told.iter().map(row).collect();
    write(c, repository.tenant, &announce.webhooks, &rows, now).await
}

/// Writes an event by itself; false if it is told once and was told already.
pub(super) async fn announce(c: &mut Connection, tenant: TenantId, event: &NewEvent) -> Result<bool> {
    if let Some(once) = &event.once {
        let news = sqlx::query(
            "INSERT INTO told (tenant_id, name, state, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant_id, name) DO UPDATE SET state = excluded.state, at = excluded.at \
             WHERE told.state <> excluded.state OR told.at < $5",
        )
        .bind(tenant.0)
        .bind(&once.name)
        .bind(&once.state)
        .bind(event.now.0)
        .bind(once.before.0)
        .execute(&mut *c)
        .await?;
        if news.rows_affected() == 0 {
            return Ok(false);
        }
    }
    let row = Row {
        kind: event.announce.kind,
        subject: event.subject.clone(),
        place: event.place.clone(),
        data: Value::Object(event.data.clone()).to_string(),
    };
    write(c, tenant, &event.announce.webhooks, &[row], event.now).await?;
    Ok(true)
}

/// Writes rows for each of the webhooks.
async fn write(
    c: &mut Connection,
    tenant: TenantId,
    webhooks: &[String],
    rows: &[Row],
    now: Time,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut places = BTreeSet::new();
    let listed: Vec<Value> = rows
        .iter()
        .zip(1_i64..)
        .map(|(row, number)| {
            // Of several of one place only the first may go out.
            let is_first = places.insert(row.place.as_str());
            let event = Uuid::new_v4().simple().to_string();
            json!([
                number,
                event,
                row.kind.text(),
                row.subject,
                row.place,
                row.data,
                i64::from(is_first)
            ])
        })
        .collect();
    let listed = Value::from(listed).to_string();
    // In order, so that two transactions do not wait for each other.
    let webhooks: BTreeSet<&str> = webhooks.iter().map(String::as_str).collect();
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    for webhook in webhooks {
        let last: i64 = sqlx::query_scalar(
            "INSERT INTO webhook (tenant_id, id, due_at, last_seq) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant_id, id) DO UPDATE SET last_seq = webhook.last_seq + excluded.last_seq, \
             due_at = CASE WHEN webhook.due_at < excluded.due_at THEN webhook.due_at ELSE excluded.due_at END \
             RETURNING last_seq",
        )
        .bind(tenant.0)
        .bind(webhook)
        .bind(now.0)
        .bind(count)
        .fetch_one(&mut *c)
        .await?;
        sqlx::query(concat!(
            "INSERT INTO delivery (tenant_id, webhook, seq, event, type, subject, place, at, data, due_at, since) \
             SELECT $1, $2, $3 + listed.number, listed.event, listed.type, listed.subject, listed.place, $4, \
             listed.data, CASE WHEN listed.is_first = 1 AND NOT EXISTS (SELECT 1 FROM delivery d \
               WHERE d.tenant_id = $1 AND d.webhook = $2 AND d.place = listed.place AND d.dead_at IS NULL) \
             THEN $4 ELSE $5 END, $4 FROM",
            event_rows!("$6"),
            "WHERE true"
        ))
        .bind(tenant.0)
        .bind(webhook)
        .bind(last - count)
        .bind(now.0)
        .bind(HELD)
        .bind(&listed)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}
