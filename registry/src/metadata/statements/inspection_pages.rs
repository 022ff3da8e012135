//! Pages of all tables, for the check of the stores.
//!
//! A page is chosen first, by the primary key and with a limit that the planner can read; what its rows should
//! belong to is then looked up by unique keys, row by row, however large the tables are.

use sqlx::Row as _;

use super::super::inspection::*;
use super::super::{Result, Time};
use super::lookups::size;
use super::{Connection, dialect};
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

pub(super) async fn walk(
    c: &mut Connection,
    table: Table,
    from: &Start,
    now: Time,
    settled: Time,
) -> Result<Walked> {
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

pub(super) async fn blobs(
    c: &mut Connection,
    from: &Start,
    now: Time,
    settled: Time,
) -> Result<Vec<BlobSeen>> {
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

pub(super) async fn payloads(c: &mut Connection, from: &Start, bytes: u64) -> Result<Vec<PayloadSeen>> {
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
