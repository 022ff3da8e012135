//! From a request to its tenant and repository: the one place where that is decided.

use super::state::Registry;
use crate::domain::RepositoryName;
use crate::metadata::{Repository, TenantId};

/// Where a request goes.
pub struct Target {
    /// The tenant.
    pub tenant: TenantId,
    /// The repository, if the path names one.
    pub repository: Option<Repository>,
}

/// The apex tenant serves every host.
pub fn resolve(registry: &Registry, name: Option<RepositoryName>) -> Target {
    let tenant = registry.tenant.id;
    Target {
        tenant,
        repository: name.map(|name| Repository { tenant, name }),
    }
}
