//! Where a registry is.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// A registry's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
}

impl Address {
    /// As the log-ins of Docker's configuration name it.
    pub fn docker_key(&self) -> String {
        match self.host().as_str() {
            "registry-1.docker.io" => "index.docker.io".to_owned(),
            host => host.to_owned(),
        }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Whether it is Docker Hub, where names without a slash are below `library/`.
    pub fn is_docker_hub(&self) -> bool {
        self.url.host_str() == Some("registry-1.docker.io")
    }

    /// The root.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether it is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = "write it like registry.example.com, or http://127.0.0.1:5000 without TLS";
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let mut url = Url::parse(&whole).map_err(|error| format!("{error}; {shape}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("it is no registry's address; {shape}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "it holds a credential, which others of this machine could see; use the flags".to_owned(),
            );
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "it goes on after the host; say what is meant by --repositories and --prefix".to_owned(),
            );
        }
        if matches!(url.host_str(), Some("docker.io" | "index.docker.io")) {
            url.set_host(Some("registry-1.docker.io"))
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { url })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_or_without_a_scheme() {
        for (text, shown, key) in [
            (
                "registry.example.com",
                "https://registry.example.com",
                "registry.example.com",
            ),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:5000",
                "127.0.0.1:5000",
            ),
            ("docker.io", "https://registry-1.docker.io", "index.docker.io"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.docker_key().as_str()),
                (shown, key)
            );
        }
        for text in [
            "",
            "https://",
            "ftp://example.com",
            "example.com/team/app",
            "https://example.com?x",
            "https://user:secret@example.com",
            "a b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
