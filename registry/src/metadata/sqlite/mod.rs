//! The store on SQLite: one writer, many readers, in one process that holds the file.
//!
//! Every write goes through one task, which puts the writes that wait into one transaction and commits it
//! once (group commit): each is acknowledged after the commit that holds it is on disk.

use std::any::type_name;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};

use super::batch::{Batcher, BlobQuery, ManifestQuery};
use super::configuration::TokenRow;
use super::outcome::Outcome;
use super::transfer::UNFINISHED;
use super::{BlobRow, ManifestRow, MetadataError, Options, Result};
use crate::telemetry::span::statement;

#[macro_use]
mod dialect;
mod writer;

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
const SYSTEM: &str = "sqlite";

pub(super) use SqliteStore as Database;
use dialect::Connection;

/// Connections that read.
const READERS: u32 = 4;

/// Readers, the writer, and the batched lookups.
pub(super) struct SqliteStore {
    readers: SqlitePool,
    writer: writer::Writer,
    manifests: Batcher<ManifestQuery, ManifestRow>,
    blobs: Batcher<BlobQuery, BlobRow>,
    tokens: Batcher<String, TokenRow>,
}

/// Its log is its own, and no standby follows it.
impl super::position::Position for SqliteStore {}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, and, if asked, migrates.
    pub(super) async fn open(path: &Path, options: &Options) -> Result<Self> {
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit that was acknowledged survives power loss.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(false)
            // Rows that the thread which reads may be ahead by: with few it is woken again and again in long lists.
            .row_buffer_size(1024)
            .pragma("cache_size", "-65536")
            .pragma("mmap_size", "268435456")
            .pragma("wal_autocheckpoint", "4000");
        let mut writer = writer::connect(&connect).await?;
        if options.migrate {
            writer = migrate(writer).await?;
        } else {
            schema::check(&mut writer, &migrator()).await?;
        }
        let unfinished = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = $1").bind(UNFINISHED);
        if unfinished.fetch_optional(&mut writer).await?.is_some() {
            return Err(MetadataError::Unfinished);
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(connect.read_only(true).create_if_missing(false))
            .await?;
        let [for_manifests, for_blobs, for_tokens] = [(); 3].map(|()| readers.clone());
        Ok(Self {
            readers,
            writer: writer::Writer::start(writer),
            manifests: Batcher::start((SYSTEM, "manifest"), move |asked| {
                let pool = for_manifests.clone();
                Box::pin(async move { lookups::manifests(&mut *pool.acquire().await?, asked).await })
            }),
            blobs: Batcher::start((SYSTEM, "blob"), move |asked| {
                let pool = for_blobs.clone();
                Box::pin(async move { lookups::blobs(&mut *pool.acquire().await?, asked).await })
            }),
            tokens: Batcher::start((SYSTEM, "token"), move |asked| {
                let pool = for_tokens.clone();
                Box::pin(async move { tokens::by_ids(&mut *pool.acquire().await?, asked).await })
            }),
        })
    }

    /// Runs reads.
    async fn read<A, T, F>(&self, asked: A, query: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        let reading = async {
            let mut connection = self.readers.acquire().await?;
            query(&mut connection, &asked).await
        };
        statement(SYSTEM, type_name::<F>(), reading).await
    }

    /// A long look that no request waits for; the writer does not either.
    async fn look_later<A, T, F>(&self, asked: A, query: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        self.read(asked, query).await
    }

    /// Nobody else writes, so there is nothing to hear.
    async fn listen(&self) {
        std::future::pending().await
    }

    /// Hands a transaction to the writer and waits until it is on disk. It runs to its end even if the
    /// caller goes away.
    async fn write<A, T, F>(&self, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        let writing = self.writer.run(writer::For::Request, asked, work);
        statement(SYSTEM, type_name::<F>(), writing).await
    }

    /// Looks of collection that get on best together: they share a commit.
    fn at_once(&self) -> usize {
        writer::BEHIND_LIMIT
    }

    /// The same for what no request waits for: requests go first.
    async fn write_later<A, T, F>(&self, asked: A, work: F) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Outcome,
        F: for<'c> Fn(&'c mut Connection, &'c A) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static,
    {
        let writing = self.writer.run(writer::For::Later, asked, work);
        statement(SYSTEM, type_name::<F>(), writing).await
    }
}

pub(super) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("src/metadata/migrations/sqlite");
    // A newer release may have added to the schema; this one works with what it knows.
    migrator.set_ignore_missing(true);
    migrator
}

pub(super) async fn migrate(mut connection: Connection) -> Result<Connection> {
    // One transaction that holds the write lock from its start: of two processes the second waits, and finds
    // nothing to do.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    migrator()
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(|error| MetadataError::Migration(error.to_string()))?;
    transaction.commit().await?;
    Ok(connection)
}
