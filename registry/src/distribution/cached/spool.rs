//! What has left the window of a blob that arrives, on disk until everybody has read it.
//!
//! The files have no names: whatever happens to the process, nothing is left of them. All together they keep to
//! `--spool-size`; a blob that does not fit goes without.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Bytes of one read.
const CHUNK: usize = 256 << 10;
/// The room is given out in steps of this.
const STEP: u64 = 1 << 20;

/// Room for such files.
pub(super) struct Spools {
    folder: PathBuf,
    steps: Arc<Semaphore>,
}

/// One file.
#[derive(Clone)]
pub(super) struct Spool {
    file: Arc<File>,
    _room: Arc<OwnedSemaphorePermit>,
}

impl Spools {
    /// At most `bytes` of files in a folder.
    pub fn new(folder: PathBuf, bytes: u64) -> Self {
        let steps = usize::try_from(bytes / STEP).unwrap_or(usize::MAX);
        Self {
            folder,
            steps: Arc::new(Semaphore::new(steps.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// A file for a blob of this size, if there is room.
    pub async fn open(&self, size: u64) -> Option<Spool> {
        let steps = u32::try_from(size.div_ceil(STEP)).ok()?;
        let room = self.steps.clone().try_acquire_many_owned(steps).ok()?;
        let folder = self.folder.clone();
        let made = blocking(move || {
            let path = folder.join(format!("berth-spool-{}", Uuid::new_v4()));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        });
        match made.await {
            Ok(file) => Some(Spool {
                file: Arc::new(file),
                _room: Arc::new(room),
            }),
            Err(error) => {
                tracing::warn!(%error, "a blob that is fetched cannot be spooled; who falls behind waits for its end");
                None
            }
        }
    }
}

impl Spool {
    /// Writes pieces one after the other, from a byte on.
    pub async fn write(&self, mut at: u64, pieces: Vec<Bytes>) -> io::Result<()> {
        let file = self.file.clone();
        blocking(move || {
            for piece in pieces {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(())
        })
        .await
    }

    /// Some bytes from `at` on, before `end`; both have been written.
    pub async fn read(&self, at: u64, end: u64) -> io::Result<Bytes> {
        let file = self.file.clone();
        let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes.into())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_keep_to_their_room_and_leave_no_names() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 3 * STEP);
        let spool = spools.open(STEP + 1).await.unwrap();
        assert!(
            spools.open(STEP + 1).await.is_none(),
            "two of three steps are taken"
        );
        spool
            .write(0, vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")])
            .await
            .unwrap();
        assert_eq!(spool.read(2, 5).await.unwrap(), "cde");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(spool);
        assert!(spools.open(3 * STEP).await.is_some());
    }
}
