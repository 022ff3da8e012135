//! The data folder: made on a first run, held by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::backup::restore::UNFINISHED;

/// The file whose lock is the folder's. It stays when the lock is gone: removing it would let two
/// processes lock two files of the same name.
const LOCK: &str = "lock";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataFolderError {
    /// Another process has it.
    #[error(
        "--data {folder} is in use by {holder}: stop that process, or give this one another --data folder",
        folder = folder.display()
    )]
    Held { folder: PathBuf, holder: String },
    /// A restore into it was cut.
    #[error(
        "a restore into --data {folder} has not ended: run the same `berth-registry restore` again, or remove the folder",
        folder = folder.display()
    )]
    Unfinished { folder: PathBuf },
    /// It cannot be made or written.
    #[error(
        "--data {folder} cannot be used: {error}; name a folder that this user may write",
        folder = folder.display()
    )]
    Unusable { folder: PathBuf, error: io::Error },
}

/// The folder, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataFolder {
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is absent, readable by its owner only, and takes its lock.
    pub(super) fn hold(folder: &Path) -> Result<Self, DataFolderError> {
        let held = Self::hold_unfinished(folder)?;
        if folder.join(UNFINISHED).exists() {
            let folder = folder.to_owned();
            return Err(DataFolderError::Unfinished { folder });
        }
        Ok(held)
    }

    /// The same for a restore, which goes on where one was cut.
    pub(super) fn hold_unfinished(folder: &Path) -> Result<Self, DataFolderError> {
        let unusable = |error| DataFolderError::Unusable {
            folder: folder.to_owned(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(unusable)?;
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut lock = options.open(folder.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataFolderError::Held {
                    folder: folder.to_owned(),
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        write_holder(&mut lock).map_err(unusable)?;
        Ok(Self { _lock: lock })
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Who wrote the lock's file last; its lock is theirs.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(id) => format!("the process {id}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_for_its_owner_only_and_held_once_at_a_time() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("a/berth-data");
        let first = DataFolder::hold(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = DataFolder::hold(&folder).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("the process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        DataFolder::hold(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let above = tempfile::tempdir().unwrap();
        fs::write(above.path().join("file"), "").unwrap();
        let refused = DataFolder::hold(&above.path().join("file/data"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("file/data"), "{refused}");
    }
}
