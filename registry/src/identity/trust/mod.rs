//! Tokens of foreign issuers: OIDC, and service accounts of the cluster.
//!
//! A tenant's rules say which issuer, audience and claims are trusted. What must hold: the key comes from the
//! issuer's own set (configured, or fetched through the egress door), never from the token; algorithms are
//! asymmetric ones alone; nobody is told which rule was nearly met.

mod cost;
mod expression;
pub(crate) mod jwks;
mod rule;
mod verify;

pub use expression::check as check_expression;
pub use rule::{Kind, Rule};
pub(crate) use verify::unverified;
pub use verify::{Accepted, Refused, Verifier};

/// Seconds since 1970.
pub type Seconds = i64;
