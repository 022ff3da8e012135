//! When an upstream is left alone: it limits pulls, or it has failed again and again.
//!
//! A limit holds until the time that the upstream names, for what it was met by: Docker Hub counts manifests, and a pull
//! whose manifest has been read must go on. Failures in a row open the circuit for a time that doubles; then one
//! request tries, and the others wait for what becomes of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::UpstreamError;

/// Failures in a row that open the circuit.
const PATIENCE: u32 = 3;
/// For how long it is open first.
const FIRST: Duration = Duration::from_secs(2);
/// For how long it is open at most.
const LONGEST: Duration = Duration::from_secs(60);

/// What is asked for: upstreams limit one and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Manifests, tags, referrers.
    Manifest,
    /// Blobs.
    Blob,
}

/// One upstream's health, as this replica has met it.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Until when nobody asks, and why.
    open: Option<(Instant, Arc<str>)>,
    /// Until when this kind is not asked for.
    limited: [Option<(Instant, Arc<str>)>; 2],
}

/// For how long an upstream is to be left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// From now.
    pub after: Duration,
    /// Why.
    pub why: Arc<str>,
    /// Whether it limits pulls; else it has failed.
    pub limits: bool,
}

impl Kind {
    fn at(self) -> usize {
        match self {
            Self::Manifest => 0,
            Self::Blob => 1,
        }
    }
}

impl Health {
    /// How long to leave the upstream alone, and why; nothing if it may be asked now. Whoever may ask after failures
    /// tries for all: `patience` is how long that may take.
    pub fn pause(&self, kind: Kind, now: Instant, patience: Duration) -> Option<Pause> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, why)) = &state.limited[kind.at()] {
            if *until > now {
                return Some(Pause {
                    after: *until - now,
                    why: why.clone(),
                    limits: true,
                });
            }
            state.limited[kind.at()] = None;
        }
        let (until, why) = state.open.clone()?;
        if until > now {
            return Some(Pause {
                after: until - now,
                why,
                limits: false,
            });
        }
        state.open = Some((now + patience, why));
        None
    }

    /// What came of asking. `None`: the upstream answered, be it that there is no such thing.
    pub fn met(&self, kind: Kind, error: Option<&UpstreamError>, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // It speaks; what it says is about one thing.
        let failed = error.filter(|error| !error.is_about_the_question());
        match failed {
            None
            | Some(
                UpstreamError::Absent { .. } | UpstreamError::Denied { .. } | UpstreamError::Strange { .. },
            ) => {
                state.failures = 0;
                state.open = None;
            }
            Some(UpstreamError::Paused { .. }) => {}
            Some(error @ UpstreamError::Limited { after, .. }) => {
                state.failures = 0;
                state.open = None;
                state.limited[kind.at()] = Some((now + *after, error.to_string().into()));
            }
            Some(
                error @ (UpstreamError::Egress(_)
                | UpstreamError::Late { .. }
                | UpstreamError::Broken { .. }
                | UpstreamError::Failing { .. }),
            ) => {
                state.failures = state.failures.saturating_add(1);
                let named = match error {
                    UpstreamError::Failing { after, .. } => *after,
                    _ => None,
                };
                let doubled = (state.failures >= PATIENCE).then(|| {
                    FIRST
                        .saturating_mul(1 << (state.failures - PATIENCE).min(10))
                        .min(LONGEST)
                });
                if let Some(pause) = named.or(doubled) {
                    state.open = Some((now + pause, error.to_string().into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Duration = Duration::from_secs(1);

    fn late() -> UpstreamError {
        UpstreamError::Late {
            host: "up".into(),
            timeout: PATIENT,
        }
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_one_request_tries_again() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..2 {
            health.met(Kind::Blob, Some(&late()), now);
            assert!(health.pause(Kind::Blob, now, PATIENT).is_none());
        }
        health.met(Kind::Manifest, Some(&late()), now);
        let pause = health.pause(Kind::Blob, now, PATIENT).unwrap();
        assert!(
            pause.after <= FIRST && pause.why.contains("did not answer") && !pause.limits,
            "{pause:?}"
        );

        let later = now + FIRST;
        assert!(health.pause(Kind::Blob, later, PATIENT).is_none(), "one tries");
        assert!(
            health.pause(Kind::Blob, later, PATIENT).is_some(),
            "the others wait"
        );
        health.met(Kind::Blob, Some(&late()), later);
        let pause = health.pause(Kind::Blob, later, PATIENT).unwrap().after;
        assert!(pause > FIRST, "it doubles");
        health.met(Kind::Blob, None, later + pause);
        assert!(health.pause(Kind::Blob, later + pause, PATIENT).is_none());
        for _ in 0..1000 {
            health.met(Kind::Blob, Some(&late()), now);
        }
        assert!(health.pause(Kind::Blob, now, PATIENT).unwrap().after <= LONGEST);
    }

    #[test]
    fn a_limit_holds_for_what_it_was_met_by_until_the_named_time() {
        let (health, now) = (Health::default(), Instant::now());
        let limited = UpstreamError::Limited {
            host: "up".into(),
            after: Duration::from_secs(30),
        };
        health.met(Kind::Manifest, Some(&limited), now);
        assert!(health.pause(Kind::Blob, now, PATIENT).is_none());
        assert!(
            health
                .pause(Kind::Manifest, now + Duration::from_secs(29), PATIENT)
                .is_some()
        );
        assert!(
            health
                .pause(Kind::Manifest, now + Duration::from_secs(30), PATIENT)
                .is_none()
        );
    }

    #[test]
    fn an_answer_that_there_is_no_such_thing_is_no_failure() {
        let (health, now) = (Health::default(), Instant::now());
        let absent = UpstreamError::Absent {
            host: "up".into(),
            path: "x".into(),
        };
        for error in [&late(), &late(), &absent, &late(), &late()] {
            health.met(Kind::Blob, Some(error), now);
        }
        assert!(health.pause(Kind::Blob, now, PATIENT).is_none());
    }
}
