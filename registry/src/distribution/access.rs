//! The one access decision of a request.
//!
//! While the installation is open, a request needs no credential: that holds only for what cannot have come
//! from anywhere but this machine. A proxy or tunnel in front shows itself by its headers or by the Host
//! that it forwards, and must not open the registry to the world.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use http::header::{FORWARDED, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::error::{ApiError, Code};
use super::state::Registry;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask whether this is a registry.
    Ping,
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Delete.
    Delete,
}

/// Who an open request is by.
const ANONYMOUS: &str = "anonymous";

/// Lets a request go on as somebody, or refuses it.
pub fn decide(
    registry: &Registry,
    request: &Request,
    peer: Option<SocketAddr>,
    action: Action,
) -> Result<String, ApiError> {
    let host = request.uri().authority().map(|authority| authority.as_str());
    if registry.may_be_open && is_local(host, request.headers(), peer.map(|peer| peer.ip())) {
        return Ok(ANONYMOUS.to_owned());
    }
    let message = match action {
        Action::Ping | Action::Pull => "a credential is needed to pull",
        Action::Push => "a credential is needed to push",
        Action::Delete => "a credential is needed to delete",
    };
    Err(ApiError::of(Code::Unauthorized, message).header(
        WWW_AUTHENTICATE,
        HeaderValue::from_static(r#"Basic realm="berth""#),
    ))
}

/// Whether a request shows that it comes from this machine: loopback peer, local Host, no proxy's headers.
fn is_local(authority: Option<&str>, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    let forwarded = headers.contains_key(FORWARDED)
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("x-forwarded-"));
    let in_headers = headers.get_all(HOST).iter();
    let in_headers = in_headers.map(|host| host.to_str().unwrap_or_default());
    // An HTTP/2 request names its host in the authority; one that names several is local only if all are.
    let hosts_are_local = authority.into_iter().chain(in_headers).all(is_local_host);
    let named = authority.is_some() || headers.contains_key(HOST);
    peer.is_some_and(|ip| ip.is_loopback()) && named && hosts_are_local && !forwarded
}

fn is_local_host(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    // Only a port may follow: in `localhost:1@example.com` the host stands behind the `@`.
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(digits) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(host: &str, extra: Option<&'static str>, peer: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(name) = extra {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        is_local(None, &headers, Some(peer.parse().unwrap()))
    }

    #[test]
    fn loopback_peers_with_local_hosts_are_local() {
        for host in [
            "localhost",
            "localhost:5000",
            "LOCALHOST:1",
            "127.0.0.1:5000",
            "127.8.8.8",
            "[::1]:5000",
        ] {
            assert!(local(host, None, "127.0.0.1"), "{host}");
        }
        assert!(local("localhost", None, "::1"));
    }

    #[test]
    fn everything_that_hints_at_a_proxy_or_another_machine_is_not() {
        for host in [
            "registry.example.com",
            "localhost.example.com",
            "10.0.0.1:5000",
            "",
            "evil:localhost",
            "localhost:1@example.com",
            "localhost@example.com",
            "[::1]example.com",
            "[::1]5000",
            "[::1",
        ] {
            assert!(!local(host, None, "127.0.0.1"), "{host}");
        }
        assert!(!local("localhost", None, "10.0.0.1"));
        for header in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ] {
            assert!(!local("localhost", Some(header), "127.0.0.1"), "{header}");
        }
        assert!(!is_local(
            None,
            &HeaderMap::new(),
            Some(IpAddr::from([127, 0, 0, 1]))
        ));
        let mut two = HeaderMap::new();
        two.insert(HOST, HeaderValue::from_static("localhost"));
        assert!(!is_local(
            Some("registry.example.com"),
            &two,
            Some(IpAddr::from([127, 0, 0, 1]))
        ));
        two.append(HOST, HeaderValue::from_static("registry.example.com"));
        assert!(!is_local(None, &two, Some(IpAddr::from([127, 0, 0, 1]))));
    }
}
