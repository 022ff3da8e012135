//! Who may touch an upload's file: exactly one writer at a time.
//!
//! This process is the only one that writes to the folder (it holds the folder's lock), so a table in
//! memory fences exactly: the check and the file operation happen under the same lock, and a writer that
//! takes an upload over waits for the operation of its predecessor that is running.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::blobs::BlobError;

/// How many ended uploads are remembered, so that a writer that was overtaken long ago is still refused.
const ENDED_KEPT: usize = 65_536;

/// The claims on all uploads that this process has written to.
#[derive(Default)]
pub(super) struct Claims {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    uploads: HashMap<Uuid, Arc<Mutex<Holder>>>,
    /// Published and discarded uploads, oldest first.
    ended: VecDeque<Uuid>,
}

/// The newest claim on one upload.
#[derive(Default)]
struct Holder {
    epoch: i64,
    serial: u64,
}

/// One writer's right to touch its upload's file, until the next claim on the same upload.
#[derive(Clone)]
pub(super) struct Claim {
    upload: Uuid,
    serial: u64,
    holder: Arc<Mutex<Holder>>,
}

impl Claims {
    /// Claims the upload and runs `work` before anybody else can touch it. Whoever held it before is
    /// shut out from here on. Blocks while an operation of the former holder runs.
    pub(super) fn take<T>(
        &self,
        upload: Uuid,
        epoch: i64,
        work: impl FnOnce() -> Result<T, BlobError>,
    ) -> Result<(Claim, T), BlobError> {
        let holder = self.holder(upload);
        let mut held = holder.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch < held.epoch {
            return Err(overtaken(upload));
        }
        held.epoch = epoch;
        held.serial += 1;
        let serial = held.serial;
        let done = work()?;
        drop(held);
        Ok((
            Claim {
                upload,
                serial,
                holder,
            },
            done,
        ))
    }

    /// Claims the upload if nobody's operation on it runs just now. Does not block.
    pub(super) fn try_take(&self, upload: Uuid, epoch: i64) -> Option<Result<Claim, BlobError>> {
        let holder = self.holder(upload);
        let serial = {
            let mut held = holder.try_lock().ok()?;
            if epoch < held.epoch {
                return Some(Err(overtaken(upload)));
            }
            held.epoch = epoch;
            held.serial += 1;
            held.serial
        };
        Some(Ok(Claim {
            upload,
            serial,
            holder,
        }))
    }

    /// Shuts out whoever holds the upload and runs `work` before anybody else can touch it.
    pub(super) fn shut_out<T>(
        &self,
        upload: Uuid,
        work: impl FnOnce() -> Result<T, BlobError>,
    ) -> Result<T, BlobError> {
        let holder = self.holder(upload);
        let mut held = holder.lock().unwrap_or_else(PoisonError::into_inner);
        held.serial += 1;
        work()
    }

    /// Remembers that the upload has ended; the memory it takes is bounded from here on.
    pub(super) fn end(&self, upload: Uuid) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.ended.push_back(upload);
        for _ in 0..2 {
            if table.ended.len() <= ENDED_KEPT {
                return;
            }
            let Some(oldest) = table.ended.pop_front() else {
                return;
            };
            match table.uploads.get(&oldest) {
                // A claim is still in somebody's hand: forgetting its lock would unfence it.
                Some(holder) if Arc::strong_count(holder) > 1 => table.ended.push_back(oldest),
                _ => {
                    table.uploads.remove(&oldest);
                }
            }
        }
    }

    fn holder(&self, upload: Uuid) -> Arc<Mutex<Holder>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.uploads.entry(upload).or_default().clone()
    }
}

impl Claim {
    /// Runs `work` if the claim still holds. Nobody can take the upload over while it runs.
    pub(super) fn hold<T>(&self, work: impl FnOnce() -> Result<T, BlobError>) -> Result<T, BlobError> {
        let held = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if held.serial != self.serial {
            return Err(overtaken(self.upload));
        }
        work()
    }
}

fn overtaken(upload: Uuid) -> BlobError {
    BlobError::Broken(format!("another writer has taken over upload {upload}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_is_refused_and_a_newer_one_shuts_the_holder_out() {
        let claims = Claims::default();
        let upload = Uuid::now_v7();
        let (first, ()) = claims.take(upload, 1, || Ok(())).unwrap();
        assert!(first.hold(|| Ok(())).is_ok());
        let (second, ()) = claims.take(upload, 2, || Ok(())).unwrap();
        assert!(first.hold(|| Ok(())).is_err());
        assert!(claims.take(upload, 1, || Ok(())).is_err());
        assert!(second.hold(|| Ok(())).is_ok());
    }

    #[test]
    fn ended_uploads_take_bounded_memory_and_held_claims_stay_fenced() {
        let claims = Claims::default();
        let upload = Uuid::now_v7();
        let (held, ()) = claims.take(upload, 1, || Ok(())).unwrap();
        claims.end(upload);
        for _ in 0..ENDED_KEPT + 10 {
            let other = Uuid::now_v7();
            claims.take(other, 1, || Ok(())).unwrap();
            claims.end(other);
        }
        assert!(claims.table.lock().unwrap().uploads.len() <= ENDED_KEPT + 2);
        claims.shut_out(upload, || Ok(())).unwrap();
        assert!(held.hold(|| Ok(())).is_err());
    }
}
