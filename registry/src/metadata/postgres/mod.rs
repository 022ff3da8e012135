//! The store on Postgres (or an engine that speaks its protocol): one pool on the primary.
//!
//! Row locks order concurrent writers. Nothing depends on LISTEN or advisory locks, which poolers and some
//! engines lack; a transaction that the database aborted for a deadlock or a serialisation failure is
//! run again from its start.

use std::any::type_name;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};
use tokio::sync::Mutex;

use super::batch::{Batcher, BlobQuery, ManifestQuery, READ_AGAIN};
use super::configuration::TokenRow;
use super::outcome::Outcome;
use super::transfer::UNFINISHED;
use super::{BlobRow, ManifestRow, MetadataError, Options, Result, STATEMENT_TIMEOUT};
use crate::telemetry::span::statement;

#[macro_use]
mod dialect;
#[path = "../statements/audit.rs"]
mod audit;
#[path = "../statements/blobs.rs"]
mod blobs;
#[path = "../statements/builds.rs"]
mod builds;
#[path = "../statements/collect.rs"]
mod collect;
#[path = "../statements/collect_blobs.rs"]
mod collect_blobs;
#[path = "../statements/collect_manifests.rs"]
mod collect_manifests;
#[path = "../statements/config.rs"]
mod config;
#[path = "../statements/configuration.rs"]
mod configuration;
#[path = "../statements/dead_letters.rs"]
mod dead_letters;
#[path = "../statements/deliveries.rs"]
mod deliveries;
#[path = "../statements/events.rs"]
mod events;
#[path = "../statements/explore.rs"]
mod explore;
#[path = "../statements/forget_blob.rs"]
mod forget_blob;
#[path = "../statements/inspection.rs"]
mod inspection;
#[path = "../statements/inspection_pages.rs"]
mod inspection_pages;
#[path = "../statements/jobs.rs"]
mod jobs;
mod leading;
mod lent;
#[path = "../statements/lifecycle.rs"]
mod lifecycle;
#[path = "../statements/lookups.rs"]
mod lookups;
#[path = "../statements/manifests.rs"]
mod manifests;
#[path = "../statements/metering.rs"]
mod metering;
#[path = "../statements/objects.rs"]
mod objects;
#[path = "../statements/outbox.rs"]
mod outbox;
mod position;
#[path = "../statements/pull_through.rs"]
mod pull_through;
#[path = "../statements/purge.rs"]
mod purge;
#[path = "../statements/put_manifest.rs"]
mod put_manifest;
#[path = "../statements/replicas.rs"]
mod replicas;
#[path = "../statements/repositories.rs"]
mod repositories;
#[path = "../statements/restore.rs"]
mod restore;
#[path = "../statements/retention.rs"]
mod retention;
#[path = "../statements/schema.rs"]
mod schema;
#[path = "../statements/store.rs"]
mod store;
#[path = "../statements/tags.rs"]
mod tags;
#[path = "../statements/tokens.rs"]
mod tokens;
#[path = "../statements/unlink_blob.rs"]
mod unlink_blob;
#[path = "../statements/uploads.rs"]
mod uploads;
#[path = "../statements/upstreams.rs"]
mod upstreams;
#[path = "../statements/usage.rs"]
mod usage;

/// What traces call it.
const SYSTEM: &str = "postgresql";

pub(super) use PostgresStore as Database;
use dialect::Connection;
use lent::{Lent, answered};

/// How often a transaction that the database aborted is run again.
const RETRIES: u32 = 5;

/// A pool of connections and the batched lookups over it.
pub(super) struct PostgresStore {
    pool: PgPool,
    manifests: Batcher<ManifestQuery, ManifestRow>,
    blobs: Batcher<BlobQuery, BlobRow>,
    tokens: Batcher<String, TokenRow>,
    /// Connected when it is first asked for; absent behind a pooler.
    listener: Option<Mutex<Option<Listening>>>,
    /// How the database is reached.
    connect: PgConnectOptions,
    read_only: bool,
}

/// A request that gets no connection for this long is refused: clients try again, and the first of them give
/// up after 30 s.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is tried out before it is used. Trying each time would double the round
/// trips.
const TRUSTED: Duration = Duration::from_secs(1);

/// Longest wait for the lookups of one batch: further ones gather behind them.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// Longest wait for a read: longer than the database lets a statement run.
const READ_LIMIT: Duration = STATEMENT_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Longest wait for the transaction of a request.
const WRITE_LIMIT: Duration = STATEMENT_TIMEOUT.saturating_add(Duration::from_secs(10));

/// Longest wait for a transaction that no request waits for; a recount of a large tenant is one statement.
const LATER_LIMIT: Duration = Duration::from_secs(900);

/// For how long one connection is listened to: of one that fell silent nothing shows that it did.
const HEARS_FOR: Duration = Duration::from_secs(300);

/// Pause after a failure to listen.
const HEAR_AGAIN: Duration = Duration::from_secs(5);

impl PostgresStore {
    /// Connects and, if asked, migrates.
    pub(super) async fn open(url: &str, options: &Options) -> Result<Self> {
        let mut connect = PgConnectOptions::from_str(url).map_err(|error| MetadataError::Url {
            url: url.rsplit('@').next().unwrap_or_default().to_owned(),
            why: error.to_string(),
        })?;
        connect = connect.application_name("berth-registry");
        if options.migrate {
            migrate(&connect).await?;
        }
        if options.prepared {
            connect = connect.options([("statement_timeout", STATEMENT_TIMEOUT.as_millis().to_string())]);
            if options.read_only {
                // A primary that is only read from would otherwise take what slips through here.
                connect = connect.options([("default_transaction_read_only", "on")]);
            }
        } else {
            // A transaction pooler passes neither start-up options nor named statements.
            connect = connect.statement_cache_capacity(0);
        }
        let prepared = options.prepared;
        // A pooler does not say where it leads to.
        let place = (prepared && !options.read_only).then(Arc::<leading::Leading>::default);
        let (connected, lent) = (place.clone(), place);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .after_connect(move |connection, _| {
                let place = connected.clone();
                Box::pin(async move {
                    // Compiling a plan takes longer than any statement here runs. Behind a transaction pooler the
                    // setting would be somebody else's, and engines that compile nothing do not know it.
                    if prepared
                        && let Err(error) = sqlx::query("SET jit = off").execute(&mut *connection).await
                    {
                        tracing::debug!(%error, "statements may be compiled by the database");
                    }
                    if let Some(place) = place {
                        place.connected(connection).await?;
                    }
                    Ok(())
                })
            })
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let place = lent.clone();
                Box::pin(async move {
                    if meta.idle_for > TRUSTED {
                        lent::is_alive(connection).await?;
                    }
                    match place {
                        Some(place) => place.is_of_use(connection, meta.age).await,
                        None => Ok(true),
                    }
                })
            })
            .connect_with(connect.clone())
            .await?;
        if !options.migrate {
            schema::check(&mut *pool.acquire().await?, &migrator()).await?;
        }
        let unfinished = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(UNFINISHED);
        if unfinished.fetch_one(&pool).await? {
            return Err(MetadataError::Unfinished);
        }
        let [for_manifests, for_blobs, for_tokens] = [(); 3].map(|()| pool.clone());
        Ok(Self {
            pool,
            manifests: Batcher::start((SYSTEM, "manifest"), move |asked| {
                let pool = for_manifests.clone();
                let looking = async move { lookups::manifests(&mut *Lent::of(&pool).await?, asked).await };
                Box::pin(answered(LOOKUP_LIMIT, looking))
            }),
            blobs: Batcher::start((SYSTEM, "blob"), move |asked| {
                let pool = for_blobs.clone();
                let looking = async move { lookups::blobs(&mut *Lent::of(&pool).await?, asked).await };
                Box::pin(answered(LOOKUP_LIMIT, looking))
            }),
            tokens: Batcher::start((SYSTEM, "token"), move |asked| {
                let pool = for_tokens.clone();
                let looking = async move { tokens::by_ids(&mut *Lent::of(&pool).await?, asked).await };
                Box::pin(answered(LOOKUP_LIMIT, looking))
            }),
            // A standby hears no notifications, and refuses to listen.
            listener: (options.prepared && !options.read_only).then(Mutex::default),
            connect,
            read_only: options.read_only,
        })
    }

    /// Runs reads.
    async fn read<A, T, F>(&self, asked: A, query: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        let reading = async {
            let mut again = 0..READ_AGAIN;
            loop {
                let mut connection = Lent::of(&self.pool).await?;
                match query(&mut connection, &asked).await {
                    // A standby gives reads up so that it can replay what the primary has removed.
                    Err(MetadataError::Conflict(_)) if again.next().is_some() => {}
                    outcome => return outcome,
                }
            }
        };
        statement(SYSTEM, type_name::<F>(), answered(READ_LIMIT, reading)).await
    }

    /// Returns when a writer of configuration has said so, or when it cannot be heard.
    async fn listen(&self) {
        // A transaction pooler hands out another connection for each transaction: nothing would be heard.
        let Some(listener) = &self.listener else {
            return std::future::pending().await;
        };
        let mut listener = listener.lock().await;
        if let Err(error) = hear(&self.connect, &mut listener).await {
            tracing::debug!(%error, "notifications of the metadata store are not heard; it is polled");
            *listener = None;
            tokio::time::sleep(HEAR_AGAIN).await;
        }
    }

    /// Runs a transaction that a request waits for.
    async fn write<A, T, F>(&self, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        self.transact(WRITE_LIMIT, asked, work).await
    }

    /// Runs a transaction; again from its start when the database aborted it for other transactions' sake.
    /// It runs in a task of its own, so that a client that goes away does not cut it. Past `limit` nobody knows
    /// whether it was committed.
    async fn transact<A, T, F>(&self, limit: Duration, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        if self.read_only {
            return Err(MetadataError::OnlyRead);
        }
        let pool = self.pool.clone();
        let work = Arc::new(work);
        let task = tokio::spawn(async move {
            let mut tries = 0;
            loop {
                let attempt = answered(limit, async { Ok(transaction(&pool, &asked, &*work).await) });
                match attempt.await? {
                    Err(Aborted::Retry(_)) if tries < RETRIES => tries += 1,
                    Err(Aborted::Retry(error) | Aborted::Final(error)) => return Err(error),
                    Ok(outcome) => return Ok(outcome),
                }
            }
        });
        let writing = async {
            task.await
                .map_err(|error| MetadataError::Unavailable(error.to_string()))?
        };
        statement(SYSTEM, type_name::<F>(), writing).await
    }

    /// Looks of collection that get on best together: each takes a connection.
    fn at_once(&self) -> usize {
        let connections = self.pool.options().get_max_connections();
        usize::try_from(connections / 4).unwrap_or(1).clamp(1, 8)
    }

    /// A long look that no request waits for.
    async fn look_later<A, T, F>(&self, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        // In a transaction, since the statement's limit is lifted for that long.
        self.transact(LATER_LIMIT, asked, work).await
    }

    /// The same for what no request waits for: on this database nobody waits for it anyway.
    async fn write_later<A, T, F>(&self, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        self.transact(LATER_LIMIT, asked, work).await
    }
}

pub(super) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("src/metadata/migrations/postgres");
    // A newer release may have added to the schema; this one works with what it knows.
    migrator.set_ignore_missing(true);
    migrator
}

/// Migrates on a connection of its own, without a statement timeout: a migration, and the wait for another
/// process's, take as long as they take.
pub(super) async fn migrate(connect: &PgConnectOptions) -> Result<()> {
    let mut connection = connect.connect().await?;
    migrator()
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| MetadataError::Migration(error.to_string()))?;
    Ok(connection.close().await?)
}

/// A connection that hears notifications, and since when.
type Listening = (PgListener, Instant);

/// Waits for a notification, on a connection of its own. It is none of the pool's: what falls silent is given back by a
/// task that waits without a limit, and would hold a request's place for as long.
async fn hear(
    connect: &PgConnectOptions,
    listener: &mut Option<Listening>,
) -> std::result::Result<(), sqlx::Error> {
    if let Some((listening, since)) = listener
        && since.elapsed() < HEARS_FOR
    {
        return listening.recv().await.map(drop);
    }
    *listener = None;
    let alone = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(connect.clone());
    let mut listening = PgListener::connect_with(&alone).await?;
    listening.listen(dialect::CHANNEL).await?;
    // What was said before is not heard again: whoever waits looks now.
    *listener = Some((listening, Instant::now()));
    Ok(())
}

enum Aborted {
    Retry(MetadataError),
    Final(MetadataError),
}

async fn transaction<A, T, F>(pool: &PgPool, asked: &A, work: &F) -> std::result::Result<T, Aborted>
where
    T: Outcome,
    F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>>,
{
    let mut connection = Lent::of(pool).await.map_err(Aborted::Final)?;
    let outcome = on(&mut connection, asked, work).await;
    if let Err(Aborted::Final(MetadataError::ReadOnly(_))) = &outcome {
        // It may lead to a server that has become a standby, where a new one leads to its successor.
        connection.close();
    }
    outcome
}

async fn on<A, T, F>(connection: &mut Connection, asked: &A, work: &F) -> std::result::Result<T, Aborted>
where
    T: Outcome,
    F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>>,
{
    let failed = |error: sqlx::Error| Aborted::Final(error.into());
    let mut transaction = connection.begin().await.map_err(failed)?;
    match work(&mut transaction, asked).await {
        Ok(outcome) if outcome.commits() => {
            match transaction.commit().await.map_err(MetadataError::from) {
                Ok(()) => Ok(outcome),
                // Some engines detect the conflict here; the transaction has then been undone.
                Err(error @ MetadataError::Conflict(_)) => Err(Aborted::Retry(error)),
                Err(error) => Err(Aborted::Final(error)),
            }
        }
        Ok(outcome) => {
            transaction.rollback().await.map_err(failed)?;
            Ok(outcome)
        }
        Err(error) => {
            // The rollback's own failure adds nothing to the first error.
            let _ = transaction.rollback().await;
            match error {
                MetadataError::Conflict(_) => Err(Aborted::Retry(error)),
                error => Err(Aborted::Final(error)),
            }
        }
    }
}
