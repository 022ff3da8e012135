//! What an upstream sends of a blob.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::growing::Growing;
use crate::upstream::UpstreamError;

/// Most bytes that are shown before there is a session that they go into.
const AHEAD: usize = 1 << 20;

/// An upstream brings at least so many bytes in so much time that it is waited for: whoever trickles would hold a turn of all
/// tenants for ever.
const LEAST: u64 = 64 << 10;
const LEAST_IN: Duration = Duration::from_secs(60);

/// An answer's body, each piece of which must come in time.
pub(super) struct Arriving<'r> {
    body: Incoming,
    timeout: Duration,
    host: &'r str,
    /// Bytes of the whole blob.
    pub size: u64,
    /// Bytes that are here already.
    skip: u64,
    /// What was read ahead, with the failure or the end that may have come then.
    ahead: VecDeque<Result<Option<Bytes>, UpstreamError>>,
    rate: Rate,
}

/// How long an upstream was waited for, and what came meanwhile.
#[derive(Default)]
struct Rate {
    waited: Duration,
    came: u64,
}

impl Rate {
    /// Bytes have come after a wait; what is wrong if they are too few. `timeout` is how long one wait may be, which is
    /// for others to judge.
    fn add(&mut self, waited: Duration, bytes: u64, timeout: Duration) -> Result<(), String> {
        self.waited += waited;
        self.came += bytes;
        if self.waited < LEAST_IN.max(2 * timeout) {
            return Ok(());
        }
        let Self { waited, came } = std::mem::take(self);
        if came < LEAST {
            let waited = waited.as_secs();
            let why =
                format!("it brought {came} bytes of a blob in {waited} s, which is too little to wait for");
            return Err(why);
        }
        Ok(())
    }
}

impl<'r> Arriving<'r> {
    /// A body of a blob of `size` bytes. Its first `skip` bytes are here already.
    pub fn new(body: Incoming, (host, timeout): (&'r str, Duration), size: u64, skip: u64) -> Self {
        Self {
            body,
            timeout,
            host,
            size,
            skip,
            ahead: VecDeque::new(),
            rate: Rate::default(),
        }
    }

    /// The next piece that is not here already.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        match self.ahead.pop_front() {
            Some(piece) => piece,
            None => self.read().await,
        }
    }

    /// Shows the first bytes to those who wait, and keeps them for the session. It never ends, and may be dropped at any
    /// time.
    pub async fn show_ahead(&mut self, growing: &Growing) -> Infallible {
        let mut at = 0;
        while at < AHEAD {
            let piece = self.read().await;
            if let Ok(Some(bytes)) = &piece {
                // The last byte leaves when the digest was found right.
                if (at + bytes.len()) as u64 >= self.size {
                    let shown = usize::try_from(self.size)
                        .unwrap_or(usize::MAX)
                        .saturating_sub(at + 1);
                    growing.push(at as u64, bytes.slice(..shown.min(bytes.len())));
                    self.ahead.push_back(piece);
                    break;
                }
                growing.push(at as u64, bytes.clone());
                at += bytes.len();
                self.ahead.push_back(piece);
            } else {
                self.ahead.push_back(piece);
                break;
            }
        }
        std::future::pending().await
    }

    async fn read(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let asked_at = Instant::now();
            let frame = tokio::time::timeout(self.timeout, self.body.frame()).await;
            let waited = asked_at.elapsed();
            let frame = frame.map_err(|_| UpstreamError::Late {
                host: self.host.to_owned(),
                timeout: self.timeout,
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| UpstreamError::Broken {
                host: self.host.to_owned(),
                why: error.to_string(),
            })?;
            let mut bytes = frame.into_data().unwrap_or_default();
            let rate = self.rate.add(waited, bytes.len() as u64, self.timeout);
            // What is whole is not late.
            if let (Err(why), false) = (rate, self.body.is_end_stream()) {
                let host = self.host.to_owned();
                return Err(UpstreamError::Strange { host, why });
            }
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            // At most the length of a piece in memory.
            let rest = bytes.split_off(usize::try_from(skipped).unwrap_or_default());
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }
}

/// First byte and size of the whole, of a `Content-Range` (RFC 9110, section 14.4).
pub(super) fn partial(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_brings_the_least_in_each_minute_or_twice_its_timeout() {
        let second = Duration::from_secs(1);
        let tries = |bytes: u64, timeout: Duration| {
            let mut rate = Rate::default();
            (0..600).find(|_| rate.add(second, bytes, timeout).is_err())
        };
        assert_eq!(tries(LEAST / 60 + 1, second), None);
        assert_eq!(tries(LEAST / 60 - 1, second), Some(59));
        assert_eq!(
            tries(1, 100 * second),
            Some(199),
            "a wait as long as the timeout is none of its"
        );
        // A good minute is no credit for the next.
        let mut rate = Rate::default();
        assert!(rate.add(61 * second, 100 * LEAST, second).is_ok());
        assert!(rate.add(61 * second, 1, second).is_err());
    }
}
