//! Limits on failed logins: ten a minute for each tenant, user name and address, and a hundred whatever the user name.
//!
//! A secret of 256 bits is not guessed; this keeps the attempts from costing anything, and tells of them. Since many may
//! share an address, the second limit spares secrets that were right before.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::metadata::TenantId;

/// Failures allowed in a window.
const FAILURES: u32 = 10;
/// Failures of an address allowed in a window, whatever the user name, which anybody may invent.
const ADDRESS_FAILURES: u32 = 100;
/// Failures of an address in a window that are told with their user names.
const TOLD: u32 = 20;
/// For how long a secret that was right is remembered.
const PROVEN: Duration = Duration::from_secs(600);
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(60);
/// containerd sends a wrong password by POST and again by GET: within this time it counts once.
const SAME: Duration = Duration::from_secs(10);
/// Most logins watched at once.
const WATCHED: u64 = 100_000;

/// Who tries: tenant, user name, and address, where a whole IPv6 network of 64 bits is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Login {
    place: Place,
    user: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tenant: Option<TenantId>,
    address: IpAddr,
}

/// How a failure is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// By itself.
    Single,
    /// As one of many of its address, without what differs between them.
    OneOfMany,
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
    places: Cache<Place, Arc<Mutex<Window>>>,
    /// Secrets that were right of late, as hashes.
    proven: Cache<(Option<TenantId>, u64), ()>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            windows: Cache::builder()
                .max_capacity(WATCHED)
                .time_to_idle(WINDOW)
                .build(),
            places: Cache::builder()
                .max_capacity(WATCHED)
                .time_to_idle(WINDOW)
                .build(),
            proven: Cache::builder()
                .max_capacity(WATCHED)
                .time_to_live(PROVEN)
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
            place: Place { tenant, address },
            user: self.hasher.hash_one(user),
        }
    }

    /// How long this login must wait, if it must.
    pub fn wait(&self, login: &Login, secret: &str, now: Instant) -> Option<Duration> {
        let own = rest(self.windows.get(login), FAILURES, now);
        own.or_else(|| {
            let rest = rest(self.places.get(&login.place), ADDRESS_FAILURES, now)?;
            let proven = (login.place.tenant, self.hasher.hash_one(secret));
            (!self.proven.contains_key(&proven)).then_some(rest)
        })
    }

    /// Counts a failure.
    pub fn failed(&self, login: &Login, secret: &str, now: Instant) -> Telling {
        let secret = self.hasher.hash_one(secret);
        let fresh = || Window::fresh(now);
        count(&self.windows.get_with_by_ref(login, fresh), secret, now);
        match count(&self.places.get_with_by_ref(&login.place, fresh), secret, now) {
            ..=TOLD => Telling::Single,
            _ => Telling::OneOfMany,
        }
    }

    /// Forgets the failures of a login that succeeded, and remembers that its secret is right.
    pub fn succeeded(&self, login: &Login, secret: &str) {
        if self.windows.contains_key(login) {
            self.windows.invalidate(login);
        }
        self.is_right(login, secret);
    }

    /// Remembers that a secret is right.
    pub fn is_right(&self, login: &Login, secret: &str) {
        let proven = (login.place.tenant, self.hasher.hash_one(secret));
        if !self.proven.contains_key(&proven) {
            self.proven.insert(proven, ());
        }
    }
}

impl Window {
    fn fresh(now: Instant) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            began: now,
            failures: 0,
            latest: None,
        }))
    }
}

/// What is left of a window that is full.
fn rest(window: Option<Arc<Mutex<Window>>>, allowed: u32, now: Instant) -> Option<Duration> {
    let window = window?;
    let window = window.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = (window.began + WINDOW).saturating_duration_since(now);
    (window.failures >= allowed && !rest.is_zero()).then_some(rest)
}

/// Counts a failure by a secret's hash, and tells how many there are in the window.
fn count(window: &Mutex<Window>, secret: u64, now: Instant) -> u32 {
    let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
    if now.saturating_duration_since(window.began) >= WINDOW {
        (window.began, window.failures) = (now, 0);
    }
    let again = window
        .latest
        .is_some_and(|(latest, at)| latest == secret && now.saturating_duration_since(at) < SAME);
    if !again {
        window.failures = window.failures.saturating_add(1);
    }
    // A repetition does not repeat for ever: the next one counts.
    window.latest = (!again).then_some((secret, now));
    window.failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_minute_are_allowed() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let login = throttle.login(Some(TenantId(1)), "x-token", [10, 0, 0, 1].into());
        for n in 0..FAILURES {
            assert_eq!(throttle.wait(&login, "s", now), None, "after {n}");
            throttle.failed(&login, &n.to_string(), now);
        }
        assert_eq!(
            throttle.wait(&login, "s", now + Duration::from_secs(20)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(throttle.wait(&login, "s", now + WINDOW), None);
        throttle.failed(&login, "x", now + WINDOW);
        assert_eq!(
            throttle.wait(&login, "s", now + WINDOW),
            None,
            "a new window has begun"
        );
        for other in [
            throttle.login(Some(TenantId(2)), "x-token", [10, 0, 0, 1].into()),
            throttle.login(Some(TenantId(1)), "other", [10, 0, 0, 1].into()),
            throttle.login(Some(TenantId(1)), "x-token", [10, 0, 0, 2].into()),
        ] {
            assert_eq!(throttle.wait(&other, "s", now), None);
        }
    }

    #[test]
    fn user_names_that_are_made_up_buy_no_further_attempts() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let from = |user: &str, last: u8| throttle.login(Some(TenantId(1)), user, [10, 0, 0, last].into());
        throttle.succeeded(&from("somebody", 1), "right");
        let mut told = 0;
        for n in 0..ADDRESS_FAILURES {
            let (login, secret) = (from(&format!("user-{n}"), 1), n.to_string());
            assert_eq!(throttle.wait(&login, &secret, now), None, "after {n}");
            told += u32::from(throttle.failed(&login, &secret, now) == Telling::Single);
        }
        assert_eq!(told, TOLD);
        assert_eq!(throttle.wait(&from("another", 1), "s", now), Some(WINDOW));
        assert_eq!(throttle.wait(&from("another", 1), "s", now + WINDOW), None);
        // Whoever shares the address and was right before goes on; so do other addresses and tenants.
        assert_eq!(throttle.wait(&from("another", 1), "right", now), None);
        assert_eq!(throttle.wait(&from("another", 2), "s", now), None);
        let elsewhere = throttle.login(Some(TenantId(2)), "another", [10, 0, 0, 1].into());
        assert_eq!(throttle.wait(&elsewhere, "s", now), None);
    }

    #[test]
    fn the_same_wrong_secret_by_post_and_get_counts_once() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let login = throttle.login(None, "x-token", [10, 0, 0, 1].into());
        for _ in 0..FAILURES - 1 {
            throttle.failed(&login, "wrong", now);
            throttle.failed(&login, "wrong", now);
        }
        assert_eq!(throttle.wait(&login, "s", now), None);
        throttle.failed(&login, "wrong", now);
        assert!(throttle.wait(&login, "s", now).is_some());
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
        assert!(throttle.wait(&at(9), "s", now).is_some());
        throttle.succeeded(&at(3), "s");
        assert_eq!(throttle.wait(&at(1), "s", now), None);
    }
}
