//! In what the three kinds differ.

use berth_crds::{Invalid, PullThroughCache, Repository, RetentionPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::cache::{self, UPSTREAM_REACHABLE};
use super::retention::{self, LAST_RUN};
use super::{Answer, Declared, Ending, Told, erase, usage};
use crate::condition::Fact;
use crate::context::Context;
use crate::follow::Followed;
use crate::registry::{PullThrough, Retention, Usage};
use crate::status::{Status, fits};
use crate::trouble::Trouble;
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
    berth_crds::PullThroughCacheStatus
);

impl Status for berth_crds::RetentionPolicyStatus {
    const NOTED: &'static [&'static str] = &[retention::LAST_REQUEST];

    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl Declared for Repository {
    type Status = berth_crds::RepositoryStatus;
    const PATH: &'static str = "repositories";
    const KIND: &'static str = "Repository";
    type Report = Usage;

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
    async fn ask(&self, ctx: &Context, _: bool) -> Result<Answer<Usage>, Trouble> {
        let Some(repository) = &self.spec.name else {
            return Ok(Answer::from(Told::Nothing));
        };
        let ask = ctx.registry.repository_usage(self.tenant(), repository);
        Ok(Answer::from(usage(ctx, self, ask).await))
    }
    fn aspects(&self, _: &Told<Usage>) -> Vec<Fact> {
        Vec::new()
    }
    fn report(&self, conditions: Vec<Condition>, told: Told<Usage>) -> Self::Status {
        let observed_generation = self.metadata.generation.unwrap_or_default();
        let time = |time: Option<String>| time.filter(|time| fits(time, 64));
        match told {
            Told::News(usage) => Self::Status {
                observed_generation,
                conditions,
                tags: Some(usage.tags),
                storage: Some(usage.bytes),
                last_push: time(usage.last_push),
                last_pull: time(usage.last_pull),
            },
            Told::NoNews => Self::Status {
                observed_generation,
                conditions,
                ..self.status.clone().unwrap_or_default()
            },
            // What was told while the namespace was admitted does not stay.
            Told::Nothing => Self::Status {
                observed_generation,
                conditions,
                ..Self::Status::default()
            },
        }
    }
    async fn ending(&self, ctx: &Context) -> Result<Ending, Trouble> {
        erase::ending(self, ctx).await
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.repositories
    }
}

impl Declared for RetentionPolicy {
    type Status = berth_crds::RetentionPolicyStatus;
    const PATH: &'static str = "retention-policies";
    const KIND: &'static str = "RetentionPolicy";
    type Report = Retention;

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
    async fn ask(&self, ctx: &Context, is_programmed: bool) -> Result<Answer<Retention>, Trouble> {
        retention::ask(self, ctx, is_programmed).await
    }
    fn aspects(&self, told: &Told<Retention>) -> Vec<Fact> {
        let old = self.status.as_ref();
        let old = old.map(Status::conditions).unwrap_or_default();
        vec![retention::last_run(
            told,
            old.iter().find(|old| old.type_ == LAST_RUN),
        )]
    }
    fn report(&self, conditions: Vec<Condition>, told: Told<Retention>) -> Self::Status {
        let generation = self.metadata.generation.unwrap_or_default();
        retention::new_status(self.status.as_ref(), generation, conditions, told)
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.policies
    }
}

impl Declared for PullThroughCache {
    type Status = berth_crds::PullThroughCacheStatus;
    const PATH: &'static str = "caches";
    const KIND: &'static str = "PullThroughCache";
    type Report = PullThrough;

    fn tenant(&self) -> &str {
        &self.spec.tenant_ref.name
    }
    fn validate(&self) -> Result<(), Vec<Invalid>> {
        self.spec.validate()
    }
    fn claim(&self) -> Option<String> {
        Some(match self.spec.prefix.as_str() {
            "" => "all repositories".to_owned(),
            prefix => format!("the prefix {prefix}"),
        })
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
    async fn ask(&self, ctx: &Context, is_programmed: bool) -> Result<Answer<PullThrough>, Trouble> {
        Ok(cache::ask(self, ctx, is_programmed).await)
    }
    fn aspects(&self, told: &Told<PullThrough>) -> Vec<Fact> {
        let old = self.status.as_ref();
        let old = old.map(Status::conditions).unwrap_or_default();
        vec![cache::upstream_reachable(
            told,
            old.iter().find(|old| old.type_ == UPSTREAM_REACHABLE),
        )]
    }
    fn report(&self, conditions: Vec<Condition>, told: Told<PullThrough>) -> Self::Status {
        let generation = self.metadata.generation.unwrap_or_default();
        cache::new_status(self.status.as_ref(), generation, conditions, told)
    }
    fn all(ctx: &Context) -> &Stores<Self> {
        &ctx.watched.caches
    }
}
