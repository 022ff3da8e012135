//! The vocabulary of a registry: names, digests, media types, manifests, byte ranges.
//!
//! Pure: no IO, no clock, none of axum, sqlx or the AWS SDK. A value of a type of this module is always
//! well formed; strings stop where they are parsed.

pub mod attachment;
pub mod build;
pub mod digest;
pub mod glob;
pub mod grant;
pub mod hasher;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod range;
pub mod scope;
pub use berth_crds::token;

pub use digest::{Algorithm, Digest};
pub use media_type::{Format, MediaType};
pub use name::{RepositoryName, TagName, TenantName};
