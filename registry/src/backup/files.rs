//! Files that are written whole and durably, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Pace, Result, failed};
use crate::domain::hasher::Hasher;
use crate::domain::{Algorithm, Digest};

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// What has passed through a hash.
pub(super) struct Passed {
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// Makes a folder for its owner only, with those above it.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(path))
}

/// Reads a file and hashes it.
pub(super) fn hash(path: &Path, algorithm: Algorithm, pace: &Pace, seen: impl Fn(u64)) -> io::Result<Passed> {
    pass(&mut File::open(path)?, None, algorithm, pace, seen)
}

/// Copies a file into a new one, hashes what passes, and makes its bytes durable; not its name.
pub(super) fn copy(
    from: &mut File,
    into: &Path,
    mode: u32,
    algorithm: Algorithm,
    pace: &Pace,
    seen: impl Fn(u64),
) -> Result<Passed> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(into)
        .map_err(failed(into))?;
    let passed = pass(from, Some(&mut file), algorithm, pace, seen).map_err(failed(into))?;
    file.sync_all().map_err(failed(into))?;
    Ok(passed)
}

fn pass(
    from: &mut File,
    mut into: Option<&mut File>,
    algorithm: Algorithm,
    pace: &Pace,
    seen: impl Fn(u64),
) -> io::Result<Passed> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..length]);
        if let Some(into) = &mut into {
            into.write_all(&buffer[..length])?;
        }
        size += length as u64;
        seen(length as u64);
        pace.wait(length);
    }
    Ok(Passed {
        size,
        digest: hasher.digest(),
    })
}

/// Writes a small file whole, for its owner only.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(failed(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Removes a file or a folder with what is in it; what is not there is gone.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}
