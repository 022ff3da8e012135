//! Secrets that could not be had: why, and when each is tried again.
//!
//! An attempt at a Secret may cost a token at the registry, and there are many reasons to look at a Tenant. So a look is
//! no reason to try again: the time is, or a change of what the attempt was made of.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::credential::Credential;
use super::Failure;
use crate::backoff;

/// Between two attempts that a person is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an attempt is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    /// The Tenant's.
    pub generation: i64,
    /// The Tenant's request.
    pub revoke_before: Option<String>,
    /// Version of the Secret, if there is one.
    pub secret: Option<String>,
}

#[derive(Debug, Clone)]
struct Retry {
    basis: Basis,
    failures: u32,
    until: Instant,
    why: Failure,
}

/// The Secrets of a tenant that could not be had, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Retries(HashMap<(String, String), Retry>);

fn key(credential: &Credential) -> (String, String) {
    (credential.namespace.clone(), credential.secret.clone())
}

impl Retries {
    /// Why it could not be had, and how long it is not tried again.
    pub(super) fn held(
        &self,
        credential: &Credential,
        basis: &Basis,
        now: Instant,
    ) -> Option<(Failure, Duration)> {
        let retry = self.0.get(&key(credential))?;
        let wait = retry.until.saturating_duration_since(now);
        (retry.basis == *basis && !wait.is_zero()).then(|| (retry.why.clone(), wait))
    }

    /// Whether the last attempt failed.
    pub(super) fn has_failed(&self, credential: &Credential) -> bool {
        self.0.contains_key(&key(credential))
    }

    /// Notes that an attempt failed; how long until the next.
    pub(super) fn failed(
        &mut self,
        credential: &Credential,
        basis: Basis,
        why: Failure,
        now: Instant,
    ) -> Duration {
        let key = key(credential);
        let failures = self.0.get(&key).map_or(0, |retry| retry.failures);
        let wait = backoff::delay(failures);
        let wait = match why {
            Failure::Refused(_) => wait.min(PATIENCE),
            Failure::Passing(_) => wait,
        };
        let retry = Retry {
            basis,
            failures: failures.saturating_add(1),
            until: now + wait,
            why,
        };
        self.0.insert(key, retry);
        wait
    }

    /// Notes that it was had.
    pub(super) fn done(&mut self, credential: &Credential) {
        self.0.remove(&key(credential));
    }

    /// Forgets all but these.
    pub(super) fn only(&mut self, wanted: &[Credential]) {
        if !self.0.is_empty() {
            let wanted: Vec<_> = wanted.iter().map(key).collect();
            self.0.retain(|key, _| wanted.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::credential::Purpose;
    use super::*;

    fn credential(namespace: &str) -> Credential {
        Credential {
            purpose: Purpose::Pull,
            name: "pull".to_owned(),
            namespace: namespace.to_owned(),
            secret: "berth-acme".to_owned(),
            grants: Vec::new(),
            expires_after: None,
            rotate_every: None,
            hosts: Vec::new(),
        }
    }

    fn basis(secret: Option<&str>) -> Basis {
        Basis {
            generation: 1,
            revoke_before: None,
            secret: secret.map(str::to_owned),
        }
    }

    fn passing() -> Failure {
        Failure::Passing("forbidden".to_owned())
    }

    #[test]
    fn a_secret_is_tried_again_later_each_time_until_it_is_had() {
        let (mut retries, apps, now) = (Retries::default(), credential("apps"), Instant::now());
        assert_eq!(retries.held(&apps, &basis(None), now), None);
        let mut wait = Duration::ZERO;
        for _ in 0..12 {
            wait = retries.failed(&apps, basis(None), passing(), now);
        }
        assert!(wait > Duration::from_secs(200), "{wait:?}");
        assert_eq!(
            retries.held(&apps, &basis(None), now),
            Some((passing(), wait)),
            "however often it is looked at"
        );
        assert_eq!(retries.held(&apps, &basis(None), now + wait), None);
        assert!(retries.has_failed(&apps));
        retries.done(&apps);
        assert!(!retries.has_failed(&apps));
        assert!(retries.failed(&apps, basis(None), passing(), now) < Duration::from_secs(2));
    }

    #[test]
    fn a_change_of_what_it_is_made_of_waits_for_nothing() {
        let (mut retries, apps, now) = (Retries::default(), credential("apps"), Instant::now());
        retries.failed(&apps, basis(Some("7")), passing(), now);
        assert!(retries.held(&apps, &basis(Some("7")), now).is_some());
        assert_eq!(retries.held(&apps, &basis(Some("8")), now), None);
        assert_eq!(retries.held(&apps, &basis(None), now), None);
        let edited = Basis {
            generation: 2,
            ..basis(Some("7"))
        };
        assert_eq!(retries.held(&apps, &edited, now), None);
        let revoked = Basis {
            revoke_before: Some("2026-01-31T12:00:00Z".to_owned()),
            ..basis(Some("7"))
        };
        assert_eq!(retries.held(&apps, &revoked, now), None);
    }

    #[test]
    fn secrets_that_are_wanted_no_longer_are_forgotten() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let (apps, gone) = (credential("apps"), credential("gone"));
        for credential in [&apps, &gone] {
            retries.failed(credential, basis(None), passing(), now);
        }
        retries.only(std::slice::from_ref(&apps));
        assert!(retries.has_failed(&apps) && !retries.has_failed(&gone));
    }
}
