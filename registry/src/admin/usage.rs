//! `/admin/v1/usage` and `/admin/v1/storage`: what is stored, what was stored over time, and what it costs.

mod csv;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::collection::named;
use super::reports::find;
use crate::lifecycle::metering::{gib_hours, month_of, read_month, write_month};
use crate::metadata::configuration::Usage as Counters;
use crate::metadata::lifecycle::{MonthQuery, MonthUsage, Sample};
use crate::metadata::{MetadataError, Time};
use crate::rfc3339;
use crate::tenancy::Tenant;

/// Rows of one query.
const PAGE: u32 = 1000;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

/// What tenants store and have stored in a month, in the order in which they were made.
pub async fn month(
    State(admin): State<Admin>,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Failure> {
    // 1. What is asked for.
    let form = form(which.format.as_deref(), headers.get(ACCEPT))?;
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
    let mut rows = Rows::new(admin, tenant, month, which.repositories);
    let first = rows.page().await?;

    // 3. Page by page: there may be as many rows as repositories.
    let content_type = match form {
        Form::Json => "application/json",
        Form::Csv => "text/csv; charset=utf-8",
    };
    let document = Document { form, begun: false, filled: false };
    let body = stream::try_unfold(Some((rows, Some(first), document)), move |state| async move {
        let Some((mut rows, page, mut document)) = state else { return Ok(None) };
        let page = match page {
            Some(page) => page,
            None => rows.page().await.map_err(|error| {
                tracing::error!(%error, "usage breaks off");
                io::Error::other(error)
            })?,
        };
        let ended = rows.ended;
        let chunk = document.page(&page, ended)?;
        Ok::<_, io::Error>(Some((chunk, (!ended).then_some((rows, None, document)))))
    });
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response())
}

/// An answer that is written page by page.
struct Document {
    form: Form,
    /// Whether its beginning is written.
    begun: bool,
    /// Whether a row is.
    filled: bool,
}

impl Document {
    fn page(&mut self, page: &[Usage], is_last: bool) -> Result<Bytes, io::Error> {
        let mut text = String::new();
        let is_first = !std::mem::replace(&mut self.begun, true);
        match self.form {
            Form::Csv => {
                if is_first {
                    csv::record(&mut text, &COLUMNS);
                }
                page.iter().for_each(|usage| csv::record(&mut text, &usage.fields()));
            }
            Form::Json => {
                text.push_str(if is_first { "[" } else { "" });
                for usage in page {
                    text.push_str(if std::mem::replace(&mut self.filled, true) { ",\n" } else { "" });
                    text.push_str(&serde_json::to_string(usage)?);
                }
                text.push_str(if is_last { "]\n" } else { "" });
            }
        }
        Ok(text.into())
    }
}

fn form(asked: Option<&str>, accept: Option<&HeaderValue>) -> Result<Form, Failure> {
    match asked {
        Some("json") => Ok(Form::Json),
        Some("csv") => Ok(Form::Csv),
        Some(other) => Err(Failure::invalid(format!("format {other:?} is not known: json or csv"))),
        None => {
            let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
            let mut types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
            // Of the two, the one that is named first.
            let known = types.find(|kind| matches!(*kind, "application/json" | "text/csv"));
            Ok(if known == Some("text/csv") { Form::Csv } else { Form::Json })
        }
    }
}

const COLUMNS: [&str; 13] = [
    "tenant",
    "repository",
    "bytes",
    "tags",
    "repositories",
    "month",
    "byteHours",
    "gibHours",
    "cost",
    "currency",
    "price",
    "storedBytes",
    "deleted",
];

impl Usage {
    /// In the order of [`COLUMNS`].
    fn fields(&self) -> [String; COLUMNS.len()] {
        [
            self.tenant.clone(),
            self.repository.clone().unwrap_or_default(),
            self.bytes.to_string(),
            self.tags.to_string(),
            self.repositories.to_string(),
            self.month.clone(),
            self.byte_hours.to_string(),
            self.gib_hours.clone(),
            self.cost.clone(),
            self.currency.clone(),
            self.price.clone(),
            self.stored_bytes
                .map(|bytes| bytes.to_string())
                .unwrap_or_default(),
            self.deleted.to_string(),
        ]
    }
}

/// What the store knows of a month, and the tenants of which it knows nothing.
struct Rows {
    admin: Admin,
    query: MonthQuery,
    /// Tenants whose row is still to come, by row id.
    live: VecDeque<Arc<Tenant>>,
    /// The tenant whose repositories are being told.
    current: Option<Arc<Tenant>>,
    ended: bool,
}

impl Rows {
    fn new(admin: Admin, tenant: Option<Arc<Tenant>>, month: i64, repositories: bool) -> Self {
        let query = MonthQuery {
            month,
            tenant: tenant.as_ref().map(|tenant| tenant.id),
            repositories,
            after: (0, -1),
            limit: PAGE,
        };
        let mut live: Vec<_> = match tenant {
            Some(tenant) => vec![tenant],
            None => admin.directory.now().tenants().cloned().collect(),
        };
        live.sort_by_key(|tenant| tenant.id);
        Self {
            admin,
            query,
            live: live.into(),
            current: None,
            ended: false,
        }
    }

    async fn page(&mut self) -> Result<Vec<Usage>, MetadataError> {
        let rows = self.admin.keeper.store().month(self.query.clone()).await?;
        self.ended = rows.len() < PAGE as usize;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            self.query.after = (row.tenant.0, row.repository_id);
            self.take(row, &mut page);
        }
        if self.ended {
            while let Some(tenant) = self.live.pop_front() {
                page.push(self.nothing(&tenant));
            }
        }
        Ok(page)
    }

    fn take(&mut self, row: MonthUsage, page: &mut Vec<Usage>) {
        // Tenants before it have stored nothing, and nor has its own if only a repository has a row.
        while let Some(tenant) = self.live.pop_front_if(|tenant| tenant.id <= row.tenant) {
            if tenant.id < row.tenant || row.repository_id != 0 {
                page.push(self.nothing(&tenant));
            }
            self.current = Some(tenant);
        }
        let tenant = self.current.as_ref().filter(|tenant| tenant.id == row.tenant);
        let usage = self.usage(tenant.map(Arc::as_ref), row);
        // What is gone is told for the months in which it was there.
        if !usage.deleted || usage.byte_hours > 0 {
            page.push(usage);
        }
    }

    fn nothing(&self, tenant: &Tenant) -> Usage {
        let row = MonthUsage {
            tenant: tenant.id,
            tenant_name: tenant.name.to_string(),
            repository_id: 0,
            repository: None,
            byte_hours: 0,
            usage: Counters::default(),
            stored: 0,
        };
        self.usage(Some(tenant), row)
    }

    /// A row as it is told; `tenant` unless it is gone.
    fn usage(&self, tenant: Option<&Tenant>, row: MonthUsage) -> Usage {
        let price = self
            .admin
            .keeper
            .price()
            .of(tenant.and_then(|tenant| tenant.config.billing.as_ref()));
        // A repository whose row is gone too is called by its number, in parentheses.
        let is_gone = |name: &str| name.contains(['~', '(']);
        Usage {
            deleted: tenant.is_none() || row.repository.as_deref().is_some_and(is_gone),
            tenant: named(&row.tenant_name).0.to_owned(),
            stored_bytes: row.repository.is_none().then_some(row.stored),
            repository: row.repository.map(|name| named(&name).0.to_owned()),
            bytes: row.usage.bytes,
            tags: row.usage.tags,
            repositories: row.usage.repositories,
            month: write_month(self.query.month),
            byte_hours: row.byte_hours,
            gib_hours: gib_hours(row.byte_hours),
            cost: price.cost(row.byte_hours),
            price: price.text(),
            currency: price.currency,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(tenant: &str) -> Usage {
        Usage {
            tenant: tenant.to_owned(),
            repository: None,
            bytes: 1,
            tags: 2,
            repositories: 3,
            month: "2026-11".to_owned(),
            byte_hours: 4,
            gib_hours: "0.000".to_owned(),
            cost: "0.000000".to_owned(),
            currency: "USD".to_owned(),
            price: "0.20".to_owned(),
            stored_bytes: Some(5),
            deleted: false,
        }
    }

    fn text(form: Form, pages: &[Vec<Usage>]) -> String {
        let mut document = Document { form, begun: false, filled: false };
        let last = pages.len() - 1;
        let pages = pages.iter().enumerate();
        let chunks = pages.map(|(at, page)| document.page(page, at == last).unwrap());
        let bytes: Vec<u8> = chunks.flat_map(|chunk| chunk.to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn pages_together_are_one_document() {
        for pages in [
            vec![vec![]],
            vec![vec![usage("a")]],
            vec![vec![usage("a"), usage("b")], vec![usage("c")]],
            vec![vec![], vec![]],
            vec![vec![usage("a")], vec![], vec![usage("b")]],
            vec![vec![], vec![usage("a")], vec![]],
        ] {
            let rows: usize = pages.iter().map(Vec::len).sum();
            let json: Vec<serde_json::Value> = serde_json::from_str(&text(Form::Json, &pages)).unwrap();
            assert_eq!(json.len(), rows);
            assert_eq!(text(Form::Csv, &pages).lines().count(), rows + 1);
        }
    }

    #[test]
    fn columns_are_the_fields_of_the_json_document() {
        let full = Usage {
            repository: Some("team/app".to_owned()),
            deleted: true,
            ..usage("acme")
        };
        let json = serde_json::to_value(&full).unwrap();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        let mut columns = COLUMNS.to_vec();
        columns.sort_unstable();
        assert_eq!(names, columns);
        for (column, field) in COLUMNS.iter().zip(full.fields()) {
            assert_eq!(json[column].to_string().trim_matches('"'), field, "{column}");
        }
    }

    #[test]
    fn the_form_is_what_the_query_says_else_what_is_accepted() {
        let accept = |value: &'static str| HeaderValue::from_static(value);
        assert_eq!(form(None, None).ok(), Some(Form::Json));
        assert_eq!(
            form(None, Some(&accept("application/json, text/csv;q=0.5"))).ok(),
            Some(Form::Csv)
        );
        assert_eq!(
            form(Some("json"), Some(&accept("text/csv"))).ok(),
            Some(Form::Json)
        );
        assert_eq!(form(None, Some(&accept("*/*"))).ok(), Some(Form::Json));
        assert!(form(Some("xml"), None).is_err());
    }
}
