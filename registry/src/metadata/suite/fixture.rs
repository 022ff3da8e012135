//! A store of a test's own, and a second connection to look at its tables.

use std::ops::Deref;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool, SqlitePool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::metadata::configuration::Configuration;
use crate::metadata::events::Events;
use crate::metadata::explore::Explore;
use crate::metadata::inspection::Inspection;
use crate::metadata::lifecycle::Lifecycle;
use crate::metadata::pull_through::PullThrough;
use crate::metadata::{self, Opened, Options, Store};

/// A store that nobody else uses. It is removed when this is dropped.
pub(super) struct TestStore {
    url: String,
    tables: Tables,
    // After `tables` and before `_place`: fields are dropped in this order.
    opened: Opened,
    _place: Place,
}

enum Tables {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What is removed in the end.
enum Place {
    Folder { _folder: TempDir },
    Database { server: String, name: String },
}

/// Opens a store as the process does, caches included.
pub(super) async fn open(url: &str) -> metadata::Result<Opened> {
    // Several tests run at once, each with a pool, on one server.
    metadata::open(
        url,
        &Options {
            connections: 8,
            ..Options::default()
        },
    )
    .await
}

impl TestStore {
    pub(super) async fn on_sqlite() -> Arc<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("berth.db");
        let url = format!("sqlite:{}", file.display());
        let opened = open(&url).await.expect("the store opens");
        let tables = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&file)).await;
        let tables = Tables::Sqlite(tables.expect("the file opens twice"));
        Arc::new(Self {
            url,
            tables,
            opened,
            _place: Place::Folder { _folder: folder },
        })
    }

    pub(super) async fn on_postgres() -> Arc<Self> {
        let server = std::env::var("BERTH_TEST_POSTGRES").expect(
            "BERTH_TEST_POSTGRES names no server: run the tests through ./tests/run, which starts PostgreSQL",
        );
        let name = format!("test_{}", Uuid::new_v4().simple());
        administer(&server, format!("CREATE DATABASE {name}"))
            .await
            .expect("a database can be made");
        // From here on the database is dropped, even if the rest fails.
        let place = Place::Database {
            server: server.clone(),
            name: name.clone(),
        };
        let (server, _) = server
            .rsplit_once('/')
            .expect("BERTH_TEST_POSTGRES ends in /<database>");
        let url = format!("{server}/{name}");
        let opened = open(&url).await.expect("the store opens");
        let tables = Tables::Postgres(PgPool::connect(&url).await.expect("the database can be reached"));
        Arc::new(Self {
            url,
            tables,
            opened,
            _place: place,
        })
    }

    /// The same store opened once more, as by another process.
    pub(super) async fn open_again(&self) -> metadata::Result<Opened> {
        open(&self.url).await
    }

    /// Where a second store can be made beside this one; nothing is there yet.
    pub(super) async fn empty_place(&self) -> String {
        match &self.tables {
            Tables::Sqlite(_) => format!("{}-second", self.url),
            Tables::Postgres(_) => {
                self.execute("CREATE SCHEMA second").await;
                format!("{}?options=-c%20search_path%3Dsecond", self.url)
            }
        }
    }

    /// Closes the store and opens it again.
    pub(super) async fn reopened(self: Arc<Self>) -> Arc<Self> {
        let Self {
            url,
            tables,
            opened,
            _place,
        } = Arc::into_inner(self).expect("nobody else uses the store");
        drop(opened);
        let opened = open(&url).await.expect("the store opens again");
        Arc::new(Self {
            url,
            tables,
            opened,
            _place,
        })
    }

    /// The text that a query answers on Postgres.
    pub(super) async fn text(&self, query: &'static str) -> String {
        let Tables::Postgres(pool) = &self.tables else {
            panic!("the query is one for Postgres");
        };
        let text = sqlx::query_scalar(query).fetch_one(pool).await;
        text.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Whether this is SQLite.
    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.tables, Tables::Sqlite(_))
    }

    /// The trait itself.
    pub(super) fn inner(&self) -> &dyn Store {
        &*self.opened.store
    }

    /// The side of what is kept.
    pub(super) fn lifecycle(&self) -> &dyn Lifecycle {
        &*self.opened.lifecycle
    }

    /// The side of lists for people.
    pub(super) fn explore(&self) -> &dyn Explore {
        &*self.opened.explore
    }

    /// The side of other registries.
    pub(super) fn pull_through(&self) -> &dyn PullThrough {
        &*self.opened.pull_through
    }

    /// The side of events.
    pub(super) fn events(&self) -> &dyn Events {
        &*self.opened.events
    }

    /// The side of configuration.
    pub(super) fn configuration(&self) -> &dyn Configuration {
        &*self.opened.configuration
    }

    /// The side of inspection.
    pub(super) fn inspection(&self) -> &dyn Inspection {
        &*self.opened.inspection
    }

    /// The number that a query answers.
    pub(super) async fn count(&self, query: &'static str) -> i64 {
        let number = match &self.tables {
            Tables::Sqlite(pool) => sqlx::query_scalar(query).fetch_one(pool).await,
            Tables::Postgres(pool) => sqlx::query_scalar(query).fetch_one(pool).await,
        };
        number.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Does something while a transaction of somebody else's keeps everybody from writing counters.
    pub(super) async fn while_nobody_writes<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.tables {
            Tables::Sqlite(pool) => {
                let held = pool.begin_with("BEGIN IMMEDIATE").await.expect("the write lock");
                let done = work.await;
                held.rollback().await.expect("it ends");
                done
            }
            Tables::Postgres(pool) => {
                let mut held = pool.begin().await.expect("a transaction");
                let locked = sqlx::query("LOCK TABLE usage IN EXCLUSIVE MODE");
                locked.execute(&mut *held).await.expect("a lock");
                let done = work.await;
                held.rollback().await.expect("it ends");
                done
            }
        }
    }

    /// Runs a statement behind the store's back.
    pub(super) async fn execute(&self, statement: &'static str) {
        let done = match &self.tables {
            Tables::Sqlite(pool) => sqlx::query(statement).execute(pool).await.map(drop),
            Tables::Postgres(pool) => sqlx::query(statement).execute(pool).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

impl Deref for TestStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.opened.store
    }
}

async fn administer(server: &str, statement: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self::Database { server, name } = self else {
            return;
        };
        // FORCE ends the connections that the store's pool still holds.
        let (server, statement) = (server.clone(), format!("DROP DATABASE {name} WITH (FORCE)"));
        // A runtime cannot be entered from within another one, but can on another thread.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(administer(&server, statement))
        });
        if !std::thread::panicking() {
            dropped
                .join()
                .expect("no panic")
                .expect("the database can be dropped");
        } else {
            let _ = dropped.join();
        }
    }
}
