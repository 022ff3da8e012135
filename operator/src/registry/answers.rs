//! What the registry's admin API answers, as far as the operator reads it.

use berth_crds::WebhookStatus;
use berth_crds::token::TokenId;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Changed {
    /// Version of the configuration that has it.
    pub version: i64,
    /// Whether anything differs from before.
    pub changed: bool,
}

/// What the replicas serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replicas {
    /// The live ones.
    pub replicas: Vec<Replica>,
}

/// What a replica serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replica {
    /// Name of its machine.
    pub host: String,
    /// Version of the configuration.
    pub version: i64,
    /// Objects whose newest content it cannot read, as `kind/tenant/name`.
    pub failed: Vec<String>,
}

impl Replicas {
    /// Why an object of this version is not served by all live replicas; nothing if it is.
    pub fn behind(&self, key: &str, version: i64) -> Option<String> {
        if self.replicas.is_empty() {
            return Some("no replica of the registry is alive".to_owned());
        }
        let failed = self
            .replicas
            .iter()
            .find(|replica| replica.failed.iter().any(|failed| failed == key));
        if let Some(replica) = failed {
            return Some(format!("the replica on {} cannot read it", replica.host));
        }
        let late = self
            .replicas
            .iter()
            .filter(|replica| replica.version < version)
            .count();
        (late > 0).then(|| format!("{late} of {} replicas do not serve it yet", self.replicas.len()))
    }
}

/// All objects.
#[derive(Debug, Clone, Deserialize)]
pub struct Everything {
    /// Every object without its content.
    pub objects: Vec<Stored>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// Name of the tenant.
    pub tenant: String,
    /// tenants, repositories, retention-policies or caches.
    pub kind: String,
    /// Its name; empty for the tenant itself.
    pub name: String,
    /// Uid of its source.
    pub uid: Option<String>,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Public part.
    pub id: TokenId,
    /// What it is for, as whoever made it says.
    #[serde(default)]
    pub description: String,
    /// What it may do.
    pub grants: Value,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it ends (RFC 3339).
    #[serde(default)]
    pub expires_at: Option<String>,
    /// When it was last used (RFC 3339).
    #[serde(default)]
    pub last_used_at: Option<String>,
}

impl TokenInfo {
    /// When it was made, by the registry's clock. An unreadable time is long ago: such a token is replaced.
    pub fn created(&self) -> Timestamp {
        self.created_at.parse().unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// When it ends.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires_at.as_ref()?.parse().ok()
    }
}

/// What a tenant or a repository stores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes.
    pub bytes: i64,
    /// Tags.
    pub tags: i64,
    /// Repositories, of a tenant.
    #[serde(default)]
    pub repositories: i64,
    /// GiB-hours of this month, of a tenant.
    #[serde(default)]
    pub gib_hours: Option<String>,
    /// What they cost.
    #[serde(default)]
    pub cost: Option<String>,
    /// In which currency.
    #[serde(default)]
    pub currency: Option<String>,
    /// When something was last pushed into a repository (RFC 3339).
    #[serde(default)]
    pub last_push: Option<String>,
    /// When something was last pulled from a repository (RFC 3339).
    #[serde(default)]
    pub last_pull: Option<String>,
    /// How a tenant's webhooks fare, which is asked for with it.
    #[serde(skip)]
    pub webhooks: Vec<WebhookStatus>,
}

/// An object with its content.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Object {
    /// Uid of its source.
    #[serde(default)]
    pub uid: Option<String>,
    /// Its content.
    #[serde(default)]
    pub spec: Value,
}

/// What a retention policy does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Whether it is being run.
    #[serde(default)]
    pub running: bool,
    /// Its last run.
    #[serde(default)]
    pub last_run: Option<RetentionRun>,
    /// When it runs next (RFC 3339).
    #[serde(default)]
    pub next_run: Option<String>,
    /// What a run would delete.
    #[serde(default)]
    pub preview: Option<RetentionPreview>,
}

/// A run of a retention policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionRun {
    /// When (RFC 3339).
    pub at: String,
    /// Tags that were looked at.
    #[serde(default)]
    pub evaluated: i64,
    /// Tags that were deleted.
    #[serde(default)]
    pub deleted_tags: i64,
    /// Bytes that become free.
    #[serde(default)]
    pub reclaimable: i64,
    /// Whether it only reported.
    #[serde(default)]
    pub dry_run: bool,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a run would delete.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPreview {
    /// When that was found out (RFC 3339).
    pub at: String,
    /// Number of tags.
    #[serde(default)]
    pub would_delete: i64,
    /// Bytes that would become free.
    #[serde(default)]
    pub reclaimable: i64,
    /// Some of the tags, as `repository:tag`.
    #[serde(default)]
    pub sample: Vec<String>,
}

/// What a cache does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullThrough {
    /// Whether its upstream answers, once that is known.
    #[serde(default)]
    pub reachable: Option<bool>,
    /// Why not.
    #[serde(default)]
    pub why: Option<String>,
    /// Requests answered from the cache.
    #[serde(default)]
    pub hits: i64,
    /// Requests that asked the upstream for bytes.
    #[serde(default)]
    pub misses: i64,
    /// Bytes that were not fetched again.
    #[serde(default)]
    pub bytes_saved: i64,
    /// What the upstream says about its limit.
    #[serde(default)]
    pub rate_limit: Option<PullLimit>,
    /// Repositories below the prefix.
    #[serde(default)]
    pub repositories: i64,
    /// What they store.
    #[serde(default)]
    pub bytes: i64,
}

/// An upstream's limit on pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PullLimit {
    /// Pulls allowed in the upstream's window.
    pub limit: i64,
    /// Pulls left in it.
    pub remaining: i64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replica(version: i64, failed: &[&str]) -> Replica {
        Replica {
            host: "a".to_owned(),
            version,
            failed: failed.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn an_object_is_served_once_every_live_replica_has_its_version() {
        let of = |replicas: Vec<Replica>| Replicas { replicas }.behind("tenants/acme/", 5);
        assert_eq!(of(vec![replica(5, &[]), replica(7, &["tenants/other/"])]), None);
        assert!(of(vec![]).is_some());
        assert!(of(vec![replica(5, &[]), replica(4, &[])]).is_some_and(|why| why.contains("1 of 2")));
        assert!(of(vec![replica(9, &["tenants/acme/"])]).is_some());
    }

    #[test]
    fn what_an_answer_leaves_out_is_not_known() {
        let bare: Usage = serde_json::from_value(json!({ "bytes": 7, "tags": 1 })).unwrap();
        assert_eq!((bare.gib_hours, bare.last_push), (None, None));
        let full: Usage = serde_json::from_value(json!({
            "tenant": "acme", "bytes": 7, "tags": 1, "repositories": 1, "month": "2026-11", "byteHours": u64::MAX,
            "gibHours": "12.345", "cost": "0.0123", "currency": "USD", "price": "0.20", "storedBytes": 9,
        }))
        .unwrap();
        assert_eq!(full.gib_hours.as_deref(), Some("12.345"));
        let nothing: Retention = serde_json::from_value(json!({ "policy": "apps/ci" })).unwrap();
        assert_eq!(nothing, Retention::default());
        let run = json!({ "policy": "apps/ci", "lastRun": {
            "at": "2026-11-01T00:00:00Z", "evaluated": 5, "deletedTags": 0, "reclaimable": 0, "dryRun": true,
            "error": null,
        } });
        let run = serde_json::from_value::<Retention>(run)
            .unwrap()
            .last_run
            .unwrap();
        assert!(run.dry_run && run.error.is_none() && run.evaluated == 5);
    }

    #[test]
    fn a_cache_that_was_never_used_is_told_with_nothing_but_zeros() {
        let bare = json!({ "cache": "apps/hub", "upstream": "https://a.example", "hits": 0, "misses": 0 });
        assert_eq!(
            serde_json::from_value::<PullThrough>(bare).unwrap(),
            PullThrough::default()
        );
        let limit =
            json!({ "reachable": null, "rateLimit": { "limit": 100, "remaining": 76, "window": 21600 } });
        let limit = serde_json::from_value::<PullThrough>(limit).unwrap().rate_limit;
        assert_eq!(
            limit,
            Some(PullLimit {
                limit: 100,
                remaining: 76
            })
        );
    }
}
