//! Moving an installation into other stores, while nobody serves it.
//!
//! 1. Both sides are opened, as far as their kinds allow so that nobody else can ([`Side`], the folder's lock); the
//!    destination is empty, or holds a part of this very source.
//! 2. Rows are copied table by table, each page with its position in one transaction.
//! 3. Objects are copied under their own keys, each against its digest; what is there is not copied again.
//! 4. Both sides are compared: every table by its rows and a hash of all of them, every object by its size.
//! 5. The mark goes, and the destination can be served.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::progress::Progress;
use super::{BackupError, Pace, Result};
use crate::blobs::{BlobStore, ObjectKey};
use crate::metadata::Time;
use crate::metadata::configuration::REPLICA_LIFE;
use crate::metadata::copies::Named;
use crate::metadata::transfer::{Side, Table};

mod objects;

/// Objects whose sizes are asked for at once.
const LOOKUPS: usize = 32;
/// Rows of objects at a time.
const PAGE: u32 = 1000;

/// One side: both stores of an installation.
pub struct Place {
    /// Its metadata.
    pub metadata: Side,
    /// Its blobs.
    pub blobs: Arc<dyn BlobStore>,
}

/// What was moved.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Converted {
    /// Tables.
    pub tables: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of the objects this run has copied.
    pub copied_objects: u64,
}

/// Moves everything from one place to the other.
pub async fn run(
    from: &mut Place,
    into: &mut Place,
    pace: &Pace,
    progress: &Arc<Progress>,
) -> Result<Converted> {
    // 1. Who may.
    progress.begin("looking at both sides", 0, 0);
    unserved(from, "source").await?;
    unserved(into, "destination").await?;
    let versions = (from.metadata.version().await?, into.metadata.version().await?);
    if versions.0 != versions.1 {
        return Err(refusal(format!(
            "the source has migration {}, this release {}: bring it up to date by `berth-registry migrate` first",
            versions.0, versions.1
        )));
    }
    let identity = from.metadata.identity().await?;
    match into.metadata.unfinished().await? {
        Some(found) if found == identity => objects::clear(&*into.blobs).await?,
        Some(_) => {
            return Err(refusal(
                "the destination holds a part of another source, or of this one before it was served again: empty both \
                 of its stores"
                    .to_owned(),
            ));
        }
        None => {
            begin(into).await?;
            into.metadata.begin(&identity).await?;
        }
    }
    // 2. Rows.
    let tables = from.metadata.tables()?;
    rows(from, into, &tables, progress).await?;
    // 3. Objects.
    let mut converted = Converted {
        tables: tables.len() as u64,
        ..Converted::default()
    };
    converted.copied_objects = objects::copy_all(from, into, pace, progress).await?;
    // 4. Both sides are the same.
    converted.rows = compare_rows(from, into, &tables, progress).await?;
    (converted.objects, converted.bytes) = compare_objects(from, into, progress).await?;
    unserved(from, "source").await?;
    // 5. Done.
    into.metadata.finish().await?;
    Ok(converted)
}

fn refusal(why: String) -> BackupError {
    BackupError::Convert(why)
}

async fn unserved(place: &mut Place, side: &str) -> Result<()> {
    match place.metadata.served_by(Time::now().minus(REPLICA_LIFE)).await? {
        None => Ok(()),
        Some(host) => Err(refusal(format!(
            "the {side} is served by a replica on {host}: stop it; one that has died is forgotten after {} s",
            REPLICA_LIFE.as_secs()
        ))),
    }
}

/// Fails unless nothing is in the destination.
async fn begin(into: &mut Place) -> Result<()> {
    if !into.metadata.is_empty().await? {
        return Err(refusal(
            "there are rows in the destination's metadata store: name an empty one".to_owned(),
        ));
    }
    let page = into.blobs.objects(None).await?;
    if !page.objects.is_empty() || page.next.is_some() {
        return Err(refusal(
            "there are objects in the destination's blob store: name an empty one".to_owned(),
        ));
    }
    Ok(())
}

async fn rows(from: &mut Place, into: &mut Place, tables: &[Table], progress: &Arc<Progress>) -> Result<()> {
    let mut total = 0;
    for table in tables {
        total += from.metadata.count(table).await?;
    }
    progress.begin("rows", total, 0);
    for table in tables {
        let mut standing = into.metadata.standing(table).await?;
        progress.add(standing.rows);
        while !standing.is_done {
            let before = standing.rows;
            standing = into
                .metadata
                .take_page(&mut from.metadata, table, &standing)
                .await?;
            progress.add(standing.rows - before);
        }
    }
    Ok(())
}

async fn compare_rows(
    from: &mut Place,
    into: &mut Place,
    tables: &[Table],
    progress: &Arc<Progress>,
) -> Result<u64> {
    let mut total = 0;
    for table in tables {
        total += from.metadata.count(table).await? + into.metadata.count(table).await?;
    }
    progress.begin("comparing rows", total, 0);
    let mut rows = 0;
    for table in tables {
        let here = from.metadata.content(table, |rows| progress.add(rows)).await?;
        let there = into.metadata.content(table, |rows| progress.add(rows)).await?;
        if here != there {
            return Err(refusal(format!(
                "the table {} has {} rows in the source and {} in the destination, which are not the same: was the source \
                 served meanwhile? Empty both stores of the destination and begin anew",
                table.name, here.rows, there.rows
            )));
        }
        rows += here.rows;
    }
    Ok(rows)
}

/// Every object has its size on both sides, and the destination has no other.
async fn compare_objects(from: &mut Place, into: &mut Place, progress: &Arc<Progress>) -> Result<(u64, u64)> {
    let (objects, bytes) = into.metadata.object_totals().await?;
    progress.begin("comparing objects", objects, 0);
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = into.metadata.objects(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        let (here, there) = (&from.blobs, &into.blobs);
        let mut looks = stream::iter(page)
            .map(|named: Named| async move {
                let sizes = (here.size(&named.key).await?, there.size(&named.key).await?);
                Ok::<_, BackupError>((named, sizes))
            })
            .buffer_unordered(LOOKUPS);
        while let Some((named, sizes)) = looks.try_next().await? {
            if sizes != (Some(named.size), Some(named.size)) {
                return Err(refusal(format!(
                    "{} has {:?} bytes in the source and {:?} in the destination instead of {}",
                    named.key.path(),
                    sizes.0,
                    sizes.1,
                    named.size
                )));
            }
            progress.add(1);
        }
    }
    let (mut listed, mut next) = (0, None);
    loop {
        let page = into.blobs.objects(next).await?;
        listed += page.objects.len() as u64;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if listed != objects {
        return Err(refusal(format!(
            "the destination has {listed} objects, and its metadata name {objects}"
        )));
    }
    Ok((objects, bytes))
}
