//! Moving everything from one store into another, of either database, row by row.
//!
//! Tables, columns and keys are read from the schemas themselves, so that a migration needs nothing here; both sides
//! must have the same migrations. Rows are read in the order of their primary keys, a page at a time, and written with the
//! position behind them in one transaction: what is cut goes on from there. The table [`UNFINISHED`] is in the
//! destination from the first to the last row, and no server opens a store that has it.
//!
//! What belongs to processes is not moved ([`LEFT`]).

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::copies::Named;
use super::{MetadataError, Options, Result, Time};
use crate::blobs::ObjectKey;

mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

/// The table of a move that has not ended.
pub(super) const UNFINISHED: &str = "berth_conversion";
/// Tables of what does not outlive its processes or its blob store: replicas, their claims, uploads.
const LEFT: [&str; 5] = [
    "_sqlx_migrations",
    UNFINISHED,
    "replica",
    "upstream_claim",
    "upload",
];
/// The table that a migration fills.
const VERSION: &str = "config_version";
/// Rows of a page.
const ROWS: usize = 500;
/// Rows of a page of a table with payloads, before their lengths are known.
const HEAVY_ROWS: usize = 256;
/// Bytes of payloads in a page, but for a single one that is larger.
const HEAVY_BYTES: i64 = 8 << 20;
/// The column that may be large.
const HEAVY: &str = "payload";

/// What a column holds. Truth is a number and an id is bytes where rows are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Truth,
    Text,
    Bytes,
    Id,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// A table as one side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    columns: Vec<Column>,
    /// Its primary key, as places in `columns`.
    key: Vec<usize>,
}

/// A value that both databases hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

type Row = Vec<Value>;

/// Where a table's copy stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Rows that are there.
    pub rows: u64,
    /// The last of them, as JSON; empty before the first.
    position: String,
    /// Whether that was the table's last.
    pub is_done: bool,
}

/// What a table holds, in one number of rows and one hash of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Rows.
    pub rows: u64,
    /// SHA-256 of all of them in the order of the key.
    pub hash: String,
}

/// One store, held alone as far as its database allows.
pub struct Side {
    database: Database,
    /// Every table that it has.
    known: Vec<Table>,
}

enum Database {
    Sqlite(sqlite::Side),
    Postgres(Box<postgres::Side>),
}

/// The same call on either database.
macro_rules! on {
    ($side:expr, $database:ident => $call:expr) => {
        match &mut $side.database {
            Database::Sqlite($database) => $call.await,
            Database::Postgres($database) => $call.await,
        }
    };
}

impl Side {
    /// Opens the store that a URL names; a destination is made and brought up to date, a source must be.
    pub async fn open(url: &str, is_destination: bool) -> Result<Self> {
        let options = Options {
            migrate: is_destination,
            ..Options::default()
        };
        let database = match url.strip_prefix("sqlite:") {
            Some(path) => Database::Sqlite(sqlite::Side::open(path.as_ref(), is_destination).await?),
            None => Database::Postgres(Box::new(postgres::Side::open(url, &options).await?)),
        };
        let mut side = Self {
            database,
            known: Vec::new(),
        };
        side.known = on!(side, database => database.tables())?;
        Ok(side)
    }

    /// The newest migration that was applied.
    pub async fn version(&mut self) -> Result<i64> {
        on!(self, database => database.version())
    }

    /// A host that serves the store now, as its replicas have said themselves.
    pub async fn served_by(&mut self, since: Time) -> Result<Option<String>> {
        on!(self, database => database.served_by(since))
    }

    /// Every table that is moved, by name; the one that a migration fills is last.
    pub fn tables(&self) -> Result<Vec<Table>> {
        let mut tables = self.known.clone();
        tables.retain(|table| !LEFT.contains(&table.name.as_str()));
        tables.sort_by_key(|table| (table.name == VERSION, table.name.clone()));
        if let Some(table) = tables.iter().find(|table| table.key.is_empty()) {
            return Err(MetadataError::Corrupt(format!(
                "the table {} has no primary key",
                table.name
            )));
        }
        Ok(tables)
    }

    /// What says whose store this is: its tenants, and the version of its configuration.
    pub async fn identity(&mut self) -> Result<String> {
        let mut identity = Sha256::new();
        for table in self.tables()? {
            if ["tenant", VERSION].contains(&table.name.as_str()) {
                identity.update(self.content(&table, |_| {}).await?.hash);
            }
        }
        Ok(hex::encode(identity.finalize()))
    }

    /// Whether nothing was ever stored.
    pub async fn is_empty(&mut self) -> Result<bool> {
        for table in self.tables()? {
            if table.name != VERSION && !self.page(&table, None, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Of which store an unfinished move into this one is.
    pub async fn unfinished(&mut self) -> Result<Option<String>> {
        on!(self, database => database.unfinished())
    }

    /// A move from the store of this identity begins.
    pub async fn begin(&mut self, identity: &str) -> Result<()> {
        on!(self, database => database.begin(identity))
    }

    /// The move has ended: the store can be served.
    pub async fn finish(&mut self) -> Result<()> {
        on!(self, database => database.finish())
    }

    /// How far a table is.
    pub async fn standing(&mut self, table: &Table) -> Result<Standing> {
        on!(self, database => database.standing(&table.name))
    }

    /// Number of rows of a table.
    pub async fn count(&mut self, table: &Table) -> Result<u64> {
        on!(self, database => database.count(&table.name))
    }

    /// Copies the page of `table` that follows `standing` from `source`; where it stands then.
    pub async fn take_page(
        &mut self,
        source: &mut Side,
        table: &Table,
        standing: &Standing,
    ) -> Result<Standing> {
        let after: Option<Row> = match standing.position.as_str() {
            "" => None,
            text => {
                Some(serde_json::from_str(text).map_err(|error| MetadataError::Corrupt(error.to_string()))?)
            }
        };
        let rows = source.next_page(table, after.as_ref()).await?;
        let mut then = Standing {
            rows: standing.rows + rows.len() as u64,
            is_done: rows.is_empty(),
            position: standing.position.clone(),
        };
        if let Some(last) = rows.last() {
            then.position = position(table, last)?;
        }
        let own = self.own(table)?;
        on!(self, database => database.write(&own, &rows, standing, &then))?;
        Ok(then)
    }

    /// What a table holds; `seen` is told rows as they pass.
    pub async fn content(&mut self, table: &Table, seen: impl Fn(u64)) -> Result<Content> {
        let (mut hash, mut rows, mut after) = (Sha256::new(), 0, None);
        loop {
            let page = self.next_page(table, after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(key(table, last));
            for row in &page {
                row.iter().for_each(|value| hash_value(&mut hash, value));
            }
            rows += page.len() as u64;
            seen(page.len() as u64);
        }
        Ok(Content {
            rows,
            hash: hex::encode(hash.finalize()),
        })
    }

    /// Up to `limit` objects that blobs refer to, in the order of their keys.
    pub async fn objects(&mut self, after: Option<&ObjectKey>, limit: u32) -> Result<Vec<Named>> {
        on!(self, database => database.objects(after, limit))
    }

    /// Number of objects that blobs refer to, and their bytes.
    pub async fn object_totals(&mut self) -> Result<(u64, u64)> {
        on!(self, database => database.object_totals())
    }

    /// This side's columns of a table, in the order of the other's.
    fn own(&self, table: &Table) -> Result<Table> {
        let own = self.known.iter().find(|own| own.name == table.name);
        let own = own.ok_or_else(|| MetadataError::Corrupt(format!("there is no table {}", table.name)))?;
        let mut columns = Vec::new();
        for column in &table.columns {
            let found = own.columns.iter().find(|found| found.name == column.name);
            columns.push(found.cloned().ok_or_else(|| {
                MetadataError::Corrupt(format!("the table {} has no column {}", table.name, column.name))
            })?);
        }
        Ok(Table {
            columns,
            ..table.clone()
        })
    }

    async fn next_page(&mut self, table: &Table, after: Option<&Row>) -> Result<Vec<Row>> {
        let mut limit = ROWS;
        if table.columns.iter().any(|column| column.name == HEAVY) {
            let own = self.own(table)?;
            let lengths = on!(self, database => database.lengths(&own, after, HEAVY_ROWS))?;
            let mut bytes = 0;
            let fits = |length: &&i64| {
                bytes += **length;
                bytes <= HEAVY_BYTES
            };
            limit = lengths.iter().take_while(fits).count().max(1);
        }
        self.page(table, after, limit).await
    }

    async fn page(&mut self, table: &Table, after: Option<&Row>, limit: usize) -> Result<Vec<Row>> {
        let own = self.own(table)?;
        on!(self, database => database.page(&own, after, limit))
    }
}

fn key(table: &Table, row: &Row) -> Row {
    table.key.iter().map(|column| row[*column].clone()).collect()
}

fn position(table: &Table, row: &Row) -> Result<String> {
    serde_json::to_string(&key(table, row)).map_err(|error| MetadataError::Corrupt(error.to_string()))
}

/// Each value with its kind and its length, so that no two rows look alike.
fn hash_value(hash: &mut Sha256, value: &Value) {
    let (kind, bytes): (u8, &[u8]) = match value {
        Value::Null => (0, &[]),
        Value::Integer(number) => return hash.update([&[1][..], &number.to_be_bytes()].concat()),
        Value::Text(text) => (2, text.as_bytes()),
        Value::Bytes(bytes) => (3, bytes),
    };
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// A name as both databases take it whatever it is.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// `SELECT …` of the page behind a key, the key's values as parameters and the limit last.
fn select(table: &Table, after: bool, column: impl Fn(&Column) -> String) -> String {
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    format!("SELECT {} {}", columns.join(", "), behind(table, after))
}

/// The same of the lengths of its payloads.
fn select_lengths(table: &Table, after: bool) -> String {
    format!(
        "SELECT CAST(length(t.{}) AS BIGINT) {}",
        quoted(HEAVY),
        behind(table, after)
    )
}

fn behind(table: &Table, after: bool) -> String {
    let keys: Vec<String> = table
        .key
        .iter()
        .map(|key| format!("t.{}", quoted(&table.columns[*key].name)))
        .collect();
    let keys = keys.join(", ");
    let mut text = format!("FROM {} AS t", quoted(&table.name));
    let mut parameters = 0;
    if after {
        parameters = table.key.len();
        let values: Vec<String> = (1..=parameters).map(|number| format!("${number}")).collect();
        text.push_str(&format!(" WHERE ({keys}) > ({})", values.join(", ")));
    }
    text.push_str(&format!(" ORDER BY {keys} LIMIT ${}", parameters + 1));
    text
}

/// `INSERT INTO …` up to its values.
fn insert(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    format!("INSERT INTO {} ({}) ", quoted(&table.name), columns.join(", "))
}

fn lost() -> MetadataError {
    MetadataError::Conflict("another conversion writes into the destination".to_owned())
}
