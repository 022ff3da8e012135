//! All that is configured about what stays in one repository.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::Span;

use super::retention::rules::Plan;
use crate::domain::RepositoryName;
use crate::domain::glob::TagGlob;
use crate::tenancy::Tenant;

/// What holds in a repository.
#[derive(Debug)]
pub struct Coverage {
    /// Which tags stay.
    pub plan: Plan,
    /// For how long what is deleted can be brought back.
    pub window: Duration,
    /// For how long manifests without a tag stay; for ever if absent. Never shorter than `window`.
    pub untagged_after: Option<Duration>,
    /// Tags that may not be deleted.
    pub immutable: Vec<TagGlob>,
    /// The policies that take part, by name.
    pub policies: Vec<Arc<str>>,
}

impl Coverage {
    /// What holds in a repository of a tenant. `window` is what holds where no policy says otherwise.
    pub fn of(tenant: &Tenant, repository: &RepositoryName, window: Duration) -> Result<Self, String> {
        let policies = tenant.policies_of(repository);
        let ephemeral = tenant.repositories.ephemeral(repository);
        let immutable: Vec<TagGlob> = tenant.repositories.immutable(repository).cloned().collect();
        let listed: Vec<_> = policies
            .iter()
            .map(|policy| (policy.name.clone(), policy.config.clone()))
            .collect();
        let plan = Plan::new(&listed, immutable.clone(), ephemeral)?;
        let window = restore_window(tenant, repository, window);
        // What is pushed into a store of builds without a tag goes after the same time.
        let untagged_after = plan.untagged_after().or(ephemeral);
        Ok(Self {
            untagged_after: untagged_after.map(|after| after.max(window)),
            plan,
            window,
            immutable,
            policies: policies.iter().map(|policy| policy.name.clone()).collect(),
        })
    }
}

/// For how long what is deleted from a repository can be brought back: the longest time of the policies that cover it
/// and name one. Without one, `window`; in an ephemeral repository, not at all.
pub fn restore_window(tenant: &Tenant, repository: &RepositoryName, window: Duration) -> Duration {
    let named = tenant
        .policies_of(repository)
        .into_iter()
        .filter_map(|policy| policy.config.restore_window.as_ref().map(Span::duration))
        .max();
    let otherwise = || match tenant.repositories.ephemeral(repository) {
        Some(_) => Duration::ZERO,
        None => window,
    };
    named.unwrap_or_else(otherwise)
}
