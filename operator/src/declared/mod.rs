//! Repositories, RetentionPolicies and PullThroughCaches: what a namespace declares for a tenant.
//!
//! They differ in their specs alone, so that one life serves all three: admission by both sides, the oldest claim
//! wins, one put, one status. What loses its admission or its claim is withdrawn from the registry.

pub mod cache;
mod claim;
mod delete;
mod erase;
mod kinds;
pub mod retention;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_crds::Invalid;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backoff::jittered;
use crate::condition::{Fact, State, Verdict, conditions};
use crate::context::Context;
use crate::follow::Followed;
use crate::metrics::Outcome;
use crate::registry::{RegistryError, Usage};
use crate::status::{self, Status};
use crate::trouble::Trouble;
use crate::watches::Stores;
use crate::{PAUSED, finalizer};
pub use claim::seniority;
use claim::{admitted, claimed, is_undecided};
pub use delete::{Ending, LET_GO, is_overdue, until_let_go};

/// Until replicas may have caught up.
pub const SOON: Duration = Duration::from_millis(300);
/// Reason of what waits for a Tenant that can be read.
const TENANT_UNREADABLE: &str = "TenantUnreadable";
/// Longest time between two looks at what others have to do.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at a claim that another object holds.
pub const RIVALRY: Duration = Duration::from_secs(10);
/// How old what a status says of the registry's own doings may be.
const FRESH: Duration = Duration::from_secs(300);
/// Between two looks at a Secret that nothing watches.
const SECRET_POLL: Duration = Duration::from_secs(30);

/// What the registry says about an object, besides how far it serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<T> {
    /// This.
    News(T),
    /// It was not asked or did not answer: what was known stays.
    NoNews,
    /// It knows nothing, or the object may not be told.
    Nothing,
}

/// What came of asking the registry about an object.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it said.
    pub told: Told<T>,
    /// When to ask again, if sooner than otherwise.
    pub again: Option<Duration>,
}

/// A kind that a namespace declares for a tenant.
pub trait Declared:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + Debug
    + Send
    + Sync
    + 'static
{
    /// Its status.
    type Status: Status;
    /// Its name in the admin API's paths.
    const PATH: &'static str;
    /// Its kind.
    const KIND: &'static str;
    /// What the registry says about an object of it.
    type Report: Send;

    /// Name of its tenant.
    fn tenant(&self) -> &str;
    /// Checks its spec.
    fn validate(&self) -> Result<(), Vec<Invalid>>;
    /// What only one object of its kind may hold in its tenant.
    fn claim(&self) -> Option<String>;
    /// Secrets of its namespace that it names.
    fn secrets(&self) -> Vec<&str>;
    /// What the registry gets.
    fn resolve(&self, follow: &Followed) -> Result<Value, Vec<Invalid>>;
    /// Its status.
    fn status(&self) -> Option<&Self::Status>;
    /// Asks the registry about it. Only of an object that is admitted and holds its claim; `is_programmed` if every
    /// live replica serves it.
    fn ask(
        &self,
        ctx: &Context,
        is_programmed: bool,
    ) -> impl Future<Output = Result<Answer<Self::Report>, Trouble>> + Send;
    /// Aspects of which the registry speaks.
    fn aspects(&self, told: &Told<Self::Report>) -> Vec<Fact>;
    /// A status.
    fn report(&self, conditions: Vec<Condition>, told: Told<Self::Report>) -> Self::Status;
    /// What becomes of its content, now that it is about to go.
    fn ending(&self, _: &Context) -> impl Future<Output = Result<Ending, Trouble>> + Send {
        std::future::ready(Ok(Ending::Stays))
    }
    /// All objects of its kind.
    fn all(ctx: &Context) -> &Stores<Self>;
}

/// Where the registry keeps an object.
pub fn path<K: Declared>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!(
        "tenants/{}/{}/{namespace}/{}",
        object.tenant(),
        K::PATH,
        object.name_any()
    )
}

/// Looks at an object, and makes the registry what it says.
pub async fn reconcile<K: Declared>(object: Arc<K>, ctx: Arc<Context>) -> Result<Action, Trouble> {
    let started = Instant::now();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let key = format!("{}/{namespace}/{name}", K::KIND);
    let api = Api::<K>::namespaced(ctx.client.clone(), &namespace);
    if is_elsewhere(object.as_ref(), &ctx).await? {
        return Ok(Action::await_change());
    }
    if object.meta().deletion_timestamp.is_some() {
        return delete::run(object.as_ref(), &api, &key, &ctx).await;
    }
    if object.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    finalizer::add(&api, object.as_ref()).await?;
    let uid = object.uid().unwrap_or_default();
    let looked = look(object.as_ref(), &uid, &ctx).await;
    let (is_served, is_programmed) = match &looked {
        Ok(Looked::Served) => (true, true),
        Ok(Looked::Behind(_)) => (true, false),
        Ok(Looked::Undecided(_)) | Err(_) => (false, false),
    };
    let (verdict, programmed, again) = match looked {
        Ok(Looked::Served) => {
            ctx.failures.reset(&key);
            ctx.memory.waits_no_more(&uid);
            let programmed = Fact::new(
                "Programmed",
                State::True,
                "Served",
                "every live replica serves it",
            );
            let poll = if object.secrets().is_empty() {
                ctx.settings.resync
            } else {
                SECRET_POLL
            };
            (
                Verdict::Ready("Served", String::new()),
                programmed,
                jittered(poll),
            )
        }
        Ok(Looked::Undecided(why)) => {
            let programmed = Fact::new("Programmed", State::Unknown, TENANT_UNREADABLE, why.clone());
            let again = ctx.failures.next(&key);
            (Verdict::Failing(TENANT_UNREADABLE, why), programmed, again)
        }
        Ok(Looked::Behind(behind)) => {
            let generation = object.meta().generation.unwrap_or_default();
            if ctx.memory.waits_quietly(&uid, generation) {
                return Ok(Action::requeue(SOON));
            }
            let programmed = Fact::new("Programmed", State::Unknown, "ReplicasBehind", behind.clone());
            (
                Verdict::Working("ReplicasBehind", behind),
                programmed,
                patience(ctx.memory.waited(&uid)),
            )
        }
        Err(trouble) if trouble.is_overthrow() => {
            ctx.overthrown.cancel();
            return Err(trouble);
        }
        Err(trouble) => {
            let verdict = trouble.verdict();
            let state = match verdict {
                Verdict::Stalled(..) => State::False,
                _ => State::Unknown,
            };
            let programmed = Fact::new("Programmed", state, verdict.reason(), verdict.message());
            let mut again = ctx.failures.next(&key);
            if verdict.reason() == "Conflict" {
                // The winner may go any moment.
                again = again.min(RIVALRY);
            }
            (verdict, programmed, again)
        }
    };
    // Only who is admitted and holds the name is told what the tenant stores.
    let answer = if is_served {
        object.ask(&ctx, is_programmed).await
    } else if is_undecided(object.as_ref(), &ctx)
        || admitted(object.as_ref(), &ctx)
            .and_then(|()| claimed(object.as_ref(), &ctx))
            .is_ok()
    {
        Ok(Answer::from(Told::NoNews))
    } else {
        Ok(Answer::from(Told::Nothing))
    };
    let Answer { told, again: sooner } = answer.inspect_err(|trouble| {
        if trouble.is_overthrow() {
            ctx.overthrown.cancel();
        }
    })?;
    let again = sooner.map_or(again, |sooner| sooner.min(again));
    let mut facts = verdict.facts().to_vec();
    facts.push(programmed);
    facts.extend(object.aspects(&told));
    let old = object.status().map(Status::conditions).unwrap_or_default();
    let now = Time(Timestamp::now());
    let generation = object.meta().generation.unwrap_or_default();
    let new = object.report(conditions(old, &facts, generation, &now), told);
    status::write(&ctx, &api, object.as_ref(), object.status(), &new).await?;
    status::tell(&ctx, object.as_ref(), old, &verdict).await;
    ctx.metrics
        .reconciled(K::KIND, outcome(&verdict), started.elapsed());
    Ok(Action::requeue(again))
}

/// When to look again at an object that has waited for so long, for replicas or for the edge: after an eighth of that, from
/// a second up to a minute.
pub fn patience(waited: Duration) -> Duration {
    jittered((waited / 8).clamp(Duration::from_secs(1), LONGEST_WAIT))
}

impl<T> From<Told<T>> for Answer<T> {
    fn from(told: Told<T>) -> Self {
        Self { told, again: None }
    }
}

/// What an object stores, asked for every few minutes at most, and for each generation.
pub async fn usage(
    ctx: &Context,
    object: &impl Resource,
    ask: impl Future<Output = Result<Option<Usage>, RegistryError>>,
) -> Told<Usage> {
    let uid = object.meta().uid.clone().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    if let Some(usage) = ctx.memory.usage(&uid, generation, FRESH) {
        return Told::News(usage);
    }
    match ask.await {
        Ok(Some(usage)) => {
            ctx.memory.uses(&uid, generation, usage.clone());
            Told::News(usage)
        }
        Ok(None) => Told::Nothing,
        Err(_) => Told::NoNews,
    }
}

/// Whether another installation of the cluster looks after the object. What names a Tenant that does not exist is
/// nobody's, so that everybody lets it go.
async fn is_elsewhere<K: Declared>(object: &K, ctx: &Context) -> Result<bool, Trouble> {
    let tenants = &ctx.watched.tenants;
    if ctx.settings.tenant_selector.is_none()
        || tenants.get(&ObjectRef::new(object.tenant())).is_some()
        || tenants.unreadable.has("", object.tenant())
    {
        return Ok(false);
    }
    if object.meta().deletion_timestamp.is_none() {
        return Ok(true);
    }
    let tenants = Api::<berth_crds::Tenant>::all(ctx.client.clone());
    Ok(tenants.get_metadata_opt(object.tenant()).await?.is_some())
}

/// What came of a look, for the metrics.
pub fn outcome(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Ready(..) => Outcome::Ready,
        Verdict::Working(..) => Outcome::Working,
        Verdict::Failing(..) => Outcome::Failing,
        Verdict::Stalled(..) => Outcome::Stalled,
    }
}

/// What came of a look.
enum Looked {
    /// Every live replica serves the object.
    Served,
    /// Some do not, and why.
    Behind(String),
    /// Nobody knows whether it is admitted, and why. It is served as it was.
    Undecided(String),
}

async fn look<K: Declared>(object: &K, uid: &str, ctx: &Context) -> Result<Looked, Trouble> {
    object
        .validate()
        .map_err(|problems| Trouble::invalid(&problems))?;
    if is_undecided(object, ctx) && is_stored(object, uid, ctx).await? {
        let tenant = object.tenant();
        return Ok(Looked::Undecided(format!(
            "Tenant {tenant} cannot be read; what was served stays as it was"
        )));
    }
    if let Err(trouble) = admitted(object, ctx).and_then(|()| claimed(object, ctx)) {
        // It may have been served until now.
        ctx.memory.forget(uid);
        ctx.registry.delete(&path(object), false).await?;
        return Err(trouble);
    }
    let namespace = object.namespace().unwrap_or_default();
    let followed = Followed::own(ctx, &namespace, &object.secrets()).await?;
    let spec = object
        .resolve(&followed)
        .map_err(|problems| Trouble::invalid(&problems))?;
    let generation = object.meta().generation.unwrap_or_default();
    let version = put(ctx, &path(object), uid, generation, &spec).await;
    let version = version.map_err(|error| without_others(error, &namespace))?;
    let served = format!(
        "{}/{}/{namespace}/{}",
        K::PATH,
        object.tenant(),
        object.name_any()
    );
    let behind = ctx.registry.replicas().await?.behind(&served, version);
    Ok(behind.map_or(Looked::Served, Looked::Behind))
}

/// Whether the registry has it from this object, which was admitted then. Others are not told that there is such a Tenant.
async fn is_stored<K: Declared>(object: &K, uid: &str, ctx: &Context) -> Result<bool, Trouble> {
    let stored = ctx.registry.object(&path(object)).await?;
    Ok(stored.is_some_and(|stored| stored.uid.as_deref() == Some(uid)))
}

/// A refusal that names no object of another namespace.
fn without_others(error: RegistryError, namespace: &str) -> RegistryError {
    match error {
        RegistryError::Taken(message) if !message.contains(&format!("/{namespace}/")) => {
            RegistryError::Taken(
                "a name that it claims is held by another object of the tenant; choose another".to_owned(),
            )
        }
        error => error,
    }
}

/// Puts content unless this process has just put the same.
pub async fn put(
    ctx: &Context,
    path: &str,
    uid: &str,
    generation: i64,
    spec: &Value,
) -> Result<i64, RegistryError> {
    let body = format!("{generation} {spec}");
    if let Some(version) = ctx.memory.put(uid, &body, ctx.settings.resync / 2) {
        return Ok(version);
    }
    let changed = ctx.registry.put(path, uid, generation, spec).await?;
    ctx.memory.was_put(uid, body, changed.version);
    Ok(changed.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_looked_at_ever_more_rarely() {
        let seconds = |waited: u64| patience(Duration::from_secs(waited)).as_secs_f64();
        for (waited, nominal) in [(3, 1.0), (8, 1.0), (80, 10.0), (480, 60.0), (86_400, 60.0)] {
            let wait = seconds(waited);
            assert!(
                (nominal * 0.75..=nominal * 1.25).contains(&wait),
                "{waited}: {wait}"
            );
        }
        let looks = (0..).scan(0.0, |at, _| {
            *at += seconds(*at as u64);
            (*at < 3600.0).then_some(())
        });
        let count = looks.count();
        assert!(count < 150, "{count} looks in the first hour");
    }
}
