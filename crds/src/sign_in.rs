//! How people sign in to the explorer by an issuer that a tenant trusts.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Problems;
use super::{Span, schema};

/// Shortest and longest session.
const SESSION: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(12 * 3600));

/// Sign-in to the explorer by OpenID Connect: a public client with PKCE, without a secret. Of several rules with the same
/// issuer and audience the first says how the button looks and what is asked for; each says for how long its sessions last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("!has(self.session) || (duration(self.session) >= duration('1m') && duration(self.session) <= duration('12h'))", "session is 1m to 12h")])))]
pub struct SignIn {
    /// Words of the button; `Sign in with <the issuer's host>` without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = schema::LINE))]
    pub title: Option<String>,
    /// What the issuer is asked to tell: `openid`, `profile` and `email` without them. `openid` is asked for in any case.
    /// At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 255), regex(pattern = schema::SCOPE)))]
    pub scopes: Vec<String>,
    /// How long a session lasts after signing in, 1m to 12h; 1h without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Span>,
}

impl SignIn {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Some(title) = &self.title
            && (title.is_empty() || title.chars().count() > 64 || title.chars().any(char::is_control))
        {
            problems.add("title", "is one line of 1 to 64 characters");
        }
        problems.each("scopes", &self.scopes, 16, |scope| is_scope(scope));
        if let Some(session) = &self.session
            && !(SESSION.0..=SESSION.1).contains(&session.duration())
        {
            problems.add("session", format!("{session} is not 1m to 12h"));
        }
    }
}

/// A scope (RFC 6749, section 3.3).
fn is_scope(text: &str) -> Result<(), String> {
    let character = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    if text.is_empty() || text.len() > 255 || !text.bytes().all(character) {
        return Err(format!(
            "{text:?} is no scope: visible characters but '\"' and '\\'"
        ));
    }
    Ok(())
}
