//! The folder's shape on disk, and the durability of its directories.
//!
//! ```text
//! <root>/lock                    held by the one process that uses the folder, with its process id
//! <root>/tmp/<uuid>              bytes of an upload that is not published
//! <root>/blobs/<2 hex>/<uuid>    published objects
//! ```
//! All shard directories are made when the folder is opened, so that publishing never has to.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use uuid::Uuid;

use super::{LockError, failed};
use crate::blobs::{BlobError, ObjectKey};

/// One root folder, locked.
pub(super) struct Layout {
    root: PathBuf,
    tmp: Directory,
    shards: Vec<Directory>,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl Layout {
    /// Makes what is missing below `root` and locks it.
    pub(super) fn open(root: &Path) -> Result<Self, LockError> {
        let io = |error: io::Error| LockError::Io {
            path: root.to_owned(),
            error,
        };
        let is_new = !root.exists();
        fs::create_dir_all(root).map_err(io)?;
        let lock = lock(root)?;
        let mut made = make(&root.join("tmp")).map_err(io)?;
        made |= make(&root.join("blobs")).map_err(io)?;
        let mut shards = Vec::with_capacity(256);
        let mut shard_made = false;
        for shard in 0..=255u8 {
            let path = root.join(format!("blobs/{shard:02x}"));
            shard_made |= make(&path).map_err(io)?;
            shards.push(Directory::new(path));
        }
        if shard_made {
            sync_directory(&root.join("blobs")).map_err(io)?;
        }
        if made {
            sync_directory(root).map_err(io)?;
        }
        if is_new && let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent).map_err(io)?;
        }
        Ok(Self {
            root: root.to_owned(),
            tmp: Directory::new(root.join("tmp")),
            shards,
            _lock: lock,
        })
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of unpublished uploads.
    pub(super) fn tmp(&self) -> &Directory {
        &self.tmp
    }

    /// The file of an unpublished upload.
    pub(super) fn unpublished(&self, upload: Uuid) -> PathBuf {
        self.tmp.path.join(upload.to_string())
    }

    /// The file of an object.
    pub(super) fn object(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.path())
    }

    /// The directory that an object lies in.
    pub(super) fn shard(&self, key: &ObjectKey) -> &Directory {
        &self.shards[usize::from(key.shard())]
    }

    /// The directory of this number.
    pub(super) fn shard_path(&self, shard: u8) -> &Path {
        self.shards[usize::from(shard)].path()
    }

    /// Makes the upload's file the object of its key, durably. Its bytes must be durable before.
    pub(super) fn publish(&self, upload: Uuid) -> Result<(), BlobError> {
        let key = ObjectKey::of_upload(upload);
        fs::rename(self.unpublished(upload), self.object(&key))
            .map_err(failed("cannot publish an object"))?;
        self.shard(&key).sync().map_err(failed("cannot sync a directory"))
    }
}

/// Makes a directory; tells whether it was missing.
fn make(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(root: &Path) -> Result<File, LockError> {
    let path = root.join("lock");
    let io = |error: io::Error| LockError::Io {
        path: path.clone(),
        error,
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(LockError::Held {
                path: root.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A directory whose entries are made durable; callers that meet share one fsync.
pub(super) struct Directory {
    path: PathBuf,
    syncs: Mutex<Syncs>,
    done: Condvar,
}

/// Syncs are numbered as they start, one at a time.
#[derive(Default)]
struct Syncs {
    started: u64,
    running: bool,
    /// The newest sync that succeeded. One that failed is tried again by each that waited for it.
    succeeded: u64,
}

impl Directory {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            syncs: Mutex::default(),
            done: Condvar::new(),
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes every entry that was changed before this call durable. Blocking.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        // A sync that is running now may have begun before our change: only the next one counts.
        let wanted = syncs.started + 1;
        while syncs.running {
            syncs = self.done.wait(syncs).unwrap_or_else(PoisonError::into_inner);
            if syncs.succeeded >= wanted {
                return Ok(());
            }
        }
        syncs.started += 1;
        syncs.running = true;
        let mine = syncs.started;
        drop(syncs);
        let result = sync_directory(&self.path);
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.running = false;
        if result.is_ok() {
            syncs.succeeded = mine;
        }
        drop(syncs);
        self.done.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_the_holders_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let first = Layout::open(folder.path()).unwrap();
        let Err(LockError::Held { holder, .. }) = Layout::open(folder.path()) else {
            panic!("not locked")
        };
        assert_eq!(holder, std::process::id().to_string());
        drop(first);
        Layout::open(folder.path()).unwrap();
    }

    #[test]
    fn concurrent_syncs_of_a_directory_all_return() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_owned());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| directory.sync().unwrap()));
            }
        });
        let syncs = directory.syncs.lock().unwrap();
        assert!(syncs.started <= 400 && syncs.succeeded == syncs.started && !syncs.running);
    }
}
