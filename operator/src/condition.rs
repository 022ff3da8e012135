//! Conditions of a status, so that people and tools that wait read the same.
//!
//! The summary follows the rules that Flux and Helm apply (kstatus): `Reconciling` and `Stalled` are never both
//! true, `Stalled` is for what a person must change, everything else is retried. While work goes on `Ready` is
//! Unknown, not False, since some tools show False as an outage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message in characters; the API server's limit is 32768.
const MESSAGE_LIMIT: usize = 2048;

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Yes.
    True,
    /// No.
    False,
    /// Not known yet.
    Unknown,
}

impl State {
    /// As a condition's `status` says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// By a condition's `status`.
    pub fn of(text: &str) -> Option<Self> {
        [Self::True, Self::False, Self::Unknown]
            .into_iter()
            .find(|state| state.text() == text)
    }
}

/// What is known about one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The condition's type.
    pub aspect: &'static str,
    /// Whether it is so.
    pub state: State,
    /// Why, as a word for programs.
    pub reason: &'static str,
    /// Why, and what to change.
    pub message: String,
}

impl Fact {
    /// A fact.
    pub fn new(aspect: &'static str, state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            aspect,
            state,
            reason,
            message: message.into(),
        }
    }
}

/// How an object fares as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it says.
    Ready(&'static str, String),
    /// On the way.
    Working(&'static str, String),
    /// Something failed that may come right by itself; it is tried again.
    Failing(&'static str, String),
    /// Nothing goes on until a person changes something.
    Stalled(&'static str, String),
}

impl Verdict {
    /// `Ready`, `Reconciling`, `Stalled`.
    pub fn facts(&self) -> [Fact; 3] {
        let (ready, reconciling, stalled, reason, message) = match self {
            Self::Ready(reason, message) => (State::True, State::False, State::False, *reason, message),
            Self::Working(reason, message) => (State::Unknown, State::True, State::False, *reason, message),
            Self::Failing(reason, message) => (State::False, State::True, State::False, *reason, message),
            Self::Stalled(reason, message) => (State::False, State::False, State::True, *reason, message),
        };
        // What is not so needs no story of its own.
        let told = |aspect, state| match state {
            State::True => Fact::new(aspect, state, reason, message.clone()),
            State::False | State::Unknown => Fact::new(aspect, state, "Settled", ""),
        };
        [
            Fact::new("Ready", ready, reason, message.clone()),
            told("Reconciling", reconciling),
            told("Stalled", stalled),
        ]
    }

    /// Its reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ready(reason, _)
            | Self::Working(reason, _)
            | Self::Failing(reason, _)
            | Self::Stalled(reason, _) => reason,
        }
    }

    /// What people are told.
    pub fn message(&self) -> &str {
        match self {
            Self::Ready(_, message)
            | Self::Working(_, message)
            | Self::Failing(_, message)
            | Self::Stalled(_, message) => message,
        }
    }
}

/// The conditions that `facts` make of the `old` ones. A time of transition moves with the state alone; aspects
/// that no fact is about are dropped.
pub fn conditions(old: &[Condition], facts: &[Fact], generation: i64, now: &Time) -> Vec<Condition> {
    let condition = |fact: &Fact| {
        let status = fact.state.text();
        let before = old
            .iter()
            .find(|old| old.type_ == fact.aspect && old.status == status);
        Condition {
            type_: fact.aspect.to_owned(),
            status: status.to_owned(),
            reason: fact.reason.to_owned(),
            message: fact.message.chars().take(MESSAGE_LIMIT).collect(),
            observed_generation: Some(generation),
            last_transition_time: before.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
        }
    };
    facts.iter().map(condition).collect()
}

/// Whether an aspect is true.
pub fn is_true(conditions: &[Condition], aspect: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == aspect && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn reconciling_and_stalled_are_never_both_true() {
        let verdicts = [
            Verdict::Ready("Ready", String::new()),
            Verdict::Working("Waiting", "for replicas".to_owned()),
            Verdict::Failing("Unreachable", "no answer".to_owned()),
            Verdict::Stalled("Conflict", "taken".to_owned()),
        ];
        let states: Vec<_> = verdicts
            .iter()
            .map(|verdict| verdict.facts().map(|fact| fact.state))
            .collect();
        use State::{False, True, Unknown};
        assert_eq!(
            states,
            [
                [True, False, False],
                [Unknown, True, False],
                [False, True, False],
                [False, False, True]
            ]
        );
    }

    #[test]
    fn a_time_of_transition_moves_with_the_state_alone() {
        let fact = |state, reason| [Fact::new("Ready", state, reason, "")];
        let first = conditions(&[], &fact(State::True, "A"), 1, &at(10));
        let same = conditions(&first, &fact(State::True, "B"), 2, &at(20));
        assert_eq!(same[0].last_transition_time, at(10));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            ("B", Some(2))
        );
        let other = conditions(&same, &fact(State::False, "B"), 2, &at(30));
        assert_eq!(other[0].last_transition_time, at(30));
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let long = "é".repeat(5000);
        let cut = conditions(&[], &[Fact::new("Ready", State::True, "A", long)], 1, &at(1));
        assert_eq!(cut[0].message.chars().count(), MESSAGE_LIMIT);
    }
}
