//! What was last heard of a policy, and when it is time to ask again.

use std::time::{Duration, Instant};

use berth_crds::RetentionPolicy;
use k8s_openapi::jiff::Timestamp;

use crate::backoff::jittered;
use crate::declared::{Answer, FRESH, Told};
use crate::registry::Retention;

/// How long something is awaited.
const AWAITED: Duration = Duration::from_secs(120);
/// Between the first two times that something is asked for.
const FIRST: Duration = Duration::from_secs(1);
/// Until the registry may have run a policy whose time has come.
pub const RUNNING: Duration = Duration::from_secs(20);

/// What was last heard of a policy.
#[derive(Debug, Clone)]
pub struct Heard {
    at: Instant,
    generation: i64,
    awaited: Awaited,
    told: Told<Retention>,
}

/// What the registry is to say next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Awaited {
    preview: Option<Since>,
    /// A run that was asked for.
    pub run: Option<Since>,
}

/// Since when something is awaited, by this process' clock; and from when on it counts, by the calendar.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    at: Instant,
    from: Timestamp,
}

impl Since {
    /// From now on.
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            from: Timestamp::now(),
        }
    }

    /// Whether it is still awaited, at a time when the registry names this one.
    fn goes_on(&self, at: Instant, named: Option<&str>) -> bool {
        let has_come = named.is_some_and(|named| match named.parse::<Timestamp>() {
            Ok(time) if named.contains('.') => time >= self.from,
            // It is written in whole seconds.
            Ok(time) => time.as_second() >= self.from.as_second(),
            Err(_) => false,
        });
        !has_come && at.duration_since(self.at) < AWAITED
    }
}

impl Heard {
    /// What was heard at a time, and what is awaited still.
    pub fn new(at: Instant, generation: i64, awaited: Awaited, told: Told<Retention>) -> Self {
        let known = match &told {
            Told::News(known) => Some(known),
            Told::NoNews | Told::Nothing => None,
        };
        let preview = known.and_then(|known| known.preview.as_ref());
        let run = known.and_then(|known| known.last_run.as_ref());
        let [preview, run] = [
            (awaited.preview, preview.map(|preview| preview.at.as_str())),
            (awaited.run, run.map(|run| run.at.as_str())),
        ]
        .map(|(since, named)| since.filter(|since| since.goes_on(at, named)));
        Self {
            at,
            generation,
            awaited: Awaited { preview, run },
            told,
        }
    }

    /// How long it is good for: while something is awaited half as long as that has been so.
    fn good_for(&self) -> Duration {
        let awaited = [self.awaited.preview, self.awaited.run].into_iter().flatten();
        let waited = awaited.map(|since| self.at.duration_since(since.at)).min();
        waited.map_or(FRESH, |waited| (waited / 2).max(FIRST))
    }

    /// Whether it need not be asked again yet.
    pub fn is_good(&self, generation: i64) -> bool {
        self.generation == generation && self.at.elapsed() < self.good_for()
    }

    /// When to ask again; nothing if whenever the object is looked at anyway will do.
    fn again(&self, now: Instant, clock: Timestamp) -> Option<Duration> {
        let good = (self.at + self.good_for()).saturating_duration_since(now);
        if self.awaited.preview.is_some() || self.awaited.run.is_some() {
            return Some(good);
        }
        let Told::News(known) = &self.told else {
            return None;
        };
        let next: Timestamp = known.next_run.as_ref()?.parse().ok()?;
        let until = Duration::try_from(next.duration_since(clock)).unwrap_or_default();
        Some(good.max(until + jittered(RUNNING)))
    }

    /// It, as an answer of now.
    pub fn answer(&self) -> Answer<Retention> {
        Answer {
            told: self.told.clone(),
            again: self.again(Instant::now(), Timestamp::now()),
        }
    }
}

/// What is awaited of a policy whose present content was put at this time.
pub fn awaited(policy: &RetentionPolicy, heard: Option<&Heard>, put: Timestamp) -> Awaited {
    let generation = policy.metadata.generation.unwrap_or_default();
    let preview = || {
        Some(Since {
            at: Instant::now(),
            from: put,
        })
    };
    match heard {
        Some(heard) if heard.generation == generation => heard.awaited,
        Some(heard) => Awaited {
            preview: preview(),
            run: heard.awaited.run,
        },
        None => {
            let status = policy.status.as_ref();
            let is_known = status
                .is_some_and(|status| status.observed_generation == generation && status.preview.is_some());
            Awaited {
                preview: if is_known { None } else { preview() },
                run: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::RUN_REQUESTED;

    fn known(value: Value) -> Retention {
        serde_json::from_value(value).unwrap()
    }

    fn policy(annotation: Option<&str>, status: Value) -> RetentionPolicy {
        let annotations = annotation.map(|text| json!({ RUN_REQUESTED: text }));
        serde_json::from_value(json!({
            "metadata": { "name": "ci", "namespace": "apps", "generation": 2, "annotations": annotations },
            "spec": { "tenantRef": { "name": "acme" } },
            "status": status,
        }))
        .unwrap()
    }

    fn clock(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn run(second: i64) -> Retention {
        known(json!({ "lastRun": { "at": clock(second).to_string() } }))
    }

    fn preview(second: i64) -> Retention {
        known(json!({ "preview": { "at": clock(second).to_string() } }))
    }

    #[test]
    fn a_preview_is_awaited_for_each_generation_that_a_status_has_not_told_of() {
        let now = clock(0);
        let fresh = awaited(&policy(None, json!({ "observedGeneration": 1 })), None, now);
        assert!(fresh.preview.is_some() && fresh.run.is_none());
        let told = json!({ "observedGeneration": 2, "preview": { "at": "2026-11-01T00:00:00Z" } });
        let policy = policy(None, told);
        assert!(awaited(&policy, None, now).preview.is_none(), "a new leader");
        let heard = |generation| Heard::new(Instant::now(), generation, Awaited::default(), Told::Nothing);
        assert!(awaited(&policy, Some(&heard(2)), now).preview.is_none());
        assert!(awaited(&policy, Some(&heard(1)), now).preview.is_some());
    }

    #[test]
    fn what_is_awaited_is_asked_for_ever_more_rarely_until_it_has_come_or_it_is_given_up() {
        let start = Instant::now();
        let since = Some(Since {
            at: start,
            from: clock(100),
        });
        let for_run = Awaited {
            preview: None,
            run: since,
        };
        let after = |seconds: u64, told: Retention| {
            let at = start + Duration::from_secs(seconds);
            let heard = Heard::new(at, 1, for_run, Told::News(told));
            (heard.good_for().as_secs(), heard.again(at, clock(100)))
        };
        assert_eq!(after(0, run(99)), (1, Some(Duration::from_secs(1))));
        assert_eq!(after(10, run(99)), (5, Some(Duration::from_secs(5))));
        assert_eq!(after(60, Retention::default()).0, 30);
        assert_eq!(after(2, run(100)), (FRESH.as_secs(), None), "in the same second");
        assert_eq!(after(120, run(99)), (FRESH.as_secs(), None), "given up");
        let for_preview = Awaited {
            preview: since,
            run: None,
        };
        let heard = |told| {
            Heard::new(start, 1, for_preview, Told::News(told))
                .awaited
                .preview
                .is_some()
        };
        assert!(heard(preview(99)) && heard(run(100)) && !heard(preview(101)));
    }

    #[test]
    fn what_has_come_is_told_from_what_was_there_as_exactly_as_it_is_written() {
        let start = Instant::now();
        let since = Since {
            at: start,
            from: "2026-11-01T00:00:05.4Z".parse().unwrap(),
        };
        let cases = [
            (Some("2026-11-01T00:00:05.400000Z"), false),
            (Some("2026-11-01T00:00:05.399999Z"), true),
            (Some("2026-11-01T00:00:05Z"), false),
            (Some("2026-11-01T00:00:04Z"), true),
            (Some("soon"), true),
            (None, true),
        ];
        for (named, goes_on) in cases {
            assert_eq!(since.goes_on(start, named), goes_on, "{named:?}");
        }
    }

    #[test]
    fn after_a_scheduled_run_it_is_asked_but_no_more_often_than_every_few_minutes() {
        let start = Instant::now();
        let again = |next: &str| {
            let told = known(json!({ "nextRun": next }));
            Heard::new(start, 1, Awaited::default(), Told::News(told)).again(start, clock(0))
        };
        let hour = again(&clock(3600).to_string()).unwrap().as_secs();
        assert!((3615..=3625).contains(&hour), "{hour}");
        assert_eq!(again(&clock(30).to_string()), Some(FRESH));
        assert_eq!(again(&clock(-30).to_string()), Some(FRESH));
        assert_eq!(again("soon"), None);
    }
}
