//! berth-operator: what the custom resources say becomes registry configuration, routes and Secrets.
//!
//! ```text
//!   Tenant ──┬─ PUT tenants/{t} ─────────────┐
//!            ├─ HTTPRoute or Ingress (owned) │
//!            └─ Secrets with tokens (owned)  ├─► registry's admin API, every write under the leader's term
//!   Repository, RetentionPolicy,             │
//!   PullThroughCache ── PUT {kind}/{ns}/{n} ─┘
//! ```
//!
//! Apart from all that, [`mirrors`] tells a node's containerd to ask a tenant for other registries' images.
//!
//! A folder or file a kind; each reconciles one object at a time: look, decide, act, one status patch. What is
//! decided is pure and tested without a cluster ([`tenant::credential`], [`tenant::route`], [`condition`]).
//!
//! What must hold: a second look at what has not changed writes nothing; a Secret that is not ours is never
//! written; whoever edits a Tenant gains no Secret by it; a finalizer never holds a namespace for ever.

pub mod admission;
pub mod backoff;
mod changes;
pub mod condition;
pub mod context;
mod controllers;
mod declared;
mod finalizer;
pub mod follow;
pub mod keys;
pub mod leader;
pub mod metrics;
pub mod mirrors;
mod ops;
pub mod registry;
pub mod run;
pub mod settings;
mod status;
mod sweep;
pub mod tenant;
mod tolerant;
pub mod trouble;
mod unreadable;
mod watches;

/// Field manager of everything that the operator applies.
pub const MANAGER: &str = "berth-operator";
/// Label that says who made an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label with the name of the tenant that an object belongs to, or may be read for.
pub const TENANT: &str = "berth.dev/tenant";
/// Annotation that makes the operator only look.
pub const PAUSED: &str = "berth.dev/paused";
/// Annotation of a RetentionPolicy: each new text asks for a run at once.
pub const RUN_REQUESTED: &str = "berth.dev/run-requested-at";
/// Finalizer of what the registry has been told of.
pub const FINALIZER: &str = "berth.dev/registry";
/// Annotation that confirms the deletion of a tenant's content; its value is the tenant's name.
pub const CONFIRM: &str = "berth.dev/confirm-delete";
/// Annotation of a Tenant: tokens in Secrets that were issued before this time (RFC 3339) end at once.
pub const REVOKE_BEFORE: &str = "berth.dev/revoke-issued-before";
