//! Events that no transaction of the store writes, since what they tell changes nothing that is stored: quotas that
//! are used up, and upstreams of caches that come and go.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Memory;
use serde_json::{Map, Value, json};

use crate::domain::RepositoryName;
use crate::metadata::events::{Events, Kind, NewEvent, Once};
use crate::metadata::{Quota, TenantId, Time};
use crate::tenancy::Tenant;
use crate::tenancy::limits::of_quota;

/// The same of one quota is told again after this.
const QUOTA_EVERY: Duration = Duration::from_secs(3600);
/// For so long this replica does not even ask whether it was told.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Quotas of which it remembers that.
const REMEMBERED: u64 = 10_000;

/// How a quota stands.
#[derive(Debug, Clone, Copy)]
pub struct QuotaNews {
    /// [`Kind::QuotaExceeded`] or [`Kind::QuotaThreshold`].
    pub kind: Kind,
    /// Which.
    pub quota: Quota,
    /// What is used.
    pub usage: u64,
    /// The limit.
    pub limit: u64,
}

/// Tells.
pub struct Teller {
    store: Arc<dyn Events>,
    told: Memory<(TenantId, String), ()>,
}

impl Teller {
    /// Writes to this outbox.
    pub fn new(store: Arc<dyn Events>) -> Arc<Self> {
        Arc::new(Self {
            store,
            told: Memory::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        })
    }

    /// Tells of a quota that a push into a repository has met, once an hour; the request does not wait for it.
    pub fn quota(
        self: &Arc<Self>,
        tenant: &Tenant,
        repository: &RepositoryName,
        actor: &str,
        news: QuotaNews,
    ) {
        let QuotaNews {
            kind,
            quota,
            usage,
            limit,
        } = news;
        let Some(announce) = tenant.announce(kind, Some(repository)) else {
            return;
        };
        let (subject, place) = match quota {
            Quota::Tags | Quota::RepositoryStorage | Quota::Referrers => {
                (repository.to_string(), format!("quota:{repository}"))
            }
            Quota::Storage | Quota::Repositories => (tenant.name.to_string(), "quota".to_owned()),
        };
        let (what, unit) = of_quota(quota);
        let name = format!("{}:{what}:{subject}", kind.text());
        let key = (tenant.id, name.clone());
        if self.told.contains_key(&key) {
            return;
        }
        self.told.insert(key, ());
        let now = Time::now();
        let data = json!({
            "quota": quota_name(quota), "unit": unit, "usage": usage, "limit": limit,
            "repository": repository.as_str(), "actor": actor,
        });
        let event = NewEvent {
            announce,
            subject,
            place,
            data: map(data),
            now,
            once: Some(Once {
                name,
                state: "told".to_owned(),
                before: now.minus(QUOTA_EVERY),
            }),
        };
        let (teller, tenant) = (self.clone(), tenant.id);
        tokio::spawn(async move { teller.write(tenant, event).await });
    }

    /// Tells that a cache's upstream does not answer any more, and why, or that it does again. Once, whichever of the
    /// replicas finds out first.
    pub async fn upstream(&self, tenant: &Tenant, cache: &str, url: &str, why: Option<&str>) {
        let kind = match why {
            Some(_) => Kind::CacheUnreachable,
            None => Kind::CacheRecovered,
        };
        let Some(announce) = tenant.announce(kind, None) else {
            return;
        };
        let event = NewEvent {
            announce,
            subject: cache.to_owned(),
            place: format!("cache:{cache}"),
            data: map(json!({ "cache": cache, "upstream": url, "why": why })),
            now: Time::now(),
            once: Some(Once {
                name: format!("cache:{cache}"),
                state: kind.text().to_owned(),
                before: Time(i64::MIN),
            }),
        };
        self.write(tenant.id, event).await;
    }

    async fn write(&self, tenant: TenantId, event: NewEvent) {
        let kind = event.announce.kind.text();
        if let Err(error) = self.store.announce(tenant, event).await {
            tracing::warn!(%error, kind, "an event could not be written");
        }
    }
}

/// A quota as it is called in specs.
fn quota_name(quota: Quota) -> &'static str {
    match quota {
        Quota::Storage => "storage",
        Quota::Repositories => "repositories",
        Quota::Tags => "tags",
        Quota::RepositoryStorage => "repositoryStorage",
        Quota::Referrers => "referrersPerSubject",
    }
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(mut map) => {
            map.retain(|_, value| !value.is_null());
            map
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}
