//! From a host and a path to a tenant and a repository: the one place where that is decided.
//!
//! A tenant is reached on `{tenant}.<domain>` and on hosts of its own. The apex (`<domain>`, the further
//! names of the settings, and a bare IP address) serves one tenant, or, path-addressed,
//! `/{tenant}/{repository}` and single names of an older registry that tenants hold there.

use std::net::IpAddr;
use std::sync::Arc;

use super::snapshot::{Snapshot, Tenant};
use crate::domain::RepositoryName;

/// How hosts are read.
#[derive(Debug, Clone)]
pub struct Names {
    /// The apex; lower case.
    pub domain: String,
    /// Further names of the apex; lower case.
    pub apex_hosts: Vec<String>,
    /// What the apex serves.
    pub apex: Apex,
}

/// What the apex serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apex {
    /// The tenant of a first run while there is one, else all by path.
    First,
    /// This tenant.
    Tenant(String),
    /// All tenants, by path.
    Paths,
}

/// The tenant of a first run.
pub const FIRST_TENANT: &str = "default";

/// What a host stands for.
#[derive(Clone)]
pub enum Place {
    /// One tenant.
    Tenant(Arc<Tenant>),
    /// All tenants, by path.
    Apex,
}

impl Place {
    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tenant(one), Self::Tenant(another)) => one.id == another.id,
            (Self::Apex, Self::Apex) => true,
            (Self::Tenant(_), Self::Apex) | (Self::Apex, Self::Tenant(_)) => false,
        }
    }
}

/// A repository as a client named it.
#[derive(Clone)]
pub struct Named {
    /// Its tenant.
    pub tenant: Arc<Tenant>,
    /// Its own name.
    pub name: RepositoryName,
}

impl Names {
    /// What a host (lower case, without port) stands for; `None` if nothing lives there.
    pub fn place(&self, snapshot: &Snapshot, host: &str) -> Option<Place> {
        if self.is_apex(host) {
            let served = |name: &str| snapshot.by_name(name).cloned().map(Place::Tenant);
            return match &self.apex {
                Apex::First => served(FIRST_TENANT).or(Some(Place::Apex)),
                Apex::Tenant(name) => served(name),
                Apex::Paths => Some(Place::Apex),
            };
        }
        let tenant = match self.label(host) {
            // Below the domain nothing else counts: a host of a tenant's own cannot hide another tenant.
            Some(label) => snapshot.by_name(label),
            None => snapshot.by_host(host),
        };
        tenant.cloned().map(Place::Tenant)
    }

    /// What stands before the domain in a host.
    fn label<'h>(&self, host: &'h str) -> Option<&'h str> {
        host.strip_suffix(self.domain.as_str())?.strip_suffix('.')
    }

    /// Whether a host is below the domain, where only tenants live.
    pub(super) fn is_below(&self, host: &str) -> bool {
        self.label(host).is_some() && !self.is_apex_name(host)
    }

    /// Whether the settings call the apex so.
    pub(super) fn is_apex_name(&self, host: &str) -> bool {
        host == self.domain || self.apex_hosts.iter().any(|apex| apex == host)
    }

    pub(super) fn is_apex(&self, host: &str) -> bool {
        self.is_apex_name(host) || host.parse::<IpAddr>().is_ok()
    }

    /// The repository that a path's name means at a place; `None` if its first part names no tenant.
    pub fn repository(&self, snapshot: &Snapshot, place: &Place, name: &RepositoryName) -> Option<Named> {
        match place {
            Place::Tenant(tenant) => Some(Named {
                tenant: tenant.clone(),
                name: tenant.canonical(name.clone()),
            }),
            Place::Apex => match name.as_str().split_once('/') {
                Some((tenant, rest)) => {
                    let tenant = snapshot.by_name(tenant)?;
                    Some(Named {
                        tenant: tenant.clone(),
                        name: tenant.canonical(rest.parse().ok()?),
                    })
                }
                // A tenant's name alone is no repository, and wins over whoever holds it as an older name.
                None if snapshot.by_name(name.as_str()).is_some() => None,
                None => {
                    let tenant = snapshot.by_apex_name(name.as_str())?;
                    Some(Named {
                        tenant: tenant.clone(),
                        name: tenant.canonical(name.clone()),
                    })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
