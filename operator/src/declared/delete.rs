//! The end of an object: the registry forgets it, and its content goes with it if everything speaks for that.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::{Declared, path};
use crate::context::Context;
use crate::metrics::Outcome;
use crate::registry::RegistryError;
use crate::trouble::Trouble;
use crate::{finalizer, status};

/// After this time an object that is to go is let go although the registry does not answer.
pub const LET_GO: Duration = Duration::from_secs(30);
/// Likewise where its content is to go with it: longer than a registry takes to start again.
const LET_GO_WHOLE: Duration = Duration::from_secs(600);

/// What becomes of content when its object goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// It stays.
    Stays,
    /// It stays although the object says otherwise, and why.
    Kept(&'static str),
    /// It is deleted.
    Goes,
}

/// Takes an object that is about to go back from the registry, and lets it go.
pub async fn run<K: Declared>(object: &K, api: &Api<K>, key: &str, ctx: &Context) -> Result<Action, Trouble> {
    let uid = object.uid().unwrap_or_default();
    let ending = object.ending(ctx).await;
    let patience = match &ending {
        Ok(Ending::Stays | Ending::Kept(_)) => LET_GO,
        // Nothing but the registry's word is missing for its content to go.
        Ok(Ending::Goes) | Err(_) => LET_GO_WHOLE,
    };
    match end(object, ending, ctx).await {
        Ok(Ending::Stays) => {}
        Ok(Ending::Goes) => tracing::info!(key, "its content goes with it"),
        Ok(Ending::Kept(why)) => {
            let note = format!("its content stays in spite of spec.deletionPolicy: {why}");
            status::publish(ctx, object, EventType::Warning, "ContentKept", &note).await;
        }
        Err(trouble) if trouble.is_overthrow() => {
            ctx.overthrown.cancel();
            return Err(trouble);
        }
        Err(Trouble::Registry(error @ RegistryError::Unreachable(_)))
            if is_overdue(object.meta(), patience) =>
        {
            let note = format!(
                "let go although the registry was not told; it is told once it answers, and deletes no content: {error}"
            );
            status::publish(ctx, object, EventType::Warning, "ReleasedUntold", &note).await;
            ctx.untold.notify_one();
        }
        Err(error) => {
            tracing::warn!(%error, key, "a deletion waits");
            let wait = ctx.failures.next(key);
            return Ok(Action::requeue(until_let_go(object.meta(), patience, wait)));
        }
    }
    finalizer::remove(api, object).await?;
    ctx.memory.forget(&uid);
    ctx.failures.reset(key);
    ctx.metrics.reconciled(K::KIND, Outcome::Deleted, Duration::ZERO);
    Ok(Action::await_change())
}

/// Takes the object back from the registry, with its content if that is to go.
async fn end<K: Declared>(
    object: &K,
    ending: Result<Ending, Trouble>,
    ctx: &Context,
) -> Result<Ending, Trouble> {
    let ending = ending?;
    ctx.registry.delete(&path(object), ending == Ending::Goes).await?;
    Ok(ending)
}

/// Whether an object has been about to go for so long that it is let go.
pub fn is_overdue(meta: &ObjectMeta, patience: Duration) -> bool {
    age(meta.deletion_timestamp.as_ref()).is_some_and(|age| age >= patience)
}

/// When to look again at an object that is to go: after `wait`, but no later than when it may be let go.
pub fn until_let_go(meta: &ObjectMeta, patience: Duration, wait: Duration) -> Duration {
    let age = age(meta.deletion_timestamp.as_ref()).unwrap_or_default();
    match patience.saturating_sub(age) {
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
            until_let_go(&deleted(5), LET_GO, Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        let late = until_let_go(&deleted(25), LET_GO, minute);
        assert!(late <= Duration::from_secs(5), "{late:?}");
        assert_eq!(until_let_go(&deleted(100), LET_GO, minute), LET_GO);
        assert_eq!(until_let_go(&deleted(100), LET_GO_WHOLE, minute), minute);
        assert!(is_overdue(&deleted(100), LET_GO) && !is_overdue(&deleted(100), LET_GO_WHOLE));
    }
}
