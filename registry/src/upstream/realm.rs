//! Who may be told an upstream's password: its own host, and hosts of the same owner.
//!
//! A registry names the URL that gives tokens itself. Docker Hub's API is at `registry-1.docker.io` and its tokens come
//! from `auth.docker.io`, GitLab's from the domain above. Anywhere else the password is not sent, whatever an upstream,
//! or whoever sits in its place, says.

use url::{Host, Url};

/// Names below which anybody can have a name of their own, in the domains of countries.
const SHARED: [&str; 9] = ["ac", "co", "com", "edu", "go", "gov", "ne", "net", "org"];

/// Whether a password for `upstream` may be sent to `realm`: to the same host, by HTTPS to one that shares its domain, or
/// to `named`, a host that somebody has said it may be sent to.
pub fn is_trusted(upstream: &Url, realm: &Url, named: Option<&str>) -> bool {
    if upstream.scheme() == "https" && realm.scheme() != "https" {
        return false;
    }
    if named.is_some_and(|named| named.eq_ignore_ascii_case(&authority(realm))) {
        return true;
    }
    match (upstream.host(), realm.host()) {
        (Some(Host::Domain(one)), Some(Host::Domain(other))) => {
            let same_port = upstream.port_or_known_default() == realm.port_or_known_default();
            (one == other && same_port)
                || (realm.scheme() == "https"
                    && domain(one).is_some_and(|shared| domain(other) == Some(shared)))
        }
        (Some(one), Some(other)) => {
            one == other && upstream.port_or_known_default() == realm.port_or_known_default()
        }
        _ => false,
    }
}

/// A URL's host, with its port if that is not its scheme's.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The part of a host's name that one owner has: its last two labels, or three in most countries that sell the third.
fn domain(host: &str) -> Option<&str> {
    let host = host.trim_end_matches('.');
    let mut ends = host.rmatch_indices('.').map(|(at, _)| at + 1);
    let (last, second) = (ends.next()?, ends.next().unwrap_or(0));
    let sold_by_country = host.len() - last == 2 && SHARED.contains(&&host[second..last - 1]);
    match sold_by_country {
        false => Some(&host[second..]),
        // Nothing is before it: it is nobody's.
        true if second == 0 => None,
        true => Some(&host[ends.next().unwrap_or(0)..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_the_same_host_and_to_its_own_domain_only() {
        for (upstream, realm, expected) in [
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io/token",
                true,
            ),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            (
                "https://registry.example.co.uk",
                "https://login.example.co.uk/",
                true,
            ),
            ("https://registry.example.co.uk", "https://other.co.uk/", false),
            ("https://example.co.uk", "https://other.co.uk/", false),
            ("https://docker.io", "https://docker.io.evil.com/", false),
            ("https://docker.io", "https://evildocker.io/", false),
            (
                "https://registry.example.com",
                "http://registry.example.com/token",
                false,
            ),
            (
                "http://registry.local:5000",
                "http://registry.local:5000/token",
                true,
            ),
            (
                "http://registry.local:5000",
                "http://registry.local:5001/token",
                false,
            ),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token", false),
            ("http://registry", "http://other", false),
            ("https://registry", "https://other", false),
        ] {
            let url = |text: &str| Url::parse(text).unwrap();
            assert_eq!(
                is_trusted(&url(upstream), &url(realm), None),
                expected,
                "{upstream} {realm}"
            );
        }
    }

    #[test]
    fn a_host_that_was_named_is_told_too_and_no_other() {
        for (upstream, realm, named, expected) in [
            (
                "https://r.example.com",
                "https://id.example.net/t",
                "id.example.net",
                true,
            ),
            (
                "https://r.example.com",
                "https://id.example.net/t",
                "ID.example.net",
                true,
            ),
            (
                "https://r.example.com",
                "https://id.example.net:8443/t",
                "id.example.net:8443",
                true,
            ),
            (
                "https://r.example.com",
                "https://id.example.net:8443/t",
                "id.example.net",
                false,
            ),
            (
                "https://r.example.com",
                "https://my.id.example.net/t",
                "id.example.net",
                false,
            ),
            (
                "https://r.example.com",
                "http://id.example.net/t",
                "id.example.net",
                false,
            ),
            ("http://127.0.0.1:1", "http://127.0.0.1:2/t", "127.0.0.1:2", true),
        ] {
            let url = |text: &str| Url::parse(text).unwrap();
            let told = is_trusted(&url(upstream), &url(realm), Some(named));
            assert_eq!(told, expected, "{upstream} {realm} {named}");
        }
    }
}
