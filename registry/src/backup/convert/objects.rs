//! Objects from one blob store into another, under the same keys.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{PAGE, Place};
use crate::backup::progress::Progress;
use crate::backup::{BackupError, Pace, Result};
use crate::blobs::{BlobError, BlobStore, BlobWriter, ObjectKey};
use crate::domain::hasher::Hasher;
use crate::metadata::copies::Named;

/// Objects that are copied at once.
const AT_ONCE: usize = 8;
/// Number of this writer's lease: there is no other.
const EPOCH: i64 = 1;

/// Frees what a run that was cut has left unpublished.
pub(super) async fn clear(blobs: &dyn BlobStore) -> Result<()> {
    let mut after = None;
    loop {
        let found = blobs.unpublished(Duration::ZERO, after).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after = Some(*last);
        for id in found {
            blobs.sweep(id).await?;
        }
    }
}

/// Copies every object that the destination's metadata name and its store lacks; how many that were.
pub(super) async fn copy_all(
    from: &mut Place,
    into: &mut Place,
    pace: &Pace,
    progress: &Arc<Progress>,
) -> Result<u64> {
    let (objects, bytes) = into.metadata.object_totals().await?;
    progress.begin("objects", objects, bytes);
    let (mut copied, mut after) = (0, None::<ObjectKey>);
    loop {
        let page = into.metadata.objects(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(copied);
        };
        after = Some(last.key.clone());
        let (here, there) = (&*from.blobs, &*into.blobs);
        let mut copies = stream::iter(page)
            .map(|named| async move { copy(here, there, &named, pace, progress).await })
            .buffer_unordered(AT_ONCE);
        while let Some(is_new) = copies.try_next().await? {
            copied += u64::from(is_new);
            progress.add(1);
        }
    }
}

/// Copies an object unless it is there; whether it was not.
async fn copy(
    from: &dyn BlobStore,
    into: &dyn BlobStore,
    named: &Named,
    pace: &Pace,
    progress: &Progress,
) -> Result<bool> {
    // It is published whole, with its digest verified.
    if into.size(&named.key).await? == Some(named.size) {
        progress.add_bytes(named.size);
        return Ok(false);
    }
    let lost = |error: BlobError| match error {
        BlobError::NotFound { what } => BackupError::Convert(format!(
            "{what}, of which {} is a blob: run `berth-registry fsck` on the source, and delete what is lost there",
            named.digest
        )),
        error => error.into(),
    };
    let id = named.key.upload();
    let mut stream = from.read(&named.key, 0..named.size).await.map_err(lost)?;
    let mut writer = into.resume(id, EPOCH, into.begin(), Some(named.size)).await?;
    let mut hasher = Hasher::new(named.digest.algorithm());
    let mut size = 0;
    while let Some(bytes) = stream.try_next().await.map_err(lost)? {
        hasher.update(&bytes);
        size += bytes.len() as u64;
        progress.add_bytes(bytes.len() as u64);
        let length = bytes.len();
        write(&mut *writer, bytes).await?;
        pace.rest(length).await;
    }
    if size != named.size || hasher.digest() != named.digest {
        drop(writer);
        into.sweep(id).await?;
        return Err(BackupError::Convert(format!(
            "{} of the source has {size} bytes that are {} instead of {} that are {}: run `berth-registry fsck --rehash` on \
             the source, and delete what is damaged there",
            named.key.path(),
            hasher.digest(),
            named.size,
            named.digest
        )));
    }
    writer.finish().await?;
    Ok(true)
}

/// Writes bytes up to each boundary of the store.
async fn write(writer: &mut dyn BlobWriter, mut bytes: bytes::Bytes) -> Result<()> {
    while !bytes.is_empty() {
        let length = usize::try_from(writer.until_boundary()).unwrap_or(usize::MAX);
        let rest = bytes.split_off(length.min(bytes.len()));
        writer.write(bytes).await?;
        bytes = rest;
    }
    Ok(())
}
