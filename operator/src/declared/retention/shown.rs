//! What a status shows of what the registry said.

use berth_crds::{LastRun, Preview, RetentionPolicyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::condition::{Fact, State};
use crate::declared::Told;
use crate::registry::Retention;
use crate::status::fits;

/// The aspect that tells how the last run went.
pub const LAST_RUN: &str = "LastRunSucceeded";
/// Its reasons, which stay while the registry says nothing.
const REASONS: [&str; 4] = ["Succeeded", "DryRun", "Failed", "NotRunYet"];

/// How the last run went.
pub fn last_run(told: &Told<Retention>, old: Option<&Condition>) -> Fact {
    let fact = |state, reason, message: String| Fact::new(LAST_RUN, state, reason, message);
    let run = match told {
        Told::News(known) => known.last_run.as_ref(),
        Told::Nothing => None,
        Told::NoNews => {
            let kept = old.and_then(|old| {
                let state = State::of(&old.status)?;
                let reason = REASONS.into_iter().find(|reason| old.reason == *reason)?;
                Some(fact(state, reason, old.message.clone()))
            });
            return kept.unwrap_or_else(not_run_yet);
        }
    };
    match run {
        None => not_run_yet(),
        Some(run) => match &run.error {
            Some(error) => fact(State::False, "Failed", error.clone()),
            None if run.dry_run => fact(
                State::True,
                "DryRun",
                format!(
                    "{} tags were looked at, none was deleted (spec.dryRun)",
                    run.evaluated
                ),
            ),
            None => fact(
                State::True,
                "Succeeded",
                format!("{} of {} tags were deleted", run.deleted_tags, run.evaluated),
            ),
        },
    }
}

fn not_run_yet() -> Fact {
    Fact::new(
        LAST_RUN,
        State::Unknown,
        "NotRunYet",
        "it has not run yet, as far as is known",
    )
}

/// A status of what is known now. The last request is written apart.
pub fn new_status(
    old: Option<&RetentionPolicyStatus>,
    observed_generation: i64,
    conditions: Vec<Condition>,
    told: Told<Retention>,
) -> RetentionPolicyStatus {
    let old = old.cloned().unwrap_or_default();
    let last_handled_request = old.last_handled_request.clone();
    let (last_run, next_run, preview) = match told {
        Told::News(known) => shown(known),
        Told::NoNews => (old.last_run, old.next_run, old.preview),
        // What was told while the namespace was admitted does not stay.
        Told::Nothing => (None, None, None),
    };
    RetentionPolicyStatus {
        observed_generation,
        conditions,
        last_run,
        next_run,
        preview,
        last_handled_request,
    }
}

fn shown(known: Retention) -> (Option<LastRun>, Option<String>, Option<Preview>) {
    let is_time = |time: &String| fits(time, 64);
    let last_run = known.last_run.filter(|run| is_time(&run.at)).map(|run| LastRun {
        at: run.at,
        evaluated: run.evaluated,
        deleted_tags: run.deleted_tags,
        reclaimable: run.reclaimable,
        dry_run: run.dry_run,
    });
    let preview = known.preview.filter(|preview| is_time(&preview.at));
    let preview = preview.map(|preview| Preview {
        at: preview.at,
        would_delete: preview.would_delete,
        reclaimable: preview.reclaimable,
        sample: preview
            .sample
            .into_iter()
            .filter(|tag| fits(tag, 512))
            .take(32)
            .collect(),
    });
    (last_run, known.next_run.filter(is_time), preview)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::condition::conditions;

    fn known(value: Value) -> Retention {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_last_run_is_told_as_it_went() {
        let of = |value: Value| {
            let fact = last_run(&Told::News(known(value)), None);
            (fact.state, fact.reason, fact.message)
        };
        let run = |more: Value| {
            let mut run = json!({ "at": "2026-11-01T00:00:00Z", "evaluated": 9, "deletedTags": 4 });
            run.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({ "lastRun": run })
        };
        let (state, reason, message) = of(run(json!({})));
        assert_eq!((state, reason), (State::True, "Succeeded"));
        assert!(message.contains("4 of 9"), "{message}");
        let (state, reason, _) = of(run(json!({ "dryRun": true, "deletedTags": 0 })));
        assert_eq!((state, reason), (State::True, "DryRun"));
        let (state, reason, message) = of(run(json!({ "dryRun": true, "error": "no store" })));
        assert_eq!(
            (state, reason, message.as_str()),
            (State::False, "Failed", "no store")
        );
        let (state, reason, _) = of(json!({}));
        assert_eq!((state, reason), (State::Unknown, "NotRunYet"));
    }

    #[test]
    fn what_was_known_stays_while_the_registry_is_silent_and_goes_with_the_right_to_know_it() {
        let failed = last_run(
            &Told::News(known(
                json!({ "lastRun": { "at": "2026-11-01T00:00:00Z", "error": "no store" } }),
            )),
            None,
        );
        let told = known(json!({
            "lastRun": { "at": "2026-11-01T00:00:00Z" }, "nextRun": "2026-11-01T01:00:00Z",
            "preview": { "at": "2026-11-01T00:30:00Z", "wouldDelete": 2, "sample": ["api:v1", "api:v2"] },
        }));
        let old = conditions(
            &[],
            std::slice::from_ref(&failed),
            1,
            &Time(Timestamp::UNIX_EPOCH),
        );
        assert_eq!(last_run(&Told::NoNews, old.first()), failed);
        assert_eq!(last_run(&Told::NoNews, None).reason, "NotRunYet");
        assert_eq!(last_run(&Told::Nothing, old.first()).reason, "NotRunYet");
        let mut first = new_status(None, 1, old.clone(), Told::News(told));
        first.last_handled_request = Some("once".to_owned());
        let silent = new_status(Some(&first), 1, old, Told::NoNews);
        assert_eq!(silent, first);
        let refused = new_status(Some(&first), 1, Vec::new(), Told::Nothing);
        assert_eq!(
            (refused.last_run, refused.next_run, refused.preview),
            (None, None, None)
        );
        assert_eq!(refused.last_handled_request.as_deref(), Some("once"));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_left_out() {
        let long = "a".repeat(513);
        let mut sample = vec![long];
        sample.extend((0..40).map(|at| format!("api:v{at}")));
        let told = known(json!({
            "nextRun": "x".repeat(65), "preview": { "at": "2026-11-01T00:30:00Z", "sample": sample },
        }));
        let shown = new_status(None, 1, Vec::new(), Told::News(told));
        assert_eq!(shown.next_run, None);
        let sample = shown.preview.unwrap().sample;
        assert_eq!((sample.len(), sample[0].as_str()), (32, "api:v0"));
    }
}
