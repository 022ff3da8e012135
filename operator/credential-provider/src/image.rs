//! References of images: which host, and which repository there (the grammar of `distribution/reference`).

use std::str::FromStr;

use url::Url;

/// The host of references that name none.
const DEFAULT_HOST: &str = "docker.io";
/// Longest name of a repository in bytes (OCI distribution specification).
const NAME_LIMIT: usize = 255;
/// Longest host with port, in bytes.
const HOST_LIMIT: usize = 262;

/// A reference without tag and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Host, with its port if the reference names one, as it was written.
    pub authority: String,
    /// The repository's name; nothing in it means anything in a scope or a form.
    pub name: String,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image {0:?} is no reference of an image, like registry.example.com/team/app")]
pub struct NoImage(String);

impl Image {
    /// Whether no registry of the user's is meant.
    pub fn is_of_docker_hub(&self) -> bool {
        self.authority == DEFAULT_HOST || self.authority == "index.docker.io"
    }

    /// As the kubelet compares it with the images that a login is for.
    pub fn key(&self) -> String {
        format!("{}/{}", self.authority, self.name)
    }

    /// The root of the host by a scheme.
    pub fn origin(&self, scheme: &str) -> Result<Url, NoImage> {
        let text = format!("{scheme}://{}/", self.authority);
        Url::parse(&text).map_err(|_| NoImage(self.key()))
    }
}

impl FromStr for Image {
    type Err = NoImage;

    fn from_str(text: &str) -> Result<Self, NoImage> {
        let shown: String = text.chars().take(NAME_LIMIT + HOST_LIMIT).collect();
        let refused = || NoImage(shown.clone());
        let (bare, digest) = match text.split_once('@') {
            Some((bare, digest)) => (bare, Some(digest)),
            None => (text, None),
        };
        let (host, path) = match bare.split_once('/') {
            Some((host, path)) if is_host(host) => (Some(host), path),
            _ => (None, bare),
        };
        // A colon in what follows the host begins a tag.
        let (name, tag) = path
            .split_once(':')
            .map_or((path, None), |(name, tag)| (name, Some(tag)));
        if tag.is_some_and(|tag| !is_tag(tag)) || digest.is_some_and(|d| !is_digest(d)) || !is_name(name) {
            return Err(refused());
        }
        let image = match host {
            Some(host) => Self {
                authority: host.to_owned(),
                name: name.to_owned(),
            },
            None if name.contains('/') => Self {
                authority: DEFAULT_HOST.to_owned(),
                name: name.to_owned(),
            },
            None => Self {
                authority: DEFAULT_HOST.to_owned(),
                name: format!("library/{name}"),
            },
        };
        let allowed = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
        };
        if image.authority.len() > HOST_LIMIT || !image.authority.bytes().all(allowed) {
            return Err(refused());
        }
        image.origin("https").map(|_| image)
    }
}

/// Whether the first part of a reference is a host, and no part of a name at the default one.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.contains(char::is_uppercase)
}

fn is_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|byte| allowed(*byte)) && edge(bytes.first()) && edge(bytes.last())
    };
    name.len() <= NAME_LIMIT && name.split('/').all(is_part)
}

fn is_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(allowed)
}

fn is_digest(digest: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'_' | b'-');
    digest.split_once(':').is_some_and(|(algorithm, value)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(allowed)
            && value.len() >= 32
            && value.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String) {
        let image: Image = text.parse().unwrap_or_else(|error| panic!("{error}"));
        (image.authority, image.name)
    }

    #[test]
    fn tag_and_digest_are_left_out_and_a_port_is_kept() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (host, name) in [
            ("acme.registry.example.com", "app"),
            ("acme.registry.example.com:5000", "team/a_b/c--d"),
            ("localhost", "app"),
            ("localhost:5000", "app"),
            ("Registry.Example.com", "app"),
            ("[::1]:5000", "app"),
            ("10.0.0.1", "app"),
        ] {
            for rest in ["", ":v1", ":V1_0.2-x", &digest, &format!(":v1{digest}")] {
                let text = format!("{host}/{name}{rest}");
                assert_eq!(parsed(&text), (host.to_owned(), name.to_owned()), "{text}");
            }
        }
    }

    #[test]
    fn a_reference_without_a_host_is_one_of_docker_hub() {
        for (text, name) in [
            ("alpine", "library/alpine"),
            ("alpine:3", "library/alpine"),
            ("team/app", "team/app"),
            ("docker.io/team/app:v1", "team/app"),
        ] {
            let image: Image = text.parse().unwrap();
            assert_eq!(
                (image.authority.as_str(), image.name.as_str()),
                ("docker.io", name),
                "{text}"
            );
            assert!(image.is_of_docker_hub());
        }
        assert!(!"acme.docker.io/app".parse::<Image>().unwrap().is_of_docker_hub());
    }

    #[test]
    fn what_could_mean_something_in_a_url_or_a_scope_is_no_reference() {
        let long = format!("h.test/{}", "a".repeat(NAME_LIMIT + 1));
        for text in [
            "",
            "/",
            "h.test/",
            "h.test/App",
            "h.test/a b",
            "h.test/a,b",
            "h.test/a:b:push",
            "h.test/a:b c",
            "h.test/a:",
            "h.test/../v2",
            "h.test/a//b",
            "h.test/a/",
            "h.test/a?x=y",
            "h.test/a#b",
            "user:password@h.test/a",
            "h.test:port/a",
            "h.test:99999/a",
            "h.te%73t/a",
            "h.test\\@evil.test/a",
            "https://h.test/a",
            "h.test/a\nb",
            &long,
        ] {
            assert!(
                text.parse::<Image>().is_err(),
                "{text}: {:?}",
                text.parse::<Image>()
            );
        }
    }

    #[test]
    fn an_origin_is_compared_as_url_parsers_read_it() {
        let image: Image = "Acme.Registry.test:443/app".parse().unwrap();
        assert_eq!(
            image.origin("https").unwrap().as_str(),
            "https://acme.registry.test/"
        );
        assert_eq!(image.key(), "Acme.Registry.test:443/app");
    }
}
