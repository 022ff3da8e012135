//! Which blob downloads are sent to the object store.
//!
//! A redirect saves the bytes' way through the registry, but clients that forward `Authorization` to
//! the object store get an error from it. `Auto` redirects those known to drop it across hosts.

use http::HeaderMap;
use http::header::USER_AGENT;

use crate::settings::Redirect;

/// How long a signed URL may be used. Clients come back to the registry to resume after that.
pub const LIFETIME: std::time::Duration = std::time::Duration::from_secs(15 * 60);

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

/// Whether this request's download may be redirected.
pub fn wanted(mode: Redirect, headers: &HeaderMap) -> bool {
    match mode {
        Redirect::Always => true,
        Redirect::Never => false,
        Redirect::Auto => {
            let agent = headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default();
            let agent = agent.to_ascii_lowercase();
            KNOWN.iter().any(|known| agent.starts_with(known)) || agent.contains("go-containerregistry/")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
