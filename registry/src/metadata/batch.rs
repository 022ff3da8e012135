//! Lookups in batches: while one query is in flight, further lookups gather; the next query serves them all.
//!
//! However many clients ask, the store sees one lookup query at a time from this replica, and each client
//! still sees every push acknowledged before it asked, because its query starts after it asked. A lookup
//! waits for two round trips at most.

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::{MetadataError, Reference, Repository, Result};
use crate::domain::Digest;
use crate::telemetry::span::statement;

/// What a manifest lookup asks.
pub(super) type ManifestQuery = (Repository, Reference);
/// What a blob lookup asks.
pub(super) type BlobQuery = (Repository, Digest);

/// How often a read that the database gave up for others' sake is begun again.
pub(super) const READ_AGAIN: u32 = 3;

/// Most lookups of one query.
const BATCH_LIMIT: usize = 256;

type Waiting<Q, A> = (Q, oneshot::Sender<Result<Option<A>>>);

/// A queue of lookups in front of one query.
pub(super) struct Batcher<Q, A> {
    queue: mpsc::UnboundedSender<Waiting<Q, A>>,
    /// What traces call the store, and a lookup.
    called: (&'static str, &'static str),
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Starts the task that runs `query`; `called` is what traces call the store and a lookup. The answers are in the order of the questions. The task ends
    /// when the batcher is dropped.
    pub(super) fn start<F>(called: (&'static str, &'static str), query: F) -> Self
    where
        F: for<'q> Fn(&'q [&'q Q]) -> BoxFuture<'q, Result<Vec<Option<A>>>> + Send + Sync + 'static,
    {
        // Unbounded, because every entry is a request that waits: the server's connections bound it.
        let (queue, mut waiting) = mpsc::unbounded_channel::<Waiting<Q, A>>();
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_LIMIT);
            while waiting.recv_many(&mut batch, BATCH_LIMIT).await > 0 {
                let answers = {
                    let asked: Vec<&Q> = batch.iter().map(|(question, _)| question).collect();
                    let mut again = 0..READ_AGAIN;
                    loop {
                        match query(&asked).await {
                            // A standby gives reads up so that it can replay what the primary has removed.
                            Err(MetadataError::Conflict(_)) if again.next().is_some() => {}
                            answers => break answers,
                        }
                    }
                };
                // A send fails when the client has gone away, which is no concern of the others.
                match answers {
                    Ok(answers) => {
                        for ((_, reply), answer) in batch.drain(..).zip(answers) {
                            let _ = reply.send(Ok(answer));
                        }
                    }
                    Err(error) => {
                        for (_, reply) in batch.drain(..) {
                            let _ = reply.send(Err(error.clone()));
                        }
                    }
                }
            }
        });
        Self { queue, called }
    }

    /// Asks one question.
    pub(super) async fn ask(&self, question: Q) -> Result<Option<A>> {
        let stopped = || MetadataError::Unavailable("the lookup task has ended".into());
        let (reply, answer) = oneshot::channel();
        self.queue.send((question, reply)).map_err(|_| stopped())?;
        let answer = async { answer.await.map_err(|_| stopped())? };
        statement(self.called.0, self.called.1, answer).await
    }
}
