//! `/admin/v1/tenants/{tenant}/webhooks`: how webhooks fare, what was given up, and sending it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::reports::find;
use crate::audit::Outcome;
use crate::metadata::Time;
use crate::metadata::events::{DeadLetter, Replay, WebhookKey, WebhookState};
use crate::rfc3339;
use crate::tenancy::Tenant;
use crate::tenancy::webhooks::Webhook;
use crate::webhooks::Answered;

/// Most dead letters of a page, and most that one request sends again.
const PAGE: u32 = 1000;
/// If nothing is said.
const DEFAULT_PAGE: u32 = 100;

/// How a webhook fares.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Made of its URL.
    id: String,
    /// Where.
    url: String,
    /// Which events it wants.
    events: Vec<berth_crds::Event>,
    /// Whether its events are signed.
    signed: bool,
    /// Events that wait, counted up to 100000.
    pending: u64,
    /// Events that were given up and are kept, counted up to 100000.
    dead: u64,
    /// When the oldest that waits happened (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    /// The last delivery (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    last_delivery: Option<String>,
    /// The last failure (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    /// Why the last try failed; absent if a delivery has come after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// A page of what was given up, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Dead {
    /// The page.
    events: Vec<Letter>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// An event that was given up.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// The event's id.
    id: String,
    /// Its type.
    #[serde(rename = "type")]
    kind: String,
    /// What it is about.
    subject: String,
    /// When it happened (RFC 3339).
    time: String,
    /// When it was given up (RFC 3339).
    dead_since: String,
    /// How often it was tried.
    attempts: u64,
    /// Why the last try failed.
    error: String,
    /// What it says.
    data: Value,
}

/// What is sent again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Replayed {
    /// How many events.
    replayed: u64,
}

/// What came of an event that tells of nothing.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tested {
    /// The event's id.
    id: String,
    /// Whether the receiver answered 2xx.
    delivered: bool,
    /// What it answered, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why it was not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// For how long that took.
    milliseconds: u64,
}

/// Which of the dead letters.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    event: Option<Uuid>,
    before: Option<i64>,
    limit: Option<u32>,
}

impl Report {
    fn new(webhook: &Webhook, state: WebhookState) -> Self {
        let failed_at = state.failed.as_ref().map(|(at, _)| *at);
        let is_failing = failed_at > state.delivered_at;
        Self {
            id: webhook.id.clone(),
            url: webhook.url.clone(),
            events: webhook.events().into_iter().collect(),
            signed: webhook.secret.is_some(),
            pending: state.pending,
            dead: state.dead,
            oldest: state.oldest.map(rfc3339::write),
            last_delivery: state.delivered_at.map(rfc3339::write),
            last_failure: failed_at.map(rfc3339::write),
            last_error: state.failed.filter(|_| is_failing).map(|(_, why)| why),
        }
    }
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        let event = letter.delivery;
        Self {
            id: event.event.to_string(),
            kind: event.kind,
            subject: event.subject,
            time: rfc3339::write(event.at),
            dead_since: rfc3339::write(letter.dead_at),
            attempts: event.attempts,
            error: letter.why,
            data: serde_json::from_str(&event.data).unwrap_or_default(),
        }
    }
}

/// How a tenant's webhooks fare, in the order of its spec.
pub async fn list(State(admin): State<Admin>, Path(tenant): Path<String>) -> Answer<Vec<Report>> {
    let tenant = find(&admin, &tenant)?;
    let states = admin.events.webhook_states(tenant.id).await?;
    let mut states: HashMap<String, WebhookState> = states
        .into_iter()
        .map(|state| (state.webhook.clone(), state))
        .collect();
    let report = |webhook: &Webhook| Report::new(webhook, states.remove(&webhook.id).unwrap_or_default());
    Ok(Json(tenant.webhooks.iter().map(report).collect()))
}

/// What was given up, newest first.
pub async fn dead(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Asked(which): Asked<Which>,
) -> Answer<Dead> {
    let (_, key) = webhook(&admin, &tenant, &id)?;
    let limit = which.limit.unwrap_or(DEFAULT_PAGE).clamp(1, PAGE);
    let letters = admin
        .events
        .dead_letters(&key, which.before.unwrap_or(i64::MAX), limit)
        .await?;
    let last = letters.last().filter(|_| letters.len() == limit as usize);
    Ok(Json(Dead {
        next: last.map(|letter| letter.delivery.seq),
        events: letters.into_iter().map(Letter::from).collect(),
    }))
}

/// Sends again what was given up: one event, or the oldest.
pub async fn replay(
    State(admin): State<Admin>,
    Path((tenant, id)): Path<(String, String)>,
    Asked(which): Asked<Which>,
) -> Answer<Replayed> {
    let (tenant, key) = webhook(&admin, &tenant, &id)?;
    let (wanted, shown) = match which.event {
        Some(event) => (Replay::One(event), event.to_string()),
        None => {
            let limit = which.limit.unwrap_or(PAGE).clamp(1, PAGE);
            (Replay::Oldest(limit), format!("up to {limit} events"))
        }
    };
    let replayed = admin.events.replay(&key, wanted, Time::now()).await?;
    if let (0, Some(event)) = (replayed, which.event) {
        return Err(Failure::not_found(format_args!("dead letter {event}")));
    }
    admin
        .note(Some(&tenant), "webhook.replay", &id, Outcome::Done, &shown)
        .await;
    Ok(Json(Replayed { replayed }))
}

/// Sends an event that tells of nothing, once, and says what came of it.
pub async fn test(State(admin): State<Admin>, Path((tenant, id)): Path<(String, String)>) -> Answer<Tested> {
    let (tenant, key) = webhook(&admin, &tenant, &id)?;
    let webhook = tenant
        .webhook(&key.webhook)
        .ok_or_else(|| Failure::not_found(format_args!("webhook {id}")))?;
    let webhooks = admin.webhooks.as_ref().ok_or_else(|| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "NotServing",
            "only a running server sends: start it, or say where it is by --admin-listen",
        )
    })?;
    let began = Instant::now();
    let (event, answered) = webhooks.test(&tenant, webhook).await;
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (delivered, status, error) = match answered {
        Answered::Taken { status } => (true, Some(status), None),
        Answered::Refused { status, why, .. } => (false, Some(status), Some(why)),
        Answered::Unreached { why } => (false, None, Some(why)),
    };
    Ok(Json(Tested {
        id: event.to_string(),
        delivered,
        status,
        error,
        milliseconds,
    }))
}

/// A tenant's webhook, by its id.
fn webhook(admin: &Admin, tenant: &str, id: &str) -> Result<(Arc<Tenant>, WebhookKey), Failure> {
    let tenant = find(admin, tenant)?;
    let webhook = tenant
        .webhook(id)
        .ok_or_else(|| Failure::not_found(format_args!("webhook {id}")))?;
    let key = WebhookKey {
        tenant: tenant.id,
        webhook: webhook.id.clone(),
    };
    Ok((tenant, key))
}
