//! Requests to another host than the one in the image's name (distribution-spec, "Registry Proxying").
//!
//! A client that is told to pull `acme.example.com/app` from `10.96.3.4` says so by `?ns=acme.example.com`. On a
//! host that is no tenant's, `ns` may name one of this installation's hosts, and the request is as if it had come
//! there. On a tenant's host, `ns` may name a registry for which a cache of the tenant is a mirror. It never leads
//! from one tenant to another, and whatever is not configured is nowhere.

use std::collections::HashMap;
use std::sync::Arc;

use super::caches::Cache;
use super::names::{Names, Place};
use super::origin::host_name;
use super::snapshot::{Snapshot, Tenant};
use crate::domain::RepositoryName;

/// Docker Hub, as images' names say it.
const HUB: &str = "docker.io";
/// Hosts that stand for it.
const HUB_HOSTS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// The port that a name without one means.
const DEFAULT_PORT: &str = "443";

/// The host of an image's name, as a client tells it to a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As the client wrote it, with port.
    pub text: String,
    /// Lower case, without port, brackets and final dot.
    host: String,
}

/// Why `ns` names no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NamespaceError {
    /// It is not one.
    #[error("ns is not a host name or address with an optional port")]
    Malformed,
    /// There are several that differ.
    #[error("ns names different hosts: send one")]
    Several,
}

impl Namespace {
    /// Reads it from a query; `None` if there is none.
    pub fn of(query: &str) -> Result<Option<Self>, NamespaceError> {
        let mut found: Option<Self> = None;
        for (_, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "ns") {
            let host = host_name(&value).ok_or(NamespaceError::Malformed)?;
            if found.as_ref().is_some_and(|other| other.text != value) {
                return Err(NamespaceError::Several);
            }
            let text = value.into_owned();
            found = Some(Self { text, host });
        }
        Ok(found)
    }

    /// The registry that is meant, however it is written: the key of [`Mirrors`].
    fn registry(&self) -> String {
        registry(&self.host, &self.text)
    }

    /// As a parameter of a query.
    pub fn parameter(&self) -> String {
        let value: String = url::form_urlencoded::byte_serialize(self.text.as_bytes()).collect();
        format!("ns={value}")
    }
}

/// One spelling for each registry.
fn registry(host: &str, authority: &str) -> String {
    // What follows the last colon of an address in brackets ends with one.
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    match port {
        "" | DEFAULT_PORT if HUB_HOSTS.contains(&host) => HUB.to_owned(),
        "" | DEFAULT_PORT => host.to_owned(),
        port if port.ends_with(']') => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

/// Whether a host, with the port that `authority` names, is Docker Hub.
pub(super) fn is_hub(host: &str, authority: &str) -> bool {
    registry(host, authority) == HUB
}

/// The registries for which a tenant's caches are mirrors, and under which prefix.
#[derive(Debug, Clone, Default)]
pub struct Mirrors(HashMap<String, Option<RepositoryName>>);

impl Mirrors {
    /// Those of these caches. Of two that name one registry the first counts.
    pub fn of<'c>(caches: impl Iterator<Item = &'c Cache>) -> Result<Self, String> {
        let mut mirrors = HashMap::new();
        for cache in caches {
            for entry in &cache.config.mirror_for {
                let host =
                    host_name(entry).ok_or_else(|| format!("spec.mirrorFor: {entry:?} is no registry"))?;
                mirrors
                    .entry(registry(&host, entry))
                    .or_insert_with(|| cache.prefix.clone());
            }
        }
        Ok(Self(mirrors))
    }

    fn prefix(&self, namespace: &Namespace) -> Option<&Option<RepositoryName>> {
        self.0.get(&namespace.registry())
    }
}

/// By which name a request has come to its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// That of its own host.
    Host,
    /// That of another host of this installation.
    Mirror(Namespace),
    /// That of a registry whose repositories lie below a prefix, or everywhere.
    Cache(Namespace, Option<RepositoryName>),
}

impl Via {
    /// The name, if it is not that of the request's own host.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Host => None,
            Self::Mirror(namespace) | Self::Cache(namespace, _) => Some(namespace),
        }
    }

    /// What repositories' names begin with at the place.
    pub fn prefix(&self) -> Option<&str> {
        match self {
            Self::Host | Self::Mirror(_) => None,
            Self::Cache(_, prefix) => prefix.as_ref().map(RepositoryName::as_str),
        }
    }

    /// What is meant at the place by a repository's name; `None` if nothing can be called so there.
    pub fn repository(&self, name: &RepositoryName) -> Option<RepositoryName> {
        match self {
            Self::Host | Self::Mirror(_) | Self::Cache(_, None) => Some(name.clone()),
            Self::Cache(_, Some(prefix)) => format!("{prefix}/{name}").parse().ok(),
        }
    }
}

/// Why a request is for nothing here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Nowhere {
    /// Nothing lives at the host.
    #[error("no registry lives at {0}")]
    Host(String),
    /// The host's tenant is no mirror for what `ns` names.
    #[error(
        "{host} is no mirror for {namespace}: declare a PullThroughCache of its tenant whose spec.mirrorFor lists \
         that registry"
    )]
    Tenant {
        /// The request's.
        host: String,
        /// What `ns` names.
        namespace: String,
    },
    /// The apex is no mirror for anything but hosts of this installation.
    #[error("{host} is no mirror for {namespace}: ask a tenant's host that is one")]
    Apex {
        /// The request's.
        host: String,
        /// What `ns` names.
        namespace: String,
    },
}

impl Nowhere {
    fn tenant(host: &str, namespace: Namespace) -> Self {
        Self::Tenant {
            host: host.to_owned(),
            namespace: namespace.text,
        }
    }
}

impl Names {
    /// What a request to a host (lower case, without port) is for.
    pub fn meant(
        &self,
        snapshot: &Snapshot,
        host: &str,
        namespace: Option<Namespace>,
    ) -> Result<(Place, Via), Nowhere> {
        let own = self.place(snapshot, host);
        let nobody = |host: &str| Nowhere::Host(host.to_owned());
        let Some(namespace) = namespace.filter(|namespace| namespace.host != host) else {
            return own.map(|place| (place, Via::Host)).ok_or_else(|| nobody(host));
        };
        match (own, self.ours(snapshot, &namespace.host)) {
            (Some(own), Some(Some(named))) if own.is(&named) => Ok((own, Via::Host)),
            (own, Some(named)) if self.is_nobodys(host, own.as_ref()) => named
                .map(|place| (place, Via::Mirror(namespace.clone())))
                .ok_or_else(|| nobody(&namespace.host)),
            (Some(Place::Tenant(tenant)), None) => cached(tenant, host, namespace),
            // Another tenant's host is told of like any other registry: who else lives here does not show.
            (Some(Place::Tenant(_)), Some(_)) => Err(Nowhere::tenant(host, namespace)),
            (Some(Place::Apex), _) => Err(Nowhere::Apex {
                host: host.to_owned(),
                namespace: namespace.text,
            }),
            (None, _) => Err(nobody(host)),
        }
    }

    /// What a name stands for that is one of this installation's; its inner `None` is one where nobody lives. A bare
    /// address may be anybody's, so that it counts only if the settings name it.
    fn ours(&self, snapshot: &Snapshot, host: &str) -> Option<Option<Place>> {
        let place = || self.place(snapshot, host);
        if self.is_apex_name(host) || self.is_below(host) {
            return Some(place());
        }
        snapshot.by_host(host).map(|_| place())
    }

    /// Whether a request's host belongs to no tenant: the apex, and what nobody has configured. A name below the
    /// domain is a tenant's also while there is none of that name.
    fn is_nobodys(&self, host: &str, place: Option<&Place>) -> bool {
        self.is_apex(host) || (place.is_none() && !self.is_below(host))
    }
}

fn cached(tenant: Arc<Tenant>, host: &str, namespace: Namespace) -> Result<(Place, Via), Nowhere> {
    match tenant.caches.mirrors.prefix(&namespace).cloned() {
        Some(prefix) => Ok((Place::Tenant(tenant), Via::Cache(namespace, prefix))),
        None => Err(Nowhere::tenant(host, namespace)),
    }
}

#[cfg(test)]
mod tests;
