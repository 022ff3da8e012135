//! What Postgres writes differently. The macros are text that stands inside of `concat!`.

use sqlx::postgres::{PgArguments, PgRow};

use crate::domain::Digest;
use crate::metadata::batch::{BlobQuery, ManifestQuery};
use crate::metadata::{Reference, Result};

pub(in crate::metadata) type Connection = sqlx::PgConnection;
pub(in crate::metadata) type Row = PgRow;
type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

pub(in crate::metadata) fn digests<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Vec<Vec<u8>> {
    digests.into_iter().map(Digest::to_bytes).collect()
}

pub(in crate::metadata) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

pub(in crate::metadata) fn uuids(uuids: &[uuid::Uuid]) -> Vec<uuid::Uuid> {
    uuids.to_vec()
}

pub(in crate::metadata) fn bind_manifest_queries<'q>(
    query: Query<'q>,
    asked: &[&ManifestQuery],
) -> Query<'q> {
    let numbers: Vec<i64> = (0..).take(asked.len()).collect();
    let tenants: Vec<i64> = asked.iter().map(|(repository, _)| repository.tenant.0).collect();
    let names: Vec<String> = asked
        .iter()
        .map(|(repository, _)| repository.name.to_string())
        .collect();
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for (_, reference) in asked {
        let (tag, digest) = match reference {
            Reference::Tag(tag) => (Some(tag.to_string()), None),
            Reference::Digest(digest) => (None, Some(digest.to_bytes())),
        };
        tags.push(tag);
        digests.push(digest);
    }
    query
        .bind(numbers)
        .bind(tenants)
        .bind(names)
        .bind(tags)
        .bind(digests)
}

pub(in crate::metadata) fn bind_blob_queries<'q>(query: Query<'q>, asked: &[&BlobQuery]) -> Query<'q> {
    let numbers: Vec<i64> = (0..).take(asked.len()).collect();
    let tenants: Vec<i64> = asked.iter().map(|(repository, _)| repository.tenant.0).collect();
    let names: Vec<String> = asked
        .iter()
        .map(|(repository, _)| repository.name.to_string())
        .collect();
    let digests: Vec<Vec<u8>> = asked.iter().map(|(_, digest)| digest.to_bytes()).collect();
    query.bind(numbers).bind(tenants).bind(names).bind(digests)
}

/// Where writers of configuration say that they have written.
pub(in crate::metadata) const CHANNEL: &str = "berth_configuration";

/// Tells other processes, once the transaction commits, that the configuration has changed.
pub(in crate::metadata) async fn notify(c: &mut Connection) -> Result<()> {
    sqlx::query("SELECT pg_notify($1, '')")
        .bind(CHANNEL)
        .execute(&mut *c)
        .await?;
    Ok(())
}

/// Lifts the limit on a statement's time for the rest of the transaction.
pub(in crate::metadata) async fn unhurried(c: &mut Connection) -> Result<()> {
    sqlx::query("SET LOCAL statement_timeout = 0")
        .execute(&mut *c)
        .await?;
    Ok(())
}

/// Lets the transaction's end not wait for the disk: a database that dies just then has forgotten it.
pub(in crate::metadata) async fn forgetful(c: &mut Connection) -> Result<()> {
    sqlx::query("SET LOCAL synchronous_commit = off")
        .execute(&mut *c)
        .await?;
    Ok(())
}

/// Globs of tags as LIKE patterns.
pub(in crate::metadata) fn tag_patterns(globs: &[String]) -> Vec<String> {
    let pattern = |glob: &String| {
        let mut pattern = String::with_capacity(glob.len() + 4);
        for character in glob.chars() {
            match character {
                '*' => pattern.push('%'),
                '?' => pattern.push('_'),
                '%' | '_' | '\\' => pattern.extend(['\\', character]),
                other => pattern.push(other),
            }
        }
        pattern
    };
    globs.iter().map(pattern).collect()
}

macro_rules! matches_tag {
    () => {
        " LIKE "
    };
}
macro_rules! in_digests {
    ($parameter:literal) => {
        concat!(" = ANY(", $parameter, ") ")
    };
}
macro_rules! not_in_digests {
    ($parameter:literal) => {
        concat!(" <> ALL(", $parameter, ") ")
    };
}
/// `listed(name, digest, pushed_at, renewed_at)`, from JSON.
macro_rules! seen_tags {
    ($parameter:literal) => {
        concat!(
            " (SELECT value->>0 AS name, decode(value->>1, 'hex') AS digest, (value->>2)::bigint AS pushed_at, \
              (value->>3)::bigint AS renewed_at FROM jsonb_array_elements(",
            $parameter,
            "::jsonb)) AS listed "
        )
    };
}
/// `listed(number, event, type, subject, place, data, is_first)`, from JSON.
macro_rules! event_rows {
    ($parameter:literal) => {
        concat!(
            " (SELECT (value->>0)::bigint AS number, (value->>1)::uuid AS event, value->>2 AS type, \
              value->>3 AS subject, value->>4 AS place, value->>5 AS data, (value->>6)::bigint AS is_first \
              FROM jsonb_array_elements(",
            $parameter,
            "::jsonb)) AS listed "
        )
    };
}
/// The arm of a recursive query that adds what lies below the manifests so far: children, referrers, and what stands
/// for them by its tag. `$1` is the tenant, `$2` the repository.
macro_rules! and_below {
    ($table:literal) => {
        concat!(
            " UNION SELECT below.digest FROM ", $table, " CROSS JOIN LATERAL ( \
               SELECT k.child AS digest FROM manifest_child k WHERE k.tenant_id = $1 AND k.repository_id = $2 \
                 AND k.parent = ", $table, ".digest AND k.kind <> 1 \
               UNION ALL SELECT r.digest FROM referrer r WHERE r.tenant_id = $1 AND r.repository_id = $2 \
                 AND r.subject = CASE get_byte(", $table, ".digest, 0) WHEN 2 THEN 'sha512:' ELSE 'sha256:' END \
                   || encode(substring(", $table, ".digest FROM 2), 'hex') \
               UNION ALL SELECT t.digest FROM tag t WHERE t.tenant_id = $1 AND t.repository_id = $2 \
                 AND t.name >= CASE get_byte(", $table, ".digest, 0) WHEN 2 THEN 'sha512-' ELSE 'sha256-' END \
                   || encode(substring(", $table, ".digest FROM 2), 'hex') \
                 AND t.name < CASE get_byte(", $table, ".digest, 0) WHEN 2 THEN 'sha512-' ELSE 'sha256-' END \
                   || encode(substring(", $table, ".digest FROM 2), 'hex') || '/') AS below "
        )
    };
}
macro_rules! in_uuids {
    ($parameter:literal) => {
        concat!(" = ANY(", $parameter, ") ")
    };
}
macro_rules! in_texts {
    ($parameter:literal) => {
        concat!(" = ANY(", $parameter, ") ")
    };
}
macro_rules! digest_rows {
    ($parameter:literal) => {
        concat!(" unnest(", $parameter, "::bytea[]) AS listed(digest) ")
    };
}
macro_rules! text_rows {
    ($parameter:literal) => {
        concat!(" unnest(", $parameter, "::text[]) AS listed(name) ")
    };
}
macro_rules! for_update {
    () => {
        " FOR UPDATE "
    };
    ($of:literal) => {
        concat!(" FOR UPDATE OF ", $of, " ")
    };
}
macro_rules! for_update_skip_locked {
    () => {
        " FOR UPDATE SKIP LOCKED "
    };
}
macro_rules! for_key_share {
    () => {
        " FOR KEY SHARE "
    };
    ($of:literal) => {
        concat!(" FOR KEY SHARE OF ", $of, " ")
    };
}
macro_rules! random_uuid {
    () => {
        " gen_random_uuid() "
    };
}
/// `q(i, tenant_id, repository, tag, digest)`.
macro_rules! manifest_queries {
    () => {
        " unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[]) \
          AS q(i, tenant_id, repository, tag, digest) "
    };
}
/// `q(i, tenant_id, repository, digest)`.
macro_rules! blob_queries {
    () => {
        " unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[]) AS q(i, tenant_id, repository, digest) "
    };
}
// One look at a unique index for each question and table. A plain join leaves the planner the choice, and
// without statistics of a table that has just grown it reads all manifests of a repository for each question.
macro_rules! manifest_joins {
    () => {
        "CROSS JOIN LATERAL (SELECT id FROM repository \
           WHERE tenant_id = q.tenant_id AND name = q.repository LIMIT 1) AS r \
         LEFT JOIN LATERAL (SELECT digest FROM tag \
           WHERE tenant_id = q.tenant_id AND repository_id = r.id AND name = q.tag LIMIT 1) AS t ON TRUE \
         CROSS JOIN LATERAL (SELECT digest, media_type, size, leased_until FROM manifest \
           WHERE tenant_id = q.tenant_id AND repository_id = r.id AND digest = coalesce(t.digest, q.digest) \
           LIMIT 1) AS m"
    };
}
macro_rules! blob_joins {
    () => {
        "CROSS JOIN LATERAL (SELECT id FROM repository \
           WHERE tenant_id = q.tenant_id AND name = q.repository LIMIT 1) AS r \
         CROSS JOIN LATERAL (SELECT digest FROM repository_blob \
           WHERE tenant_id = q.tenant_id AND repository_id = r.id AND digest = q.digest LIMIT 1) AS l \
         CROSS JOIN LATERAL (SELECT object_key, size, leased_until FROM blob \
           WHERE tenant_id = q.tenant_id AND digest = l.digest LIMIT 1) AS b"
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
