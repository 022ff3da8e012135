//! What SQLite writes differently. The macros are text that stands inside of `concat!`.

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use crate::domain::Digest;
use crate::metadata::batch::{BlobQuery, ManifestQuery};
use crate::metadata::{Reference, Result, TenantId};

pub(in crate::metadata) type Connection = sqlx::SqliteConnection;
pub(in crate::metadata) type Row = SqliteRow;
type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// A list as one parameter: JSON, with digests in hex.
pub(in crate::metadata) type List = String;

pub(in crate::metadata) fn digests<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> List {
    let list: Vec<Value> = digests
        .into_iter()
        .map(|digest| hex::encode(digest.to_bytes()).into())
        .collect();
    Value::Array(list).to_string()
}

pub(in crate::metadata) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> List {
    Value::Array(texts.into_iter().map(Into::into).collect()).to_string()
}

pub(in crate::metadata) fn uuids(uuids: &[uuid::Uuid]) -> List {
    Value::Array(uuids.iter().map(|id| hex::encode(id.as_bytes()).into()).collect()).to_string()
}

pub(in crate::metadata) fn bind_manifest_queries<'q>(
    query: Query<'q>,
    asked: &[&ManifestQuery],
) -> Query<'q> {
    let rows = asked.iter().map(|(repository, reference)| {
        let TenantId(tenant) = repository.tenant;
        match reference {
            Reference::Tag(tag) => json!([tenant, repository.name.as_str(), tag.as_str(), null]),
            Reference::Digest(digest) => {
                json!([
                    tenant,
                    repository.name.as_str(),
                    null,
                    hex::encode(digest.to_bytes())
                ])
            }
        }
    });
    query.bind(Value::Array(rows.collect()).to_string())
}

pub(in crate::metadata) fn bind_blob_queries<'q>(query: Query<'q>, asked: &[&BlobQuery]) -> Query<'q> {
    let rows = asked.iter().map(|(repository, digest)| {
        json!([
            repository.tenant.0,
            repository.name.as_str(),
            hex::encode(digest.to_bytes())
        ])
    });
    query.bind(Value::Array(rows.collect()).to_string())
}

/// The process is the only writer: it knows.
pub(in crate::metadata) async fn notify(_: &mut Connection) -> Result<()> {
    Ok(())
}

/// No statement has a limit here.
pub(in crate::metadata) async fn unhurried(_: &mut Connection) -> Result<()> {
    Ok(())
}

/// Nothing: here transactions that come together wait for the disk together.
pub(in crate::metadata) async fn forgetful(_: &mut Connection) -> Result<()> {
    Ok(())
}

/// Globs of tags as GLOB patterns: the same, since tags hold no bracket.
pub(in crate::metadata) fn tag_patterns(globs: &[String]) -> List {
    texts(globs.iter().map(String::as_str))
}

macro_rules! matches_tag {
    () => {
        " GLOB "
    };
}
macro_rules! in_digests {
    ($parameter:literal) => {
        concat!(" IN (SELECT unhex(value) FROM json_each(", $parameter, ")) ")
    };
}
macro_rules! not_in_digests {
    ($parameter:literal) => {
        concat!(" NOT IN (SELECT unhex(value) FROM json_each(", $parameter, ")) ")
    };
}
/// `listed(name, digest, pushed_at, renewed_at)`, from JSON.
macro_rules! seen_tags {
    ($parameter:literal) => {
        concat!(
            " (SELECT value->>0 AS name, unhex(value->>1) AS digest, value->>2 AS pushed_at, \
              value->>3 AS renewed_at FROM json_each(",
            $parameter,
            ")) AS listed "
        )
    };
}
/// `listed(number, event, type, subject, place, data, is_first)`, from JSON.
macro_rules! event_rows {
    ($parameter:literal) => {
        concat!(
            " (SELECT value->>0 AS number, unhex(value->>1) AS event, value->>2 AS type, value->>3 AS subject, \
              value->>4 AS place, value->>5 AS data, value->>6 AS is_first FROM json_each(",
            $parameter,
            ")) AS listed "
        )
    };
}
/// The arms of a recursive query that add what lies below the manifests so far: children, referrers, and what stands
/// for them by its tag. `$1` is the tenant, `$2` the repository.
macro_rules! and_below {
    ($table:literal) => {
        concat!(
            " UNION SELECT k.child FROM ",
            $table,
            " CROSS JOIN manifest_child k ON k.tenant_id = $1 \
               AND k.repository_id = $2 AND k.parent = ",
            $table,
            ".digest AND k.kind <> 1 \
             UNION SELECT r.digest FROM ",
            $table,
            " CROSS JOIN referrer r ON r.tenant_id = $1 \
               AND r.repository_id = $2 AND r.subject = \
               CASE hex(substr(",
            $table,
            ".digest, 1, 1)) WHEN '02' THEN 'sha512:' ELSE 'sha256:' END \
               || lower(hex(substr(",
            $table,
            ".digest, 2))) \
             UNION SELECT t.digest FROM ",
            $table,
            " CROSS JOIN tag t ON t.tenant_id = $1 AND t.repository_id = $2 \
               AND t.name >= CASE hex(substr(",
            $table,
            ".digest, 1, 1)) WHEN '02' THEN 'sha512-' ELSE 'sha256-' END \
               || lower(hex(substr(",
            $table,
            ".digest, 2))) \
               AND t.name < CASE hex(substr(",
            $table,
            ".digest, 1, 1)) WHEN '02' THEN 'sha512-' ELSE 'sha256-' END \
               || lower(hex(substr(",
            $table,
            ".digest, 2))) || '/' "
        )
    };
}
macro_rules! in_uuids {
    ($parameter:literal) => {
        concat!(" IN (SELECT unhex(value) FROM json_each(", $parameter, ")) ")
    };
}
macro_rules! in_texts {
    ($parameter:literal) => {
        concat!(" IN (SELECT value FROM json_each(", $parameter, ")) ")
    };
}
macro_rules! digest_rows {
    ($parameter:literal) => {
        concat!(
            " (SELECT unhex(value) AS digest FROM json_each(",
            $parameter,
            ")) AS listed "
        )
    };
}
macro_rules! text_rows {
    ($parameter:literal) => {
        concat!(
            " (SELECT value AS name FROM json_each(",
            $parameter,
            ")) AS listed "
        )
    };
}
/// Row locks: the write transaction holds the whole database.
macro_rules! for_update {
    ($($of:literal)?) => {
        ""
    };
}
macro_rules! for_update_skip_locked {
    () => {
        ""
    };
}
macro_rules! for_key_share {
    ($($of:literal)?) => {
        ""
    };
}
macro_rules! random_uuid {
    () => {
        " randomblob(16) "
    };
}
/// `q(i, tenant_id, repository, tag, digest)`; CROSS JOIN keeps it the outer loop.
macro_rules! manifest_queries {
    () => {
        " (SELECT key AS i, value->>0 AS tenant_id, value->>1 AS repository, value->>2 AS tag, \
          unhex(value->>3) AS digest FROM json_each($1)) AS q CROSS "
    };
}
/// `q(i, tenant_id, repository, digest)`.
macro_rules! blob_queries {
    () => {
        " (SELECT key AS i, value->>0 AS tenant_id, value->>1 AS repository, unhex(value->>2) AS digest \
          FROM json_each($1)) AS q CROSS "
    };
}
macro_rules! manifest_joins {
    () => {
        "JOIN repository r ON r.tenant_id = q.tenant_id AND r.name = q.repository \
         LEFT JOIN tag t ON t.tenant_id = r.tenant_id AND t.repository_id = r.id AND t.name = q.tag \
         JOIN manifest m ON m.tenant_id = r.tenant_id AND m.repository_id = r.id \
         AND m.digest = coalesce(t.digest, q.digest)"
    };
}
macro_rules! blob_joins {
    () => {
        "JOIN repository r ON r.tenant_id = q.tenant_id AND r.name = q.repository \
         JOIN repository_blob l ON l.tenant_id = r.tenant_id AND l.repository_id = r.id AND l.digest = q.digest \
         JOIN blob b ON b.tenant_id = l.tenant_id AND b.digest = l.digest"
    };
}
/// What a review becomes that is asked for again. 9223372036854775807 is the time of a review that waits for a rule.
macro_rules! newest_review {
    () => {
        " since = excluded.since, condemned = excluded.condemned, due_at = CASE \
          WHEN review_manifest.due_at <> 9223372036854775807 AND review_manifest.due_at > excluded.due_at \
          THEN review_manifest.due_at ELSE excluded.due_at END "
    };
}
