//! Berth's registry: the OCI distribution API on a blob store and a metadata store.
//!
//! Dependencies point inwards: `domain` knows nothing of IO; `blobs` and `metadata` store; `distribution`
//! speaks the protocol; `settings`, `server`, `ops` and `cli` make a process of it.

pub mod blobs;
pub mod cli;
pub mod distribution;
pub mod domain;
pub mod metadata;
pub mod ops;
pub mod server;
pub mod settings;
