//! Access, refresh and confined tokens: short EdDSA JWTs for one tenant, by its uid as their audience.
//!
//! They carry no right of their own: each use asks again for the credential behind them.

use serde::{Deserialize, Serialize};

use super::principal::{Access, Credential};

/// `typ` of a token that requests carry.
pub const ACCESS: &str = "berth-access+jwt";
/// `typ` of a token that is exchanged for access tokens, and for nothing else.
pub const REFRESH: &str = "berth-refresh+jwt";
/// `typ` of a token that stands in for a credential as the password, for what it names and nothing else.
pub const CONFINED: &str = "berth-confined+jwt";
/// `typ` of a token that a browser holds as its session with the explorer, and that nothing else takes.
pub const SESSION: &str = "berth-session+jwt";

/// Lifetime of an access token in seconds.
pub const ACCESS_LIFE: i64 = 300;
/// Lifetime of a refresh token in seconds; the credential behind it may end sooner.
pub const REFRESH_LIFE: i64 = 90 * 24 * 3600;
/// Longest lifetime of a confined token in seconds; the credential behind it may end sooner.
pub const CONFINED_LIFE: i64 = 3600;
/// Lifetime of a session in seconds; while it is used it is renewed.
pub const SESSION_LIFE: i64 = 3600;
/// Seconds after signing in after which a session is not renewed any more.
pub const SESSION_MOST: i64 = 12 * 3600;

/// What such a token says (RFC 7519, and `access` of the distribution token specification).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The host that issued it.
    pub iss: String,
    /// Who asked for it.
    pub sub: String,
    /// The tenant's uid.
    pub aud: String,
    /// End, in seconds since 1970.
    pub exp: i64,
    /// Begin.
    pub nbf: i64,
    /// Issue.
    pub iat: i64,
    /// Random.
    pub jti: String,
    /// What it is for; empty for what only proves a login.
    #[serde(default)]
    pub access: Vec<Access>,
    /// All that it could have been for, if it was issued on the strength of a confined token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<Access>>,
    /// What its owner was recognised by.
    pub credential: Credential,
    /// When its owner signed in, for sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}
