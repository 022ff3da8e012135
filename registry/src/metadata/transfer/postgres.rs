//! A side on Postgres. That nobody serves it, its replicas say themselves.

use std::str::FromStr as _;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use super::{
    Column, Kind, Named, Row, Standing, Table, UNFINISHED, Value, insert, lost, quoted, select,
    select_lengths,
};
use crate::blobs::ObjectKey;
use crate::domain::Digest;
use crate::metadata::postgres::migrate;
use crate::metadata::{MetadataError, Options, Result, Time};

pub(super) struct Side {
    connection: PgConnection,
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

impl Side {
    pub(super) async fn open(url: &str, options: &Options) -> Result<Self> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| MetadataError::Url {
                url: url.rsplit('@').next().unwrap_or_default().to_owned(),
                why: error.to_string(),
            })?
            .application_name("berth-registry convert")
            .disable_statement_logging();
        if options.migrate {
            migrate(&connect).await?;
        }
        Ok(Self {
            connection: connect.connect().await?,
        })
    }

    pub(super) async fn version(&mut self) -> Result<i64> {
        let version = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations");
        Ok(version.fetch_one(&mut self.connection).await?)
    }

    pub(super) async fn served_by(&mut self, since: Time) -> Result<Option<String>> {
        let host =
            sqlx::query_scalar("SELECT host FROM replica WHERE seen_at >= $1 ORDER BY seen_at DESC LIMIT 1");
        Ok(host.bind(since.0).fetch_optional(&mut self.connection).await?)
    }

    pub(super) async fn tables(&mut self) -> Result<Vec<Table>> {
        // Of the schema that unqualified names mean.
        let rows = sqlx::query(
            "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), \
                    coalesce(array_position(i.indkey::smallint[], a.attnum), -1)::bigint \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary \
             WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::text::regnamespace \
             ORDER BY c.relname, a.attnum",
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
            if place >= 0 {
                keys.push((place, table.columns.len()));
                keys.sort_unstable();
                table.key = keys.iter().map(|(_, column)| *column).collect();
            }
            let kind = match kind.as_str() {
                "bigint" | "smallint" | "integer" => Kind::Integer,
                "boolean" => Kind::Truth,
                "text" => Kind::Text,
                "bytea" => Kind::Bytes,
                "uuid" => Kind::Id,
                _ if name.starts_with('_') => Kind::Text,
                other => {
                    return Err(MetadataError::Corrupt(format!(
                        "{name}.{column} is of the type {other}"
                    )));
                }
            };
            table.columns.push(Column { name: column, kind });
        }
        Ok(tables)
    }

    pub(super) async fn unfinished(&mut self) -> Result<Option<String>> {
        let table = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(UNFINISHED);
        let is_there: bool = table.fetch_one(&mut self.connection).await?;
        if !is_there {
            return Ok(None);
        }
        let identity = sqlx::query_scalar("SELECT position FROM berth_conversion WHERE name = ''");
        Ok(identity.fetch_optional(&mut self.connection).await?)
    }

    pub(super) async fn begin(&mut self, identity: &str) -> Result<()> {
        let mut transaction = self.connection.begin().await?;
        sqlx::query(
            "CREATE TABLE berth_conversion (name TEXT PRIMARY KEY, position TEXT NOT NULL, rows BIGINT NOT NULL, \
             done BOOLEAN NOT NULL)",
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO berth_conversion (name, position, rows, done) VALUES ('', $1, 0, FALSE)")
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
            is_done: row.try_get(2)?,
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
        let rows = bound(sqlx::query(AssertSqlSafe(text)), table, after, limit)?
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
        let text = select(table, after.is_some(), |column| match column.kind {
            Kind::Integer => format!("CAST(t.{} AS BIGINT)", quoted(&column.name)),
            _ => format!("t.{}", quoted(&column.name)),
        });
        let rows = bound(sqlx::query(AssertSqlSafe(text)), table, after, limit)?
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
            let mut tuples = Vec::with_capacity(rows.len());
            for row in rows {
                let values: Result<Vec<Typed<'_>>> = row
                    .iter()
                    .zip(&table.columns)
                    .map(|(value, column)| typed(value, column))
                    .collect();
                tuples.push(values?);
            }
            let mut builder = QueryBuilder::<Postgres>::new(insert(table));
            builder.push_values(tuples, |mut tuple, row| {
                for value in row {
                    match value {
                        Typed::Integer(number) => tuple.push_bind(number),
                        Typed::Truth(truth) => tuple.push_bind(truth),
                        Typed::Text(text) => tuple.push_bind(text),
                        Typed::Bytes(bytes) => tuple.push_bind(bytes),
                        Typed::Id(id) => tuple.push_bind(id),
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
        .bind(then.is_done)
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
        let rows = sqlx::query(
            "SELECT object_key, digest, size FROM blob WHERE object_key > $1 ORDER BY object_key LIMIT $2",
        )
        // No upload has the first id.
        .bind(after.map_or(Uuid::nil(), ObjectKey::upload))
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter().map(named).collect()
    }

    pub(super) async fn object_totals(&mut self) -> Result<(u64, u64)> {
        let row = sqlx::query("SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob")
            .fetch_one(&mut self.connection)
            .await?;
        let number = |at: usize| -> Result<u64> { Ok(row.try_get::<i64, _>(at)?.unsigned_abs()) };
        Ok((number(0)?, number(1)?))
    }
}

/// A value in the type of its column, which NULL needs too.
enum Typed<'v> {
    Integer(Option<i64>),
    Truth(Option<bool>),
    Text(Option<&'v str>),
    Bytes(Option<&'v [u8]>),
    Id(Option<Uuid>),
}

fn typed<'v>(value: &'v Value, column: &Column) -> Result<Typed<'v>> {
    let unfit = || {
        MetadataError::Corrupt(format!(
            "a value of the column {} is of another type",
            column.name
        ))
    };
    Ok(match (column.kind, value) {
        (Kind::Integer, Value::Null) => Typed::Integer(None),
        (Kind::Truth, Value::Null) => Typed::Truth(None),
        (Kind::Text, Value::Null) => Typed::Text(None),
        (Kind::Bytes, Value::Null) => Typed::Bytes(None),
        (Kind::Id, Value::Null) => Typed::Id(None),
        (Kind::Integer, Value::Integer(number)) => Typed::Integer(Some(*number)),
        (Kind::Truth, Value::Integer(number)) => Typed::Truth(Some(*number != 0)),
        (Kind::Text, Value::Text(text)) => Typed::Text(Some(text)),
        (Kind::Bytes, Value::Bytes(bytes)) => Typed::Bytes(Some(bytes)),
        (Kind::Id, Value::Bytes(bytes)) => Typed::Id(Some(Uuid::from_slice(bytes).map_err(|_| unfit())?)),
        _ => return Err(unfit()),
    })
}

fn bound<'q>(mut query: Query<'q>, table: &Table, after: Option<&'q Row>, limit: usize) -> Result<Query<'q>> {
    for (value, column) in after.into_iter().flatten().zip(&table.key) {
        query = match typed(value, &table.columns[*column])? {
            Typed::Integer(number) => query.bind(number),
            Typed::Truth(truth) => query.bind(truth),
            Typed::Text(text) => query.bind(text),
            Typed::Bytes(bytes) => query.bind(bytes),
            Typed::Id(id) => query.bind(id),
        };
    }
    Ok(query.bind(i64::try_from(limit).unwrap_or(i64::MAX)))
}

fn read(row: &PgRow, table: &Table) -> Result<Row> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        let value = match column.kind {
            Kind::Integer => row.try_get::<Option<i64>, _>(at)?.map(Value::Integer),
            Kind::Truth => row
                .try_get::<Option<bool>, _>(at)?
                .map(|truth| Value::Integer(i64::from(truth))),
            Kind::Text => row.try_get::<Option<String>, _>(at)?.map(Value::Text),
            Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Value::Bytes),
            Kind::Id => row
                .try_get::<Option<Uuid>, _>(at)?
                .map(|id| Value::Bytes(id.as_bytes().to_vec())),
        };
        values.push(value.unwrap_or(Value::Null));
    }
    Ok(values)
}

fn named(row: &PgRow) -> Result<Named> {
    let key: Uuid = row.try_get(0)?;
    let digest: &[u8] = row.try_get(1)?;
    let corrupt = || MetadataError::Corrupt(format!("digest of the blob in {key}"));
    Ok(Named {
        key: ObjectKey::of_upload(key),
        digest: Digest::from_bytes(digest).ok_or_else(corrupt)?,
        size: row.try_get::<i64, _>(2)?.unsigned_abs(),
    })
}
