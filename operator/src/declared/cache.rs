//! What the registry tells of a PullThroughCache: whether its upstream answers, and what the cache has saved.
//!
//! It is asked every few minutes at most; more often while the upstream does not answer, and while nothing is known of
//! it since the cache was last changed. An upstream that does not answer leaves the cache ready: what it holds is served.

use std::time::{Duration, Instant};

use berth_crds::{PullThroughCache, PullThroughCacheStatus, RateLimit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Answer, Declared as _, FRESH, Told};
use crate::condition::{Fact, State};
use crate::context::Context;
use crate::registry::PullThrough;

/// The aspect that tells whether the upstream answers.
pub const UPSTREAM_REACHABLE: &str = "UpstreamReachable";
/// Its reasons, which stay while the registry says nothing.
const REASONS: [&str; 3] = ["Reachable", "Unreachable", "NotReported"];
/// Between two questions about an upstream that does not answer.
const FAILING: Duration = Duration::from_secs(60);
/// Between the first two questions about one of which nothing is known.
const FIRST: Duration = Duration::from_secs(2);

/// What was last heard of a cache.
#[derive(Debug, Clone)]
pub struct Heard {
    at: Instant,
    /// Since when the cache had the content that this is about.
    put: Timestamp,
    /// For how long the content had been there.
    age: Duration,
    known: PullThrough,
}

impl Heard {
    fn new(put: Timestamp, known: PullThrough) -> Self {
        let age = Timestamp::now().duration_since(put);
        Self {
            at: Instant::now(),
            put,
            age: Duration::try_from(age).unwrap_or_default(),
            known,
        }
    }

    /// How long it is good for.
    fn good_for(&self) -> Duration {
        match self.known.reachable {
            Some(true) => FRESH,
            Some(false) => FAILING,
            None => (self.age / 2).clamp(FIRST, FRESH),
        }
    }

    /// It, as an answer of now; nothing if it is too old or about other content.
    fn answer(&self, put: Timestamp) -> Option<Answer<PullThrough>> {
        let left = self.good_for().checked_sub(self.at.elapsed())?;
        (self.put == put).then(|| Answer {
            told: Told::News(self.known.clone()),
            again: Some(left),
        })
    }
}

/// Asks the registry about a cache that every live replica serves.
pub async fn ask(cache: &PullThroughCache, ctx: &Context, is_programmed: bool) -> Answer<PullThrough> {
    if !is_programmed {
        return Answer::from(Told::NoNews);
    }
    let uid = cache.uid().unwrap_or_default();
    let put = ctx.memory.put_since(&uid).unwrap_or_else(Timestamp::now);
    if let Some(answer) = ctx.memory.cache(&uid).and_then(|heard| heard.answer(put)) {
        return answer;
    }
    let (namespace, name) = (cache.namespace().unwrap_or_default(), cache.name_any());
    match ctx.registry.pull_through(cache.tenant(), &namespace, &name).await {
        Ok(Some(known)) => {
            let heard = Heard::new(put, known);
            let again = Some(heard.good_for());
            let told = Told::News(heard.known.clone());
            ctx.memory.hears_cache(&uid, heard);
            Answer { told, again }
        }
        Ok(None) => Answer {
            told: Told::Nothing,
            again: Some(FAILING),
        },
        Err(error) => {
            tracing::warn!(%error, cache = name, "the registry tells nothing of a cache");
            Answer {
                told: Told::NoNews,
                again: Some(FAILING),
            }
        }
    }
}

/// Whether the upstream answers.
pub fn upstream_reachable(told: &Told<PullThrough>, old: Option<&Condition>) -> Fact {
    let fact = |state, reason, message: String| Fact::new(UPSTREAM_REACHABLE, state, reason, message);
    match told {
        Told::News(known) => match known.reachable {
            Some(true) => fact(State::True, "Reachable", String::new()),
            Some(false) => {
                let why = known.why.clone().filter(|why| !why.is_empty());
                let why = why.unwrap_or_else(|| "the registry does not say why".to_owned());
                fact(State::False, "Unreachable", why)
            }
            None => not_reported(),
        },
        Told::NoNews => {
            let kept = old.and_then(|old| {
                let state = State::of(&old.status)?;
                let reason = REASONS.into_iter().find(|reason| old.reason == *reason)?;
                Some(fact(state, reason, old.message.clone()))
            });
            kept.unwrap_or_else(not_reported)
        }
        Told::Nothing => not_reported(),
    }
}

fn not_reported() -> Fact {
    Fact::new(
        UPSTREAM_REACHABLE,
        State::Unknown,
        "NotReported",
        "the registry has not reported it yet",
    )
}

/// The status that follows the old one.
pub fn new_status(
    old: Option<&PullThroughCacheStatus>,
    observed_generation: i64,
    conditions: Vec<Condition>,
    told: Told<PullThrough>,
) -> PullThroughCacheStatus {
    let shown = match told {
        Told::News(known) => PullThroughCacheStatus {
            hits: known.hits,
            misses: known.misses,
            bytes_saved: known.bytes_saved,
            bytes: known.bytes,
            repositories: known.repositories,
            rate_limit: known.rate_limit.map(|limit| RateLimit {
                limit: limit.limit,
                remaining: limit.remaining,
            }),
            ..PullThroughCacheStatus::default()
        },
        Told::NoNews => old.cloned().unwrap_or_default(),
        // What was told while the namespace was admitted does not stay.
        Told::Nothing => PullThroughCacheStatus::default(),
    };
    PullThroughCacheStatus {
        observed_generation,
        conditions,
        ..shown
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::condition::conditions;

    fn known(value: Value) -> PullThrough {
        serde_json::from_value(value).unwrap()
    }

    fn told(value: Value) -> (State, &'static str, String) {
        let fact = upstream_reachable(&Told::News(known(value)), None);
        assert_eq!(fact.aspect, "UpstreamReachable");
        (fact.state, fact.reason, fact.message)
    }

    #[test]
    fn an_upstream_is_reachable_is_not_or_nobody_knows() {
        let (state, reason, _) = told(json!({ "reachable": true, "why": "an old reason" }));
        assert_eq!((state, reason), (State::True, "Reachable"));
        let (state, reason, message) = told(json!({ "reachable": false, "why": "401 from auth.docker.io" }));
        assert_eq!(
            (state, reason, message.as_str()),
            (State::False, "Unreachable", "401 from auth.docker.io")
        );
        let (state, reason, message) = told(json!({ "reachable": false }));
        assert_eq!((state, reason), (State::False, "Unreachable"));
        assert!(!message.is_empty());
        let (state, reason, _) = told(json!({}));
        assert_eq!((state, reason), (State::Unknown, "NotReported"));
    }

    #[test]
    fn what_was_known_stays_while_the_registry_is_silent_and_goes_with_the_right_to_know_it() {
        let full = known(json!({
            "cache": "apps/hub", "upstream": "https://registry-1.docker.io", "reachable": false, "why": "no route",
            "checkedAt": "2026-11-01T00:00:00Z", "hits": 7, "misses": 2, "bytesSaved": 900, "bytesFetched": 300,
            "rateLimit": { "limit": 100, "remaining": 76 }, "repositories": 3, "bytes": 300,
        }));
        let fact = upstream_reachable(&Told::News(full.clone()), None);
        let old = conditions(&[], std::slice::from_ref(&fact), 1, &Time(Timestamp::UNIX_EPOCH));
        assert_eq!(upstream_reachable(&Told::NoNews, old.first()), fact);
        assert_eq!(upstream_reachable(&Told::NoNews, None).reason, "NotReported");
        assert_eq!(
            upstream_reachable(&Told::Nothing, old.first()).reason,
            "NotReported"
        );

        let first = new_status(None, 1, old.clone(), Told::News(full));
        assert_eq!((first.hits, first.misses, first.bytes_saved), (7, 2, 900));
        assert_eq!((first.bytes, first.repositories), (300, 3));
        assert_eq!(
            first.rate_limit,
            Some(RateLimit {
                limit: 100,
                remaining: 76
            })
        );
        let silent = new_status(Some(&first), 2, old, Told::NoNews);
        assert_eq!((silent.observed_generation, silent.hits), (2, 7));
        let refused = new_status(Some(&first), 2, Vec::new(), Told::Nothing);
        let nothing = PullThroughCacheStatus {
            observed_generation: 2,
            ..PullThroughCacheStatus::default()
        };
        assert_eq!(refused, nothing);
    }

    #[test]
    fn a_cache_is_asked_about_more_often_until_its_upstream_answers() {
        let heard = |age: u64, value: Value| Heard {
            at: Instant::now(),
            put: Timestamp::UNIX_EPOCH,
            age: Duration::from_secs(age),
            known: known(value),
        };
        let seconds = |age, value| heard(age, value).good_for().as_secs();
        assert_eq!(seconds(0, json!({ "reachable": true })), FRESH.as_secs());
        assert_eq!(seconds(9000, json!({ "reachable": false })), 60);
        assert_eq!(
            [0, 10, 60, 9000].map(|age| seconds(age, json!({}))),
            [2, 5, 30, FRESH.as_secs()]
        );
        let reachable = heard(0, json!({ "reachable": true }));
        let answer = reachable.answer(Timestamp::UNIX_EPOCH).expect("it is fresh");
        assert!(
            answer
                .again
                .is_some_and(|again| again <= FRESH && again > FRESH / 2)
        );
        assert!(reachable.answer(Timestamp::now()).is_none(), "other content");
        let old = Heard {
            at: Instant::now().checked_sub(FRESH * 2).expect("an instant"),
            ..reachable
        };
        assert!(old.answer(Timestamp::UNIX_EPOCH).is_none(), "too old");
    }
}
