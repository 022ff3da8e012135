//! The challenge of a registry (RFC 9110, section 11.6.1; distribution's token specification), and whether a token may go
//! where it points.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// Longest challenge that is looked at, in bytes.
const LIMIT: usize = 8 * 1024;

/// What a registry says of its token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The endpoint, which the token may be sent to.
    pub realm: Url,
    /// What the registry calls itself.
    pub service: Option<String>,
}

/// Why no token is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// There is no such challenge.
    #[error("asks for no Bearer token (header WWW-Authenticate), and so is no Berth")]
    None,
    /// The endpoint is elsewhere.
    #[error(
        "names the token endpoint {0:?}, which is elsewhere: the service-account token is not sent there. A proxy before \
         the registry must pass the Host header on, and its scheme must be the registry's --external-scheme"
    )]
    Foreign(String),
}

impl Challenge {
    /// Reads the challenge of an answer from `origin`. The realm must be of the same scheme, host and port.
    pub fn of(headers: &HeaderMap, origin: &Url) -> Result<Self, NoEndpoint> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        let mut texts = lines
            .filter_map(|line| line.to_str().ok())
            .filter(|line| line.len() <= LIMIT);
        let (realm, service) = texts.find_map(bearer).ok_or(NoEndpoint::None)?;
        let foreign = || NoEndpoint::Foreign(realm.chars().take(200).collect());
        let url = Url::parse(&realm).map_err(|_| foreign())?;
        // Schemes without hosts have opaque origins, which are equal to none.
        let plain = url.username().is_empty() && url.password().is_none();
        if url.origin() != origin.origin() || !plain {
            return Err(foreign());
        }
        Ok(Self { realm: url, service })
    }
}

/// `realm` and `service` of a line that begins with a Bearer challenge.
fn bearer(line: &str) -> Option<(String, Option<String>)> {
    let (scheme, mut rest) = line.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" if realm.is_none() => realm = Some(value),
            "service" if service.is_none() => service = Some(value),
            _ => {}
        }
        rest = after;
    }
    Some((realm?, service))
}

/// The next `name=value` or `name="value"`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = text.split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        return Some((name.trim(), rest[..end].to_owned(), &rest[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => (value, escaped) = (value + character.encode_utf8(&mut [0; 4]), false),
            '\\' => escaped = true,
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn read(lines: &[&str], origin: &str) -> Result<Challenge, NoEndpoint> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        Challenge::of(&headers, &Url::parse(origin).unwrap())
    }

    #[test]
    fn the_registry_s_own_challenge_is_read() {
        let line = r#"Bearer realm="https://acme.r.test/v2/token",service="acme.r.test",error="x""#;
        for lines in [vec![line], vec!["Basic realm=\"x\"", line]] {
            let challenge = read(&lines, "https://acme.r.test/").unwrap();
            assert_eq!(challenge.realm.as_str(), "https://acme.r.test/v2/token");
            assert_eq!(challenge.service.as_deref(), Some("acme.r.test"));
        }
    }

    #[test]
    fn other_spellings_of_the_same_are_read_too() {
        for line in [
            r#"bEARER  service="a, b=c", Realm="HTTPS://ACME.r.test:443/v2/token""#,
            r#"Bearer error=x,realm=https://acme.r.test/v2/token, service="a, b=c""#,
            r#"Bearer realm="https://acme.r.test/v2/\token",service="a, b=\c",realm="https://evil.test/""#,
        ] {
            let challenge = read(&[line], "https://acme.r.test/").unwrap();
            assert_eq!(challenge.realm.as_str(), "https://acme.r.test/v2/token", "{line}");
            assert_eq!(challenge.service.as_deref(), Some("a, b=c"), "{line}");
        }
    }

    #[test]
    fn a_realm_of_another_scheme_host_or_port_is_refused() {
        for realm in [
            "http://acme.r.test/v2/token",
            "https://evil.test/v2/token",
            "https://r.test/v2/token",
            "https://acme.r.test.evil.test/v2/token",
            "https://acme.r.test:8443/v2/token",
            "https://acme.r.test@evil.test/v2/token",
            "https://user:password@acme.r.test/v2/token",
            "https://evil.test\\@acme.r.test/v2/token",
            "//acme.r.test/v2/token",
            "/v2/token",
            "file:///v2/token",
            "",
        ] {
            let line = format!("Bearer realm=\"{}\"", realm.replace('\\', "\\\\"));
            let refused = read(&[&line], "https://acme.r.test/");
            assert!(
                matches!(refused, Err(NoEndpoint::Foreign(_))),
                "{realm}: {refused:?}"
            );
        }
        let plain = read(&["Bearer realm=\"http://r.test:80/t\""], "http://r.test/").unwrap();
        assert_eq!(plain.realm.as_str(), "http://r.test/t");
    }

    #[test]
    fn what_is_no_bearer_challenge_is_none() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(LIMIT));
        for lines in [
            vec![],
            vec!["Basic realm=\"https://r.test/\""],
            vec!["Bearer"],
            vec!["Bearer service=\"x\""],
            vec!["Bearer realm=\"https://r.test/"],
            vec![long.as_str()],
        ] {
            assert_eq!(
                read(&lines, "https://r.test/"),
                Err(NoEndpoint::None),
                "{lines:?}"
            );
        }
    }
}
