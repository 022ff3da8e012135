//! What the registry tells of a RetentionPolicy: its runs, its preview; and runs that somebody asks for.
//!
//! It is asked every few minutes at most. Sooner while a preview of a new generation or a run that was asked for is
//! awaited: ever more rarely, and not for long. Whether it has come is judged by the registry's times; a registry
//! whose clock goes wrong is asked in vain for that while, or seen a few minutes late.
//!
//! A request is noted in the status before the registry is told, on condition that nobody has changed the object: of
//! several operators one tells it, and none tells it again. One that ends in between loses the request, which is
//! asked for anew by another text; that is better than deleting again what was asked for once.

mod heard;
mod shown;

use std::time::{Duration, Instant};

use berth_crds::RetentionPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::{Answer, Declared as _, Told};
use crate::RUN_REQUESTED;
use crate::backoff::jittered;
use crate::context::Context;
use crate::registry::{PolicyName, RegistryError, Retention};
use crate::status;
use crate::trouble::Trouble;
pub use heard::Heard;
use heard::{RUNNING, Since, awaited};
pub use shown::{LAST_RUN, last_run, new_status};

/// The status field with the last request for which a run was asked for.
pub const LAST_REQUEST: &str = "lastHandledRequest";

/// Characters of a request that count.
const REQUEST_LENGTH: usize = 256;
/// Until a run that goes on may have ended.
const BUSY: Duration = Duration::from_secs(5);
/// Until an object that somebody else has just changed is seen as it is.
const SOON: Duration = Duration::from_secs(1);

/// Asks for a run if somebody wants one, and what the registry knows of the policy.
pub async fn ask(
    policy: &RetentionPolicy,
    ctx: &Context,
    is_programmed: bool,
) -> Result<Answer<Retention>, Trouble> {
    let uid = policy.uid().unwrap_or_default();
    let generation = policy.metadata.generation.unwrap_or_default();
    let name = PolicyName::new(&policy.namespace().unwrap_or_default(), &policy.name_any());
    // Every replica must know what it is to do.
    let request = requested(policy).filter(|_| is_programmed);
    let heard = ctx.memory.retention(&uid);
    if let (None, Some(heard)) = (&request, &heard)
        && heard.is_good(generation)
    {
        return Ok(heard.answer());
    }
    let put = ctx.memory.put_since(&uid).unwrap_or_else(Timestamp::now);
    let mut awaited = awaited(policy, heard.as_ref(), put);
    let mut told = match ctx.registry.retention(policy.tenant(), &name).await {
        Ok(known) => known.map_or(Told::Nothing, Told::News),
        Err(error) => {
            tracing::warn!(%error, policy = policy.name_any(), "the registry tells nothing of a policy");
            return Ok(Answer {
                told: Told::NoNews,
                again: Some(jittered(RUNNING)),
            });
        }
    };
    let mut waits = None;
    match (request, &told) {
        (Some(request), Told::News(known)) if !known.running => {
            match request_run(policy, &request, &name, ctx).await? {
                Requested::Overtaken => waits = Some(SOON),
                Requested::Busy => waits = Some(jittered(BUSY)),
                Requested::Refused => {}
                Requested::Run(since, known) => {
                    awaited.run = Some(since);
                    told = known.map_or(Told::NoNews, |known| Told::News(*known));
                }
            }
        }
        // The request is for a run that begins after it.
        (Some(_), _) => waits = Some(jittered(BUSY)),
        (None, _) => {}
    }
    let heard = Heard::new(Instant::now(), generation, awaited, told);
    let mut answer = heard.answer();
    ctx.memory.hears(&uid, heard);
    answer.again = [answer.again, waits].into_iter().flatten().min();
    Ok(answer)
}

/// A request for a run that nobody has seen to.
fn requested(policy: &RetentionPolicy) -> Option<String> {
    let text = policy.annotations().get(RUN_REQUESTED)?;
    let request: String = text.chars().take(REQUEST_LENGTH).collect();
    let status = policy.status.as_ref();
    let handled = status.and_then(|status| status.last_handled_request.as_ref());
    (!request.is_empty() && handled != Some(&request)).then_some(request)
}

/// What came of a request for a run.
enum Requested {
    /// Somebody has changed the object meanwhile, perhaps by seeing to it.
    Overtaken,
    /// The policy is being run, as it was already.
    Busy,
    /// The registry did not take it; the request is over.
    Refused,
    /// The registry was asked; what it says, if anything.
    Run(Since, Option<Box<Retention>>),
}

async fn request_run(
    policy: &RetentionPolicy,
    request: &str,
    name: &PolicyName,
    ctx: &Context,
) -> Result<Requested, Trouble> {
    let api = Api::<RetentionPolicy>::namespaced(ctx.client.clone(), &policy.namespace().unwrap_or_default());
    let Some(noted) = status::note(&api, policy, LAST_REQUEST, Some(request)).await? else {
        return Ok(Requested::Overtaken);
    };
    let since = Since::now();
    match ctx.registry.run_retention(policy.tenant(), name).await {
        Ok(known) => {
            tracing::info!(policy = policy.name_any(), request, "a run was asked for");
            Ok(Requested::Run(since, known.map(Box::new)))
        }
        // Surely nothing has begun: it is the successor's, or its time comes.
        Err(error @ (RegistryError::StaleTerm(_) | RegistryError::Busy(_))) => {
            let before = policy.status.as_ref();
            let before = before.and_then(|status| status.last_handled_request.as_deref());
            if let Err(error) = status::note(&api, &noted, LAST_REQUEST, before).await {
                tracing::warn!(%error, request, "a run that was asked for is lost");
            }
            match error {
                RegistryError::Busy(_) => Ok(Requested::Busy),
                error => Err(error.into()),
            }
        }
        Err(error) => {
            let note = format!("the run {request:?} may not have begun, ask for another one: {error}");
            status::publish(ctx, policy, EventType::Warning, "RunNotStarted", &note).await;
            Ok(Requested::Refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(annotation: Option<&str>, status: Value) -> RetentionPolicy {
        let annotations = annotation.map(|text| json!({ RUN_REQUESTED: text }));
        serde_json::from_value(json!({
            "metadata": { "name": "ci", "namespace": "apps", "generation": 2, "annotations": annotations },
            "spec": { "tenantRef": { "name": "acme" } },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_request_is_any_new_text_and_counts_once() {
        let of = |text: Option<&str>, handled: Option<&str>| {
            requested(&policy(text, json!({ "lastHandledRequest": handled })))
        };
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(""), None), None);
        assert_eq!(of(Some("now"), None).as_deref(), Some("now"));
        assert_eq!(of(Some("now"), Some("now")), None);
        assert_eq!(of(Some("again"), Some("now")).as_deref(), Some("again"));
        let long = "é".repeat(1000);
        let handled = of(Some(&long), None).unwrap();
        assert_eq!(handled.chars().count(), 256);
        assert_eq!(
            of(Some(&long), Some(&handled)),
            None,
            "it counts by what the status can hold"
        );
    }
}
