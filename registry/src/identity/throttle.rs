//! Limits on failed logins: ten a minute for each tenant, user name and address.
//!
//! A secret of 256 bits is not guessed; this keeps the attempts from costing anything, and tells of them.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::metadata::TenantId;

/// Failures allowed in a window.
const FAILURES: u32 = 10;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(60);
/// containerd sends a wrong password by POST and again by GET: within this time it counts once.
const SAME: Duration = Duration::from_secs(10);
/// Most logins watched at once.
const WATCHED: u64 = 100_000;

/// Who tries: tenant, user name, and address, where a whole IPv6 network of 64 bits is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Login {
    tenant: Option<TenantId>,
    user: u64,
    address: IpAddr,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    failures: u32,
    /// The latest wrong secret, and when.
    latest: Option<(u64, Instant)>,
}

/// Watches failed logins of this process.
pub struct Throttle {
    hasher: RandomState,
    windows: Cache<Login, Arc<Mutex<Window>>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            windows: Cache::builder()
                .max_capacity(WATCHED)
                .time_to_idle(WINDOW)
                .build(),
        }
    }
}

impl Throttle {
    /// Names a login.
    pub fn login(&self, tenant: Option<TenantId>, user: &str, address: IpAddr) -> Login {
        let address = match address.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 => v4,
        };
        Login {
            tenant,
            user: self.hasher.hash_one(user),
            address,
        }
    }

    /// How long this login must wait, if it must.
    pub fn wait(&self, login: &Login, now: Instant) -> Option<Duration> {
        let window = self.windows.get(login)?;
        let window = window.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = (window.began + WINDOW).saturating_duration_since(now);
        (window.failures >= FAILURES && !rest.is_zero()).then_some(rest)
    }

    /// Counts a failure.
    pub fn failed(&self, login: &Login, secret: &str, now: Instant) {
        let fresh = || {
            Arc::new(Mutex::new(Window {
                began: now,
                failures: 0,
                latest: None,
            }))
        };
        let window = self.windows.get_with_by_ref(login, fresh);
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.began) >= WINDOW {
            (window.began, window.failures) = (now, 0);
        }
        let secret = self.hasher.hash_one(secret);
        let again = window
            .latest
            .is_some_and(|(latest, at)| latest == secret && now.saturating_duration_since(at) < SAME);
        if !again {
            window.failures = window.failures.saturating_add(1);
        }
        // A repetition does not repeat for ever: the next one counts.
        window.latest = (!again).then_some((secret, now));
    }

    /// Forgets the failures of a login that succeeded.
    pub fn succeeded(&self, login: &Login) {
        if self.windows.contains_key(login) {
            self.windows.invalidate(login);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_minute_are_allowed() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let login = throttle.login(Some(TenantId(1)), "x-token", [10, 0, 0, 1].into());
        for n in 0..FAILURES {
            assert_eq!(throttle.wait(&login, now), None, "after {n}");
            throttle.failed(&login, &n.to_string(), now);
        }
        assert_eq!(
            throttle.wait(&login, now + Duration::from_secs(20)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(throttle.wait(&login, now + WINDOW), None);
        throttle.failed(&login, "x", now + WINDOW);
        assert_eq!(
            throttle.wait(&login, now + WINDOW),
            None,
            "a new window has begun"
        );
        for other in [
            throttle.login(Some(TenantId(2)), "x-token", [10, 0, 0, 1].into()),
            throttle.login(Some(TenantId(1)), "other", [10, 0, 0, 1].into()),
            throttle.login(Some(TenantId(1)), "x-token", [10, 0, 0, 2].into()),
        ] {
            assert_eq!(throttle.wait(&other, now), None);
        }
    }

    #[test]
    fn the_same_wrong_secret_by_post_and_get_counts_once() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let login = throttle.login(None, "x-token", [10, 0, 0, 1].into());
        for _ in 0..FAILURES - 1 {
            throttle.failed(&login, "wrong", now);
            throttle.failed(&login, "wrong", now);
        }
        assert_eq!(throttle.wait(&login, now), None);
        throttle.failed(&login, "wrong", now);
        assert!(throttle.wait(&login, now).is_some());
    }

    #[test]
    fn a_success_forgets_and_a_network_is_one_address() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let at = |last: u16| throttle.login(None, "u", IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        assert_eq!(at(1), at(2));
        assert_eq!(
            throttle.login(None, "u", "::ffff:10.0.0.1".parse().unwrap()),
            throttle.login(None, "u", [10, 0, 0, 1].into())
        );
        for n in 0..FAILURES {
            throttle.failed(&at(1), &n.to_string(), now);
        }
        assert!(throttle.wait(&at(9), now).is_some());
        throttle.succeeded(&at(3));
        assert_eq!(throttle.wait(&at(1), now), None);
    }
}
