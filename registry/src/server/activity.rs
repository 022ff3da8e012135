//! What happens on one connection, and when it has gone on too long without progress.
//!
//! Requests only set flags and counters; the connection's task looks at them a few times per time limit.
//! So a request costs no timer and no look at the clock, and a limit is kept to within a quarter of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// Shared by a connection's socket, its requests and its watch.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answers have not ended.
    active: AtomicU32,
    /// Requests that ever started.
    started: AtomicU64,
    /// Bytes came in while no request was active: the beginning of a head.
    head_begun: AtomicBool,
    /// A request came over HTTP/2, where bytes between requests mean nothing.
    http2: AtomicBool,
    /// The client takes no more bytes at the moment.
    blocked: AtomicBool,
    /// Bytes that the client has taken.
    written: AtomicU64,
}

/// One request in flight; ends when dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Activity {
    pub(super) fn request_started(self: &Arc<Self>, http2: bool) -> InFlight {
        self.active.fetch_add(1, Relaxed);
        self.started.fetch_add(1, Relaxed);
        self.head_begun.store(false, Relaxed);
        if http2 {
            self.http2.store(true, Relaxed);
        }
        InFlight(self.clone())
    }

    pub(super) fn received(&self) {
        if self.active.load(Relaxed) == 0 {
            self.head_begun.store(true, Relaxed);
        }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    pub(super) fn write_blocked(&self) {
        self.blocked.store(true, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// Nobody uses it: close it in order.
    Idle,
    /// It is held without progress, for this reason: cut it.
    Stuck(&'static str),
}

/// The connection's task's view over time.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    started: u64,
    written: u64,
    /// Since when there has been no request.
    idle_since: Option<Instant>,
    /// Since when a head has been coming in.
    head_since: Option<Instant>,
    /// Since when the client has taken no byte of what waits for it.
    blocked_since: Option<Instant>,
    closing: bool,
}

impl Watch {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            started: 0,
            written: 0,
            idle_since: Some(now),
            head_since: None,
            blocked_since: None,
            closing: false,
        }
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        let shortest = self.limits.header_timeout.min(self.limits.idle_timeout);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(2))
    }

    pub(super) fn look(&mut self, activity: &Activity, now: Instant) -> Verdict {
        if self.stalled_writing(activity, now) {
            return Verdict::Stuck("the client took no byte of its answer");
        }
        let started = activity.started.load(Relaxed);
        if activity.active.load(Relaxed) > 0 || started != self.started {
            self.started = started;
            self.idle_since = None;
            self.head_since = None;
            return Verdict::Fine;
        }
        let idle = now - *self.idle_since.get_or_insert(now);
        if activity.head_begun.load(Relaxed) && !activity.http2.load(Relaxed) {
            let head = now - *self.head_since.get_or_insert(now);
            if head >= self.limits.header_timeout {
                return Verdict::Stuck("the headers of a request did not end");
            }
        }
        // Who never asked anything is given the time of a head, not that of a pause between requests.
        let patience = if started == 0 {
            self.limits.header_timeout
        } else {
            self.limits.idle_timeout
        };
        if idle < patience || self.head_since.is_some() {
            return Verdict::Fine;
        }
        if self.closing {
            return Verdict::Stuck("an idle connection did not close");
        }
        self.closing = true;
        self.idle_since = Some(now);
        Verdict::Idle
    }

    fn stalled_writing(&mut self, activity: &Activity, now: Instant) -> bool {
        let written = activity.written.load(Relaxed);
        if !activity.blocked.load(Relaxed) || written != self.written {
            self.written = written;
            self.blocked_since = None;
            return false;
        }
        now - *self.blocked_since.get_or_insert(now) >= self.limits.idle_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watched() -> (Arc<Activity>, Watch, Instant) {
        let limits = Limits {
            connections: 1,
            header_timeout: 10 * SECOND,
            idle_timeout: 90 * SECOND,
            body_timeout: 30 * SECOND,
            min_rate: 0,
        };
        let now = Instant::now();
        (Arc::default(), Watch::new(limits, now), now)
    }

    #[test]
    fn a_connection_that_never_asks_anything_is_closed_after_the_header_timeout() {
        let (activity, mut watch, start) = watched();
        assert_eq!(watch.look(&activity, start + 9 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(&activity, start + 10 * SECOND), Verdict::Idle);
    }

    #[test]
    fn headers_that_trickle_are_cut_after_the_header_timeout() {
        let (activity, mut watch, start) = watched();
        drop(activity.request_started(false));
        watch.look(&activity, start);
        activity.received();
        assert_eq!(watch.look(&activity, start + 20 * SECOND), Verdict::Fine);
        activity.received();
        assert!(matches!(
            watch.look(&activity, start + 30 * SECOND),
            Verdict::Stuck(_)
        ));
    }

    #[test]
    fn a_pause_between_requests_lasts_until_the_idle_timeout() {
        let (activity, mut watch, start) = watched();
        drop(activity.request_started(false));
        watch.look(&activity, start);
        assert_eq!(watch.look(&activity, start + SECOND), Verdict::Fine);
        assert_eq!(watch.look(&activity, start + 80 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(&activity, start + 91 * SECOND), Verdict::Idle);
    }

    #[test]
    fn a_request_in_flight_keeps_its_connection_however_long_it_takes() {
        let (activity, mut watch, start) = watched();
        let request = activity.request_started(false);
        assert_eq!(watch.look(&activity, start + 86_400 * SECOND), Verdict::Fine);
        drop(request);
        assert_eq!(watch.look(&activity, start + 86_401 * SECOND), Verdict::Fine);
    }

    #[test]
    fn bytes_between_requests_of_http2_are_not_a_head() {
        let (activity, mut watch, start) = watched();
        drop(activity.request_started(true));
        watch.look(&activity, start);
        activity.received();
        for second in [1, 20, 60] {
            assert_eq!(watch.look(&activity, start + second * SECOND), Verdict::Fine);
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_and_one_that_takes_little_is_not() {
        let (activity, mut watch, start) = watched();
        let _request = activity.request_started(false);
        activity.write_blocked();
        watch.look(&activity, start);
        activity.wrote(1);
        activity.write_blocked();
        assert_eq!(watch.look(&activity, start + 89 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(&activity, start + 90 * SECOND), Verdict::Fine);
        assert!(matches!(
            watch.look(&activity, start + 180 * SECOND),
            Verdict::Stuck(_)
        ));
    }
}
