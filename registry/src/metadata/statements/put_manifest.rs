//! Storing manifests: what they must find, their bytes and edges, their tags, and who hears of it, in one transaction.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::super::events::Kind;
use super::super::{MetadataError, OverQuota, PutManifest, PutOutcome, Quota, Repository, Result, Sparse};
use super::lookups::{digest as read_digest, size};
use super::manifests::{Place, Review};
use super::outbox::{self, Described, Told};
use super::usage::{self, Growth};
use super::{Connection, builds, dialect, tags};
use crate::domain::{Digest, TagName};

/// Kinds of children, as stored.
const CHILD_MANIFEST: i16 = 0;
const CHILD_BLOB: i16 = 1;
const CHILD_ABSENT: i16 = 2;

pub(super) async fn put(
    c: &mut Connection,
    repository: &Repository,
    put: &PutManifest,
) -> Result<PutOutcome> {
    let (id, made) =
        super::repositories::ensure_repository(c, repository, put.repository_id, put.now).await?;
    let place = Place {
        tenant: repository.tenant.0,
        repository: id,
    };

    // 1. What it refers to, locked against collection and unlinking: blobs first, then manifests.
    let manifest = &put.manifest;
    let named: BTreeSet<Digest> = manifest
        .blobs
        .iter()
        .map(|blob| blob.digest)
        .chain(manifest.children.iter().copied())
        .collect();
    let blobs = if named.is_empty() {
        BTreeSet::new()
    } else {
        lock_blobs(c, &place, &named).await?
    };
    let children = if manifest.children.is_empty() {
        BTreeSet::new()
    } else {
        lock_manifests(c, &place, &manifest.children).await?
    };
    let mut missing: Vec<Digest> = Vec::new();
    if put.sparse != Sparse::Always {
        missing.extend(
            manifest
                .blobs
                .iter()
                .filter(|b| b.required && !blobs.contains(&b.digest))
                .map(|b| b.digest),
        );
    }
    // What an opaque manifest names is a guess.
    if put.sparse == Sparse::Never && !manifest.is_opaque() {
        missing.extend(
            manifest
                .children
                .iter()
                .filter(|d| !children.contains(d) && !blobs.contains(d)),
        );
    }
    if !missing.is_empty() {
        return Ok(PutOutcome::Missing(missing));
    }

    // 2. The manifest and its edges.
    let bytes = insert(c, &place, put).await?;
    // Edges to absent blobs too: one that is pushed later is then in use.
    let named: Vec<Digest> = manifest.blobs.iter().map(|blob| blob.digest).collect();
    insert_blob_edges(c, &place, &put.digest, &named).await?;
    let kind_of = |digest: &Digest| match (children.contains(digest), blobs.contains(digest)) {
        // Whether an opaque manifest means a manifest or a blob nobody knows: an edge of this kind keeps both, whichever comes.
        _ if manifest.is_opaque() => CHILD_ABSENT,
        (true, _) => CHILD_MANIFEST,
        (false, true) => CHILD_BLOB,
        (false, false) => CHILD_ABSENT,
    };
    for kind in [CHILD_MANIFEST, CHILD_BLOB, CHILD_ABSENT] {
        let is_of_kind = |digest: &&Digest| kind_of(digest) == kind;
        let listed: Vec<Digest> = manifest.children.iter().filter(is_of_kind).copied().collect();
        insert_child_edges(c, &place, &put.digest, &listed, kind).await?;
    }
    // By another push of a type that is not known it stays what it is.
    let is_news = bytes > 0 || !manifest.is_opaque();
    if let Some(subject) = manifest.subject.as_ref().filter(|_| is_news) {
        // A manifest that was there already refers to it already.
        if let (true, Some(limit)) = (bytes > 0, put.limits.referrers) {
            let usage = count_referrers(c, &place, subject, limit).await?;
            if usage >= limit {
                let quota = Quota::Referrers;
                return Ok(PutOutcome::OverQuota(OverQuota { quota, usage, limit }));
            }
        }
        insert_referrer(c, &place, put, subject).await?;
    }

    if bytes > 0 {
        builds::pushed(c, &place, put).await?;
    }

    // 3. The tags.
    let (tags, moved) = match tags::set(c, &place, put).await? {
        tags::Set::Done { made, moved } => (made, moved),
        tags::Set::PreconditionFailed => return Ok(PutOutcome::PreconditionFailed),
        tags::Set::Immutable(tag) => return Ok(PutOutcome::Immutable(tag)),
    };

    // What has no name is looked at once its lease has ended.
    if put.tags.is_empty() {
        let review = Review {
            due: put.lifetime.map_or(put.leased_until, |lifetime| {
                put.leased_until.max(put.now.plus(lifetime))
            }),
            since: put.now,
            condemned: put.lifetime.is_some(),
        };
        tags::review(c, &place, &BTreeSet::from([put.digest]), &review).await?;
    }

    // 4. Who hears of it.
    tell_of_push(c, repository, put, &moved).await?;

    // 5. The counters.
    let growth = Growth {
        bytes,
        tenant_bytes: bytes,
        tags,
        repositories: made.into(),
        pushed_at: Some(put.now),
        ..Growth::default()
    };
    Ok(
        match usage::grow(c, repository.tenant, id, growth, &put.limits).await? {
            Ok(standing) => PutOutcome::Stored(standing),
            Err(over) => PutOutcome::OverQuota(over),
        },
    )
}

/// Tells of a push: of each of its tags, or of the manifest if it has none. What a cache has fetched is told where it is
/// news: the tags that were not there, or pointed elsewhere.
async fn tell_of_push(
    c: &mut Connection,
    repository: &Repository,
    put: &PutManifest,
    moved: &BTreeSet<String>,
) -> Result<()> {
    let Some(announce) = &put.announce else {
        return Ok(());
    };
    let digest = Some(&put.digest);
    let is_fetched = announce.kind == Kind::CacheFetch;
    let mut told: Vec<Told<'_>> = put
        .tags
        .iter()
        .map(TagName::as_str)
        .filter(|tag| !is_fetched || moved.contains(*tag))
        .map(|tag| Told {
            tag: Some(tag),
            digest,
        })
        .collect();
    if put.tags.is_empty() && !is_fetched {
        told.push(Told { tag: None, digest });
    }
    let size = i64::try_from(put.payload.len()).unwrap_or(i64::MAX);
    let described = Described::from([(put.digest, (put.manifest.media_type.to_string(), size))]);
    let by = (put.principal.as_str(), put.now);
    outbox::tell(c, repository, announce, by, &told, &described).await
}

async fn lock_blobs(c: &mut Connection, place: &Place, named: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
    let rows = sqlx::query(concat!(
        "SELECT l.digest FROM repository_blob l JOIN blob b ON b.tenant_id = l.tenant_id AND b.digest = l.digest \
         WHERE l.tenant_id = $1 AND l.repository_id = $2 AND l.digest",
        in_digests!("$3"),
        "ORDER BY l.digest",
        for_key_share!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(named))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(|row| read_digest(row.try_get(0)?)).collect()
}

async fn lock_manifests(c: &mut Connection, place: &Place, named: &[Digest]) -> Result<BTreeSet<Digest>> {
    let rows = sqlx::query(concat!(
        "SELECT digest FROM manifest WHERE tenant_id = $1 AND repository_id = $2 AND digest",
        in_digests!("$3"),
        "ORDER BY digest",
        for_key_share!()
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(dialect::digests(named))
    .fetch_all(&mut *c)
    .await?;
    rows.iter().map(|row| read_digest(row.try_get(0)?)).collect()
}

/// Stores the bytes; how many of them were not there before.
async fn insert(c: &mut Connection, place: &Place, put: &PutManifest) -> Result<i64> {
    let size = i64::try_from(put.payload.len()).unwrap_or(i64::MAX);
    let new = sqlx::query(
        "INSERT INTO manifest (tenant_id, repository_id, digest, media_type, artifact_type, subject, payload, size, \
         pushed_at, pushed_by, leased_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (tenant_id, repository_id, digest) DO NOTHING",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(put.digest.to_bytes())
    .bind(put.manifest.media_type.as_str())
    .bind(&put.manifest.artifact_type)
    .bind(&put.manifest.subject)
    .bind(&put.payload[..])
    .bind(size)
    .bind(put.now.0)
    .bind(&put.principal)
    .bind(put.leased_until.0)
    .execute(&mut *c)
    .await?;
    if new.rows_affected() == 1 {
        return Ok(size);
    }
    // The same bytes again: the media type of the newest push counts, the lease only grows. A type that is not known does not
    // take the place of any: images without a type of their own could not be pulled any more.
    let again = sqlx::query(
        "UPDATE manifest SET media_type = CASE WHEN $8 = 1 THEN media_type ELSE $4 END, \
         artifact_type = CASE WHEN $8 = 1 THEN artifact_type ELSE $9 END, pushed_at = $5, pushed_by = $6, leased_until = \
         CASE WHEN leased_until > $7 THEN leased_until ELSE $7 END \
         WHERE tenant_id = $1 AND repository_id = $2 AND digest = $3",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(put.digest.to_bytes())
    .bind(put.manifest.media_type.as_str())
    .bind(put.now.0)
    .bind(&put.principal)
    .bind(put.leased_until.0)
    .bind(i16::from(put.manifest.is_opaque()))
    .bind(&put.manifest.artifact_type)
    .execute(&mut *c)
    .await?;
    // Collected between the two statements: the transaction begins again.
    if again.rows_affected() == 0 {
        return Err(MetadataError::Conflict("the manifest is being collected".into()));
    }
    Ok(0)
}

async fn insert_blob_edges(
    c: &mut Connection,
    place: &Place,
    manifest: &Digest,
    blobs: &[Digest],
) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO manifest_blob (tenant_id, repository_id, manifest, blob) SELECT $1, $2, $3, listed.digest FROM",
        digest_rows!("$4"),
        "WHERE true ON CONFLICT DO NOTHING"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(manifest.to_bytes())
    .bind(dialect::digests(blobs))
    .execute(&mut *c)
    .await?;
    Ok(())
}

async fn insert_child_edges(
    c: &mut Connection,
    place: &Place,
    parent: &Digest,
    children: &[Digest],
    kind: i16,
) -> Result<()> {
    if children.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "INSERT INTO manifest_child (tenant_id, repository_id, parent, child, kind) \
         SELECT $1, $2, $3, listed.digest, $5 FROM",
        digest_rows!("$4"),
        "WHERE true ON CONFLICT (tenant_id, repository_id, parent, child) DO UPDATE SET kind = excluded.kind"
    ))
    .bind(place.tenant)
    .bind(place.repository)
    .bind(parent.to_bytes())
    .bind(dialect::digests(children))
    .bind(kind)
    .execute(&mut *c)
    .await?;
    Ok(())
}

/// How many manifests refer to a subject, as far as that is below `most`: a range of the primary key.
async fn count_referrers(c: &mut Connection, place: &Place, subject: &str, most: u64) -> Result<u64> {
    let counted = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM referrer WHERE tenant_id = $1 AND repository_id = $2 AND subject = $3 \
         LIMIT $4) AS counted",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(subject)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_one(&mut *c)
    .await?;
    size(counted)
}

async fn insert_referrer(c: &mut Connection, place: &Place, put: &PutManifest, subject: &str) -> Result<()> {
    let descriptor = put.manifest.referrer_descriptor(put.digest, put.payload.len());
    sqlx::query(
        "INSERT INTO referrer (tenant_id, repository_id, subject, digest, artifact_type, descriptor, \
         descriptor_size) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (tenant_id, repository_id, subject, digest) DO UPDATE SET descriptor = excluded.descriptor, \
         descriptor_size = excluded.descriptor_size, artifact_type = excluded.artifact_type",
    )
    .bind(place.tenant)
    .bind(place.repository)
    .bind(subject)
    .bind(put.digest.to_bytes())
    .bind(&put.manifest.artifact_type)
    .bind(&descriptor)
    .bind(i64::try_from(descriptor.len()).unwrap_or(i64::MAX))
    .execute(&mut *c)
    .await?;
    Ok(())
}
