//! A manifest of an upstream: fetched whole, verified, stored.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};

use super::super::answer::CONTENT_DIGEST;
use super::super::documents::{Held, Unread};
use super::super::error::ApiError;
use super::super::state::Registry;
use super::trouble::Trouble;
use crate::domain::manifest::Manifest;
use crate::domain::media_type::{Format, MediaType};
use crate::domain::{Algorithm, Digest, TagName};
use crate::metadata::events::Kind as EventKind;
use crate::metadata::{Precondition, PutManifest, PutOutcome, Reference, Repository, Sparse, Time, row_id};
use crate::tenancy::Tenant;
use crate::upstream::{Kind, Question, Remote, UpstreamError};
use crate::webhooks::QuotaNews;

/// Every type that is understood here, as registries that convert for older clients need it spelt out.
const TYPES: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*",
);

/// A manifest whose digest was computed from its bytes.
#[derive(Debug)]
pub(in crate::distribution) struct Fetched {
    pub digest: Digest,
    pub payload: Bytes,
    pub manifest: Manifest,
}

/// Where a manifest is at its upstream.
pub(super) struct Source<'a> {
    pub remote: &'a Remote,
    /// The repository there.
    pub repository: &'a str,
    /// Most bytes of a manifest.
    pub limit: u64,
    /// Whether manifests of formats that are not known are kept.
    pub takes_opaque: bool,
}

impl Source<'_> {
    fn question<'q>(&'q self, method: Method, path: &'q str) -> Question<'q> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, TYPES);
        Question {
            method,
            repository: self.repository,
            path,
            headers,
        }
    }

    fn strange(&self, why: String) -> UpstreamError {
        UpstreamError::Strange {
            host: self.remote.host().to_owned(),
            why,
        }
    }

    /// What a tag points to by a HEAD, which upstreams do not count; `None` if the upstream does not say it there.
    pub async fn head(&self, tag: &TagName) -> Result<Option<Digest>, UpstreamError> {
        let path = format!("manifests/{tag}");
        let answer = self
            .remote
            .ask(&self.question(Method::HEAD, &path), Kind::Manifest)
            .await;
        let answer = match answer {
            // It does not take the method; what it takes says the same.
            Err(UpstreamError::Failing { status, .. }) if [400, 405, 501].contains(&status.as_u16()) => {
                return Ok(None);
            }
            answer => answer?,
        };
        let named = answer
            .headers()
            .get(CONTENT_DIGEST)
            .and_then(|value| value.to_str().ok());
        Ok(named.and_then(|text| text.parse().ok()))
    }

    /// The manifest that a tag or a digest names, in memory that is taken as it comes.
    pub async fn get(&self, reference: &Reference, memory: &mut Held) -> Result<Fetched, Trouble> {
        let name = match reference {
            Reference::Tag(tag) => tag.to_string(),
            Reference::Digest(digest) => digest.to_string(),
        };
        let path = format!("manifests/{name}");
        let answer = self
            .remote
            .ask(&self.question(Method::GET, &path), Kind::Manifest)
            .await?;
        let (parts, body) = answer.into_parts();
        let late = |_| UpstreamError::Late {
            host: self.remote.host().to_owned(),
            timeout: self.remote.timeout(),
        };
        let unreadable = |why: String| self.strange(format!("manifest {name} cannot be read: {why}"));
        let read = tokio::time::timeout(self.remote.timeout(), memory.read(body, self.limit, 1));
        let read = match read.await.map_err(late) {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(Unread::Busy(busy))) => return Err(ApiError::from(busy).into()),
            Ok(Err(Unread::TooLarge)) => Err(unreadable(format!("it has more than {} bytes", self.limit))),
            Ok(Err(Unread::Broken(error))) => Err(unreadable(error.to_string())),
            Err(late) => Err(late),
        };
        if let Err(error) = &read {
            self.remote.met(Kind::Manifest, Some(error));
        }
        let payload = read?;
        self.remote.news.fetched(payload.len() as u64);

        // 1. The bytes are what was asked for.
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, &payload),
        };
        let computed = Digest::of(digest.algorithm(), &payload);
        if computed != digest {
            return Err(self
                .strange(format!("it sent a manifest of digest {computed} for {name}"))
                .into());
        }
        let named = parts
            .headers
            .get(CONTENT_DIGEST)
            .and_then(|value| value.to_str().ok());
        if let Some(Ok(named)) = named.map(str::parse::<Digest>)
            && Digest::of(named.algorithm(), &payload) != named
        {
            let why = format!("it calls manifest {name} {named}, which is not its digest");
            return Err(self.strange(why).into());
        }

        // 2. They are a manifest. Some send them as plain JSON, and the document has its type.
        let content_type = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.filter(|text| {
            let essence = text.split(';').next().unwrap_or_default().trim();
            let is_taken = self.takes_opaque && Format::parse(essence).is_some();
            is_taken || MediaType::parse(essence).is_some() || essence.starts_with("application/vnd.")
        });
        let read = if self.takes_opaque {
            Manifest::read_any
        } else {
            Manifest::read
        };
        let manifest = read(&payload, content_type)
            .map_err(|error| self.strange(format!("manifest {name} cannot be used here: {error}")))?;
        Ok(Fetched {
            digest,
            payload,
            manifest,
        })
    }
}

/// What became of a manifest that was to be kept.
pub(super) enum Kept {
    /// It is stored, and the tag is set.
    Yes,
    /// It is not, since a quota is exhausted.
    No,
    /// The tag may not be moved.
    Immutable,
}

/// Stores a manifest and sets its tag.
pub(super) async fn keep(
    registry: &Registry,
    tenant: &Tenant,
    repository: &Repository,
    by: &str,
    fetched: &Fetched,
    tag: Option<&TagName>,
) -> Result<Kept, Trouble> {
    let now = Time::now();
    let immutable = tag.filter(|tag| {
        let mut rules = tenant.repositories.immutable(&repository.name);
        rules.any(|glob| glob.matches(tag.as_str()))
    });
    let put = PutManifest {
        digest: fetched.digest,
        payload: fetched.payload.clone(),
        manifest: fetched.manifest.clone(),
        immutable: immutable.into_iter().cloned().collect(),
        limits: tenant.limits(&repository.name),
        tags: tag.into_iter().cloned().collect(),
        precondition: Precondition::None,
        sparse: Sparse::Always,
        principal: by.to_owned(),
        now,
        leased_until: now.plus(registry.delays.lease),
        review_at: now.plus(registry.delays.review),
        lifetime: None,
        repository_id: row_id(),
        announce: tenant.announce(EventKind::CacheFetch, Some(&repository.name)),
    };
    match registry.metadata.put_manifest(repository, put).await? {
        PutOutcome::Stored(_) => Ok(Kept::Yes),
        PutOutcome::Immutable(_) => Ok(Kept::Immutable),
        PutOutcome::OverQuota(over) => {
            let news = QuotaNews {
                kind: EventKind::QuotaExceeded,
                quota: over.quota,
                usage: over.usage,
                limit: over.limit,
            };
            registry.teller.quota(tenant, &repository.name, by, news);
            tracing::warn!(
                tenant = tenant.name.as_str(),
                repository = repository.name.as_str(),
                "a manifest was not kept: {}",
                crate::tenancy::limits::exhausted(&over)
            );
            Ok(Kept::No)
        }
        // Nothing is demanded and everything may be absent.
        PutOutcome::Missing(_) | PutOutcome::PreconditionFailed => Ok(Kept::No),
    }
}

/// A manifest that is passed on without being kept.
pub(super) type Passed = Arc<Fetched>;
