//! Other registries, asked on behalf of a cache: by the distribution API, with the cache's own credentials.
//!
//! [`client`] speaks to a registry, [`health`] says when it is to be left alone, [`remote`] puts both together for one
//! cache, and [`remotes`] holds those of all tenants. It may use `egress`, `domain`, `tenancy` and the keys that passwords
//! are sealed with.
//!
//! What must hold: a client's own credentials never come here; those of a cache go to its upstream and to hosts of the
//! same owner, never along a redirect to another host; whoever is asked, every address passes the dialer's filter; a
//! refusal says whether asking again makes sense, and when; what is known of one tenant's upstream decides nothing for
//! another tenant.

pub(crate) mod challenge;
mod client;
mod error;
mod figures;
mod health;
mod link;
mod realm;
mod remote;
mod remotes;
mod tokens;

pub use client::{Allowance, Call, Login, Question, Upstream, retry_after};
pub use error::UpstreamError;
pub use figures::Figures;
pub use health::Kind;
pub use link::next_query;
pub use remote::Remote;
pub use remotes::Remotes;
