//! What a metadata store is like, seen from outside: asked by whoever looks for what is wrong. Changes nothing.

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::{MetadataError, Result, Time, postgres, sqlite};

/// Statements whose time is taken.
const ROUNDS: usize = 7;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Like `PostgreSQL 17.2`.
    pub product: String,
    /// Its version as a number, like 170002 or 3051003.
    pub version: i64,
    /// How long a statement that does nothing takes, as the median of a few.
    pub round_trip: Duration,
    /// What the store's clock said, and what ours did at that time. SQLite has no clock of its own.
    pub clocks: Option<(Time, Time)>,
    /// Migrations of this release that have not been applied; all of them where there is no schema yet.
    pub pending: Vec<String>,
    /// Migrations that a newer release has applied.
    pub newer: usize,
    /// Settings of the store that matter, by name.
    pub settings: Vec<(String, String)>,
    /// Whether it takes no writes: a standby, or a database that was made read-only.
    pub read_only: bool,
    /// What its own check of itself found; nothing if it was not asked for, or has none.
    pub damage: Vec<String>,
}

impl Survey {
    /// A setting of the store.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Asks the store that `url` names. `thorough` has SQLite read all of its file.
pub async fn survey(url: &str, thorough: bool) -> Result<Survey> {
    let asked = async {
        match url.strip_prefix("sqlite:") {
            Some(path) => of_sqlite(Path::new(path), thorough).await,
            None => of_postgres(url).await,
        }
    };
    match thorough {
        true => asked.await,
        false => tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
            Err(MetadataError::Unavailable(format!(
                "no answer within {PATIENCE:?}"
            )))
        }),
    }
}

/// Settings of Postgres that are looked at.
const POSTGRES: [&str; 8] = [
    "default_transaction_isolation",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "max_connections",
    "server_encoding",
    "synchronous_commit",
    "autovacuum",
];

async fn of_postgres(url: &str) -> Result<Survey> {
    let options = PgConnectOptions::from_str(url).map_err(|error| MetadataError::Url {
        url: url.rsplit('@').next().unwrap_or_default().to_owned(),
        why: error.to_string(),
    })?;
    // No named statements: it may be a pooler.
    let options = options
        .statement_cache_capacity(0)
        .application_name("berth-registry doctor");
    let mut c = PgConnection::connect_with(&options).await?;
    let row = sqlx::query(
        "SELECT current_setting('server_version'), CAST(current_setting('server_version_num') AS BIGINT), \
         pg_is_in_recovery(), CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    )
    .fetch_one(&mut c)
    .await?;
    let clocks = Some((Time(row.try_get(3)?), Time::now()));
    let version: String = row.try_get(0)?;
    let mut settings = Vec::new();
    for name in POSTGRES {
        // Engines that speak the same protocol may lack some.
        let value: Option<String> = sqlx::query_scalar("SELECT current_setting($1, true)")
            .bind(name)
            .fetch_one(&mut c)
            .await?;
        settings.extend(value.map(|value| (name.to_owned(), value)));
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        sqlx::query("SELECT 1").execute(&mut c).await?;
        rounds.push(begun.elapsed());
    }
    let applied = applied(sqlx::query_scalar(APPLIED).fetch_all(&mut c).await)?;
    let (pending, newer) = compared(&postgres::migrator(), &applied);
    let mut survey = Survey {
        product: format!("PostgreSQL {version}"),
        version: row.try_get(1)?,
        round_trip: median(rounds),
        clocks,
        pending,
        newer,
        settings,
        read_only: row.try_get(2)?,
        damage: Vec::new(),
    };
    survey.read_only |= survey.setting("default_transaction_read_only") == Some("on");
    let _ = c.close().await;
    Ok(survey)
}

async fn of_sqlite(path: &Path, thorough: bool) -> Result<Survey> {
    // A process that serves has it open for writing.
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut c = SqliteConnection::connect_with(&options).await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut c)
        .await?;
    let mut settings = Vec::new();
    for (name, query) in [
        ("journal_mode", "PRAGMA journal_mode"),
        ("page_count", "PRAGMA page_count"),
    ] {
        let row = sqlx::query(query).fetch_one(&mut c).await?;
        let value = row
            .try_get::<String, _>(0)
            .or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()));
        settings.push((name.to_owned(), value?));
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        sqlx::query("SELECT 1").execute(&mut c).await?;
        rounds.push(begun.elapsed());
    }
    let applied = applied(sqlx::query_scalar(APPLIED).fetch_all(&mut c).await)?;
    let (pending, newer) = compared(&sqlite::migrator(), &applied);
    let mut damage: Vec<String> = Vec::new();
    if thorough {
        damage = sqlx::query_scalar("PRAGMA integrity_check(10)")
            .fetch_all(&mut c)
            .await?;
        damage.retain(|line| line != "ok");
    }
    let _ = c.close().await;
    Ok(Survey {
        version: numbered(&version),
        product: format!("SQLite {version}"),
        round_trip: median(rounds),
        clocks: None,
        pending,
        newer,
        settings,
        read_only: false,
        damage,
    })
}

const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";

/// None where there is no such table, which comes with the first migration.
fn applied(found: std::result::Result<Vec<i64>, sqlx::Error>) -> Result<Vec<i64>> {
    match found {
        Ok(versions) => Ok(versions),
        Err(sqlx::Error::Database(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// What is missing of a release's migrations, and how many there are beyond them.
fn compared(migrator: &Migrator, applied: &[i64]) -> (Vec<String>, usize) {
    let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    let pending = migrator
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(|migration| format!("{} {}", migration.version, migration.description));
    let newer = applied.iter().filter(|version| !known.contains(version)).count();
    (pending.collect(), newer)
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// Like 3051003.
fn numbered(version: &str) -> i64 {
    let mut parts = version.split('.').map(|part| part.parse::<i64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    next() * 1_000_000 + next() * 1000 + next()
}
