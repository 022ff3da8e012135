//! Where a request comes from, and which host its client named.
//!
//! Forwarded headers count only from proxies that the settings trust; from anyone else they are ignored,
//! and only keep the registry from being open.

use std::net::IpAddr;

use axum::extract::Request;
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::server::Connection;
use crate::settings::{ProxyHeaders, Scheme};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest host with port, in bytes: a DNS name has at most 253.
const HOST_LIMIT: usize = 262;

/// A request's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// As the client wrote it, with port.
    pub authority: String,
    /// Lower case, without port, brackets and final dot.
    pub host: String,
    /// Of links that the client is given.
    pub scheme: Scheme,
    /// The same for a host that is nobody's: as a trusted proxy says, else as the request has come where the host is one
    /// that no edge stands for, else as the settings say.
    pub direct: Scheme,
    /// The client's, or that of the nearest proxy that is not trusted.
    pub address: IpAddr,
    /// Whether it has come by a proxy that is trusted, whose headers are believed.
    pub by_proxy: bool,
    /// Whether the request shows that it comes from this machine: loopback peer, local host, no proxy.
    pub local: bool,
}

/// Why a request names no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    /// There is none.
    #[error("the request names no host: send one Host header")]
    None,
    /// There are several that differ.
    #[error("the request names different hosts: send one")]
    Several,
    /// It is not one.
    #[error("the request's host is not a host name or address with an optional port")]
    Malformed,
}

/// What decides about origins.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Proxies whose headers are believed.
    pub trusted: Vec<IpNet>,
    /// Which of their headers: a client's own are passed on where a proxy knows nothing of them.
    pub headers: ProxyHeaders,
    /// Scheme of links unless a trusted proxy says otherwise.
    pub scheme: Scheme,
}

impl Origin {
    /// Reads the origin of a request.
    pub fn of(request: &Request, rules: &Rules) -> Result<Self, OriginError> {
        let connection = request.extensions().get::<Connection>();
        // A request that comes from no connection comes from nowhere near.
        let peer = connection.map_or(IpAddr::from([0, 0, 0, 0]), |connection| connection.peer.ip());
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let spoken = Scheme::of_listener(connection.is_some_and(|connection| connection.tls));
        Self::read(authority, request.headers(), peer, spoken, rules)
    }

    fn read(
        authority: Option<&str>,
        headers: &HeaderMap,
        peer: IpAddr,
        spoken: Scheme,
        rules: &Rules,
    ) -> Result<Self, OriginError> {
        let named = one_host(authority, headers)?;
        let trusted = rules.trusted.iter().any(|net| net.contains(&peer));
        let forwarded = headers.contains_key(FORWARDED)
            || headers
                .keys()
                .any(|name| name.as_str().starts_with("x-forwarded-"));
        let proxy = if trusted {
            Proxy::read(headers, rules.headers)
        } else {
            Proxy::default()
        };
        let authority = proxy.host.as_deref().unwrap_or(named);
        let host = host_name(authority).ok_or(OriginError::Malformed)?;
        let address = proxy.client(peer, &rules.trusted);
        let direct = if is_inside(&host) { spoken } else { rules.scheme };
        let local = !forwarded && peer.is_loopback() && is_local(&host);
        Ok(Self {
            authority: authority.to_owned(),
            host,
            scheme: proxy.scheme.unwrap_or(rules.scheme),
            direct: proxy.scheme.unwrap_or(direct),
            address,
            by_proxy: trusted,
            local,
        })
    }

    /// A link to a path on the host that the client named.
    pub fn link(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority)
    }
}

/// The one host that the request names: HTTP/2 has it in the authority, and may repeat it in a header.
fn one_host<'r>(authority: Option<&'r str>, headers: &'r HeaderMap) -> Result<&'r str, OriginError> {
    let mut lines = headers.get_all(HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() {
        // RFC 9112, section 3.2, also where they are the same.
        return Err(OriginError::Several);
    }
    let header = line
        .map(|line| line.to_str().map_err(|_| OriginError::Malformed))
        .transpose()?;
    match (authority, header) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => Err(OriginError::Several),
        (one, other) => one.or(other).ok_or(OriginError::None),
    }
}

/// The host of an authority; `None` if it is not a name or address with an optional port.
pub(super) fn host_name(authority: &str) -> Option<String> {
    if authority.len() > HOST_LIMIT {
        return None;
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let digits = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(digits) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_');
    if name.is_empty() || !name.bytes().all(allowed) {
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a host is an address, or a name of the own machine or of a cluster: those lead to the registry itself, and
/// an edge has no certificate for them.
fn is_inside(host: &str) -> bool {
    let of_service = host.ends_with(".svc") || host.ends_with(".svc.cluster.local");
    of_service || is_local(host) || !host.contains('.') || host.parse::<IpAddr>().is_ok()
}

/// What a trusted proxy says about its client.
#[derive(Default)]
struct Proxy {
    host: Option<String>,
    scheme: Option<Scheme>,
    /// Nearest proxy last.
    addresses: Vec<IpAddr>,
}

impl Proxy {
    fn read(headers: &HeaderMap, which: ProxyHeaders) -> Self {
        match which {
            ProxyHeaders::XForwarded => Self {
                host: list(headers, &FORWARDED_HOST).last(),
                scheme: list(headers, &FORWARDED_PROTO)
                    .last()
                    .and_then(|text| text.parse().ok()),
                addresses: list(headers, &FORWARDED_FOR)
                    .filter_map(|text| address(&text))
                    .collect(),
            },
            ProxyHeaders::Forwarded => Self::read_standard(headers),
        }
    }

    fn read_standard(headers: &HeaderMap) -> Self {
        let mut proxy = Self::default();
        for element in list(headers, &FORWARDED) {
            for pair in element.split(';') {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let value = value.trim().trim_matches('"');
                match key.trim().to_ascii_lowercase().as_str() {
                    "for" => proxy.addresses.extend(address(value)),
                    "host" => proxy.host = Some(value.to_owned()),
                    "proto" => proxy.scheme = value.parse().ok(),
                    _ => {}
                }
            }
        }
        proxy
    }

    /// The last address that is not a trusted proxy's.
    fn client(&self, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
        let foreign = |ip: &&IpAddr| !trusted.iter().any(|net| net.contains(*ip));
        let nearest = self.addresses.iter().rev().find(foreign);
        nearest.or(self.addresses.first()).copied().unwrap_or(peer)
    }
}

/// The elements of a comma-separated header, over all its lines.
fn list<'r>(headers: &'r HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'r> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let elements = lines.flat_map(|line| line.split(','));
    elements
        .map(|element| element.trim().to_owned())
        .filter(|element| !element.is_empty())
}

/// An address with an optional port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
