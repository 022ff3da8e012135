//! What is asked of the registry that things come from.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, LINK};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::endpoint::{Endpoint, question};
use super::error::ImportError;
use super::reader::Reader;
use super::selection::Selection;
use crate::domain::manifest::{Manifest, ManifestError};
use crate::domain::{Algorithm, Digest, RepositoryName, TagName};
use crate::metadata::Time;
use crate::upstream::next_query;

/// The digest of what an answer holds or stands for.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The types of manifests that can be stored.
pub(super) const TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                                application/vnd.docker.distribution.manifest.list.v2+json, \
                                application/vnd.docker.distribution.manifest.v2+json";
/// Longest manifest.
pub(super) const MANIFEST_LIMIT: usize = 16 * 1024 * 1024;
/// Longest page of a list.
const PAGE_LIMIT: usize = 32 * 1024 * 1024;
/// Entries that a page is asked for; some registries take no more.
const PAGE: usize = 1000;
/// Most entries of a list.
const ENTRIES: usize = 2_000_000;

/// The registry that things come from.
pub(super) struct Source {
    pub at: Endpoint,
}

/// Repositories of the source.
pub(super) struct Listed {
    /// Those that are meant.
    pub names: Vec<RepositoryName>,
    /// Names that none can have here.
    pub strange: Vec<String>,
}

/// A manifest and what it says.
pub(super) struct Fetched {
    pub bytes: Bytes,
    pub manifest: Manifest,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Referrers {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Source {
    pub fn new(at: Endpoint) -> Self {
        Self { at }
    }

    pub async fn greet(&self) -> Result<(), ImportError> {
        self.at.greet().await
    }

    /// Returns when it has asked to be left alone for some time: which, and until when.
    pub async fn paused(&self) -> (String, Time) {
        let until = self.at.paused().await;
        (self.at.address().host(), until)
    }

    /// The repositories that are meant: by their names, or by the source's list.
    pub async fn repositories(&self, selection: &Selection) -> Result<Listed, ImportError> {
        let mut listed = Listed {
            names: Vec::new(),
            strange: Vec::new(),
        };
        if let Some(named) = selection.named() {
            listed.names = named.into_iter().map(|name| self.full(name)).collect();
        } else {
            let no_catalog = |why: String| ImportError::NoCatalog {
                host: self.at.address().host(),
                why,
            };
            let pages = self.pages::<Catalog>("/v2/_catalog", "registry:catalog:*", |page| {
                for text in page.repositories.unwrap_or_default() {
                    match text.parse() {
                        Ok(name) if selection.means(&name) => listed.names.push(name),
                        Ok(_) => {}
                        Err(_) => listed.strange.push(text),
                    }
                }
                listed.names.len() + listed.strange.len()
            });
            pages.await.map_err(|error| match error {
                ImportError::Refused { status, .. } => no_catalog(status.to_string()),
                ImportError::Absent { .. } => no_catalog(StatusCode::NOT_FOUND.to_string()),
                ImportError::Upstream(crate::upstream::UpstreamError::Denied { status, .. }) => {
                    no_catalog(status.to_string())
                }
                other => other,
            })?;
        }
        listed.names.sort();
        listed.names.dedup();
        Ok(listed)
    }

    /// Docker Hub's images without an owner have one all the same.
    fn full(&self, name: RepositoryName) -> RepositoryName {
        if self.at.address().is_docker_hub() && !name.as_str().contains('/') {
            return format!("library/{name}").parse().unwrap_or(name);
        }
        name
    }

    /// All tags of a repository, in order. Some registries know no tags of what is empty.
    pub async fn tags(&self, name: &RepositoryName) -> Result<Vec<String>, ImportError> {
        let mut tags = Vec::new();
        let path = format!("/v2/{name}/tags/list");
        self.pages::<Tags>(&path, &scope(name), |page| {
            tags.extend(page.tags.unwrap_or_default());
            tags.len()
        })
        .await?;
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// What a tag stands for, without fetching it where the source can say so.
    pub async fn resolve(&self, name: &RepositoryName, tag: &TagName) -> Result<Digest, ImportError> {
        let path = format!("/v2/{name}/manifests/{tag}");
        let scope = scope(name);
        let mut call = question(Method::HEAD, &path, &scope);
        call.headers = accepting();
        let answer = self.at.send(&call).await?;
        if answer.status() == StatusCode::OK {
            old(answer.headers())?;
            if let Some(digest) = digest_of(answer.headers()) {
                return Ok(digest);
            }
        } else if answer.status() == StatusCode::NOT_FOUND {
            return Err(self
                .at
                .refused(&format!("{name}:{tag}"), StatusCode::NOT_FOUND, b""));
        }
        // Not every registry answers HEAD, or says a digest that can be used.
        call.method = Method::GET;
        let answer = self.at.fetch(&call, MANIFEST_LIMIT).await?;
        if answer.status != StatusCode::OK {
            return Err(self
                .at
                .refused(&format!("{name}:{tag}"), answer.status, &answer.body));
        }
        old(&answer.headers)?;
        Ok(digest_of(&answer.headers).unwrap_or_else(|| Digest::of(Algorithm::Sha256, &answer.body)))
    }

    /// A manifest, whose bytes have the digest.
    pub async fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Fetched, ImportError> {
        fetch_manifest(&self.at, name, digest, &scope(name)).await
    }

    /// The manifests whose subject this is; `None` if the source has no such list.
    pub async fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Digest>>, ImportError> {
        let mut found = Vec::new();
        let (path, scope) = (format!("/v2/{name}/referrers/{subject}"), scope(name));
        let pages = self.pages::<Referrers>(&path, &scope, |page| {
            let digests = page
                .manifests
                .iter()
                .filter_map(|entry| entry.digest.parse::<Digest>().ok());
            found.extend(digests);
            found.len()
        });
        match pages.await {
            Ok(()) => {
                found.sort_unstable();
                found.dedup();
                Ok(Some(found))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(ImportError::Refused { status, .. })
                if matches!(status.as_u16(), 400 | 405 | 406 | 415 | 501) =>
            {
                Ok(None)
            }
            // A page that is none: the path means something else there.
            Err(ImportError::Wrong { .. }) if found.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A blob, from its first byte or from a later one.
    pub fn blob<'s>(
        &'s self,
        name: &RepositoryName,
        digest: &Digest,
        size: Option<u64>,
        at: u64,
    ) -> Reader<'s> {
        Reader::new(
            &self.at,
            format!("/v2/{name}/blobs/{digest}"),
            scope(name),
            size,
            at,
        )
    }

    /// Goes over the pages of a list; `take` says how many entries there have been.
    async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        scope: &str,
        mut take: impl FnMut(T) -> usize,
    ) -> Result<(), ImportError> {
        let mut query = format!("n={PAGE}");
        loop {
            let target = format!("{path}?{query}");
            let mut call = question(Method::GET, &target, scope);
            let accept = "application/json, application/vnd.oci.image.index.v1+json";
            call.headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let answer = self.at.fetch(&call, PAGE_LIMIT).await?;
            if answer.status != StatusCode::OK {
                return Err(self.at.refused(path, answer.status, &answer.body));
            }
            let page = serde_json::from_slice(&answer.body);
            let count = take(page.map_err(|error| self.at.wrong(path, error.to_string()))?);
            let link = answer.headers.get(LINK).and_then(|link| link.to_str().ok());
            // The path stays: a list never leads elsewhere.
            let Some(next) = link.and_then(next_query) else {
                return Ok(());
            };
            if next == query || count > ENTRIES {
                return Err(self.at.wrong(path, "the list has no end".to_owned()));
            }
            next.clone_into(&mut query);
        }
    }
}

/// What a token for pulls must say.
pub(super) fn scope(name: &RepositoryName) -> String {
    format!("repository:{name}:pull")
}

pub(super) fn accepting() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(TYPES));
    headers
}

pub(super) fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// Refuses what is of the first version of Docker's format: its digest is not that of its bytes.
fn old(headers: &HeaderMap) -> Result<(), ImportError> {
    let is_old = content_type(headers)
        .is_some_and(|text| text.starts_with("application/vnd.docker.distribution.manifest.v1"));
    if is_old {
        return Err(ImportError::Unsupported(ManifestError::Schema1.to_string()));
    }
    Ok(())
}

/// A manifest of a registry, read and compared with its digest.
pub(super) async fn fetch_manifest(
    at: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    scope: &str,
) -> Result<Fetched, ImportError> {
    let path = format!("/v2/{name}/manifests/{digest}");
    let what = format!("{name}@{digest}");
    let mut call = question(Method::GET, &path, scope);
    call.headers = accepting();
    let answer = at.fetch(&call, MANIFEST_LIMIT).await?;
    if answer.status != StatusCode::OK {
        return Err(at.refused(&what, answer.status, &answer.body));
    }
    old(&answer.headers)?;
    let actual = Digest::of(digest.algorithm(), &answer.body);
    if actual != *digest {
        return Err(at.wrong(&what, format!("what was sent has the digest {actual}")));
    }
    // Some registries call every document just JSON: then the document says what it is.
    let said = content_type(&answer.headers)
        .filter(|text| crate::domain::Format::parse(text).is_some() || text.starts_with("application/vnd."));
    let manifest = Manifest::read_any(&answer.body, said).map_err(|error| match error {
        ManifestError::Schema1 | ManifestError::Unsupported(_) => ImportError::Unsupported(error.to_string()),
        other => at.wrong(&what, other.to_string()),
    })?;
    Ok(Fetched {
        bytes: answer.body,
        manifest,
    })
}
