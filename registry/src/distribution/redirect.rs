//! Which blob downloads are sent to the object store.
//!
//! A redirect saves the bytes' way through the registry, but clients that forward `Authorization` to
//! the object store get an error from it. `Auto` redirects those known to drop it across hosts, unless they are
//! known to refuse where it leads.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, USER_AGENT};
use url::{Host, Url};

use crate::settings::Redirect;

/// Beginnings of the user agents of clients that drop credentials on a redirect to another host.
const KNOWN: [&str; 13] = [
    "containerd/",
    "docker/",
    "buildkit/",
    "containers/",
    "podman/",
    "skopeo/",
    "buildah/",
    "cri-o/",
    "go-containerregistry/",
    "crane/",
    "oras/",
    "oras-go/",
    "regclient/",
];

/// The library of crane and others, in their user agents.
const GGCR: &str = "go-containerregistry/";

/// Whether this request's download may be redirected.
pub fn wanted(mode: Redirect, headers: &HeaderMap) -> bool {
    match mode {
        Redirect::Always => true,
        Redirect::Never => false,
        Redirect::Auto => {
            let agent = agent(headers);
            KNOWN.iter().any(|known| agent.starts_with(known)) || agent.contains(GGCR)
        }
    }
}

/// Whether the client follows to this URL. go-containerregistry (0.21) refuses to be led to a private address that is
/// written as such, unless it came by that very address.
pub fn is_followed(mode: Redirect, headers: &HeaderMap, url: &str) -> bool {
    if mode == Redirect::Always || !agent(headers).contains(GGCR) {
        return true;
    }
    let parsed = Url::parse(url).ok();
    let address = match parsed.as_ref().and_then(Url::host) {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return true,
    };
    let came_by = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let came_by = Url::parse(&format!("http://{came_by}")).ok();
    !is_private(address) || came_by.as_ref().and_then(Url::host) == parsed.as_ref().and_then(Url::host)
}

fn is_private(address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_unspecified();
    special
        || match address {
            IpAddr::V4(address) => address.is_private() || address.is_link_local(),
            IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
        }
}

fn agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn crane_is_not_led_to_a_private_address() {
        let from = |agent: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            headers
        };
        let crane = from("crane/0.21 go-containerregistry/0.21", "acme.registry.test:5000");
        for private in [
            "10.1.2.3:9000",
            "127.0.0.1",
            "169.254.1.1",
            "[::1]:9000",
            "[fd00::1]",
            "0.0.0.0",
        ] {
            let url = format!("http://{private}/bucket/key?signed");
            assert!(!is_followed(Redirect::Auto, &crane, &url), "{url}");
            assert!(is_followed(Redirect::Always, &crane, &url), "{url}");
            assert!(is_followed(
                Redirect::Auto,
                &from("containerd/v2.4.2", "acme.registry.test"),
                &url
            ));
            assert!(is_followed(
                Redirect::Auto,
                &from("go-containerregistry/0.21", private),
                &url
            ));
        }
        for public in [
            "http://192.0.2.1/key",
            "https://s3.eu-central-1.amazonaws.com/key",
            "http://minio:9000/key",
        ] {
            assert!(is_followed(Redirect::Auto, &crane, public), "{public}");
        }
    }

    #[test]
    fn auto_redirects_known_clients_only() {
        let with = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
            headers
        };
        assert!(wanted(Redirect::Auto, &with("containerd/v2.4.2")));
        assert!(wanted(
            Redirect::Auto,
            &with("crane/0.21 go-containerregistry/0.21")
        ));
        assert!(!wanted(Redirect::Auto, &with("Java-http-client/17")));
        assert!(!wanted(Redirect::Auto, &HeaderMap::new()));
        assert!(!wanted(Redirect::Never, &with("containerd/v2.4.2")));
        assert!(wanted(Redirect::Always, &HeaderMap::new()));
    }
}
