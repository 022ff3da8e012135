//! Who asks an upstream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// Who asks.
#[derive(Clone)]
pub enum Login {
    /// Somebody with a password.
    Password {
        /// The name.
        username: String,
        /// The password, or a token in its place.
        password: String,
    },
    /// Whoever a registry's realm gave this token, which it exchanges for tokens of single scopes (distribution, "Docker
    /// Registry v2 authentication using OAuth2", `refresh_token`). Docker calls it an identity token.
    Identity(String),
}

impl Login {
    /// What goes into `Authorization`, if it is a password.
    pub(super) fn basic(&self) -> Result<Option<HeaderValue>, InvalidHeaderValue> {
        let Self::Password { username, password } = self else {
            return Ok(None);
        };
        let text = STANDARD.encode(format!("{username}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {text}"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
