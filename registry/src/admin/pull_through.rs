//! `/admin/v1/tenants/{tenant}/pull-through`: how caches fare, and fetching before anybody asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::reports::find;
use crate::audit::Outcome;
use crate::distribution::{WarmError, Warmed};
use crate::metadata::pull_through::CacheFigures;
use crate::rfc3339;
use crate::tenancy::{Cache, Tenant};

/// How a cache fares.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of its object.
    cache: String,
    /// The upstream's URL.
    upstream: String,
    /// Whether the upstream answered when it was last asked; absent if nobody has asked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<bool>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// When it was last asked (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_at: Option<String>,
    /// Requests answered from the cache.
    hits: u64,
    /// Requests for which the upstream's bytes were fetched.
    misses: u64,
    /// Bytes that were sent without being fetched again.
    bytes_saved: u64,
    /// Bytes that were fetched.
    bytes_fetched: u64,
    /// What the upstream says about its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
    /// Repositories that are here.
    repositories: u64,
    /// Their bytes; what two of them share counts in both.
    bytes: u64,
    /// Images to be fetched before anybody asks.
    prefetch: Vec<String>,
}

/// An upstream's limit on pulls.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Pulls in its window.
    limit: u64,
    /// Pulls left in it.
    remaining: u64,
    /// When it said so (RFC 3339).
    at: String,
}

/// One cache that was asked for, or all of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Known {
    /// The one.
    One(Box<Report>),
    /// All, by name.
    All(Vec<Report>),
}

/// Which cache, and what of its upstream.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    cache: Option<String>,
    image: Option<String>,
    blob: Option<String>,
}

impl Report {
    fn new(cache: &Cache, figures: CacheFigures, (repositories, bytes): (u64, u64)) -> Self {
        let failed_at = figures.failed.as_ref().map(|(at, _)| *at);
        let checked_at = figures.reached_at.max(failed_at);
        let reachable = checked_at.map(|_| figures.reached_at >= failed_at);
        let is_down = reachable == Some(false);
        Self {
            cache: cache.name.to_string(),
            upstream: cache.config.upstream.url.clone(),
            reachable,
            why: figures.failed.filter(|_| is_down).map(|(_, why)| why),
            checked_at: checked_at.map(rfc3339::write),
            hits: figures.hits,
            misses: figures.misses,
            bytes_saved: figures.bytes_saved,
            bytes_fetched: figures.bytes_fetched,
            rate_limit: figures.rate_limit.map(|(limit, remaining, at)| RateLimit {
                limit,
                remaining,
                at: rfc3339::write(at),
            }),
            repositories,
            bytes,
            prefetch: cache.config.prefetch.clone(),
        }
    }
}

/// How one cache fares, or all.
pub async fn show(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(which): Asked<Which>,
) -> Answer<Known> {
    let tenant = find(&admin, &tenant)?;
    if let Some(name) = &which.cache {
        let cache = cache_of(&tenant, name)?;
        return Ok(Json(Known::One(Box::new(report(&admin, &tenant, cache).await?))));
    }
    let mut all = Vec::new();
    for cache in tenant.caches.all() {
        all.push(report(&admin, &tenant, cache).await?);
    }
    Ok(Json(Known::All(all)))
}

/// Fetches one manifest or one blob of an upstream, unless it is here. A blob that takes longer than the request goes
/// on: 202 says how much of it has come.
pub async fn warm(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<(StatusCode, Json<Warmed>), Failure> {
    let tenant = find(&admin, &tenant)?;
    let missing = |what: &str| Failure::invalid(format!("name {what}"));
    let name = which
        .cache
        .as_deref()
        .ok_or_else(|| missing("the cache: ?cache=<name>"))?;
    let cache = cache_of(&tenant, name)?;
    let image = which
        .image
        .as_deref()
        .ok_or_else(|| missing("the image: &image=<repository>:<tag>, or <repository>@<digest>"))?;
    let warmer = admin.warmer.as_ref().ok_or_else(|| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "NotServing",
            "only a running server fetches: start it, or say where it is by --admin-listen",
        )
    })?;
    let warmed = match &which.blob {
        None => {
            admin
                .note(Some(&tenant), "cache.warm", image, Outcome::Done, name)
                .await;
            warmer.manifest(&tenant, cache, image).await
        }
        Some(blob) => warmer.blob(&tenant, cache, image, blob).await,
    };
    let warmed = warmed.map_err(|error| match error {
        WarmError::Invalid(why) => Failure::invalid(why),
        WarmError::Upstream(why) => Failure::new(StatusCode::BAD_GATEWAY, "Upstream", why),
    })?;
    let status = if warmed.stored {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(warmed)))
}

fn cache_of<'a>(tenant: &'a Tenant, name: &str) -> Result<&'a Arc<Cache>, Failure> {
    let unknown = || Failure::not_found(format!("cache {name:?} of tenant {}", tenant.name));
    tenant.caches.get(name).ok_or_else(unknown)
}

async fn report(admin: &Admin, tenant: &Tenant, cache: &Cache) -> Result<Report, Failure> {
    let store = admin.remotes.store();
    let figures = store.cache_figures(tenant.id, &cache.name).await?;
    let stored = store.stored_below(tenant.id, cache.prefix()).await?;
    Ok(Report::new(cache, figures, stored))
}
