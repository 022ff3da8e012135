//! How another registry wants to be asked: `WWW-Authenticate` (RFC 9110, section 11.6.1; the token protocol of
//! distribution, "Token Authentication Specification").
//!
//! Written here because the crates that read it know no Bearer parameters or take only one challenge a header.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Longest header that is read; the longest known is below 1 KiB.
const LIMIT: usize = 8 * 1024;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a realm.
    Bearer {
        /// The URL that gives tokens.
        realm: String,
        /// For whom the token is.
        service: Option<String>,
        /// What it must allow, if the registry says so.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one that is answered, of all that an answer holds: Bearer before Basic.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        let mut found = None;
        for text in texts.filter_map(|value| value.to_str().ok()) {
            for challenge in read(text) {
                match challenge {
                    Self::Bearer { .. } => return Some(challenge),
                    Self::Basic => found = Some(challenge),
                }
            }
        }
        found
    }
}

/// All challenges of a header that are known; what cannot be read ends it.
fn read(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = &text[..text.len().min(LIMIT)];
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        match spaced.strip_prefix('=') {
            // A parameter of the scheme before it.
            Some(value) if !scheme.is_empty() => {
                let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t'])) else {
                    break;
                };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            Some(_) => break,
            None => {
                found.extend(challenge(&scheme, &mut parameters));
                word.to_ascii_lowercase().clone_into(&mut scheme);
                rest = after;
            }
        }
    }
    found.extend(challenge(&scheme, &mut parameters));
    found
}

fn challenge(scheme: &str, parameters: &mut Vec<(String, String)>) -> Option<Challenge> {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(key, _)| key == name)?;
        Some(parameters.swap_remove(at).1)
    };
    let challenge = match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => take("realm").map(|realm| Challenge::Bearer {
            realm,
            service: take("service"),
            scope: take("scope"),
        }),
        _ => None,
    };
    parameters.clear();
    challenge
}

/// A token at the beginning (RFC 9110, section 5.6.2), and what follows it.
fn token(text: &str) -> (&str, &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !allowed(c)).unwrap_or(text.len()))
}

/// The value of a parameter at the beginning, quoted or not, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = token(text);
        return Some((word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        assert_eq!(
            of(&[hub]),
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/alpine:pull")
            ))
        );
        for (text, expected) in [
            (
                r#"Basic realm="https://1.dkr.ecr.eu-central-1.amazonaws.com/",service="ecr.amazonaws.com""#,
                Some(Challenge::Basic),
            ),
            (
                "bearer Realm=https-no-quotes",
                Some(bearer("https-no-quotes", None, None)),
            ),
            (
                r#"Basic realm="a, Bearer realm=b", Bearer realm="c" , service = "d""#,
                Some(bearer("c", Some("d"), None)),
            ),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            (
                r#"Bearer realm="a \"quoted\" one""#,
                Some(bearer(r#"a "quoted" one"#, None, None)),
            ),
            ("Bearer", None),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="cut"#, None),
            ("=x", None),
            ("", None),
        ] {
            assert_eq!(of(&[text]), expected, "{text}");
        }
        assert_eq!(
            of(&["Basic realm=\"x\"", "Bearer realm=\"y\""]),
            Some(bearer("y", None, None))
        );
        assert_eq!(of(&[]), None);
    }

    proptest! {
        #[test]
        fn whatever_a_registry_writes_is_read_without_harm(text in "[ -~]{0,200}") {
            let _ = of(&[&text]);
        }

        #[test]
        fn a_realm_is_read_back(realm in "[ !#-\\[\\]-~]{1,60}") {
            prop_assert_eq!(of(&[&format!("Bearer realm=\"{realm}\"")]), Some(bearer(&realm, None, None)));
        }
    }
}
