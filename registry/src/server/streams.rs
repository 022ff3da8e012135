//! The tasks of HTTP/2 requests, each of which ends when its client takes nothing of its answer.
//!
//! A client may let its whole connection go on and still take nothing of one answer, by a flow-control window that it
//! never opens. The socket shows nothing of that, and hyper asks a body for more only when the client makes room. So the
//! body tells whose turn it is ([`Progress`]), and the task around it, which ends the stream by being dropped, looks at
//! the clock when it has to wait. Other streams of the connection go on: they may be other people's, behind a proxy.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

/// A large piece buys time beyond the limit: a second for so many bytes.
const RATE: u64 = 16 * 1024;

tokio::task_local! {
    static STREAM: Arc<Progress>;
}

/// How far the answer of one stream is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The client is to take what was handed over.
    clients_turn: AtomicBool,
    /// Pieces that were handed over.
    pieces: AtomicU64,
    /// Bytes of the latest one.
    latest: AtomicU64,
}

impl Progress {
    /// That of the stream whose task this is; none outside of HTTP/2.
    pub(super) fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The body has handed over so many bytes.
    pub(super) fn handed_over(&self, bytes: usize) {
        self.latest.store(bytes as u64, Relaxed);
        self.pieces.fetch_add(1, Relaxed);
        self.clients_turn.store(true, Relaxed);
    }

    /// The body itself waits for more.
    pub(super) fn waits(&self) {
        self.clients_turn.store(false, Relaxed);
    }
}

/// Starts the tasks of one server's streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    idle_timeout: Duration,
}

impl Streams {
    /// A client that takes nothing of an answer for so long loses it.
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        tokio::spawn(Stream::new(work, self.idle_timeout));
    }
}

pin_project! {
    struct Stream<F> {
        #[pin]
        work: Option<F>,
        progress: Arc<Progress>,
        idle_timeout: Duration,
        seen: u64,
        // Since when the client has been waited for.
        since: Option<Instant>,
        // Fires no later than the end of the present wait's time.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> Stream<F> {
    fn new(work: F, idle_timeout: Duration) -> Self {
        Self {
            work: Some(work),
            progress: Arc::default(),
            idle_timeout,
            seen: 0,
            since: None,
            timer: None,
        }
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(work) = this.work.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        if STREAM
            .sync_scope(this.progress.clone(), || work.poll(cx))
            .is_ready()
        {
            return Poll::Ready(());
        }
        if !this.progress.clients_turn.load(Relaxed) {
            *this.since = None;
            return Poll::Pending;
        }
        let pieces = this.progress.pieces.load(Relaxed);
        if pieces != *this.seen {
            (*this.seen, *this.since) = (pieces, None);
        }
        let patience = Duration::from_secs(this.progress.latest.load(Relaxed) / RATE);
        let deadline = *this.since.get_or_insert_with(Instant::now) + *this.idle_timeout + patience;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // A timer armed for an earlier wait fires early; it is moved to the end of this one.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                tracing::debug!("a stream was reset: the client took nothing of its answer");
                this.work.set(None);
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(90);

    /// A task that hands over pieces of this size at these times, and then waits for ever.
    async fn hands_over(at: Vec<u64>, bytes: usize, ended: Arc<AtomicUsize>) {
        struct Ending(Arc<AtomicUsize>);
        impl Drop for Ending {
            fn drop(&mut self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let _ending = Ending(ended);
        let progress = Progress::current().unwrap();
        let begun = Instant::now();
        for second in at {
            tokio::time::sleep_until(begun + Duration::from_secs(second)).await;
            progress.handed_over(bytes);
        }
        std::future::pending::<()>().await;
    }

    /// How long a stream lives.
    async fn life(at: Vec<u64>, bytes: usize) -> Duration {
        let (begun, ended) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        Stream::new(hands_over(at, bytes, ended.clone()), LIMIT).await;
        assert_eq!(ended.load(Relaxed), 1, "what it holds is given back");
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_is_taken_ends_after_the_idle_timeout() {
        let lived = life(vec![0], 100).await;
        assert!(
            lived >= LIMIT && lived < LIMIT + Duration::from_secs(1),
            "{lived:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn every_piece_that_is_taken_begins_the_time_anew_and_a_large_one_has_more() {
        let lived = life(vec![0, 80, 160], 100).await;
        assert!(
            lived >= Duration::from_secs(250) && lived < Duration::from_secs(251),
            "{lived:?}"
        );
        let lived = life(vec![0], 64 * 1024).await;
        assert!(lived >= LIMIT + Duration::from_secs(4), "{lived:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_is_not_a_slow_client() {
        let ended = Arc::new(AtomicUsize::new(0));
        let work = async {
            let progress = Progress::current().unwrap();
            progress.handed_over(1);
            progress.waits();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            ended.fetch_add(1, Relaxed);
        };
        Stream::new(work, LIMIT).await;
        assert_eq!(ended.load(Relaxed), 1);
    }
}
