//! Berth's registry: the OCI distribution API on a blob store and a metadata store.
//!
//! Dependencies point inwards: `domain` knows nothing of IO; `blobs` and `metadata` store; `tenancy` knows who
//! lives here, `identity` who asks, `egress` and `audit` are their doors to the network and to the trail;
//! `telemetry` traces what all of them do; `regions` says which bucket is near,
//! `standby` how far a database is behind that is only read;
//! `distribution` speaks the protocol, `explorer` shows it to people, `admin` configures; `settings`, `server`, `ops` and `cli` make a process
//! of it.

pub mod admin;
pub mod audit;
pub mod backup;
pub mod blobs;
pub mod cli;
pub mod distribution;
pub mod domain;
pub mod egress;
pub mod explorer;
mod flights;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod identity;
pub mod import;
pub mod lifecycle;
pub mod metadata;
pub mod ops;
pub mod regions;
pub mod rfc3339;
pub mod server;
pub mod settings;
mod shares;
pub mod standby;
pub mod telemetry;
pub mod tenancy;
pub mod upstream;
pub mod webhooks;
