//! Who lives here: tenants with their configuration, as this replica serves it, and which of them a request
//! is for.
//!
//! [`directory`] holds an immutable [`snapshot`] of the configuration and follows the store; [`origin`] says
//! where a request comes from and which host it names; [`names`] turns host and path into a tenant and a
//! repository, and nothing else does; [`mirror`] says what a request means that names another host than its own, and [`caches`] which repositories are
//! another registry's; [`webhooks`] who hears of what happens here. It
//! may use the metadata store and the kinds of `berth-crds`.
//!
//! What must hold: a request sees one snapshot from its beginning to its end; a spec that cannot be read
//! leaves the last good one in force; no lookup here costs more than the length of the name that is looked
//! up and the globs of one tenant.

pub mod caches;
pub mod directory;
mod figures;
pub mod limits;
pub mod mirror;
pub mod names;
pub mod origin;
pub mod policies;
pub mod repositories;
pub mod snapshot;
pub mod webhooks;

pub use caches::Cache;
pub use directory::Directory;
pub use figures::Figures;
pub use mirror::{Namespace, Via};
pub use names::{Names, Place};
pub use origin::Origin;
pub use snapshot::{Snapshot, Tenant};
