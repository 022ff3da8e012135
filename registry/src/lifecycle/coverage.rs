//! All that is configured about what stays in one repository.

use std::sync::Arc;
use std::time::Duration;

use berth_crds::Span;

use super::retention::rules::Plan;
use crate::domain::RepositoryName;
use crate::domain::glob::TagGlob;
use crate::metadata::events::{Announce, Kind};
use crate::tenancy::Tenant;
use crate::tenancy::policies::Policy;

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
    /// Who hears of what policies delete.
    pub announce: Option<Announce>,
}

impl Coverage {
    /// What holds in a repository of a tenant. `window` is what holds where no policy says otherwise. Policies that only
    /// report delete nothing, but what they keep stays.
    pub fn of(tenant: &Tenant, repository: &RepositoryName, window: Duration) -> Result<Self, String> {
        Self::acting(tenant, repository, window, |policy| !policy.config.dry_run)
    }

    /// What would hold if the policies that `acts` chooses did what they say.
    pub fn acting(
        tenant: &Tenant,
        repository: &RepositoryName,
        window: Duration,
        acts: impl Fn(&Policy) -> bool,
    ) -> Result<Self, String> {
        let policies = tenant.policies_of(repository);
        let ephemeral = tenant.repositories.ephemeral(repository);
        let immutable: Vec<TagGlob> = tenant.repositories.immutable(repository).cloned().collect();
        let acting = || policies.iter().filter(|policy| acts(policy));
        // Without a rule that acts all is kept, whatever those that only report would keep.
        let listed: Vec<_> = match acting().any(|policy| !policy.config.rules.is_empty()) {
            true => policies
                .iter()
                .map(|policy| (policy.name.clone(), policy.config.clone()))
                .collect(),
            false => Vec::new(),
        };
        let plan = Plan::new(&listed, immutable.clone(), ephemeral)?;
        let window = restore_window(tenant, repository, window);
        let untagged = acting()
            .filter_map(|policy| policy.config.untagged.as_ref())
            .map(|untagged| untagged.delete_after.duration())
            .max();
        // What is pushed into a store of builds without a tag goes after the same time.
        let untagged_after = untagged.or(ephemeral);
        Ok(Self {
            untagged_after: untagged_after.map(|after| after.max(window)),
            plan,
            window,
            immutable,
            policies: policies.iter().map(|policy| policy.name.clone()).collect(),
            announce: tenant.announce(Kind::Retention, Some(repository)),
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
