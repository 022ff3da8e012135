//! The resources of `berth.dev/v1alpha1`: their shapes, their rules, and the bodies of the registry's admin API.
//!
//! A kind has a file of its own, with its types as `kubectl explain` shows them and its rules as
//! `validate`. [`admin`] holds what reaches the registry: the same specs with references followed and
//! selectors resolved ([`resolve`]); [`token`] is what a token looks like to whoever makes or reads one. Pure: no client, no network, no clock.
//!
//! What must hold: everything that an API server would refuse by schema is refused by `validate` too, since
//! YAML read from a folder passes no API server; every problem is told with the path of its field.

// The columns of a kind repeat each other's keys, which the lint takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod admin;
mod billing;
pub mod check;
mod docker;
mod generate;
mod grant;
mod pull_through_cache;
mod quantity;
mod repository;
pub mod resolve;
mod resource;
mod retention_policy;
mod schema;
mod sign_in;
mod span;
mod tenant;
pub mod token;
mod trust;

pub use billing::{Billing, currency, price_micros};
pub use check::Invalid;
pub use generate::{GenerateError, definitions, files};
pub use grant::{Action, Grant};
pub use pull_through_cache::{
    CacheTags, PullThroughCache, PullThroughCacheSpec, PullThroughCacheStatus, RateLimit, Upstream,
};
pub use quantity::Quantity;
pub use repository::{Lifecycle, Repository, RepositoryQuota, RepositorySpec, RepositoryStatus};
pub use resource::Resource;
pub use retention_policy::{
    KeepSemver, LastRun, Preview, RetentionPolicy, RetentionPolicySpec, RetentionPolicyStatus, Rule, Since,
    Untagged,
};
pub use sign_in::SignIn;
pub use span::Span;
pub use tenant::{
    AllowedNamespaces, Creation, DeletionPolicy, Event, NamespacesFrom, PullSecrets, PullSecretsStatus,
    Quota, Redirect, RepositoryDefaults, SecretRef, Sparse, Tenant, TenantPolicy, TenantSpec, TenantStatus,
    TenantToken, TenantUsage, TokenStatus, Visibility, Webhook, WebhookStatus,
};
pub use trust::{ServiceAccounts, Trust};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "berth.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";

/// A Tenant, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = schema::open)]
pub struct TenantRef {
    /// Name of the Tenant. It cannot be changed.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL), extend("x-kubernetes-validations" = schema::immutable()))]
    pub name: String,
}

/// An object of the same namespace, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = schema::open)]
pub struct LocalRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_NAME))]
    pub name: String,
}

#[cfg(test)]
mod admitted_tests;
#[cfg(test)]
mod tests;
