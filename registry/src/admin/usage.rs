//! `/admin/v1/usage` and `/admin/v1/storage`: what is stored, what was stored over time, and what it costs.

mod csv;
mod document;
mod rows;

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::reports::{PAGE, find};
use crate::lifecycle::metering::{month_of, read_month};
use crate::metadata::Time;
use crate::metadata::lifecycle::Sample;
use crate::rfc3339;
use document::{Document, Form};
use rows::Rows;

/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

/// What a tenant or a repository stores, and what it has stored in a month.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Name of the tenant.
    tenant: String,
    /// Name of the repository; absent for the tenant as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// Bytes of distinct blobs and of manifests, now.
    bytes: u64,
    /// Tags, now.
    tags: u64,
    /// Repositories, now; of a repository 0.
    repositories: u64,
    /// The month, in UTC, like 2026-11.
    month: String,
    /// Bytes times hours of the month.
    byte_hours: u64,
    /// The same in hours of 2^30 bytes, rounded down.
    gib_hours: String,
    /// What they cost.
    cost: String,
    /// Its currency.
    currency: String,
    /// Of 10^9 bytes stored for 730 hours.
    price: String,
    /// Bytes in the object store now, those included that are about to be deleted; absent for repositories.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    /// Whether it is gone, and only its past is told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

/// Which usage.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    tenant: Option<String>,
    month: Option<String>,
    #[serde(default)]
    repositories: bool,
    format: Option<String>,
}

/// Which hours.
#[derive(Debug, Deserialize)]
pub struct Since {
    tenant: String,
    from: Option<String>,
}

/// What a tenant stored, hour by hour.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Hourly {
    /// Oldest first.
    samples: Vec<Hour>,
    /// Where the next page begins (`from`), if there is one.
    next: Option<String>,
}

/// What a tenant stored at the beginning of an hour.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hour {
    /// The hour's beginning (RFC 3339).
    at: String,
    /// Bytes of distinct blobs and of manifests.
    bytes: u64,
    /// Bytes in the object store.
    stored_bytes: u64,
}

/// What the installation stores.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// What all tenants are told that they store.
    logical_bytes: u64,
    /// Bytes of objects that a blob refers to or that are about to be deleted.
    stored_bytes: u64,
    /// Of these, bytes that are about to be deleted.
    garbage_bytes: u64,
    /// Bytes of open uploads, besides.
    open_upload_bytes: u64,
}

/// What tenants store and have stored in a month, by their names.
/// Repositories come behind their tenant, in no order.
pub async fn month(
    State(admin): State<Admin>,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Failure> {
    // 1. What is asked for.
    let form = Form::of(which.format.as_deref(), headers.get(ACCEPT))?;
    let month = which.month.as_deref().map(read_month).transpose();
    let month = month
        .map_err(Failure::invalid)?
        .unwrap_or_else(|| month_of(Time::now()));
    let tenant = which
        .tenant
        .as_deref()
        .map(|name| find(&admin, name))
        .transpose()?;

    // 2. A store that does not answer is told before anything else is.
    let mut rows = Rows::open(admin, tenant, month, which.repositories).await?;
    let first = rows.page().await?;

    // 3. Page by page: there may be as many rows as repositories.
    let document = Document::new(form);
    let body = stream::try_unfold(Some((rows, Some(first), document)), move |state| async move {
        let Some((mut rows, page, mut document)) = state else {
            return Ok(None);
        };
        let page = match page {
            Some(page) => page,
            None => rows.page().await.map_err(|error| {
                tracing::error!(%error, "usage breaks off");
                io::Error::other(error)
            })?,
        };
        let ended = rows.is_ended();
        let chunk = document.page(&page, ended)?;
        Ok::<_, io::Error>(Some((chunk, (!ended).then_some((rows, None, document)))))
    });
    Ok(([(CONTENT_TYPE, form.media_type())], Body::from_stream(body)).into_response())
}

/// What a tenant stored, hour by hour.
pub async fn hourly(State(admin): State<Admin>, Asked(since): Asked<Since>) -> Answer<Hourly> {
    let tenant = find(&admin, &since.tenant)?;
    let from = since.from.as_deref().map(rfc3339::read).transpose();
    // The first hour that begins at that time or later.
    let from = from
        .map_err(Failure::invalid)?
        .map_or(0, |from| (from.0 + HOUR - 1).div_euclid(HOUR));
    let samples = admin.keeper.store().samples(tenant.id, from, PAGE).await?;
    let at = |hour: i64| rfc3339::write(Time(hour * HOUR));
    let last = samples.last().filter(|_| samples.len() == PAGE as usize);
    let next = last.map(|sample| at(sample.hour + 1));
    let shown = |sample: Sample| Hour {
        at: at(sample.hour),
        bytes: sample.bytes,
        stored_bytes: sample.stored,
    };
    Ok(Json(Hourly {
        samples: samples.into_iter().map(shown).collect(),
        next,
    }))
}

/// What the installation stores.
pub async fn storage(State(admin): State<Admin>) -> Answer<Storage> {
    let storage = admin.keeper.store().storage().await?;
    Ok(Json(Storage {
        logical_bytes: storage.logical,
        stored_bytes: storage.stored,
        garbage_bytes: storage.garbage,
        open_upload_bytes: storage.uploads,
    }))
}
