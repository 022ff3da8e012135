//! Which retention policies cover a repository.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_crds::admin::RetentionPolicyConfig;

use super::Tenant;
use super::caches::POLICY_PREFIX;
use crate::domain::RepositoryName;
use crate::domain::glob::RepositoryGlob;

/// A retention policy, ready to be asked what it covers.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Name of its object.
    pub name: Arc<str>,
    /// As configured.
    pub config: Arc<RetentionPolicyConfig>,
    covers: Vec<RepositoryGlob>,
}

impl Policy {
    /// Compiles its globs.
    pub fn new(name: &str, config: RetentionPolicyConfig) -> Result<Self, String> {
        let parse = |glob: &String| {
            glob.parse()
                .map_err(|error| format!("spec.repositories: {error}"))
        };
        let covers = config.repositories.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.into(),
            config: Arc::new(config),
            covers,
        })
    }
}

impl Tenant {
    /// The policies that cover a repository, by their globs or because a declaration of the repository names them.
    pub fn policies_of(&self, repository: &RepositoryName) -> Vec<&Arc<Policy>> {
        let named: BTreeSet<&str> = self
            .repositories
            .about(repository)
            .filter_map(|rule| rule.config.retention_policy.as_deref())
            .collect();
        let cache = self.caches.of(repository).map(|(cache, _)| &*cache.name);
        let covers = |policy: &&Arc<Policy>| match policy.name.strip_prefix(POLICY_PREFIX) {
            // What a cache says of what nobody pulls is about its own, wherever its prefix lies.
            Some(of) if !named.contains(&*policy.name) => cache == Some(of),
            _ => {
                named.contains(&*policy.name)
                    || policy.covers.iter().any(|glob| glob.matches(repository.as_str()))
            }
        };
        self.policies.values().filter(covers).collect()
    }
}
