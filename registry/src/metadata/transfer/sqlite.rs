//! A side on SQLite. The file is locked against every other process as long as it is open.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, QueryBuilder, Row as _, Sqlite};

use super::{
    Column, Kind, Named, Row, Standing, Table, UNFINISHED, Value, insert, lost, quoted, select,
    select_lengths,
};
use crate::blobs::ObjectKey;
use crate::metadata::sqlite::migrate;
use crate::metadata::{MetadataError, Result, Time, copies};

pub(super) struct Side {
    connection: SqliteConnection,
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

impl Side {
    pub(super) async fn open(path: &Path, is_destination: bool) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(is_destination)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(1))
            .foreign_keys(false)
            .disable_statement_logging();
        let used = |error: sqlx::Error| match error.as_database_error() {
            Some(found) if found.message().contains("locked") => {
                MetadataError::Conflict(format!("{} is used by another process: stop it", path.display()))
            }
            _ => error.into(),
        };
        let mut connection = options.connect().await.map_err(used)?;
        if is_destination {
            connection = migrate(connection).await?;
        }
        // The lock is taken by the first transaction that writes, and kept.
        let mut transaction = connection.begin_with("BEGIN EXCLUSIVE").await.map_err(used)?;
        sqlx::query("SELECT 1").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Self { connection })
    }

    pub(super) async fn version(&mut self) -> Result<i64> {
        let version = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations");
        Ok(version.fetch_one(&mut self.connection).await?)
    }

    /// Nobody but this process.
    pub(super) async fn served_by(&mut self, _since: Time) -> Result<Option<String>> {
        Ok(None)
    }

    pub(super) async fn tables(&mut self) -> Result<Vec<Table>> {
        let rows = sqlx::query(
            "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid",
        )
        .fetch_all(&mut self.connection)
        .await?;
        let mut tables: Vec<Table> = Vec::new();
        let mut keys: Vec<(i64, usize)> = Vec::new();
        for row in &rows {
            let (name, column): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (kind, place): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
            if tables.last().is_none_or(|table| table.name != name) {
                keys.clear();
                tables.push(Table {
                    name: name.clone(),
                    columns: Vec::new(),
                    key: Vec::new(),
                });
            }
            let Some(table) = tables.last_mut() else { continue };
            if place > 0 {
                keys.push((place, table.columns.len()));
                keys.sort_unstable();
                table.key = keys.iter().map(|(_, column)| *column).collect();
            }
            // sqlx's own table has others; it is not moved.
            let kind = match kind.as_str() {
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Bytes,
                _ => Kind::Integer,
            };
            table.columns.push(Column { name: column, kind });
        }
        Ok(tables)
    }

    pub(super) async fn unfinished(&mut self) -> Result<Option<String>> {
        let table = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = $1").bind(UNFINISHED);
        if table.fetch_optional(&mut self.connection).await?.is_none() {
            return Ok(None);
        }
        let identity = sqlx::query_scalar("SELECT position FROM berth_conversion WHERE name = ''");
        Ok(identity.fetch_optional(&mut self.connection).await?)
    }

    pub(super) async fn begin(&mut self, identity: &str) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        sqlx::query(
            "CREATE TABLE berth_conversion (name TEXT PRIMARY KEY, position TEXT NOT NULL, rows INTEGER NOT NULL, \
             done INTEGER NOT NULL)",
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO berth_conversion (name, position, rows, done) VALUES ('', $1, 0, 0)")
            .bind(identity)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM config_version")
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn finish(&mut self) -> Result<()> {
        sqlx::query("DROP TABLE berth_conversion")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    pub(super) async fn standing(&mut self, table: &str) -> Result<Standing> {
        let row = sqlx::query("SELECT position, rows, done FROM berth_conversion WHERE name = $1")
            .bind(table)
            .fetch_optional(&mut self.connection)
            .await?;
        let Some(row) = row else {
            return Ok(Standing::default());
        };
        Ok(Standing {
            position: row.try_get(0)?,
            rows: row.try_get::<i64, _>(1)?.unsigned_abs(),
            is_done: row.try_get::<i64, _>(2)? != 0,
        })
    }

    pub(super) async fn count(&mut self, table: &str) -> Result<u64> {
        let text = format!("SELECT count(*) FROM {}", quoted(table));
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(text))
            .fetch_one(&mut self.connection)
            .await?;
        Ok(count.unsigned_abs())
    }

    pub(super) async fn lengths(
        &mut self,
        table: &Table,
        after: Option<&Row>,
        limit: usize,
    ) -> Result<Vec<i64>> {
        let text = select_lengths(table, after.is_some());
        let rows = bound(sqlx::query(AssertSqlSafe(text)), after, limit)
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(super) async fn page(
        &mut self,
        table: &Table,
        after: Option<&Row>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let text = select(table, after.is_some(), |column| {
            format!("t.{}", quoted(&column.name))
        });
        let rows = bound(sqlx::query(AssertSqlSafe(text)), after, limit)
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter().map(|row| read(row, table)).collect()
    }

    pub(super) async fn write(
        &mut self,
        table: &Table,
        rows: &[Row],
        before: &Standing,
        then: &Standing,
    ) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        if !rows.is_empty() {
            let mut builder = QueryBuilder::<Sqlite>::new(insert(table));
            builder.push_values(rows, |mut tuple, row| {
                for value in row {
                    match value {
                        Value::Null => tuple.push_bind(None::<i64>),
                        Value::Integer(number) => tuple.push_bind(*number),
                        Value::Text(text) => tuple.push_bind(text.as_str()),
                        Value::Bytes(bytes) => tuple.push_bind(bytes.as_slice()),
                    };
                }
            });
            builder.build().execute(&mut *transaction).await?;
        }
        let moved = sqlx::query(
            "INSERT INTO berth_conversion (name, position, rows, done) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO UPDATE SET position = excluded.position, rows = excluded.rows, done = excluded.done \
             WHERE berth_conversion.position = $5 AND berth_conversion.rows = $6",
        )
        .bind(&table.name)
        .bind(&then.position)
        .bind(then.rows.cast_signed())
        .bind(i64::from(then.is_done))
        .bind(&before.position)
        .bind(before.rows.cast_signed())
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(lost());
        }
        Ok(transaction.commit().await?)
    }

    pub(super) async fn objects(&mut self, after: Option<&ObjectKey>, limit: u32) -> Result<Vec<Named>> {
        copies::objects(&mut self.connection, after, limit).await
    }

    pub(super) async fn object_totals(&mut self) -> Result<(u64, u64)> {
        copies::totals(&mut self.connection).await
    }
}

fn bound<'q>(mut query: Query<'q>, after: Option<&'q Row>, limit: usize) -> Query<'q> {
    for value in after.into_iter().flatten() {
        query = match value {
            Value::Null => query.bind(None::<i64>),
            Value::Integer(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.as_str()),
            Value::Bytes(bytes) => query.bind(bytes.as_slice()),
        };
    }
    query.bind(i64::try_from(limit).unwrap_or(i64::MAX))
}

fn read(row: &SqliteRow, table: &Table) -> Result<Row> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        let value = match column.kind {
            Kind::Integer | Kind::Truth => row.try_get::<Option<i64>, _>(at)?.map(Value::Integer),
            // Postgres holds no NUL in a text.
            Kind::Text => row
                .try_get::<Option<String>, _>(at)?
                .map(|text| Value::Text(text.replace('\0', "\u{FFFD}"))),
            Kind::Bytes | Kind::Id => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Value::Bytes),
        };
        values.push(value.unwrap_or(Value::Null));
    }
    Ok(values)
}
