//! The credential that a request presents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Longest credential looked at, in bytes.
pub const CREDENTIAL_LIMIT: usize = 24 * 1024;

/// What a request shows.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// A user name, which decides nothing, and a password, which is a token.
    Password {
        /// As sent.
        user: String,
        /// As sent.
        secret: String,
    },
    /// An access token.
    Bearer(String),
    /// Something else.
    Unreadable,
}

impl Presented {
    /// Reads the `Authorization` header.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (line, second) = (lines.next(), lines.next());
        let Some(line) = line else { return Self::Nothing };
        if second.is_some() || line.len() > CREDENTIAL_LIMIT {
            return Self::Unreadable;
        }
        line.to_str()
            .ok()
            .and_then(Self::read)
            .unwrap_or(Self::Unreadable)
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, value) = text.trim().split_once(' ')?;
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(value.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (user, secret) = decoded.split_once(':')?;
        if user.is_empty() && secret.is_empty() {
            // What clients without a credential send now and then.
            return Some(Self::Nothing);
        }
        Some(Self::Password {
            user: user.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// A user name as logs may show it: short, and without anything that could be a secret.
pub fn shown_user(user: &str) -> String {
    if crate::domain::token::looks_like(user) || user.matches('.').count() == 2 {
        return "(a credential)".to_owned();
    }
    let printable = user.chars().filter(|character| !character.is_control());
    printable.take(64).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(text: &str) -> Presented {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        Presented::of(&headers)
    }

    #[test]
    fn a_password_is_split_at_the_first_colon() {
        let basic = format!("Basic {}", STANDARD.encode("x-token:a:b"));
        let Presented::Password { user, secret } = read(&basic) else {
            panic!("no password");
        };
        assert_eq!((user.as_str(), secret.as_str()), ("x-token", "a:b"));
        assert!(read(&basic.replace("Basic", "bAsIc")) == read(&basic));
        assert!(read(&format!("Basic {}", STANDARD.encode(":"))) == Presented::Nothing);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        for text in [
            "Basic",
            "Basic !",
            "Digest x=y",
            "Basic YQ==",
            "Negotiate abc",
            "Bearer",
        ] {
            assert!(read(text) == Presented::Unreadable, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(Presented::of(&twice) == Presented::Unreadable);
    }

    #[test]
    fn a_user_name_that_holds_a_secret_is_not_shown() {
        assert_eq!(shown_user("x-token"), "x-token");
        assert_eq!(shown_user("berth_abc_def"), "(a credential)");
        assert_eq!(shown_user("a\nb\u{1b}[0m"), "ab[0m");
    }
}
