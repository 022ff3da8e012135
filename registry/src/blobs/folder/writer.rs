//! Appending to one upload's file.
//!
//! Bytes are collected into batches and written while the next batch is collected. Every [`SYNC_EVERY`]
//! bytes a sync runs beside the further writes: it makes a state durable, and leaves little for the last
//! sync. An upload that fits one batch costs one hop to a blocking thread, at its end.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::claims::Claim;
use super::{Folder, State, blocking, failed, join, truncate};
use crate::blobs::budget::{Budget, Grant};
use crate::blobs::{BlobError, BlobWriter, UploadState};

/// Bytes of one write to the file.
const BATCH: u64 = 1 << 20;
/// Memory is taken in steps of this.
const GRANT_STEP: u64 = 256 << 10;
/// Distance of the boundaries at which a state becomes durable.
const SYNC_EVERY: u64 = 32 << 20;
/// The most slices of one vectored write.
const MOST_SLICES: usize = 1024;

/// One writer.
pub(super) struct FolderWriter {
    folder: Arc<Folder>,
    budget: Budget,
    id: Uuid,
    claim: Claim,
    /// Absent until the first batch is written, then lent to each write.
    file: Option<Arc<File>>,
    /// Bytes accepted, the resumed ones included.
    accepted: u64,
    /// Accepted, in memory only.
    pending: Vec<Bytes>,
    pending_bytes: u64,
    /// Memory taken for `pending`, and how many bytes it allows.
    grant: Option<(Grant, u64)>,
    writing: Option<Writing>,
    syncing: Option<Syncing>,
    durable: u64,
    reported: u64,
    /// Whether the file's name in `tmp/` is durable.
    named: bool,
    /// A write or sync failed: what the file holds is not known any more.
    broken: bool,
}

/// A batch on its way to the file.
struct Writing {
    task: JoinHandle<Result<Arc<File>, BlobError>>,
    /// The boundary at which the batch ends, if it does: then a sync follows.
    boundary: Option<u64>,
}

/// A sync beside further writes.
struct Syncing {
    task: JoinHandle<Result<(), BlobError>>,
    offset: u64,
}

impl FolderWriter {
    /// Takes the upload over from whoever wrote before, at `offset`.
    pub(super) async fn resume(
        folder: &Arc<Folder>,
        budget: &Budget,
        id: Uuid,
        epoch: i64,
        offset: u64,
    ) -> Result<Self, BlobError> {
        // Nothing to open yet: no hop to a blocking thread, unless the former writer is at work.
        let free = if offset == 0 {
            folder.claims.try_take(id, epoch)
        } else {
            None
        };
        let (claim, file) = match free {
            Some(claim) => (claim?, None),
            None => {
                let folder = folder.clone();
                blocking(move || folder.claims.take(id, epoch, || reopen(&folder, id, offset))).await?
            }
        };
        Ok(Self {
            folder: folder.clone(),
            budget: budget.clone(),
            id,
            claim,
            named: file.is_some(),
            file,
            accepted: offset,
            pending: Vec::new(),
            pending_bytes: 0,
            grant: None,
            writing: None,
            syncing: None,
            durable: offset,
            reported: offset,
            broken: false,
        })
    }

    /// Takes memory for `bytes` more. If none is free, what is pending is written first, so that nobody
    /// waits while holding memory.
    async fn reserve(&mut self, bytes: u64) -> Result<(), BlobError> {
        let allowed = self.grant.as_ref().map_or(0, |(_, allowed)| *allowed);
        let missing = (self.pending_bytes + bytes).saturating_sub(allowed);
        if missing == 0 {
            return Ok(());
        }
        // A small upload takes what it needs, a growing one takes steps.
        let step = if self.accepted == 0 {
            missing
        } else {
            missing.max(GRANT_STEP)
        };
        match (self.budget.try_take(step), &mut self.grant) {
            (Some(more), Some((grant, allowed))) => {
                grant.merge(more);
                *allowed += step;
            }
            (Some(more), None) => self.grant = Some((more, step)),
            (None, _) => {
                self.submit().await?;
                self.settle_write().await?;
                self.grant = Some((self.budget.take(bytes).await, bytes));
            }
        }
        Ok(())
    }

    /// Hands the pending bytes to a blocking thread, after the batch before them is written.
    async fn submit(&mut self) -> Result<(), BlobError> {
        self.settle_write().await?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = self.take_pending();
        let (folder, claim, id, file) = (
            self.folder.clone(),
            self.claim.clone(),
            self.id,
            self.file.clone(),
        );
        let task = tokio::task::spawn_blocking(move || claim.hold(|| batch.write(&folder, id, file)));
        let boundary = self.at_boundary().then_some(self.accepted);
        self.writing = Some(Writing { task, boundary });
        Ok(())
    }

    fn take_pending(&mut self) -> Batch {
        let bytes = std::mem::take(&mut self.pending_bytes);
        let slices = std::mem::take(&mut self.pending);
        Batch {
            slices,
            bytes,
            offset: self.accepted - bytes,
            grant: self.grant.take(),
        }
    }

    /// Waits for the batch that is being written; starts the sync that follows it.
    async fn settle_write(&mut self) -> Result<(), BlobError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let (result, boundary) = (join((&mut writing.task).await), writing.boundary);
        self.writing = None;
        let file = self.check(result)?;
        self.file = Some(file.clone());
        if let Some(offset) = boundary {
            // One at a time: unsynced bytes stay bounded when the disk is slower than the client.
            self.settle_sync().await?;
            let (folder, named) = (self.folder.clone(), self.named);
            let task = tokio::task::spawn_blocking(move || sync(&folder, &file, named));
            self.syncing = Some(Syncing { task, offset });
        }
        Ok(())
    }

    /// Waits for the sync that is running.
    async fn settle_sync(&mut self) -> Result<(), BlobError> {
        let Some(syncing) = &mut self.syncing else {
            return Ok(());
        };
        let result = join((&mut syncing.task).await);
        self.synced(result)
    }

    fn synced(&mut self, result: Result<(), BlobError>) -> Result<(), BlobError> {
        let offset = self.syncing.take().map(|syncing| syncing.offset);
        self.check(result)?;
        self.named = true;
        self.durable = self.durable.max(offset.unwrap_or(0));
        Ok(())
    }

    /// After a failed write the position in the file is unknown, and after a failed sync the kernel may
    /// have dropped what it could not write and report success the next time: nothing may follow.
    fn check<T>(&mut self, result: Result<T, BlobError>) -> Result<T, BlobError> {
        self.broken |= result.is_err();
        result
    }

    fn usable(&self) -> Result<(), BlobError> {
        if self.broken {
            let what = format!(
                "an earlier write of upload {} failed; resume from the last state",
                self.id
            );
            return Err(BlobError::Unavailable(what));
        }
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for FolderWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.usable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        self.reserve(length).await?;
        self.pending.push(bytes);
        self.pending_bytes += length;
        self.accepted += length;
        if self.pending_bytes >= BATCH || self.at_boundary() || self.pending.len() >= MOST_SLICES {
            self.submit().await?;
        }
        Ok(())
    }

    fn durable(&mut self) -> Option<UploadState> {
        let done = self
            .syncing
            .as_mut()
            .and_then(|syncing| (&mut syncing.task).now_or_never());
        if let Some(result) = done {
            // The next call on this writer reports the failure.
            let _ = self.synced(join(result));
        }
        if self.durable == self.reported || self.broken {
            return None;
        }
        self.reported = self.durable;
        Some(UploadState::Folder(State { offset: self.durable }))
    }

    fn at_boundary(&self) -> bool {
        self.accepted > 0 && self.accepted.is_multiple_of(SYNC_EVERY)
    }

    fn until_boundary(&self) -> u64 {
        SYNC_EVERY - self.accepted % SYNC_EVERY
    }

    async fn flush(&mut self) -> Result<UploadState, BlobError> {
        self.usable()?;
        self.settle_write().await?;
        // Its result must be seen: an error of the file is reported to one sync only.
        self.settle_sync().await?;
        if self.durable < self.accepted {
            let batch = self.take_pending();
            let (folder, claim, id) = (self.folder.clone(), self.claim.clone(), self.id);
            let (file, named) = (self.file.clone(), self.named);
            // Until the answer is there; it never comes if the caller drops this call.
            self.broken = true;
            let file = blocking(move || {
                let file = claim.hold(|| batch.write(&folder, id, file))?;
                sync(&folder, &file, named)?;
                Ok(file)
            });
            self.file = Some(file.await?);
            self.broken = false;
            self.named = true;
            self.durable = self.accepted;
        }
        self.reported = self.durable;
        Ok(UploadState::Folder(State { offset: self.durable }))
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, BlobError> {
        self.usable()?;
        self.settle_write().await?;
        self.settle_sync().await?;
        let batch = self.take_pending();
        let Self {
            folder,
            claim,
            id,
            file,
            accepted,
            ..
        } = *self;
        blocking(move || {
            claim.hold(|| {
                let file = batch.write(&folder, id, file)?;
                file.sync_data().map_err(failed("cannot sync an upload"))?;
                folder.layout.publish(id)
            })?;
            drop(claim);
            folder.claims.end(id);
            Ok(accepted)
        })
        .await
    }
}

/// Opens the file of an upload that holds `offset` durable bytes, and drops those beyond.
fn reopen(folder: &Folder, id: Uuid, offset: u64) -> Result<Option<Arc<File>>, BlobError> {
    if offset == 0 {
        return Ok(None);
    }
    let opened = File::options().write(true).open(folder.layout.unpublished(id));
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::Broken(format!("the file of upload {id} is gone")),
        _ => failed("cannot open an upload")(error),
    })?;
    truncate(&file, id, offset)?;
    Ok(Some(Arc::new(file)))
}

/// Makes the file's bytes and its name durable.
fn sync(folder: &Folder, file: &File, named: bool) -> Result<(), BlobError> {
    file.sync_data().map_err(failed("cannot sync an upload"))?;
    if !named {
        folder
            .layout
            .tmp()
            .sync()
            .map_err(failed("cannot sync a directory"))?;
    }
    Ok(())
}

/// Bytes to write at an offset, with the memory that they hold.
struct Batch {
    slices: Vec<Bytes>,
    bytes: u64,
    offset: u64,
    grant: Option<(Grant, u64)>,
}

impl Batch {
    /// Writes the batch; the first one makes the file, and drops what a dead writer left in it.
    fn write(self, folder: &Folder, id: Uuid, file: Option<Arc<File>>) -> Result<Arc<File>, BlobError> {
        if self.bytes > 0 {
            folder.space.take(self.bytes)?;
        }
        let file = match file {
            Some(file) => file,
            None => {
                let path = folder.layout.unpublished(id);
                let made = File::options().create(true).truncate(true).write(true).open(path);
                Arc::new(made.map_err(failed("cannot make an upload's file"))?)
            }
        };
        write_all_at(&file, &self.slices, self.offset).map_err(failed("cannot write an upload"))?;
        drop(self.grant);
        Ok(file)
    }
}

/// Writes slices one after the other, in as few calls as the system allows.
fn write_all_at(file: &File, slices: &[Bytes], mut offset: u64) -> io::Result<()> {
    if let [single] = slices {
        return file.write_all_at(single, offset);
    }
    for group in slices.chunks(MOST_SLICES) {
        let mut vectors: Vec<IoSlice<'_>> = group.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut vectors[..];
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
