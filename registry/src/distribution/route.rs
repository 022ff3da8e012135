//! From a path to an endpoint and a repository's name.
//!
//! Paths are read from their end: a name may hold components called `blobs`, `manifests`, `tags` or
//! `uploads`, while a reference never holds a slash, so that reading from the end is unambiguous.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::{ApiError, Code};
use crate::domain::RepositoryName;

/// What a path asks for. References and ids are as written, decoded once, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/_oci/ext/discover`, or the same below a repository
    Discover,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/referrers/<digest>`
    Referrers(String),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(String),
    /// `/v2/<name>/blobs/<digest>`
    Blob(String),
    /// `/v2/<name>/blobs/uploads/`
    Uploads,
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(String),
}

/// An endpoint and the repository that it is about, if it is about one.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// What.
    pub endpoint: Endpoint,
    /// Of which repository.
    pub name: Option<RepositoryName>,
}

/// Reads a path.
pub fn parse(path: &str) -> Result<Route, ApiError> {
    let unknown = || {
        ApiError::of(
            Code::NameUnknown,
            "there is nothing at this path; the API begins at /v2/",
        )
        .status(http::StatusCode::NOT_FOUND)
    };
    let path = decode(path)?;
    let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
    let bare = |endpoint| Ok(Route { endpoint, name: None });
    let rest = match rest {
        "" | "/" => return bare(Endpoint::Base),
        "/_catalog" => return bare(Endpoint::Catalog),
        "/_oci/ext/discover" => return bare(Endpoint::Discover),
        rest => rest.strip_prefix('/').ok_or_else(unknown)?,
    };
    let (name, endpoint) = split(rest).ok_or_else(unknown)?;
    Ok(Route {
        endpoint,
        name: Some(name.parse()?),
    })
}

fn split(rest: &str) -> Option<(&str, Endpoint)> {
    for (suffix, endpoint) in [
        ("/blobs/uploads", Endpoint::Uploads),
        ("/blobs/uploads/", Endpoint::Uploads),
        ("/tags/list", Endpoint::Tags),
        ("/_oci/ext/discover", Endpoint::Discover),
    ] {
        if let Some(name) = rest.strip_suffix(suffix) {
            return Some((name, endpoint));
        }
    }
    let (parent, last) = rest.rsplit_once('/').filter(|(_, last)| !last.is_empty())?;
    let last = last.to_owned();
    if let Some(name) = parent.strip_suffix("/blobs/uploads") {
        return Some((name, Endpoint::Upload(last)));
    }
    let (name, kind) = parent.rsplit_once('/')?;
    let endpoint = match kind {
        "blobs" => Endpoint::Blob(last),
        "manifests" => Endpoint::Manifest(last),
        "referrers" => Endpoint::Referrers(last),
        _ => return None,
    };
    Some((name, endpoint))
}

/// Decodes once and refuses what could name another place: encoded slashes, NUL and other control
/// characters, dot segments, empty segments.
fn decode(path: &str) -> Result<Cow<'_, str>, ApiError> {
    let refused = |why: &str| ApiError::of(Code::NameInvalid, format!("the path holds {why}"));
    let decoded = if path.contains('%') {
        let slashes = path.matches('/').count();
        let decoded = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| refused("bytes that are no UTF-8"))?;
        if decoded.matches('/').count() != slashes {
            return Err(refused("an encoded slash"));
        }
        decoded
    } else {
        Cow::Borrowed(path)
    };
    if decoded.bytes().any(|b| b.is_ascii_control()) {
        return Err(refused("control characters"));
    }
    // The empty segment that ends `/v2/` and `…/uploads/` is one of the grammar.
    let inner = decoded.strip_prefix('/').unwrap_or(&decoded);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) && !inner.is_empty() {
        return Err(refused("empty or dot segments"));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(path: &str) -> (Endpoint, String) {
        let route = parse(path).unwrap();
        (
            route.endpoint,
            route.name.map(|name| name.to_string()).unwrap_or_default(),
        )
    }

    #[test]
    fn names_that_hold_route_words_are_read_from_the_end() {
        let cases = [
            (
                "/v2/a/manifests/b/manifests/c",
                Endpoint::Manifest("c".into()),
                "a/manifests/b",
            ),
            (
                "/v2/blobs/uploads/blobs/uploads/",
                Endpoint::Uploads,
                "blobs/uploads",
            ),
            ("/v2/a/blobs/uploads/x", Endpoint::Upload("x".into()), "a"),
            ("/v2/a/blobs/uploads", Endpoint::Uploads, "a"),
            ("/v2/tags/list/tags/list", Endpoint::Tags, "tags/list"),
            ("/v2/a/blobs/sha256%3Aab", Endpoint::Blob("sha256:ab".into()), "a"),
            ("/v2/_catalog/x/referrers/y", Endpoint::Referrers("y".into()), ""),
        ];
        for (path, expected, name) in &cases[..6] {
            assert_eq!(endpoint(path), (expected.clone(), (*name).to_owned()), "{path}");
        }
        assert!(
            parse(cases[6].0).is_err(),
            "a name does not begin with an underscore"
        );
        assert_eq!(endpoint("/v2").0, Endpoint::Base);
        assert_eq!(endpoint("/v2/").0, Endpoint::Base);
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for path in [
            "/v2/a%2Fb/manifests/c",
            "/v2/a/../b/manifests/c",
            "/v2/%2e%2e/b/manifests/c",
            "/v2//a/manifests/c",
            "/v2/a/manifests/c%00",
            "/v2/a/manifests/%ff",
            "/v2x/a/manifests/c",
            "/",
            "/v2/a/b",
            "/v2/a%252Fb/tags/list",
            "/v2/A/tags/list",
            "/v2/a/manifests/",
            "//v2/a/manifests/c",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in ".{0,80}", tail in "[a-z/%.]{0,40}") {
            let _ = parse(&path);
            let _ = parse(&format!("/v2/{tail}"));
        }
    }
}
