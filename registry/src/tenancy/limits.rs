//! What a tenant may store, and what its manifests may lack.

use super::Tenant;
use crate::domain::RepositoryName;
use crate::metadata::{Limits, OverQuota, Quota, Sparse};

impl Tenant {
    /// What a push into a repository may not exceed.
    pub fn limits(&self, name: &RepositoryName) -> Limits {
        let (config, rules) = (&self.config, &self.repositories);
        let some = |number: u64| (number > 0).then_some(number);
        Limits {
            storage: config
                .quota
                .storage
                .as_ref()
                .and_then(|quantity| quantity.limit()),
            repositories: some(config.quota.repositories),
            tags: rules
                .quota(name, |quota| some(quota.tags))
                .or(some(config.quota.tags_per_repository)),
            repository_storage: rules.quota(name, |quota| quota.storage.as_ref().and_then(|q| q.limit())),
            // Those of a cache are its upstream's.
            referrers: some(config.policy.referrers_per_subject).filter(|_| self.caches.of(name).is_none()),
        }
    }

    /// Whether manifests of formats that are not known are stored.
    pub fn takes_opaque(&self) -> bool {
        self.config.policy.opaque_media_types
    }

    /// Which manifests of a repository may lack what they name: those of caches all, since it comes when it is asked for.
    pub fn sparse(&self, name: &RepositoryName) -> Sparse {
        if self.caches.of(name).is_some() {
            return Sparse::Always;
        }
        match self.config.repositories.sparse {
            berth_crds::Sparse::Never => Sparse::Never,
            berth_crds::Sparse::Indexes => Sparse::Indexes,
            berth_crds::Sparse::Always => Sparse::Always,
        }
    }
}

/// What a quota is on, and its unit.
pub fn of_quota(quota: Quota) -> (&'static str, &'static str) {
    match quota {
        Quota::Storage => ("the tenant's storage", "bytes"),
        Quota::Repositories => ("repositories", "repositories"),
        Quota::Tags => ("the repository's tags", "tags"),
        Quota::RepositoryStorage => ("the repository's storage", "bytes"),
        Quota::Referrers => ("the subject's referrers", "manifests"),
    }
}

/// What to do about a quota that is exhausted.
pub fn exhausted(over: &OverQuota) -> String {
    let (what, unit) = of_quota(over.quota);
    format!(
        "the quota on {what} is exhausted: {} of {} {unit} used; delete what is not needed, or have the quota raised",
        over.usage, over.limit
    )
}
