//! Credentials and what they may do: tokens, access tokens, trusted issuers, and the token endpoint.
//!
//! [`Identity::authenticate`] turns what a request presents into a [`Principal`]; the decision what it may do
//! is `distribution::access`'s, by the rules of [`sight`]. It may use the configuration (tokens, snapshot), the keys, and the network
//! only for trusted issuers: their keys, and the sign-in of people by them ([`sign_in`]).
//!
//! What must hold: a credential of one tenant is nobody at another, and is refused in the same words as one
//! that never existed; a token that was revoked is refused within a second on every replica; no secret is
//! logged, stored or compared in the clear.

pub mod access_token;
mod authenticate;
mod issued;
pub mod keys;
pub mod presented;
pub mod principal;
mod sessions;
pub mod sight;
pub mod sign_in;
pub mod throttle;
mod tokens;
pub mod trust;

pub use authenticate::{Identity, Refusal};
pub use principal::{Principal, Rights};
pub use sessions::{Held, form_token};
