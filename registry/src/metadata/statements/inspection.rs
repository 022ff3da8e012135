//! Walks through all tables, for the check of the stores.
//!
//! A page is chosen first, by the primary key and with a limit that the planner can read; what its rows should
//! belong to is then looked up by unique keys, row by row, however large the tables are.

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::inspection::*;
use super::super::{Result, TenantId, Time};
use super::lookups::size;
use super::{Connection, Database, dialect};
use crate::blobs::ObjectKey;
use crate::domain::Digest;

/// `$statement!(compare, limit)` for a page behind a row, or for the one row at it.
macro_rules! page {
    ($from:expr, $statement:ident) => {
        match $from {
            Start::After(_) => $statement!(" > ", " LIMIT 500 "),
            Start::At(_) => $statement!(" >= ", " LIMIT 1 "),
        }
    };
}
macro_rules! has_tenant {
    () => {
        " EXISTS (SELECT 1 FROM tenant t WHERE t.id = p.tenant_id) "
    };
}
macro_rules! has_repository {
    () => {
        " EXISTS (SELECT 1 FROM repository r WHERE r.tenant_id = p.tenant_id AND r.id = p.repository_id) "
    };
}
/// Of a manifest that was deleted and can be brought back, the edges stay.
macro_rules! has_manifest {
    ($digest:literal) => {
        concat!(
            " (EXISTS (SELECT 1 FROM manifest m WHERE m.tenant_id = p.tenant_id \
             AND m.repository_id = p.repository_id AND m.digest = ",
            $digest,
            ") OR EXISTS (SELECT 1 FROM deleted_manifest m WHERE m.tenant_id = p.tenant_id \
             AND m.repository_id = p.repository_id AND m.digest = ",
            $digest,
            ")) "
        )
    };
}
macro_rules! has_link {
    ($digest:literal) => {
        concat!(
            " EXISTS (SELECT 1 FROM repository_blob l WHERE l.tenant_id = p.tenant_id \
             AND l.repository_id = p.repository_id AND l.digest = ",
            $digest,
            ") "
        )
    };
}
macro_rules! has_blob {
    ($digest:literal) => {
        concat!(
            " EXISTS (SELECT 1 FROM blob b WHERE b.tenant_id = p.tenant_id AND b.digest = ",
            $digest,
            ") "
        )
    };
}

macro_rules! repositories_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.id, ",
            has_tenant!(),
            "FROM (SELECT tenant_id, id FROM repository WHERE (tenant_id, id)",
            $compare,
            "($1, $2) ORDER BY tenant_id, id",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.id"
        )
    };
}
macro_rules! tags_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.repository_id, p.name, p.digest, ",
            has_repository!(),
            ", EXISTS (SELECT 1 FROM manifest m WHERE m.tenant_id = p.tenant_id \
               AND m.repository_id = p.repository_id AND m.digest = p.digest) \
             FROM (SELECT tenant_id, repository_id, name, digest FROM tag WHERE (tenant_id, repository_id, name)",
            $compare,
            "($1, $2, $3) ORDER BY tenant_id, repository_id, name",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.repository_id, p.name"
        )
    };
}
macro_rules! manifests_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.repository_id, p.digest, p.subject, ",
            has_repository!(),
            ", p.leased_until < $4 AND p.pushed_at < $5 \
               AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = p.tenant_id \
                 AND t.repository_id = p.repository_id AND t.digest = p.digest) \
               AND NOT EXISTS (SELECT 1 FROM review_manifest v WHERE v.tenant_id = p.tenant_id \
                 AND v.repository_id = p.repository_id AND v.digest = p.digest) \
               AND NOT EXISTS (SELECT 1 FROM manifest_child c WHERE c.tenant_id = p.tenant_id \
                 AND c.repository_id = p.repository_id AND c.child = p.digest) \
             FROM (SELECT tenant_id, repository_id, digest, subject, leased_until, pushed_at FROM manifest \
               WHERE (tenant_id, repository_id, digest)",
            $compare,
            "($1, $2, $3) ORDER BY tenant_id, repository_id, digest",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.repository_id, p.digest"
        )
    };
}
macro_rules! blob_edges_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.repository_id, p.manifest, p.blob, ",
            has_manifest!("p.manifest"),
            ",",
            has_link!("p.blob"),
            ",",
            has_blob!("p.blob"),
            "FROM (SELECT tenant_id, repository_id, manifest, blob FROM manifest_blob \
               WHERE (tenant_id, repository_id, manifest, blob)",
            $compare,
            "($1, $2, $3, $4) ORDER BY tenant_id, repository_id, manifest, blob",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.repository_id, p.manifest, p.blob"
        )
    };
}
macro_rules! child_edges_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.repository_id, p.parent, p.child, p.kind, ",
            has_manifest!("p.parent"),
            ",",
            has_link!("p.child"),
            ",",
            has_blob!("p.child"),
            "FROM (SELECT tenant_id, repository_id, parent, child, kind FROM manifest_child \
               WHERE (tenant_id, repository_id, parent, child)",
            $compare,
            "($1, $2, $3, $4) ORDER BY tenant_id, repository_id, parent, child",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.repository_id, p.parent, p.child"
        )
    };
}
macro_rules! links_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.repository_id, p.digest, ",
            has_repository!(),
            ",",
            has_blob!("p.digest"),
            "FROM (SELECT tenant_id, repository_id, digest FROM repository_blob \
               WHERE (tenant_id, repository_id, digest)",
            $compare,
            "($1, $2, $3) ORDER BY tenant_id, repository_id, digest",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.repository_id, p.digest"
        )
    };
}
macro_rules! blobs_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT p.tenant_id, p.digest, p.object_key, p.size, ",
            has_tenant!(),
            ", p.leased_until < $3 AND p.created_at < $4 \
               AND NOT EXISTS (SELECT 1 FROM repository_blob l WHERE l.tenant_id = p.tenant_id AND l.digest = p.digest) \
               AND NOT EXISTS (SELECT 1 FROM review_blob v WHERE v.tenant_id = p.tenant_id AND v.digest = p.digest) \
             FROM (SELECT tenant_id, digest, object_key, size, created_at, leased_until FROM blob \
               WHERE (tenant_id, digest)",
            $compare,
            "($1, $2) ORDER BY tenant_id, digest",
            $limit,
            ") AS p ORDER BY p.tenant_id, p.digest"
        )
    };
}
/// The running sum cuts the page by bytes in the database, before a payload is read.
macro_rules! payloads_page {
    ($compare:literal, $limit:literal) => {
        concat!(
            "SELECT m.tenant_id, m.repository_id, m.digest, m.media_type, m.payload FROM ( \
               SELECT tenant_id, repository_id, digest, \
                 sum(size) OVER (ORDER BY tenant_id, repository_id, digest) - size AS before \
               FROM (SELECT tenant_id, repository_id, digest, size FROM manifest \
                 WHERE (tenant_id, repository_id, digest)",
            $compare,
            "($1, $2, $3) ORDER BY tenant_id, repository_id, digest",
            $limit,
            ") AS page) AS cut JOIN manifest m ON m.tenant_id = cut.tenant_id \
             AND m.repository_id = cut.repository_id AND m.digest = cut.digest \
             WHERE cut.before < $4 ORDER BY m.tenant_id, m.repository_id, m.digest"
        )
    };
}

#[async_trait]
impl Inspection for Database {
    async fn totals(&self) -> Result<Totals> {
        self.read((), |c, ()| Box::pin(totals(c))).await
    }

    async fn walk(&self, table: Table, from: Start, now: Time, settled: Time) -> Result<Walked> {
        self.read((table, from, now, settled), |c, (table, from, now, settled)| {
            Box::pin(walk(c, *table, from, *now, *settled))
        })
        .await
    }

    async fn blobs(&self, from: Start, now: Time, settled: Time) -> Result<Vec<BlobSeen>> {
        self.read((from, now, settled), |c, (from, now, settled)| {
            Box::pin(blobs(c, from, *now, *settled))
        })
        .await
    }

    async fn payloads(&self, from: Start, bytes: u64) -> Result<Vec<PayloadSeen>> {
        self.read((from, bytes), |c, (from, bytes)| {
            Box::pin(payloads(c, from, *bytes))
        })
        .await
    }

    async fn unknown_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>> {
        self.read(keys.to_vec(), |c, keys| Box::pin(unknown_objects(c, keys)))
            .await
    }

    async fn names(&self, tenant: i64, repository: Option<i64>) -> Result<Names> {
        self.read((tenant, repository), |c, (tenant, repository)| {
            Box::pin(names(c, *tenant, *repository))
        })
        .await
    }

    async fn review_blob(&self, at: &Position, due: Time) -> Result<bool> {
        self.write_later((at.clone(), due), |c, (at, due)| {
            Box::pin(review_blob(c, at, *due))
        })
        .await
    }

    async fn review_manifest(&self, at: &Position, due: Time) -> Result<bool> {
        self.write_later((at.clone(), due), |c, (at, due)| {
            Box::pin(review_manifest(c, at, *due))
        })
        .await
    }

    async fn delete_unknown(&self, key: Uuid, due: Time) -> Result<bool> {
        self.write_later((key, due), |c, (key, due)| {
            Box::pin(delete_unknown(c, *key, *due))
        })
        .await
    }

    async fn repositories_of(
        &self,
        tenant: TenantId,
        digest: &Digest,
        limit: u32,
    ) -> Result<(Vec<String>, u64)> {
        self.read((tenant, *digest, limit), |c, (tenant, digest, limit)| {
            Box::pin(repositories_of(c, *tenant, digest, *limit))
        })
        .await
    }
}

async fn totals(c: &mut Connection) -> Result<Totals> {
    let mut totals = Totals::default();
    for (rows, count) in totals.rows.iter_mut().zip([
        "SELECT count(*) FROM repository",
        "SELECT count(*) FROM tag",
        "SELECT count(*) FROM manifest",
        "SELECT count(*) FROM manifest_blob",
        "SELECT count(*) FROM manifest_child",
        "SELECT count(*) FROM repository_blob",
    ]) {
        *rows = size(sqlx::query_scalar(count).fetch_one(&mut *c).await?)?;
    }
    let row = sqlx::query("SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob")
        .fetch_one(&mut *c)
        .await?;
    (totals.blobs, totals.bytes) = (size(row.try_get(0)?)?, size(row.try_get(1)?)?);
    Ok(totals)
}

async fn walk(c: &mut Connection, table: Table, from: &Start, now: Time, settled: Time) -> Result<Walked> {
    match table {
        Table::Repositories => repositories(c, from).await,
        Table::Tags => tags(c, from).await,
        Table::Manifests => manifests(c, from, now, settled).await,
        Table::BlobEdges => blob_edges(c, from).await,
        Table::ChildEdges => child_edges(c, from).await,
        Table::Links => links(c, from).await,
    }
}

/// The position of a row that begins with tenant and repository.
fn place(row: &dialect::Row) -> Result<Position> {
    Ok(Position {
        tenant: row.try_get(0)?,
        repository: row.try_get(1)?,
        ..Position::default()
    })
}

async fn repositories(c: &mut Connection, from: &Start) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, repositories_page))
        .bind(at.tenant)
        .bind(at.repository)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let has_tenant: bool = row.try_get(2)?;
        walked.note(place(row)?, (!has_tenant).then_some(Problem::NoTenant));
    }
    Ok(walked)
}

async fn tags(c: &mut Connection, from: &Start) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, tags_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.name)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let at = Position {
            name: row.try_get(2)?,
            ..place(row)?
        };
        let problem = match (row.try_get(4)?, row.try_get(5)?) {
            (false, _) => Some(Problem::NoRepository),
            (true, false) => Some(Problem::NoManifest(row.try_get(3)?)),
            (true, true) => None,
        };
        walked.note(at, problem);
    }
    Ok(walked)
}

async fn manifests(c: &mut Connection, from: &Start, now: Time, settled: Time) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, manifests_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.digest)
        .bind(now.0)
        .bind(settled.0)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let at = Position {
            digest: row.try_get(2)?,
            ..place(row)?
        };
        let problem = match (row.try_get(4)?, row.try_get(5)?) {
            (false, _) => Some(Problem::NoRepository),
            (true, true) if !has_subject(c, &at, row.try_get(3)?).await? => Some(Problem::Forgotten),
            (true, _) => None,
        };
        walked.note(at, problem);
    }
    Ok(walked)
}

/// Whether the subject of a manifest, as it is written in it, is in its repository.
async fn has_subject(c: &mut Connection, at: &Position, subject: Option<String>) -> Result<bool> {
    let Some(subject) = subject.and_then(|subject| subject.parse::<Digest>().ok()) else {
        return Ok(false);
    };
    let found =
        sqlx::query("SELECT 1 FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3")
            .bind(at.tenant)
            .bind(at.repository)
            .bind(subject.to_bytes())
            .fetch_optional(&mut *c)
            .await?;
    Ok(found.is_some())
}

async fn blob_edges(c: &mut Connection, from: &Start) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, blob_edges_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.digest)
        .bind(&at.other)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let at = Position {
            digest: row.try_get(2)?,
            other: row.try_get(3)?,
            ..place(row)?
        };
        let seen = [row.try_get(4)?, row.try_get(5)?, row.try_get(6)?];
        walked.note(at, edge(seen, Some(Presence::Unknown)));
    }
    Ok(walked)
}

async fn child_edges(c: &mut Connection, from: &Start) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, child_edges_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.digest)
        .bind(&at.other)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let at = Position {
            digest: row.try_get(2)?,
            other: row.try_get(3)?,
            ..place(row)?
        };
        // A child that is a manifest may be deleted under its index; one that is a blob may not.
        let is_blob = row.try_get::<i16, _>(4)? == 1;
        let seen = [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?];
        walked.note(at, edge(seen, is_blob.then_some(Presence::Certain)));
    }
    Ok(walked)
}

/// What is wrong with an edge whose manifest, link and blob are there or not.
fn edge([manifest, link, blob]: [bool; 3], to_blob: Option<Presence>) -> Option<Problem> {
    match (manifest, to_blob) {
        (false, _) => Some(Problem::EdgeOfNothing),
        (true, Some(presence)) if !blob => Some(Problem::NoBlob(presence)),
        (true, Some(presence)) if !link => Some(Problem::NotLinked(presence)),
        (true, _) => None,
    }
}

async fn links(c: &mut Connection, from: &Start) -> Result<Walked> {
    let at = from.position();
    let rows = sqlx::query(page!(from, links_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.digest)
        .fetch_all(&mut *c)
        .await?;
    let mut walked = Walked::default();
    for row in &rows {
        let at = Position {
            digest: row.try_get(2)?,
            ..place(row)?
        };
        let problem = match (row.try_get(3)?, row.try_get(4)?) {
            (_, false) => Some(Problem::LinkToNothing),
            (false, true) => Some(Problem::NoRepository),
            (true, true) => None,
        };
        walked.note(at, problem);
    }
    Ok(walked)
}

async fn blobs(c: &mut Connection, from: &Start, now: Time, settled: Time) -> Result<Vec<BlobSeen>> {
    let at = from.position();
    let rows = sqlx::query(page!(from, blobs_page))
        .bind(at.tenant)
        .bind(&at.digest)
        .bind(now.0)
        .bind(settled.0)
        .fetch_all(&mut *c)
        .await?;
    let seen = |row: &dialect::Row| {
        let stored: Vec<u8> = row.try_get(1)?;
        let problem = match (row.try_get(4)?, row.try_get(5)?) {
            (false, _) => Some(Problem::NoTenant),
            (true, true) => Some(Problem::Forgotten),
            (true, false) => None,
        };
        Ok(BlobSeen {
            digest: Digest::from_bytes(&stored),
            at: Position {
                tenant: row.try_get(0)?,
                digest: stored,
                ..Position::default()
            },
            key: ObjectKey::of_upload(row.try_get(2)?),
            size: size(row.try_get(3)?)?,
            problem,
        })
    };
    rows.iter().map(seen).collect()
}

async fn payloads(c: &mut Connection, from: &Start, bytes: u64) -> Result<Vec<PayloadSeen>> {
    let at = from.position();
    let rows = sqlx::query(page!(from, payloads_page))
        .bind(at.tenant)
        .bind(at.repository)
        .bind(&at.digest)
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .fetch_all(&mut *c)
        .await?;
    let seen = |row: &dialect::Row| {
        Ok(PayloadSeen {
            at: Position {
                digest: row.try_get(2)?,
                ..place(row)?
            },
            media_type: row.try_get(3)?,
            payload: row.try_get(4)?,
        })
    };
    rows.iter().map(seen).collect()
}

/// Blobs are asked first, by their index: what the smaller tables know is left over from few pages.
async fn unknown_objects(c: &mut Connection, keys: &[Uuid]) -> Result<Vec<Uuid>> {
    let mut unknown = keys.to_vec();
    for known in [
        concat!("SELECT object_key FROM blob WHERE object_key", in_uuids!("$1")),
        concat!(
            "SELECT id FROM upload WHERE committed_at IS NULL AND id",
            in_uuids!("$1")
        ),
        concat!(
            "SELECT object_key FROM object_deletion WHERE object_key",
            in_uuids!("$1")
        ),
        // An upload may have been committed since the first look.
        concat!("SELECT object_key FROM blob WHERE object_key", in_uuids!("$1")),
    ] {
        if unknown.is_empty() {
            break;
        }
        let known: Vec<Uuid> = sqlx::query_scalar(known)
            .bind(dialect::uuids(&unknown))
            .fetch_all(&mut *c)
            .await?;
        unknown.retain(|key| !known.contains(key));
    }
    Ok(unknown)
}

async fn names(c: &mut Connection, tenant: i64, repository: Option<i64>) -> Result<Names> {
    let row = sqlx::query(
        "SELECT t.name, r.name, \
           EXISTS (SELECT 1 FROM purge g WHERE g.tenant_id = k.tenant_id AND (g.repository = '' OR g.repository = r.name \
             OR (r.name IS NULL AND k.repository_id IS NOT NULL))) \
         FROM (SELECT CAST($1 AS BIGINT) AS tenant_id, CAST($2 AS BIGINT) AS repository_id) AS k \
         LEFT JOIN tenant t ON t.id = k.tenant_id \
         LEFT JOIN repository r ON r.tenant_id = k.tenant_id AND r.id = k.repository_id",
    )
    .bind(tenant)
    .bind(repository)
    .fetch_one(&mut *c)
    .await?;
    Ok(Names {
        tenant: row.try_get(0)?,
        repository: row.try_get(1)?,
        going: row.try_get(2)?,
    })
}

async fn review_blob(c: &mut Connection, at: &Position, due: Time) -> Result<bool> {
    let asked = sqlx::query(
        "INSERT INTO review_blob (tenant_id, digest, due_at) SELECT b.tenant_id, b.digest, $3 FROM blob b \
         WHERE b.tenant_id = $1 AND b.digest = $2 AND NOT EXISTS (SELECT 1 FROM repository_blob l \
           WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest) \
         ON CONFLICT (tenant_id, digest) DO NOTHING",
    )
    .bind(at.tenant)
    .bind(&at.digest)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(asked.rows_affected() == 1)
}

async fn review_manifest(c: &mut Connection, at: &Position, due: Time) -> Result<bool> {
    let asked = sqlx::query(
        "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since) \
         SELECT m.tenant_id, m.repository_id, m.digest, $4, m.pushed_at FROM manifest m \
         WHERE m.tenant_id = $1 AND m.repository_id = $2 AND m.digest = $3 \
         AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.tenant_id = m.tenant_id \
           AND t.repository_id = m.repository_id AND t.digest = m.digest) \
         ON CONFLICT (tenant_id, repository_id, digest) DO NOTHING",
    )
    .bind(at.tenant)
    .bind(at.repository)
    .bind(&at.digest)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(asked.rows_affected() == 1)
}

/// Whose the object was is not known: it is queued for the installation.
async fn delete_unknown(c: &mut Connection, key: Uuid, due: Time) -> Result<bool> {
    if unknown_objects(c, &[key]).await?.is_empty() {
        return Ok(false);
    }
    let queued = sqlx::query(
        "INSERT INTO object_deletion (tenant_id, object_key, due_at) VALUES (0, $1, $2) \
         ON CONFLICT (tenant_id, object_key) DO NOTHING",
    )
    .bind(key)
    .bind(due.0)
    .execute(&mut *c)
    .await?;
    Ok(queued.rows_affected() == 1)
}

async fn repositories_of(
    c: &mut Connection,
    tenant: TenantId,
    digest: &Digest,
    limit: u32,
) -> Result<(Vec<String>, u64)> {
    let names = super::repositories::with_blob(c, tenant, digest, limit).await?;
    if names.len() < limit as usize {
        let count = names.len() as u64;
        return Ok((names, count));
    }
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM repository_blob WHERE tenant_id = $1 AND digest = $2 LIMIT $3) AS links",
    )
    .bind(tenant.0)
    .bind(digest.to_bytes())
    .bind(i64::from(limit) * 10)
    .fetch_one(&mut *c)
    .await?;
    Ok((names, size(count)?))
}
