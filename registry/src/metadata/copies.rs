//! Copies of an SQLite store in files of their own: taking one while a server writes, and reading what it names.
//!
//! A copy is one file that nobody writes; reading it needs neither a lock nor a file beside it.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use uuid::Uuid;

use super::lifecycle::JobKind;
use super::{MetadataError, Result, Time};
use crate::blobs::ObjectKey;
use crate::domain::Digest;

/// How long the file may be locked by somebody else: a server that has died leaves a log to be read first.
const BUSY: Duration = Duration::from_secs(30);
/// Tenants by which two copies are held against each other.
const TENANTS: i64 = 1000;

/// An object that a blob refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its key.
    pub key: ObjectKey,
    /// What its bytes are.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// Writes what the store at `source` holds at one instant into the new file `into`, while others read and write the
/// store. It reads in one transaction: writers go on, their log grows by what they write meanwhile. The new file is not
/// yet on disk when this returns.
pub async fn take(source: &Path, into: &Path) -> Result<()> {
    let into = into.to_str().ok_or_else(|| MetadataError::Url {
        url: into.display().to_string(),
        why: "the path must be UTF-8".into(),
    })?;
    let mut connection = SqliteConnectOptions::new()
        .filename(source)
        .read_only(true)
        .busy_timeout(BUSY)
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::query("VACUUM INTO $1")
        .bind(into)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// A copy that is read.
pub struct Copy(SqliteConnection);

impl Copy {
    /// Opens a finished copy.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .immutable(true)
            .read_only(true)
            .disable_statement_logging();
        Ok(Self(options.connect().await?))
    }

    /// Fails unless SQLite finds the file sound.
    pub async fn check(&mut self) -> Result<()> {
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut self.0)
            .await?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(MetadataError::Corrupt(found)),
        }
    }

    /// Number of objects that blobs refer to, and their bytes.
    pub async fn totals(&mut self) -> Result<(u64, u64)> {
        totals(&mut self.0).await
    }

    /// Up to `limit` objects that blobs refer to, in the order of their keys, by `blob_by_object`.
    pub async fn objects(&mut self, after: Option<&ObjectKey>, limit: u32) -> Result<Vec<Named>> {
        objects(&mut self.0, after, limit).await
    }

    /// The object of this key, if a blob refers to it.
    pub async fn object(&mut self, key: &ObjectKey) -> Result<Option<Named>> {
        let row = sqlx::query("SELECT object_key, digest, size FROM blob WHERE object_key = $1 LIMIT 1")
            .bind(key.upload())
            .fetch_optional(&mut self.0)
            .await?;
        row.as_ref().map(named).transpose()
    }

    /// Until when the store's server was told to delete no object.
    pub async fn held_until(&mut self) -> Result<Option<Time>> {
        let until = sqlx::query_scalar("SELECT due_at FROM job WHERE tenant_id = 0 AND kind = $1")
            .bind(JobKind::HOLD)
            .fetch_optional(&mut self.0)
            .await?;
        Ok(until.map(Time))
    }

    /// Whether two copies may be of one installation: they have a tenant's row in common, or one of them has none. A row
    /// outlives its tenant, and is taken up again with another uid when a tenant of its name is made anew; its number is
    /// drawn by lot.
    pub async fn is_related_to(&mut self, other: &mut Copy) -> Result<bool> {
        let mine = self.tenants().await?;
        if mine.is_empty() || other.tenants().await?.is_empty() {
            return Ok(true);
        }
        for id in mine {
            let found = sqlx::query("SELECT 1 FROM tenant WHERE id = $1")
                .bind(id)
                .fetch_optional(&mut other.0)
                .await?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn tenants(&mut self) -> Result<Vec<i64>> {
        let ids = sqlx::query_scalar("SELECT id FROM tenant ORDER BY id LIMIT $1")
            .bind(TENANTS)
            .fetch_all(&mut self.0)
            .await?;
        Ok(ids)
    }
}

/// Number of objects that blobs refer to, and their bytes.
pub(super) async fn totals(c: &mut SqliteConnection) -> Result<(u64, u64)> {
    let row = sqlx::query("SELECT count(*), coalesce(sum(size), 0) FROM blob")
        .fetch_one(&mut *c)
        .await?;
    Ok((number(row.try_get(0)?)?, number(row.try_get(1)?)?))
}

/// A page of the objects that blobs refer to, by `blob_by_object`.
pub(super) async fn objects(
    c: &mut SqliteConnection,
    after: Option<&ObjectKey>,
    limit: u32,
) -> Result<Vec<Named>> {
    // Nothing sorts before every key.
    let after = after.map_or_else(Vec::new, |key| key.upload().as_bytes().to_vec());
    let rows = sqlx::query(
        "SELECT object_key, digest, size FROM blob WHERE object_key > $1 ORDER BY object_key LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(named).collect()
}

/// Makes a copy a store that can be served, durably: what belonged to processes and to bytes that no copy has ends.
/// Those are uploads that were open, replicas, what they fetched from other registries, and holds.
pub async fn settle(path: &Path) -> Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        // A journal that goes with the connection: one file is left.
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .connect()
        .await?;
    let mut transaction = connection.begin().await?;
    for ended in [
        "DELETE FROM upload WHERE committed_at IS NULL",
        "DELETE FROM upstream_claim",
        "DELETE FROM replica",
    ] {
        sqlx::query(ended).execute(&mut *transaction).await?;
    }
    sqlx::query("DELETE FROM job WHERE kind = $1")
        .bind(JobKind::HOLD)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(connection.close().await?)
}

fn named(row: &sqlx::sqlite::SqliteRow) -> Result<Named> {
    let key: Uuid = row.try_get(0)?;
    let digest: &[u8] = row.try_get(1)?;
    let corrupt = || MetadataError::Corrupt(format!("digest of the blob in {key}"));
    Ok(Named {
        key: ObjectKey::of_upload(key),
        digest: Digest::from_bytes(digest).ok_or_else(corrupt)?,
        size: number(row.try_get(2)?)?,
    })
}

fn number(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| MetadataError::Corrupt(format!("{stored} is no size")))
}
