//! Reads on the hot path: manifests and blobs by name, in batches, and lists by key.

use bytes::Bytes;
use sqlx::Row as _;

use super::super::batch::{BlobQuery, ManifestQuery};
use super::super::{
    BlobRow, ManifestRow, MetadataError, ReferrersPage, ReferrersQuery, Repository, Result, Time,
};
use super::{Connection, dialect};
use crate::blobs::ObjectKey;
use crate::domain::Digest;

/// Reads a stored digest.
pub(super) fn digest(stored: &[u8]) -> Result<Digest> {
    Digest::from_bytes(stored)
        .ok_or_else(|| MetadataError::Corrupt(format!("digest {}", hex::encode(stored))))
}

/// Reads a stored number of bytes.
pub(super) fn size(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| MetadataError::Corrupt(format!("size {stored}")))
}

/// Puts `answer` at the place of its question.
fn place<A>(answers: &mut [Option<A>], question: i64, answer: A) {
    if let Some(slot) = usize::try_from(question).ok().and_then(|at| answers.get_mut(at)) {
        *slot = Some(answer);
    }
}

pub(super) async fn manifests(
    c: &mut Connection,
    asked: &[&ManifestQuery],
) -> Result<Vec<Option<ManifestRow>>> {
    // By unique keys throughout: repository by name, tag by name, manifest by digest.
    let query = sqlx::query(concat!(
        "SELECT q.i, m.digest, m.media_type, m.size, m.leased_until FROM ",
        manifest_queries!(),
        manifest_joins!(),
    ));
    let mut answers = vec![None; asked.len()];
    for row in dialect::bind_manifest_queries(query, asked)
        .fetch_all(&mut *c)
        .await?
    {
        let found = ManifestRow {
            digest: digest(row.try_get(1)?)?,
            media_type: row.try_get(2)?,
            size: size(row.try_get(3)?)?,
            leased_until: Time(row.try_get(4)?),
        };
        place(&mut answers, row.try_get(0)?, found);
    }
    Ok(answers)
}

pub(super) async fn blobs(c: &mut Connection, asked: &[&BlobQuery]) -> Result<Vec<Option<BlobRow>>> {
    let query = sqlx::query(concat!(
        "SELECT q.i, b.object_key, b.size, b.leased_until FROM ",
        blob_queries!(),
        blob_joins!(),
    ));
    let mut answers = vec![None; asked.len()];
    for row in dialect::bind_blob_queries(query, asked)
        .fetch_all(&mut *c)
        .await?
    {
        let found = BlobRow {
            key: ObjectKey::of_upload(row.try_get(1)?),
            size: size(row.try_get(2)?)?,
            leased_until: Time(row.try_get(3)?),
        };
        place(&mut answers, row.try_get(0)?, found);
    }
    Ok(answers)
}

pub(super) async fn manifest_payload(
    c: &mut Connection,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<Bytes>> {
    let payload: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT m.payload FROM repository r \
         JOIN manifest m ON m.tenant_id = r.tenant_id AND m.repository_id = r.id AND m.digest = $3 \
         WHERE r.tenant_id = $1 AND r.name = $2",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(digest.to_bytes())
    .fetch_optional(&mut *c)
    .await?;
    Ok(payload.map(Bytes::from))
}

pub(super) async fn tags(
    c: &mut Connection,
    repository: &Repository,
    after: Option<&str>,
    limit: u32,
) -> Result<Option<Vec<String>>> {
    // One walk of the primary key from `after` on.
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM tag WHERE tenant_id = $1 \
         AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2) \
         AND name > $3 ORDER BY name LIMIT $4",
    )
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(after.unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    if names.is_empty() && super::repositories::repository_id(c, repository).await?.is_none() {
        return Ok(None);
    }
    Ok(Some(names))
}

pub(super) async fn referrers(
    c: &mut Connection,
    repository: &Repository,
    query: &ReferrersQuery,
) -> Result<ReferrersPage> {
    // One row more than the page tells whether another page follows. The running sum cuts the page by bytes
    // in the database, before a descriptor is read.
    let rows = sqlx::query(concat!(
        "SELECT p.digest, p.descriptor FROM ( \
           SELECT digest, sum(descriptor_size) OVER (ORDER BY digest) - descriptor_size AS before \
           FROM (SELECT digest, descriptor_size FROM referrer WHERE tenant_id = $1 \
             AND repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2) \
             AND subject = $3 AND digest > $4 AND ($5 = 0 OR artifact_type",
        in_texts!("$6"),
        ") ORDER BY digest LIMIT $7) AS page) AS cut \
         JOIN referrer p ON p.tenant_id = $1 \
           AND p.repository_id = (SELECT id FROM repository WHERE tenant_id = $1 AND name = $2) \
           AND p.subject = $3 AND p.digest = cut.digest \
         WHERE cut.before < $8 ORDER BY p.digest",
    ))
    .bind(repository.tenant.0)
    .bind(repository.name.as_str())
    .bind(&query.subject)
    .bind(query.after.map_or_else(Vec::new, |digest| digest.to_bytes()))
    .bind(i64::try_from(query.artifact_types.len()).unwrap_or(i64::MAX))
    .bind(dialect::texts(query.artifact_types.iter().map(String::as_str)))
    .bind(i64::from(query.limit) + 1)
    .bind(i64::try_from(query.bytes).unwrap_or(i64::MAX))
    .fetch_all(&mut *c)
    .await?;
    let mut page = ReferrersPage::default();
    let mut bytes = 0;
    for row in &rows {
        let descriptor: String = row.try_get(1)?;
        bytes += descriptor.len() as u64;
        page.descriptors.push((digest(row.try_get(0)?)?, descriptor));
    }
    // The last row begins below the byte limit: when it ends beyond, it opens the next page instead. A page
    // cut by the byte limit has such a row, and a page cut by count has its one row more.
    if page.descriptors.len() > 1 && (bytes >= query.bytes || page.descriptors.len() > query.limit as usize) {
        page.descriptors.pop();
        page.more = true;
    } else if bytes >= query.bytes {
        // A single descriptor fills the page; whether another follows is cheaper to ask than to guess.
        page.more = true;
    }
    Ok(page)
}
