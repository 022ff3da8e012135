//! A request's body that does not wait for its client for ever.
//!
//! Only the time spent waiting for the client counts: while the server itself is the slower side
//! (back-pressure), nobody waits here. A frame that is there costs a comparison; the clock is read when
//! waiting begins and ends, and the one timer is armed at the first wait and moved only when it fires.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// The minimum rate is an average over this much waiting.
const WINDOW: Duration = Duration::from_secs(60);

/// Why a request's body ended early. The first two are the client's slowness: 408.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No byte came for the body timeout.
    #[error("no byte of the request's body came for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// Fewer bytes came than the minimum rate asks for.
    #[error("the request's body came at less than {0} bytes a second")]
    TooSlow(u64),
    /// The connection broke, or the body is malformed.
    #[error("the request's body broke off: {0}")]
    Broken(#[source] hyper::Error),
}

impl BodyError {
    /// Whether the client was too slow, as against gone.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Idle(_) | Self::TooSlow(_) => true,
            Self::Broken(_) => false,
        }
    }
}

/// Finds the [`BodyError`] under an error that a body's reader got (axum wraps it).
pub fn body_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a BodyError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The body as routes see it. `B` is hyper's, or a test's.
pub(super) struct RequestBody<B = Incoming> {
    inner: B,
    timeout: Duration,
    min_rate: u64,
    /// Bytes that came, for the access log.
    count: Arc<AtomicU64>,
    /// Fires no later than the end of the present wait's time.
    timer: Option<Pin<Box<Sleep>>>,
    /// When the present wait began.
    waiting_since: Option<Instant>,
    /// Waiting and bytes in the present window of the minimum rate.
    waited: Duration,
    window_bytes: u64,
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, timeout: Duration, min_rate: u64, count: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            timeout,
            min_rate,
            count,
            timer: None,
            waiting_since: None,
            waited: Duration::ZERO,
            window_bytes: 0,
        }
    }

    /// Bytes came: ends the wait, if there was one, and tells whether the rate is too low.
    fn arrived(&mut self, bytes: usize) -> bool {
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
        self.window_bytes += bytes as u64;
        let Some(since) = self.waiting_since.take() else {
            return false;
        };
        self.waited += since.elapsed();
        if self.waited < WINDOW {
            return false;
        }
        let asked = self.waited.as_secs().saturating_mul(self.min_rate);
        let slow = self.window_bytes < asked;
        self.waited = Duration::ZERO;
        self.window_bytes = 0;
        slow
    }

    /// Nothing is there: arms the timer, and tells whether the wait has lasted too long.
    fn waits_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + self.timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // A timer armed for an earlier wait fires early; it is moved to the end of this one.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if this.arrived(frame.data_ref().map_or(0, Bytes::len)) {
                    return Poll::Ready(Some(Err(BodyError::TooSlow(this.min_rate))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Broken(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if this.waits_too_long(cx) => Poll::Ready(Some(Err(BodyError::Idle(this.timeout)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;

    /// Brings one frame of so many bytes after each of these times.
    struct Trickle {
        frames: VecDeque<(Duration, usize)>,
        next: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            let Some((pause, size)) = self.frames.front().copied() else {
                return Poll::Ready(None);
            };
            let timer = self
                .next
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(timer.as_mut().poll(cx));
            self.next = None;
            self.frames.pop_front();
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; size])))))
        }
    }

    fn body(frames: impl IntoIterator<Item = (u64, usize)>, min_rate: u64) -> RequestBody<Trickle> {
        let frames = frames
            .into_iter()
            .map(|(pause, size)| (Duration::from_secs(pause), size))
            .collect();
        RequestBody::new(
            Trickle { frames, next: None },
            Duration::from_secs(30),
            min_rate,
            Arc::default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_shorter_than_the_timeout_are_fine_however_many_there_are() {
        let whole = body([(29, 100), (29, 100), (1, 100), (29, 100)], 1)
            .collect()
            .await
            .unwrap();
        assert_eq!(whole.to_bytes().len(), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_timeout_ends_the_body_at_that_time() {
        let start = Instant::now();
        let error = body([(20, 100), (31, 100)], 1).collect().await.unwrap_err();
        assert!(matches!(error, BodyError::Idle(_)), "{error}");
        assert!(error.is_timeout());
        let passed = start.elapsed();
        assert!(
            passed >= Duration::from_secs(50) && passed < Duration::from_secs(51),
            "{passed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_too_slow_after_a_minute() {
        let start = Instant::now();
        let error = body((0..100).map(|_| (10, 1)), 1024).collect().await.unwrap_err();
        assert!(matches!(error, BodyError::TooSlow(1024)), "{error}");
        assert!(start.elapsed() < Duration::from_secs(71));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_is_not_a_slow_client() {
        let mut slow = body([(0, 10), (0, 10), (0, 10)], 1024);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(600)).await;
            slow.frame().await.unwrap().unwrap();
        }
        assert!(slow.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_error_is_found_under_the_wrapping_of_others() {
        let wrapped = std::io::Error::other(axum::Error::new(BodyError::TooSlow(7)));
        assert!(body_error(&wrapped).is_some_and(BodyError::is_timeout));
        assert!(body_error(&std::io::Error::other("else")).is_none());
    }
}
