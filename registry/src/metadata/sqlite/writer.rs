//! The one writer, with group commit.
//!
//! While a commit waits for the disk, further writes queue up; the next transaction takes them all, each
//! in a savepoint of its own, and one commit makes them durable together. A write that fails undoes its own
//! savepoint and nobody else's. Nobody is answered before the commit, refusals included: a refusal may be
//! due to another write of the same group.
//!
//! What looks after content by itself (collection, retention, metering) waits in a line of its own. While requests
//! write, it goes along with their groups, no more of it than of them, and has no commits of its own: a request waits
//! for little, and none of it waits for ever.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use super::super::outcome::Outcome;
use super::super::{MetadataError, Result};
use super::Connection;

/// Most writes of one transaction.
const GROUP_LIMIT: usize = 128;

/// Most writes of one transaction that no request waits for, if no request waits at all.
pub(super) const BEHIND_LIMIT: usize = 32;

/// For how long after a write of a request another one is expected.
const QUIET: Duration = Duration::from_millis(30);

/// Writes that may wait before further ones wait to be queued.
const QUEUE: usize = 4096;

/// How long a file that others are opening is waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// One queued write.
trait Job: Send {
    /// Runs the statements; true if they are to be kept.
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> BoxFuture<'c, bool>;

    /// Tells the waiting caller, after the commit or its failure.
    fn finish(self: Box<Self>, committed: Result<()>);
}

struct Work<A, T, F> {
    asked: A,
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<A, T, F> Job for Work<A, T, F>
where
    A: Send + Sync + 'static,
    T: Outcome,
    F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
{
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> BoxFuture<'c, bool> {
        Box::pin(async move {
            let outcome = (self.work)(connection, &self.asked).await;
            let keep = outcome.as_ref().is_ok_and(Outcome::commits);
            self.outcome = Some(outcome);
            keep
        })
    }

    fn finish(self: Box<Self>, committed: Result<()>) {
        let never_ran = || Err(MetadataError::Unavailable("the write was not run".into()));
        // A refusal may rest on what an earlier write of the group did: it is no truer than the commit. The
        // caller may have gone away.
        let outcome = self
            .outcome
            .unwrap_or_else(never_ran)
            .and_then(|outcome| committed.map(|()| outcome));
        let _ = self.reply.send(outcome);
    }
}

/// Who waits for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A request.
    Request,
    /// Nobody who minds.
    Later,
}

/// The queues in front of the writing task.
pub(super) struct Writer {
    requests: mpsc::Sender<Box<dyn Job>>,
    behind: mpsc::Sender<Box<dyn Job>>,
}

type Line = mpsc::Receiver<Box<dyn Job>>;

/// Where the writing task takes its work from.
struct Lines {
    requests: Line,
    behind: Line,
    /// From when on no further request is expected.
    quiet_at: Instant,
}

impl Lines {
    /// The next group, in the order in which it is run, and for whom it is; nothing once both lines are closed.
    async fn next(&mut self, group: &mut Vec<Box<dyn Job>>) -> For {
        let later = async {
            tokio::time::sleep_until(self.quiet_at.into()).await;
            self.behind.recv().await
        };
        tokio::select! {
            biased;
            Some(job) = self.requests.recv() => {
                group.push(job);
                take(&mut self.requests, GROUP_LIMIT, group);
                take(&mut self.behind, 2 * group.len(), group);
                For::Request
            }
            Some(job) = later => {
                group.push(job);
                take(&mut self.behind, BEHIND_LIMIT, group);
                For::Later
            }
            else => For::Later,
        }
    }
}

/// Takes what waits, until the group is full.
fn take(line: &mut Line, limit: usize, group: &mut Vec<Box<dyn Job>>) {
    while group.len() < limit
        && let Ok(job) = line.try_recv()
    {
        group.push(job);
    }
}

/// The connection that writes. Of processes that open a new file at once one makes it what it should be; SQLite tells
/// the others that it is busy without waiting for the busy timeout.
pub(super) async fn connect(options: &SqliteConnectOptions) -> Result<Connection> {
    let begun = Instant::now();
    loop {
        match options.connect().await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && begun.elapsed() < OPEN_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Whether another process holds the file: SQLITE_BUSY, in any of its extended forms.
fn is_busy(error: &dyn DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

impl Writer {
    /// Starts the writing task, which ends when the writer is dropped.
    pub(super) fn start(mut connection: Connection) -> Self {
        let (requests, of_requests) = mpsc::channel(QUEUE);
        let (behind, of_others) = mpsc::channel(QUEUE);
        let mut lines = Lines {
            requests: of_requests,
            behind: of_others,
            quiet_at: Instant::now(),
        };
        tokio::spawn(async move {
            let mut group = Vec::with_capacity(2 * GROUP_LIMIT);
            loop {
                let whose = lines.next(&mut group).await;
                if group.is_empty() {
                    return;
                }
                let committed = transaction(&mut connection, &mut group).await;
                if committed.is_err() {
                    // Nothing to roll back is an error too, and says nothing.
                    let _ = connection.execute("ROLLBACK").await;
                }
                for job in group.drain(..) {
                    job.finish(committed.clone());
                }
                if whose == For::Request {
                    lines.quiet_at = Instant::now() + QUIET;
                }
            }
        });
        Self { requests, behind }
    }

    /// Queues a write and waits until it is durable.
    pub(super) async fn run<A, T, F>(&self, whose: For, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        let stopped = || MetadataError::Unavailable("the writing task has ended".into());
        let (reply, outcome) = oneshot::channel();
        let job = Box::new(Work {
            asked,
            work,
            outcome: None,
            reply,
        });
        let queue = match whose {
            For::Request => &self.requests,
            For::Later => &self.behind,
        };
        queue.send(job).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

async fn transaction(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<()> {
    connection.execute("BEGIN IMMEDIATE").await?;
    for job in group {
        connection.execute("SAVEPOINT one").await?;
        if job.run(connection).await {
            connection.execute("RELEASE one").await?;
        } else {
            connection.execute("ROLLBACK TO one; RELEASE one").await?;
        }
    }
    connection.execute("COMMIT").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use sqlx::sqlite::SqliteJournalMode;
    use tokio::task::unconstrained;

    use super::*;

    /// A database in which a commit fails while `child` names a `parent` that is not there.
    async fn writer(folder: &tempfile::TempDir) -> (Writer, SqliteConnectOptions) {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut connection = connect(&options).await.unwrap();
        let schema = "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER PRIMARY KEY, \
             parent INTEGER NOT NULL REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)";
        connection.execute(schema).await.unwrap();
        (Writer::start(connection), options)
    }

    async fn insert(connection: &mut Connection, statement: &'static str) -> Result<bool> {
        Ok(sqlx::query(statement)
            .execute(&mut *connection)
            .await?
            .rows_affected()
            == 1)
    }

    async fn insert_twice(connection: &mut Connection, statement: &'static str) -> Result<bool> {
        insert(connection, statement).await?;
        insert(connection, statement).await
    }

    #[tokio::test]
    async fn a_refusal_that_rests_on_a_write_whose_commit_fails_fails_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        let orphan = "INSERT INTO child VALUES (1, 7) ON CONFLICT DO NOTHING";

        // Polled in this order before the task runs: they make one group.
        let (first, second) = tokio::join!(
            writer.run(For::Request, (), move |c, ()| Box::pin(insert(c, orphan))),
            writer.run(For::Request, (), move |c, ()| Box::pin(insert(c, orphan))),
        );

        assert!(matches!(first, Err(MetadataError::Unavailable(_))), "{first:?}");
        assert!(
            matches!(second, Err(MetadataError::Unavailable(_))),
            "its row was never there: {second:?}"
        );
        let mut reader = connect(&options).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM child")
            .fetch_one(&mut reader)
            .await
            .unwrap();
        assert_eq!(rows, 0);
        let next = writer
            .run(For::Request, (), |c, ()| {
                Box::pin(insert(c, "INSERT INTO parent VALUES (7)"))
            })
            .await;
        assert!(
            matches!(next, Ok(true)),
            "the next group is not affected: {next:?}"
        );
    }

    /// Inserts a row and says how many there were.
    async fn position(connection: &mut Connection) -> Result<u64> {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM parent")
            .fetch_one(&mut *connection)
            .await?;
        insert(connection, "INSERT INTO parent VALUES (NULL)").await?;
        Ok(u64::try_from(rows).unwrap())
    }

    #[tokio::test]
    async fn requests_go_first_and_as_much_of_what_nobody_waits_for_goes_along_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = writer(&folder).await;
        let run = |whose| writer.run(whose, (), |c, ()| Box::pin(position(c)));
        let limit = GROUP_LIMIT as u64;

        // All of them wait before the task runs.
        let (later, first) = unconstrained(async {
            tokio::join!(
                join_all((0..GROUP_LIMIT + 15).map(|_| run(For::Later))),
                join_all((0..GROUP_LIMIT + 10).map(|_| run(For::Request))),
            )
        })
        .await;

        let sorted = |positions: Vec<Result<u64>>| {
            let mut positions: Vec<u64> = positions.into_iter().map(Result::unwrap).collect();
            positions.sort_unstable();
            positions
        };
        let requests: Vec<u64> = (0..limit).chain(2 * limit..2 * limit + 10).collect();
        assert_eq!(sorted(first), requests);
        let others: Vec<u64> = (limit..2 * limit).chain(2 * limit + 10..2 * limit + 25).collect();
        assert_eq!(sorted(later), others);
    }

    #[tokio::test]
    async fn a_statement_that_fails_undoes_its_own_write_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        let (first, second, third) = tokio::join!(
            writer.run(For::Request, (), |c, ()| Box::pin(insert(
                c,
                "INSERT INTO parent VALUES (1)"
            ))),
            writer.run(For::Request, (), |c, ()| Box::pin(insert_twice(
                c,
                "INSERT INTO parent VALUES (2)"
            ))),
            writer.run(For::Request, (), |c, ()| Box::pin(insert(
                c,
                "INSERT INTO parent VALUES (3)"
            ))),
        );

        assert!(matches!((first, third), (Ok(true), Ok(true))));
        assert!(second.is_err());
        let mut reader = connect(&options).await.unwrap();
        let sum: i64 = sqlx::query_scalar("SELECT sum(id) FROM parent")
            .fetch_one(&mut reader)
            .await
            .unwrap();
        assert_eq!(sum, 1 + 3);
    }
}
