//! Repositories, RetentionPolicies and PullThroughCaches: what a namespace declares for a tenant.
//!
//! They differ in their specs alone, so that one life serves all three: admission by both sides, the oldest claim
//! wins, one put, one status. What loses its admission or its claim is withdrawn from the registry.

mod kinds;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_crds::Invalid;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admission::admits;
use crate::backoff::jittered;
use crate::condition::{Fact, State, Verdict, conditions, is_true};
use crate::context::Context;
use crate::follow::Followed;
use crate::metrics::Outcome;
use crate::registry::{RegistryError, Usage};
use crate::status::{self, Status};
use crate::trouble::Trouble;
use crate::watches::Stores;
use crate::{PAUSED, finalizer};

/// After this time an object that is to go is let go although the registry does not answer.
pub const LET_GO: Duration = Duration::from_secs(30);
/// Until replicas may have caught up.
pub const SOON: Duration = Duration::from_millis(300);
/// Between two looks at a claim that another object holds.
pub const RIVALRY: Duration = Duration::from_secs(10);
/// How old what a status says about usage may be.
const USAGE_FRESH: Duration = Duration::from_secs(300);
/// Between two looks at a Secret that nothing watches.
const SECRET_POLL: Duration = Duration::from_secs(30);

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
    /// Aspects that the registry reports by itself.
    const REPORTED: &'static [&'static str];

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
    /// The repository of which its status says what it stores.
    fn repository(&self) -> Option<&str> {
        None
    }
    /// A status; `usage` is what its repository stores, if that is known and meant for the object's namespace.
    fn report(&self, conditions: Vec<Condition>, usage: Option<Usage>) -> Self::Status;
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
        return delete(object.as_ref(), &api, &key, &ctx).await;
    }
    if object.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    finalizer::add(&api, object.as_ref()).await?;
    let uid = object.uid().unwrap_or_default();
    let looked = look(object.as_ref(), &uid, &ctx).await;
    // Only who is admitted and holds the name is told what the tenant stores.
    let is_served = looked.is_ok();
    let (verdict, programmed, again) = match looked {
        Ok(None) => {
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
        Ok(Some(behind)) => {
            let generation = object.meta().generation.unwrap_or_default();
            if ctx.memory.waits_quietly(&uid, generation) {
                return Ok(Action::requeue(SOON));
            }
            let programmed = Fact::new("Programmed", State::Unknown, "ReplicasBehind", behind.clone());
            (
                Verdict::Working("ReplicasBehind", behind),
                programmed,
                Duration::from_secs(1),
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
    let mut facts = verdict.facts().to_vec();
    facts.push(programmed);
    let old = object.status().map(Status::conditions).unwrap_or_default();
    for &aspect in K::REPORTED {
        facts.push(reported(old, aspect));
    }
    let now = Time(Timestamp::now());
    let generation = object.meta().generation.unwrap_or_default();
    let usage = match object.repository() {
        Some(repository) if is_served => {
            usage(&ctx, &uid, async || {
                ctx.registry.repository_usage(object.tenant(), repository).await
            })
            .await
        }
        Some(_) | None => None,
    };
    let new = object.report(conditions(old, &facts, generation, &now), usage);
    status::write(&ctx, &api, object.as_ref(), object.status(), &new).await?;
    status::tell(&ctx, object.as_ref(), old, &verdict).await;
    ctx.metrics
        .reconciled(K::KIND, outcome(&verdict), started.elapsed());
    Ok(Action::requeue(again))
}

/// What something stores, asked for every few minutes at most; nothing if it is not known.
pub async fn usage(
    ctx: &Context,
    uid: &str,
    ask: impl AsyncFnOnce() -> Result<Option<Usage>, RegistryError>,
) -> Option<Usage> {
    if let Some(usage) = ctx.memory.usage(uid, USAGE_FRESH) {
        return Some(usage);
    }
    let usage = ask().await.ok().flatten()?;
    ctx.memory.uses(uid, usage);
    Some(usage)
}

/// Whether another installation of the cluster looks after the object. What names a Tenant that does not exist is
/// nobody's, so that everybody lets it go.
async fn is_elsewhere<K: Declared>(object: &K, ctx: &Context) -> Result<bool, Trouble> {
    if ctx.settings.tenant_selector.is_none()
        || ctx
            .watched
            .tenants
            .get(&ObjectRef::new(object.tenant()))
            .is_some()
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

/// An aspect of which the registry has said nothing yet.
fn reported(_: &[Condition], aspect: &'static str) -> Fact {
    Fact::new(
        aspect,
        State::Unknown,
        "NotReported",
        "the registry has not reported it yet",
    )
}

/// Nothing if every live replica serves the object; else why not.
async fn look<K: Declared>(object: &K, uid: &str, ctx: &Context) -> Result<Option<String>, Trouble> {
    object
        .validate()
        .map_err(|problems| Trouble::invalid(&problems))?;
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
    Ok(ctx.registry.replicas().await?.behind(&served, version))
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

fn admitted<K: Declared>(object: &K, ctx: &Context) -> Result<(), Trouble> {
    let (tenant, namespace) = (object.tenant(), object.namespace().unwrap_or_default());
    let found = ctx.watched.tenants.get(&ObjectRef::new(tenant));
    let admits = found.is_some_and(|tenant| {
        tenant.metadata.deletion_timestamp.is_none()
            && ctx
                .labels_of(&namespace)
                .is_some_and(|labels| admits(&tenant.spec.allowed_namespaces, &labels))
    });
    // Whether there is such a Tenant is not told to namespaces that it does not admit.
    admits.then_some(()).ok_or_else(|| {
        Trouble::stalled(
            "NotAdmitted",
            format!("there is no Tenant {tenant} that admits namespace {namespace} (spec.allowedNamespaces)"),
        )
    })
}

/// The oldest object wins; of those of one second the one that is served already.
fn claimed<K: Declared>(object: &K, ctx: &Context) -> Result<(), Trouble> {
    let Some(claim) = object.claim() else {
        return Ok(());
    };
    let age = |object: &K| {
        let conditions = object.status().map(Status::conditions).unwrap_or_default();
        seniority(object, conditions)
    };
    let mut rivals = K::all(ctx).all();
    rivals.retain(|other| {
        other.uid() != object.uid()
            && other.meta().deletion_timestamp.is_none()
            && other.tenant() == object.tenant()
            && other.claim().as_ref() == Some(&claim)
            && age(other) < age(object)
            && admitted(other.as_ref(), ctx).is_ok()
    });
    match rivals.first() {
        None => Ok(()),
        Some(winner) if winner.namespace() == object.namespace() => Err(Trouble::stalled(
            "Conflict",
            format!("{claim} is already declared by {} {}", K::KIND, winner.name_any()),
        )),
        // What other namespaces hold is not told.
        Some(_) => Err(Trouble::stalled(
            "Conflict",
            format!("{claim} is already declared elsewhere in the tenant"),
        )),
    }
}

/// Orders rivals: creation, in whole seconds, then who is served already, then the uid.
pub fn seniority(
    object: &impl Resource,
    conditions: &[Condition],
) -> (Option<Timestamp>, bool, Option<String>) {
    let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    (
        created,
        !is_true(conditions, "Programmed"),
        object.meta().uid.clone(),
    )
}

async fn delete<K: Declared>(object: &K, api: &Api<K>, key: &str, ctx: &Context) -> Result<Action, Trouble> {
    let uid = object.uid().unwrap_or_default();
    match ctx.registry.delete(&path(object), false).await {
        Ok(_) => {}
        Err(error @ RegistryError::Unreachable(_))
            if is_overdue(object.meta().deletion_timestamp.as_ref()) =>
        {
            let note =
                format!("let go although the registry was not told; it is told once it answers: {error}");
            status::publish(ctx, object, EventType::Warning, "ReleasedUntold", &note).await;
            ctx.untold.notify_one();
        }
        Err(error) => {
            tracing::warn!(%error, key, "a deletion waits");
            let wait = ctx.failures.next(key);
            return Ok(Action::requeue(until_let_go(object.meta(), wait)));
        }
    }
    finalizer::remove(api, object).await?;
    ctx.memory.forget(&uid);
    ctx.failures.reset(key);
    ctx.metrics.reconciled(K::KIND, Outcome::Deleted, Duration::ZERO);
    Ok(Action::await_change())
}

/// Whether an object has been about to go for so long that it is let go.
pub fn is_overdue(deleted: Option<&Time>) -> bool {
    age(deleted).is_some_and(|age| age >= LET_GO)
}

/// When to look again at an object that is to go: after `wait`, but no later than when it may be let go.
pub fn until_let_go(meta: &ObjectMeta, wait: Duration) -> Duration {
    let age = age(meta.deletion_timestamp.as_ref()).unwrap_or_default();
    match LET_GO.saturating_sub(age) {
        Duration::ZERO => wait.min(LET_GO),
        left => wait.min(left),
    }
}

/// For how long an object has been about to go.
fn age(deleted: Option<&Time>) -> Option<Duration> {
    Duration::try_from(Timestamp::now().duration_since(deleted?.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_go_is_looked_at_when_it_may_be_let_go() {
        let deleted = |seconds_ago: i64| ObjectMeta {
            deletion_timestamp: Some(Time(
                Timestamp::from_second(Timestamp::now().as_second() - seconds_ago).expect("a time"),
            )),
            ..ObjectMeta::default()
        };
        let minute = Duration::from_secs(60);
        assert_eq!(
            until_let_go(&deleted(5), Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        let late = until_let_go(&deleted(25), minute);
        assert!(late <= Duration::from_secs(5), "{late:?}");
        assert_eq!(until_let_go(&deleted(100), minute), LET_GO);
    }
}
