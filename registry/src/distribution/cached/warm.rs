//! Fetching before anybody asks: what a cache's list names, piece by piece, by whoever drives it.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::state::Registry;
use super::fetch::Wanted;
use super::growing::Phase;
use super::manifest::{Asking, Outcome};
use super::trouble::Trouble;
use crate::domain::{Digest, RepositoryName};
use crate::metadata::{Reference, Repository, Time};
use crate::tenancy::{Cache, Tenant};

/// How long a request waits for a blob before it says how far that is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Fetches for caches.
#[derive(Clone)]
pub struct Warmer(Registry);

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// It was not named as it must be.
    #[error("{0}")]
    Invalid(String),
    /// The upstream, or a store.
    #[error("{0}")]
    Upstream(String),
}

/// What was fetched, or is being fetched.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warmed {
    /// Its digest.
    pub digest: String,
    /// Whether all of it is stored.
    pub stored: bool,
    /// Bytes that have come.
    pub arrived: u64,
    /// Bytes in all, as far as is known.
    pub size: u64,
    /// Manifests that it lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Listed>,
    /// Blobs that it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Listed>,
}

/// What a manifest lists.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// For which platform it is, as `os/architecture[/variant]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

impl From<Trouble> for WarmError {
    fn from(trouble: Trouble) -> Self {
        let why = match trouble.upstream() {
            Some(error) => error.to_string(),
            None => "the registry's stores do not answer, or its quota is exhausted; see its log".to_owned(),
        };
        Self::Upstream(why)
    }
}

impl Warmer {
    /// Fetches for this registry.
    pub fn new(registry: Registry) -> Self {
        Self(registry)
    }

    fn place(
        &self,
        tenant: &Tenant,
        cache: &Arc<Cache>,
        image: &str,
    ) -> Result<(Repository, String, Reference), WarmError> {
        let invalid = |why: String| WarmError::Invalid(format!("{image}: {why}"));
        let split = image.split_once('@').or_else(|| image.rsplit_once(':'));
        let (name, reference) =
            split.ok_or_else(|| invalid("write <repository>:<tag> or <repository>@<digest>".to_owned()))?;
        let full: RepositoryName = cache
            .name_of(name)
            .parse()
            .map_err(|error| invalid(format!("{error}")))?;
        let full = tenant.canonical(full);
        let (own, upstream) = tenant
            .caches
            .of(&full)
            .ok_or_else(|| invalid("it is not the cache's".to_owned()))?;
        if own.name != cache.name {
            return Err(invalid(format!(
                "cache {} has it, whose prefix is longer",
                own.name
            )));
        }
        if !cache.allows(upstream) {
            return Err(invalid(
                "the cache's allow and deny lists leave it out".to_owned(),
            ));
        }
        let upstream = upstream.to_owned();
        let reference = match reference.parse::<Digest>() {
            Ok(digest) => Reference::Digest(digest),
            Err(_) => {
                let tag = reference.parse().map_err(|error| invalid(format!("{error}")))?;
                if !cache.allows_tag(reference) {
                    return Err(invalid("the cache's list of tags leaves it out".to_owned()));
                }
                Reference::Tag(tag)
            }
        };
        let repository = Repository {
            tenant: tenant.id,
            name: full,
        };
        Ok((repository, upstream, reference))
    }

    /// Fetches a manifest, and compares a tag with the upstream's.
    pub async fn manifest(
        &self,
        tenant: &Arc<Tenant>,
        cache: &Arc<Cache>,
        image: &str,
    ) -> Result<Warmed, WarmError> {
        let (repository, upstream, reference) = self.place(tenant, cache, image)?;
        let registry = &self.0;
        let remote = registry.cached.remotes.of(tenant, cache).map_err(Trouble::from)?;
        let by_digest = matches!(reference, Reference::Digest(_));
        let here = |trouble: crate::metadata::MetadataError| WarmError::from(Trouble::from(trouble));
        let found = registry
            .metadata
            .manifest(&repository, &reference)
            .await
            .map_err(here)?;
        if found.is_none() || !by_digest {
            let asking = Asking {
                registry: registry.clone(),
                tenant: tenant.clone(),
                repository: repository.clone(),
                cache: cache.clone(),
                remote,
                upstream,
                since: Time::now(),
            };
            let key = (repository.clone(), reference.clone());
            let asked = reference.clone();
            let flights = &registry.cached.manifests;
            let (outcome, _) = flights
                .share(key, || async move { asking.run(&asked).await })
                .await;
            match outcome.unwrap_or(Outcome::Failed(Trouble::ended())) {
                Outcome::Current(_) => {}
                Outcome::Stale(why) => return Err(WarmError::Upstream(why.to_string())),
                Outcome::Passed(_) => {
                    let why = "a quota is exhausted: it was not kept".to_owned();
                    return Err(WarmError::Upstream(why));
                }
                Outcome::Failed(trouble) => return Err(trouble.into()),
            }
        }
        let gone = || WarmError::Upstream("it was deleted just now".to_owned());
        let row = registry
            .metadata
            .manifest(&repository, &reference)
            .await
            .map_err(here)?
            .ok_or_else(gone)?;
        let payload = registry
            .metadata
            .manifest_payload(&repository, &row.digest)
            .await
            .map_err(here)?
            .ok_or_else(gone)?;
        let (manifests, blobs) = listed(&payload);
        Ok(Warmed {
            digest: row.digest.to_string(),
            stored: true,
            arrived: row.size,
            size: row.size,
            manifests,
            blobs,
        })
    }

    /// Fetches a blob of the image's repository, and waits for a moment.
    pub async fn blob(
        &self,
        tenant: &Arc<Tenant>,
        cache: &Arc<Cache>,
        image: &str,
        blob: &str,
    ) -> Result<Warmed, WarmError> {
        let (repository, upstream, _) = self.place(tenant, cache, image)?;
        let digest: Digest = blob
            .parse()
            .map_err(|error| WarmError::Invalid(format!("{blob}: {error}")))?;
        let registry = &self.0;
        let found = registry.metadata.blob(&repository, &digest).await;
        if let Some(row) = found.map_err(Trouble::from)? {
            return Ok(progress(&digest, row.size, row.size, true));
        }
        let remote = registry.cached.remotes.of(tenant, cache).map_err(Trouble::from)?;
        let (growing, _) = registry.cached.fetches.join(Wanted {
            registry: registry.clone(),
            tenant: tenant.clone(),
            repository,
            digest,
            remote,
            upstream,
        });
        let settled = tokio::time::timeout(PATIENCE, growing.over()).await;
        match settled {
            Ok(Phase::Stored(row)) => Ok(progress(&digest, row.size, row.size, true)),
            Ok(Phase::Failed(trouble)) => Err(trouble.into()),
            _ => {
                let size = match growing.phase() {
                    Phase::Arriving { size, .. } => size,
                    _ => 0,
                };
                Ok(progress(&digest, growing.end(), size, false))
            }
        }
    }
}

fn progress(digest: &Digest, arrived: u64, size: u64, stored: bool) -> Warmed {
    Warmed {
        digest: digest.to_string(),
        stored,
        arrived,
        size,
        manifests: Vec::new(),
        blobs: Vec::new(),
    }
}

/// What a stored manifest lists: it was read strictly before.
fn listed(payload: &[u8]) -> (Vec<Listed>, Vec<Listed>) {
    let document: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    let one = |descriptor: &serde_json::Value| {
        let platform = &descriptor["platform"];
        let part = |name: &str| platform[name].as_str().map(str::to_owned);
        let parts: Vec<String> = ["os", "architecture", "variant"]
            .into_iter()
            .filter_map(part)
            .collect();
        Some(Listed {
            digest: descriptor["digest"].as_str()?.to_owned(),
            size: descriptor["size"].as_u64().unwrap_or_default(),
            platform: (!parts.is_empty()).then(|| parts.join("/")),
        })
    };
    let all = |name: &str| document[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let manifests = all("manifests").iter().filter_map(one).collect();
    let needed = |descriptor: &&serde_json::Value| {
        // What is foreign is fetched from elsewhere.
        descriptor["urls"].as_array().is_none_or(Vec::is_empty)
    };
    let blobs = std::iter::once(&document["config"])
        .chain(all("layers"))
        .filter(needed)
        .filter_map(one)
        .collect();
    (manifests, blobs)
}
