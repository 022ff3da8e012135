//! One mirror: which registry, whom containerd asks first, and the file that says so.

use std::fmt::Write as _;
use std::str::FromStr;

use berth_crds::check::{dns_name, url};

/// How long containerd waits for a connection to the mirror before it asks the upstream. Versions before 2.1 do not know
/// the setting and wait 30 seconds.
const DIAL_TIMEOUT: &str = "5s";

/// What a value must be.
type Rule = fn(&str) -> Result<(), String>;

/// A registry for which a node asks a tenant first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    upstream: String,
    server: String,
    endpoint: String,
    ca: Option<String>,
}

impl Mirror {
    /// The folder whose `hosts.toml` is about this registry.
    pub fn folder(&self) -> String {
        match self.upstream.split_once(':') {
            Some((host, port)) => format!("{host}_{port}_"),
            None => self.upstream.clone(),
        }
    }

    /// The registry, as images name it. With a port it is another name of the folder, which containerd reads as well.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// The content of `hosts.toml`. `first` is its first line.
    pub fn text(&self, first: &str) -> String {
        let Self { server, endpoint, .. } = self;
        let mut text = format!(
            "{first}\n# Changes are overwritten, and the file goes when the mirror does.\n\
             server = \"{server}\"\n\n[host.\"{endpoint}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
             dial_timeout = \"{DIAL_TIMEOUT}\"\n"
        );
        if let Some(ca) = &self.ca {
            // Writing into a text never fails.
            let _ = writeln!(text, "  ca = \"{ca}\"");
        }
        text
    }
}

impl FromStr for Mirror {
    type Err = String;

    /// Reads `upstream=docker.io,endpoint=https://acme.registry.example.com`, and `server` and `ca` if they are given.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut upstream, mut server, mut endpoint, mut ca) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not key=value"))?;
            let (place, rule): (&mut Option<String>, Rule) = match key {
                "upstream" => (&mut upstream, registry),
                "server" => (&mut server, origin),
                "endpoint" => (&mut endpoint, origin),
                "ca" => (&mut ca, path),
                _ => return Err(format!("{key:?} is none of upstream, endpoint, server, ca")),
            };
            rule(value)?;
            if place.replace(value.to_owned()).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        let upstream =
            upstream.ok_or("upstream is missing: the registry as images name it, like docker.io")?;
        let endpoint = endpoint.ok_or("endpoint is missing: the URL of a tenant's host")?;
        let server = server.unwrap_or_else(|| own_server(&upstream));
        Ok(Self {
            upstream,
            server,
            endpoint,
            ca,
        })
    }
}

/// Where a registry answers itself.
fn own_server(upstream: &str) -> String {
    match upstream {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        other => format!("https://{other}"),
    }
}

/// A registry as images name it: a host, perhaps with a port.
fn registry(text: &str) -> Result<(), String> {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    if port.parse::<u16>().is_err() {
        return Err(format!("{text:?} is no registry: write host or host:port"));
    }
    dns_name(host)
}

/// A URL without a path, of characters that mean nothing in the file.
fn origin(text: &str) -> Result<(), String> {
    url(text)?;
    let host = text.split_once("://").map_or(text, |(_, host)| host);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    host.bytes().all(is_plain).then_some(()).ok_or_else(|| {
        format!("{text:?} has more than a scheme, a host and a port: a path would name another repository")
    })
}

/// An absolute path on the node, of characters that mean nothing in the file.
fn path(text: &str) -> Result<(), String> {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"\\".contains(&b);
    (text.starts_with('/') && text.bytes().all(is_plain))
        .then_some(())
        .ok_or_else(|| format!("{text:?} is no absolute path of plain characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Mirror, String> {
        text.parse()
    }

    #[test]
    fn a_file_names_the_tenant_first_and_the_upstream_as_what_is_asked_then() {
        let mirror = parsed("upstream=docker.io,endpoint=https://acme.registry.example.com").unwrap();
        let expected = concat!(
            "# mine\n",
            "# Changes are overwritten, and the file goes when the mirror does.\n",
            "server = \"https://registry-1.docker.io\"\n",
            "\n",
            "[host.\"https://acme.registry.example.com\"]\n",
            "  capabilities = [\"pull\", \"resolve\"]\n",
            "  dial_timeout = \"5s\"\n",
        );
        assert_eq!(mirror.text("# mine"), expected);
        let with_ca =
            parsed("ca=/etc/berth/ca.crt,endpoint=http://a.localhost:5000,upstream=quay.io").unwrap();
        let text = with_ca.text("# mine");
        assert!(text.contains("server = \"https://quay.io\"\n"), "{text}");
        assert!(text.ends_with("  ca = \"/etc/berth/ca.crt\"\n"), "{text}");
        let own = parsed("upstream=quay.io,endpoint=https://a.example,server=https://b.example").unwrap();
        assert!(own.text("").contains("server = \"https://b.example\"\n"));
    }

    #[test]
    fn a_folder_is_named_as_containerd_looks_for_it() {
        let folder = |upstream: &str| {
            let mirror = parsed(&format!("upstream={upstream},endpoint=https://a.example"));
            mirror.unwrap().folder()
        };
        assert_eq!(folder("docker.io"), "docker.io");
        assert_eq!(folder("registry.example.com:5000"), "registry.example.com_5000_");
    }

    #[test]
    fn what_could_reach_out_of_the_folder_or_of_the_file_is_refused() {
        for text in [
            "",
            "docker.io",
            "upstream=docker.io",
            "endpoint=https://a.example",
            "upstream=..,endpoint=https://a.example",
            "upstream=a/b,endpoint=https://a.example",
            "upstream=_default,endpoint=https://a.example",
            "upstream=docker.io:x,endpoint=https://a.example",
            "upstream=docker.io,endpoint=a.example",
            "upstream=docker.io,endpoint=https://a.example/v2/acme",
            "upstream=docker.io,endpoint=https://a.example\"]",
            "upstream=docker.io,endpoint=https://a.example,server=https://b\nca",
            "upstream=docker.io,endpoint=https://a.example,ca=ca.crt",
            "upstream=docker.io,endpoint=https://a.example,ca=/a\"b",
            "upstream=docker.io,endpoint=https://a.example,skip_verify=true",
            "upstream=docker.io,upstream=quay.io,endpoint=https://a.example",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
