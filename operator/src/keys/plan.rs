//! What an installation's keys need next: pure.
//!
//! A rotation takes three steps, each an overlap apart, so that whoever still knows the old keys alone is never
//! refused: first the new ones are added, then they are preferred and what the old ones signed has ended, then the
//! old admin key goes. Sealing keys are added and never taken away: what they have sealed must be opened again. The
//! registry seals with the one whose name sorts last, so that a new one has a name that sorts first until everybody
//! knows it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::fresh::{Certificate, Fresh};

/// Entry with the admin keys, one a line, of which clients use the first.
pub const ADMIN: &str = "admin";
/// Entry with the admin API's certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// Entry with the certificate's key.
pub const CERTIFICATE_KEY: &str = "tls.key";
/// Entry with the certificates that sign the admin API's.
pub const AUTHORITY: &str = "ca.crt";

/// Beginning of the name of a sealing key that opens but does not seal yet: `-` sorts before every digit.
const NEXT_SEALING: &str = "sealing-0-";

/// Entries of the Secret.
pub type Entries = BTreeMap<String, String>;

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is one of each.
    Settled,
    /// New keys were added.
    Added,
    /// New keys are preferred; the old admin key is still taken.
    Preferred,
}

impl Phase {
    /// As it is written down.
    pub fn text(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Added => "added",
            Self::Preferred => "preferred",
        }
    }

    /// As it was written down; what cannot be read is settled.
    pub fn read(text: Option<&str>) -> Self {
        match text {
            Some("added") => Self::Added,
            Some("preferred") => Self::Preferred,
            _ => Self::Settled,
        }
    }
}

/// The keys as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the Secret holds.
    pub entries: Entries,
    /// How far the last rotation has come.
    pub phase: Phase,
    /// When that began.
    pub since: Timestamp,
    /// Names in the admin API's certificate.
    pub names: Vec<String>,
}

/// What is wanted of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Between two rotations; never if absent.
    pub every: Option<SignedDuration>,
    /// Between two steps of a rotation.
    pub overlap: SignedDuration,
    /// Names in the admin API's certificate.
    pub names: Vec<String>,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// New keys beside the old ones.
    Add,
    /// The new ones first, and those that sign alone.
    Prefer,
    /// The old admin key goes.
    Settle,
    /// A certificate with other names, or for entries that somebody took away.
    Certify,
}

/// What is due at a time; `asked` is whether somebody wants a rotation now.
pub fn next(state: &State, policy: &Policy, asked: bool, now: Timestamp) -> Option<Step> {
    let age = now.duration_since(state.since);
    match state.phase {
        Phase::Added if age >= policy.overlap => return Some(Step::Prefer),
        Phase::Preferred if age >= policy.overlap => return Some(Step::Settle),
        Phase::Settled if asked || policy.every.is_some_and(|every| age >= every) => return Some(Step::Add),
        Phase::Added | Phase::Preferred | Phase::Settled => {}
    }
    let whole = [CERTIFICATE, CERTIFICATE_KEY, AUTHORITY]
        .iter()
        .all(|entry| state.entries.contains_key(*entry));
    (state.names != policy.names || !whole).then_some(Step::Certify)
}

/// The first keys.
pub fn first(fresh: Fresh, policy: &Policy, now: Timestamp) -> State {
    let mut state = State {
        entries: Entries::new(),
        phase: Phase::Settled,
        since: now,
        names: policy.names.clone(),
    };
    add(&mut state.entries, fresh, now);
    // Nobody knows another one.
    use_new_sealing(&mut state.entries);
    state
}

/// The keys after a step.
pub fn take(step: Step, mut state: State, fresh: Fresh, policy: &Policy, now: Timestamp) -> State {
    match step {
        Step::Add => {
            add(&mut state.entries, fresh, now);
            (state.phase, state.names) = (Phase::Added, policy.names.clone());
        }
        Step::Prefer => {
            let keys = lines(&state.entries);
            let newest_first: Vec<&str> = keys.iter().rev().map(String::as_str).collect();
            let keys = text(&newest_first);
            state.entries.insert(ADMIN.to_owned(), keys);
            keep_newest_signing(&mut state.entries);
            use_new_sealing(&mut state.entries);
            keep_newest_authority(&mut state.entries);
            state.phase = Phase::Preferred;
        }
        Step::Settle => {
            let keys = lines(&state.entries);
            let first: Vec<&str> = keys.iter().take(1).map(String::as_str).collect();
            let keys = text(&first);
            state.entries.insert(ADMIN.to_owned(), keys);
            state.phase = Phase::Settled;
        }
        Step::Certify => {
            certify(&mut state.entries, fresh.certificate);
            state.names.clone_from(&policy.names);
            // The time is that of the keys.
            return state;
        }
    }
    state.since = now;
    state
}

fn add(entries: &mut Entries, fresh: Fresh, now: Timestamp) {
    let mut keys = lines(entries);
    keys.push(fresh.admin);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let keys = text(&keys);
    entries.insert(ADMIN.to_owned(), keys);
    // Twelve digits sort by age.
    let second = now.as_second().max(0);
    entries.insert(format!("signing-{second:012}.pem"), fresh.signing);
    entries.insert(format!("{NEXT_SEALING}{second:012}.key"), fresh.sealing);
    certify(entries, fresh.certificate);
}

/// The new certificate is used at once: whoever knows the old authority alone reads the Secret before it asks.
fn certify(entries: &mut Entries, certificate: Certificate) {
    let old = entries.get(AUTHORITY).cloned().unwrap_or_default();
    entries.insert(AUTHORITY.to_owned(), format!("{}{old}", certificate.authority));
    entries.insert(CERTIFICATE.to_owned(), certificate.chain);
    entries.insert(CERTIFICATE_KEY.to_owned(), certificate.key);
}

fn lines(entries: &Entries) -> Vec<String> {
    let keys = entries.get(ADMIN).map(String::as_str).unwrap_or_default();
    let keys = keys.lines().map(str::trim).filter(|key| !key.is_empty());
    keys.map(str::to_owned).collect()
}

fn text(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("{key}\n")).collect()
}

fn keep_newest_signing(entries: &mut Entries) {
    let is_signing = |name: &str| name.starts_with("signing-") && name.ends_with(".pem");
    let newest = entries.keys().rfind(|name| is_signing(name)).cloned();
    entries.retain(|name, _| !is_signing(name) || Some(name) == newest.as_ref());
}

fn use_new_sealing(entries: &mut Entries) {
    let next: Vec<String> = entries
        .keys()
        .filter(|name| name.starts_with(NEXT_SEALING))
        .cloned()
        .collect();
    for name in next {
        if let Some(key) = entries.remove(&name) {
            entries.insert(name.replacen(NEXT_SEALING, "sealing-", 1), key);
        }
    }
}

fn keep_newest_authority(entries: &mut Entries) {
    const END: &str = "-----END CERTIFICATE-----\n";
    if let Some(authority) = entries.get_mut(AUTHORITY)
        && let Some(end) = authority.find(END)
    {
        authority.truncate(end + END.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn policy() -> Policy {
        Policy {
            every: Some(SignedDuration::from_hours(2160)),
            overlap: DAY,
            names: vec!["admin".to_owned()],
        }
    }

    fn fresh(name: &str) -> Fresh {
        let pem =
            |what: &str| format!("-----BEGIN CERTIFICATE-----\n{what}-{name}\n-----END CERTIFICATE-----\n");
        Fresh {
            admin: format!("admin-{name}"),
            signing: format!("signing-{name}"),
            sealing: format!("sealing-{name}"),
            certificate: Certificate {
                chain: pem("leaf"),
                key: format!("key-{name}"),
                authority: pem("ca"),
            },
        }
    }

    fn named<'a>(state: &'a State, prefix: &str) -> Vec<&'a str> {
        let entries = state.entries.iter();
        let entries = entries.filter(|(name, _)| name.starts_with(prefix));
        entries.map(|(_, content)| content.as_str()).collect()
    }

    #[test]
    fn a_rotation_overlaps_at_each_step_and_ends_with_one_of_each() {
        let policy = policy();
        let mut state = first(fresh("a"), &policy, at(0));
        let due = |state: &State, second: i64| next(state, &policy, false, at(second));
        assert_eq!(due(&state, 2159 * 3600), None);
        assert_eq!(due(&state, 2160 * 3600), Some(Step::Add));
        let begun = 2160 * 3600;
        state = take(Step::Add, state, fresh("b"), &policy, at(begun));
        assert_eq!(
            state.entries[ADMIN], "admin-a\nadmin-b\n",
            "the old one is used still"
        );
        assert_eq!(named(&state, "signing-"), ["signing-a", "signing-b"]);
        assert_eq!(
            named(&state, "sealing-"),
            ["sealing-b", "sealing-a"],
            "the last one seals"
        );
        assert!(state.entries[AUTHORITY].contains("ca-a") && state.entries[AUTHORITY].contains("ca-b"));
        assert!(state.entries[CERTIFICATE].contains("leaf-b"));
        let day = 24 * 3600;
        assert_eq!(due(&state, begun + day - 1), None);
        assert_eq!(due(&state, begun + day), Some(Step::Prefer));
        state = take(Step::Prefer, state, fresh("x"), &policy, at(begun + day));
        assert_eq!(
            state.entries[ADMIN], "admin-b\nadmin-a\n",
            "the old one is taken still"
        );
        assert_eq!(named(&state, "signing-"), ["signing-b"]);
        assert!(!state.entries[AUTHORITY].contains("ca-a") && state.entries[AUTHORITY].contains("ca-b"));
        assert_eq!(named(&state, "sealing-"), ["sealing-a", "sealing-b"]);
        assert_eq!(due(&state, begun + 2 * day), Some(Step::Settle));
        state = take(Step::Settle, state, fresh("x"), &policy, at(begun + 2 * day));
        assert_eq!(state.entries[ADMIN], "admin-b\n");
        assert_eq!(named(&state, "sealing-"), ["sealing-a", "sealing-b"]);
        assert_eq!(
            (state.phase, due(&state, begun + 3 * day)),
            (Phase::Settled, None)
        );
    }

    #[test]
    fn a_rotation_that_is_asked_for_begins_at_once_but_not_while_another_goes_on() {
        let policy = Policy {
            every: None,
            ..policy()
        };
        let state = first(fresh("a"), &policy, at(0));
        assert_eq!(next(&state, &policy, false, at(i64::from(i32::MAX))), None);
        assert_eq!(next(&state, &policy, true, at(1)), Some(Step::Add));
        let state = take(Step::Add, state, fresh("b"), &policy, at(1));
        assert_eq!(next(&state, &policy, true, at(2)), None);
    }

    #[test]
    fn other_names_need_another_certificate_and_nothing_else() {
        let policy = policy();
        let state = first(fresh("a"), &policy, at(0));
        let renamed = Policy {
            names: vec!["other".to_owned()],
            ..policy.clone()
        };
        assert_eq!(next(&state, &renamed, false, at(1)), Some(Step::Certify));
        let certified = take(Step::Certify, state.clone(), fresh("b"), &renamed, at(1));
        assert_eq!(next(&certified, &renamed, false, at(2)), None);
        assert_eq!(
            (certified.since, &certified.entries[ADMIN]),
            (state.since, &state.entries[ADMIN])
        );
        assert!(certified.entries[CERTIFICATE].contains("leaf-b"));
        let mut torn = state;
        torn.entries.remove(CERTIFICATE_KEY);
        assert_eq!(next(&torn, &policy, false, at(1)), Some(Step::Certify));
    }
}
