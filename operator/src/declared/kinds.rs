//! In what the three kinds differ.

use berth_crds::{Invalid, PullThroughCache, Repository, RetentionPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::Declared;
use crate::context::Context;
use crate::follow::Followed;
use crate::registry::Usage;
use crate::status::Status;
use crate::watches::Stores;

fn json<T: serde::Serialize>(config: &T) -> Value {
    // Nothing here fails to be a value.
    serde_json::to_value(config).unwrap_or_default()
}

macro_rules! statuses {
    ($($status:ty),*) => { $(
        impl Status for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )* };
}
statuses!(
    berth_crds::TenantStatus,
    berth_crds::RepositoryStatus,
    berth_crds::RetentionPolicyStatus,
    berth_crds::PullThroughCacheStatus
);

impl Declared for Repository {
    type Status = berth_crds::RepositoryStatus;
    const PATH: &'static str = "repositories";
    const KIND: &'static str = "Repository";
    const REPORTED: &'static [&'static str] = &[];

    fn tenant(&self) -> &str {
        &self.spec.tenant_ref.name
    }
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        self.spec.validate()
    }
    fn claim(&self) -> Option<String> {
        let named = self.spec.name.as_ref().map(|name| format!("repository {name}"));
        named.or_else(|| self.spec.match_.as_ref().map(|glob| format!("the glob {glob}")))
    }
    fn secrets(&self) -> Vec<&str> {
        Vec::new()
    }
    fn resolve(&self, follow: &Followed) -> Result<Value, Vec<Invalid>> {
        Ok(json(&self.spec.resolve(follow)))
    }
    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }
    fn repository(&self) -> Option<&str> {
        self.spec.name.as_deref()
    }
    fn report(&self, conditions: Vec<Condition>, usage: Option<Usage>) -> Self::Status {
        let old = self.status.clone().unwrap_or_default();
        Self::Status {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            // What is not known any more, or was told while the namespace was admitted, does not stay.
            tags: usage.map(|usage| usage.tags),
            storage: usage.map(|usage| usage.bytes),
            ..old
        }
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.repositories
    }
}

impl Declared for RetentionPolicy {
    type Status = berth_crds::RetentionPolicyStatus;
    const PATH: &'static str = "retention-policies";
    const KIND: &'static str = "RetentionPolicy";
    const REPORTED: &'static [&'static str] = &["LastRunSucceeded"];

    fn tenant(&self) -> &str {
        &self.spec.tenant_ref.name
    }
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        self.spec.validate()
    }
    fn claim(&self) -> Option<String> {
        None
    }
    fn secrets(&self) -> Vec<&str> {
        Vec::new()
    }
    fn resolve(&self, _: &Followed) -> Result<Value, Vec<Invalid>> {
        Ok(json(&self.spec.resolve()))
    }
    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }
    fn report(&self, conditions: Vec<Condition>, _: Option<Usage>) -> Self::Status {
        Self::Status {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            ..self.status.clone().unwrap_or_default()
        }
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.policies
    }
}

impl Declared for PullThroughCache {
    type Status = berth_crds::PullThroughCacheStatus;
    const PATH: &'static str = "caches";
    const KIND: &'static str = "PullThroughCache";
    const REPORTED: &'static [&'static str] = &["UpstreamReachable"];

    fn tenant(&self) -> &str {
        &self.spec.tenant_ref.name
    }
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        self.spec.validate()
    }
    fn claim(&self) -> Option<String> {
        Some(format!("the prefix {}", self.spec.prefix))
    }
    fn secrets(&self) -> Vec<&str> {
        let credentials = self.spec.upstream.credentials_secret_ref.as_ref();
        credentials
            .map(|secret| secret.name.as_str())
            .into_iter()
            .collect()
    }
    fn resolve(&self, follow: &Followed) -> Result<Value, Vec<Invalid>> {
        self.spec.resolve(follow).map(|config| json(&config))
    }
    fn status(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }
    fn report(&self, conditions: Vec<Condition>, _: Option<Usage>) -> Self::Status {
        Self::Status {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            ..self.status.clone().unwrap_or_default()
        }
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.caches
    }
}
