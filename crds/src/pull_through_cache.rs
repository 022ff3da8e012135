//! `PullThroughCache`: another registry, read through a tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Invalid, Problems, dns_name, image, repository_glob, repository_name, tag_glob, url};
use super::{LocalRef, Span, TenantRef, Visibility, schema};

/// Another registry, read through a tenant and kept for the next time.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "PullThroughCache",
    plural = "pullthroughcaches",
    shortname = "bptc",
    category = "berth",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Upstream", type_ = "string", json_path = ".spec.upstream.url"),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"UpstreamReachable\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    selectable = ".spec.tenantRef.name",
    namespaced,
    status = "PullThroughCacheStatus",
    derive = "PartialEq",
    doc = "Another registry, read through a tenant and kept for the next time."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct PullThroughCacheSpec {
    /// The tenant; it must admit this object's namespace. It cannot be changed.
    pub tenant_ref: TenantRef,
    /// The other registry.
    pub upstream: Upstream,
    /// Where its repositories appear in the tenant, like `docker.io`: a repository name, at most 128 bytes. Without it all
    /// of the tenant's repositories are the upstream's, but for those of other caches.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128), regex(pattern = schema::PREFIX))]
    pub prefix: String,
    /// Registries for which nodes ask this tenant by `?ns=`. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = schema::REGISTRY)), extend("x-kubernetes-list-type" = "set"))]
    pub mirror_for: Vec<String>,
    /// Globs over upstream repositories that may be pulled; all if empty. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY_GLOB)))]
    pub allow: Vec<String>,
    /// Globs over upstream repositories that may not be pulled, allowed or not. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = schema::REPOSITORY_GLOB)))]
    pub deny: Vec<String>,
    /// How tags follow the upstream.
    #[serde(default)]
    pub tags: CacheTags,
    /// What nobody pulled for this long is dropped; nothing is if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_unpulled: Option<Span>,
    /// Who may pull what no Repository speaks of; if absent, only who has a grant where the upstream is asked with
    /// credentials, else as the tenant says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Images to fetch before anybody asks, like `library/alpine:3.20`, by `berth-registry cache warm`. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 512), regex(pattern = schema::IMAGE)))]
    pub prefetch: Vec<String>,
}

/// The other registry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct Upstream {
    /// Its URL, like `https://registry-1.docker.io`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = schema::URL))]
    pub url: String,
    /// A Secret of this namespace with username and password, or a docker configuration (`.dockerconfigjson`) with
    /// a login for the upstream's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalRef>,
    /// PEM certificates that sign its own, besides the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Longest wait for an answer to begin; 30s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// How tags follow the upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open)]
pub struct CacheTags {
    /// A tag looked at within this time is not looked at again; 5m if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revalidate_after: Option<Span>,
    /// For how long the cached tag is served while the upstream fails; 24h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve_stale_on_error: Option<Span>,
    /// Globs over tags that may be pulled; all if empty. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = schema::TAG_GLOB)))]
    pub allow: Vec<String>,
    /// Globs over tags that stay as they were first pulled. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = schema::TAG_GLOB)))]
    pub pinned: Vec<String>,
    /// Serve a tag that the upstream has deleted for as long as it is kept here.
    #[serde(default)]
    pub keep_deleted: bool,
}

/// What is known about a PullThroughCache.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullThroughCacheStatus {
    /// The generation that was last looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, Programmed, UpstreamReachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Requests answered from the cache.
    #[serde(default)]
    pub hits: i64,
    /// Requests that asked the upstream for bytes.
    #[serde(default)]
    pub misses: i64,
    /// Bytes that were not fetched again.
    #[serde(default)]
    pub bytes_saved: i64,
    /// What is stored below the prefix.
    #[serde(default)]
    pub bytes: i64,
    /// Repositories below the prefix.
    #[serde(default)]
    pub repositories: i64,
    /// What the upstream says about its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// An upstream's limit on pulls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Pulls allowed in the upstream's window.
    #[serde(default)]
    pub limit: i64,
    /// Pulls left in it.
    #[serde(default)]
    pub remaining: i64,
}

impl PullThroughCacheSpec {
    /// Checks everything that the spec alone shows.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut problems = Problems::new("spec");
        problems.check("tenantRef.name", super::check::label(&self.tenant_ref.name));
        if let Some(secret) = &self.upstream.credentials_secret_ref {
            problems.check("upstream.credentialsSecretRef.name", dns_name(&secret.name));
        }
        validate(
            &self.upstream.url,
            &self.prefix,
            [&self.mirror_for, &self.allow, &self.deny, &self.prefetch],
            &self.tags,
            &mut problems,
        );
        problems.end()
    }
}

/// What a PullThroughCache has both as a resource and as the registry gets it.
pub(crate) fn validate(
    upstream: &str,
    prefix: &str,
    [mirror_for, allow, deny, prefetch]: [&[String]; 4],
    tags: &CacheTags,
    problems: &mut Problems,
) {
    problems.check("upstream.url", url(upstream));
    if !prefix.is_empty() {
        problems.check("prefix", repository_name(prefix));
    }
    problems.length("prefix", prefix, 128);
    problems.each("mirrorFor", mirror_for, 16, |registry| {
        let (name, port) = registry.split_once(':').unwrap_or((registry, "1"));
        if port.parse::<u16>().is_err() {
            return Err(format!("{registry:?} is no registry: write host or host:port"));
        }
        dns_name(name)
    });
    problems.unique("mirrorFor", mirror_for.iter().map(String::as_str));
    problems.each("allow", allow, 64, |glob| repository_glob(glob));
    problems.each("deny", deny, 64, |glob| repository_glob(glob));
    problems.each("tags.allow", &tags.allow, 64, |glob| tag_glob(glob));
    problems.each("tags.pinned", &tags.pinned, 64, |glob| tag_glob(glob));
    problems.each("prefetch", prefetch, 256, |name| image(name));
}
