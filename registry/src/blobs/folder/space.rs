//! The reserve: writing stops before the disk is full, so that the metadata store beside it lives on.

use std::fs::File;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::blobs::BlobError;

/// The reserve is this much, or [`RESERVE_DIVISOR`] of a small disk.
const RESERVE: u64 = 1 << 30;
/// At most one part in this many is reserved.
const RESERVE_DIVISOR: u64 = 50;
/// How many bytes may be written, by all writers together, between two looks at the disk.
const LOOK_EVERY: u64 = 64 << 20;

/// What may still be written to the folder's disk.
pub(super) struct Space {
    root: File,
    /// Bytes that may be written before the disk is looked at again.
    allowance: AtomicI64,
}

impl Space {
    pub(super) fn new(root: File) -> Self {
        Self {
            root,
            allowance: AtomicI64::new(0),
        }
    }

    /// Takes the right to write `bytes`. Blocking: it may ask the file system.
    pub(super) fn take(&self, bytes: u64) -> Result<(), BlobError> {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.allowance.fetch_sub(wanted, Ordering::Relaxed) >= wanted {
            return Ok(());
        }
        let disk = rustix::fs::fstatvfs(&self.root)
            .map_err(|error| BlobError::Unavailable(format!("cannot read the free space: {error}")))?;
        let free = usable(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
        if free < bytes {
            self.allowance.store(0, Ordering::Relaxed);
            let what = format!("{bytes} bytes do not fit, {free} may be used; free some disk space");
            return Err(BlobError::Full(what));
        }
        let left = ((free - bytes) / 8).min(LOOK_EVERY);
        self.allowance
            .store(i64::try_from(left).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

/// Free bytes above the reserve of a disk of `total` bytes.
fn usable(total: u64, available: u64) -> u64 {
    available.saturating_sub(RESERVE.min(total / RESERVE_DIVISOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_keeps_its_reserve() {
        assert_eq!(usable(1 << 40, 2 << 30), 1 << 30);
        assert_eq!(usable(1 << 40, 1 << 30), 0);
        assert_eq!(usable(1 << 40, 5), 0);
        assert_eq!(usable(100 << 20, 100 << 20), 98 << 20);
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_as_full() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(File::open(folder.path()).unwrap());
        assert!(matches!(space.take(1 << 60), Err(BlobError::Full(_))));
        space.take(1).unwrap();
    }
}
