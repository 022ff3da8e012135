//! What the tenant stores, what that costs, what holds it back and what would free it.

pub mod repository;
mod spans;

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path;
use super::plot::{self, Point};
use super::shown::{self, Column};
use super::visit::{self, Visit};
use crate::lifecycle::metering::{Price, month_of, write_month};
use crate::metadata::Time;
use crate::metadata::explore::RepositoryOrder;
use crate::metadata::lifecycle::MonthQuery;
use crate::rfc3339;
use crate::tenancy::caches::Cache;

/// Largest repositories that are shown.
const LARGEST: u32 = 20;
/// Caches and policies that are shown.
const LISTED: usize = 50;
/// Hours of a month, by agreement.
const MONTH: u64 = 730;
const HOUR: i64 = 3_600_000_000;

/// What a tenant stores.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    bytes: u64,
    tags: u64,
    repositories: u64,
    /// Most bytes that it may store.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_limit: Option<u64>,
    /// Most repositories that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    repositories_limit: Option<u64>,
    month: Month,
    /// Days that the samples go back.
    days: i64,
    /// Bytes at each hour, oldest first.
    samples: Vec<Sample>,
    largest: Vec<Largest>,
    policies: Vec<Policy>,
    caches: Vec<CacheFigures>,
    #[serde(skip)]
    points: Vec<Point>,
    #[serde(skip)]
    now: Time,
}

/// A month, this one so far.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Month {
    /// Like 2026-11, in UTC.
    month: String,
    byte_hours: u64,
    cost: String,
    currency: String,
    /// Of 10⁹ bytes stored for 730 hours.
    price: String,
}

#[derive(Debug, Serialize)]
struct Sample {
    /// RFC 3339.
    at: String,
    bytes: u64,
}

/// One of the largest repositories.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Largest {
    repository: String,
    bytes: u64,
    tags: u64,
    /// What a month of 730 hours at this size costs.
    monthly_cost: String,
}

/// What retention would free.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    name: String,
    dry_run: bool,
    /// As of the last look (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_at: Option<String>,
    would_delete: u64,
    would_free: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run: Option<String>,
    #[serde(skip)]
    next: Option<Time>,
}

/// How a cache fares.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheFigures {
    name: String,
    upstream: String,
    prefix: String,
    hits: u64,
    misses: u64,
    bytes_saved: u64,
    bytes_fetched: u64,
    /// What the upstream last said is left of its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_remaining: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u64>,
    /// Whether the upstream answers as it should, as far as it was asked.
    answers: bool,
}

/// The page.
pub async fn get(visit: &Visit, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    visit.known()?;
    visit.not_suspended("usage")?;
    // Sums tell of everything that is summed up.
    if !visit.sees_all() {
        return Err(Failure::Denied(
            "what the whole tenant stores is for whoever may see all of its repositories".into(),
        ));
    }
    let days = spans::asked(visit::query(parts)?);
    Ok(answer::view(visit, &read(visit, days).await?))
}

async fn read(visit: &Visit, days: i64) -> Result<Usage, Failure> {
    let (explorer, tenant) = (&visit.explorer, &visit.tenant);
    let (now, store) = (Time::now(), explorer.keeper.store());
    let price = explorer.keeper.price().of(tenant.config.billing.as_ref());

    // 1. Now, and how it came to that.
    let usage = explorer.configuration.usage(tenant.id).await?;
    let from = now.0 / HOUR - days * 24;
    let hours = u32::try_from(days * 24 + 1).unwrap_or(u32::MAX);
    let samples = store.samples(tenant.id, from, hours).await?;
    let mut points: Vec<Point> = samples
        .iter()
        .map(|sample| Point {
            hour: sample.hour,
            bytes: sample.bytes,
        })
        .collect();
    // Up to this moment.
    points.push(Point {
        hour: now.0 / HOUR + 1,
        bytes: usage.bytes,
    });

    // 2. What it costs, and who makes it so.
    let this = month_of(now);
    let query = MonthQuery {
        month: this,
        tenant: Some(tenant.id),
        repositories: false,
        after: (0, -1),
        limit: 1,
    };
    let month = store.month(query).await?;
    let byte_hours = month.first().map_or(0, |month| month.byte_hours);
    let rows = explorer
        .explore
        .repositories_in(tenant.id, RepositoryOrder::Size, None, LARGEST);
    let largest = rows.await?.into_iter().map(|row| Largest {
        repository: row.name,
        bytes: row.bytes,
        tags: row.tags,
        monthly_cost: repository::monthly(&price, row.bytes),
    });

    Ok(Usage {
        bytes: usage.bytes,
        tags: usage.tags,
        repositories: usage.repositories,
        storage_limit: tenant
            .config
            .quota
            .storage
            .as_ref()
            .and_then(|quantity| quantity.limit()),
        repositories_limit: Some(tenant.config.quota.repositories).filter(|limit| *limit > 0),
        month: of_month(this, byte_hours, &price),
        days,
        samples: samples
            .iter()
            .map(|sample| Sample {
                at: rfc3339::write(Time(sample.hour * HOUR)),
                bytes: sample.bytes,
            })
            .collect(),
        largest: largest.collect(),
        policies: policies(visit).await?,
        caches: caches(visit).await?,
        points,
        now,
    })
}

fn of_month(month: i64, byte_hours: u64, price: &Price) -> Month {
    Month {
        month: write_month(month),
        byte_hours,
        cost: price.cost(byte_hours),
        currency: price.currency.clone(),
        price: price.text(),
    }
}

async fn policies(visit: &Visit) -> Result<Vec<Policy>, Failure> {
    let mut policies = Vec::new();
    for policy in visit.tenant.policies.values().take(LISTED) {
        let history = visit
            .explorer
            .keeper
            .history(visit.tenant.id, &policy.name)
            .await?;
        let preview = history.preview.unwrap_or_default();
        let told = |at: i64| (at > 0).then(|| rfc3339::write(Time(at)));
        policies.push(Policy {
            name: policy.name.to_string(),
            dry_run: policy.config.dry_run,
            looked_at: told(preview.at),
            would_delete: preview.would_delete,
            would_free: preview.reclaimable,
            last_run: history.last_run.and_then(|run| told(run.at)),
            next_run: history.next_run.and_then(told),
            next: history.next_run.map(Time),
        });
    }
    Ok(policies)
}

async fn caches(visit: &Visit) -> Result<Vec<CacheFigures>, Failure> {
    let mut caches = Vec::new();
    for cache in visit.tenant.caches.all().take(LISTED) {
        let store = &visit.explorer.pull_through;
        let figures = store.cache_figures(visit.tenant.id, &cache.name).await?;
        caches.push(of_cache(cache, figures));
    }
    Ok(caches)
}

fn of_cache(cache: &Cache, figures: crate::metadata::pull_through::CacheFigures) -> CacheFigures {
    let reached = figures.reached_at;
    let trouble = figures
        .failed
        .filter(|(at, _)| reached.is_none_or(|reached| reached < *at));
    CacheFigures {
        name: cache.name.to_string(),
        upstream: cache.config.upstream.url.clone(),
        prefix: cache.prefix().to_owned(),
        hits: figures.hits,
        misses: figures.misses,
        bytes_saved: figures.bytes_saved,
        bytes_fetched: figures.bytes_fetched,
        rate_remaining: figures.rate_limit.map(|(_, remaining, _)| remaining),
        rate_limit: figures.rate_limit.map(|(limit, _, _)| limit),
        answers: trouble.is_none(),
    }
}

impl View for Usage {
    fn title(&self) -> String {
        "Usage".to_owned()
    }

    fn body(&self, _: &Visit) -> Markup {
        html! {
            (shown::crumbs(None))
            h1 { "Usage" }
            (self.facts())
            section aria-labelledby="time" {
                h2 #time { "Storage over time" }
                (spans::links("/explorer/usage", self.days))
                @if self.samples.is_empty() { p.hint { "Nothing has been measured yet; that is done once an hour." } }
                (plot::curve(&self.points, &format!("Bytes stored in the last {} days", self.days)))
            }
            @if !self.largest.is_empty() { (self.largest()) }
            @if !self.policies.is_empty() { (self.retention()) }
            @if !self.caches.is_empty() { (self.caches()) }
        }
    }
}

impl Usage {
    fn facts(&self) -> Markup {
        let month = &self.month;
        html! {
            dl.facts {
                div { dt { "Stored" } dd { (shown::size(self.bytes)) @if let Some(limit) = self.storage_limit {
                    " of " (shown::size(limit)) " " (share("Storage used", self.bytes, limit))
                } } }
                div { dt { "Repositories" } dd { (shown::grouped(self.repositories)) @if let Some(limit) = self.repositories_limit {
                    " of " (shown::grouped(limit)) " " (share("Repositories used", self.repositories, limit))
                } } }
                div { dt { "Tags" } dd { (shown::grouped(self.tags)) } }
                div { dt { "Cost of " (month.month) " so far" } dd { (month.cost) " " (month.currency) } }
                div { dt { "Price" } dd { (month.price) " " (month.currency) " for 10⁹ bytes and 730 hours" } }
            }
        }
    }

    fn largest(&self) -> Markup {
        let most = self
            .largest
            .iter()
            .map(|row| row.bytes)
            .max()
            .unwrap_or_default()
            .max(1);
        html! {
            section aria-labelledby="largest" {
                h2 #largest { "Largest repositories" }
                (shown::table("Largest repositories", &[Column::Text("Repository"), Column::Number("Size"), Column::Hidden("Share"), Column::Number("Tags"), Column::Number("A month at this size")], &html! {
                            @for row in &self.largest {
                                tr {
                                    th scope="row" { a href=(path::of_part(&row.repository, "usage")) { (row.repository) } }
                                    td.number { (shown::size(row.bytes)) }
                                    td { (bar(row.bytes, most)) }
                                    td.number { (shown::grouped(row.tags)) }
                                    td.number { (row.monthly_cost) " " (self.month.currency) }
                                }
                            }
                        }))
                p.hint { "What repositories share counts in each of them, and once for the tenant." }
            }
        }
    }

    fn retention(&self) -> Markup {
        html! {
            section aria-labelledby="retention" {
                h2 #retention { "Retention" }
                (shown::table("Retention policies", &[Column::Text("Policy"), Column::Number("Would delete"), Column::Number("Would free"), Column::Text("Next run")], &html! {
                            @for policy in &self.policies {
                                tr {
                                    th scope="row" { (policy.name) @if policy.dry_run { " " span.badge { "dry run" } } }
                                    @match policy.looked_at {
                                        Some(_) => {
                                            td.number { (shown::grouped(policy.would_delete)) " tags" }
                                            td.number { (shown::size(policy.would_free)) }
                                        }
                                        None => { td.number { span.hint { "not known yet" } } td {} }
                                    }
                                    td { (super::repositories::when(policy.next, self.now)) }
                                }
                            }
                        }))
            }
        }
    }

    fn caches(&self) -> Markup {
        html! {
            section aria-labelledby="caches" {
                h2 #caches { "Caches" }
                (shown::table("Caches of other registries", &[Column::Text("Cache"), Column::Text("Upstream"), Column::Number("Hits"), Column::Number("Misses"), Column::Number("Saved"), Column::Number("Fetched"), Column::Number("Left of its limit")], &html! {
                            @for cache in &self.caches {
                                tr {
                                    th scope="row" { (cache.name) }
                                    td { code { (cache.upstream) } @if !cache.answers { p.hint { "does not answer as it should" } } }
                                    td.number { (shown::grouped(cache.hits)) }
                                    td.number { (shown::grouped(cache.misses)) }
                                    td.number { (shown::size(cache.bytes_saved)) }
                                    td.number { (shown::size(cache.bytes_fetched)) }
                                    td.number { @match (cache.rate_remaining, cache.rate_limit) {
                                        (Some(left), Some(limit)) => { (shown::grouped(left)) " of " (shown::grouped(limit)) },
                                        _ => span.hint { "not told" },
                                    } }
                                }
                            }
                        }))
            }
        }
    }
}

/// How much of a limit is used.
fn share(label: &str, used: u64, limit: u64) -> Markup {
    html! { meter aria-label=(label) min="0" max=(limit) high=(limit / 10 * 9) value=(used.min(limit)) {} }
}

fn bar(value: u64, most: u64) -> Markup {
    let width = u128::from(value) * 100 / u128::from(most);
    html! {
        svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect class="bar0" x="0" y="0" width=(width) height="8" {}
        }
    }
}
