//! Files that are written whole and durably, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
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
    let passed = pass(&mut File::open(path)?, None, algorithm, pace, seen);
    passed.map_err(|failed| match failed {
        Failed::Reading(error) | Failed::Writing(error) => error,
    })
}

/// Copies a file into a new one, hashes what passes, and makes its bytes durable; not its name. What cannot be read is
/// answered apart from what cannot be written.
pub(super) fn copy(
    from: &mut impl io::Read,
    into: &Path,
    mode: u32,
    algorithm: Algorithm,
    pace: &Pace,
    seen: impl Fn(u64),
) -> Result<io::Result<Passed>> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(into)
        .map_err(failed(into))?;
    match pass(from, Some(&mut file), algorithm, pace, seen) {
        Ok(passed) => {
            file.sync_all().map_err(failed(into))?;
            Ok(Ok(passed))
        }
        Err(Failed::Reading(error)) => Ok(Err(error)),
        Err(Failed::Writing(error)) => Err(failed(into)(error)),
    }
}

/// Which side of a copy failed.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

fn pass(
    from: &mut impl io::Read,
    mut into: Option<&mut File>,
    algorithm: Algorithm,
    pace: &Pace,
    seen: impl Fn(u64),
) -> std::result::Result<Passed, Failed> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failed::Reading(error)),
        };
        hasher.update(&buffer[..length]);
        if let Some(into) = &mut into {
            into.write_all(&buffer[..length]).map_err(Failed::Writing)?;
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Has some bytes, and then a damaged sector.
    struct Damaged(usize);

    impl io::Read for Damaged {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.min(buffer.len());
            self.0 -= length;
            match length {
                0 => Err(io::Error::other("a damaged sector")),
                length => Ok(length),
            }
        }
    }

    fn copied(from: &mut impl io::Read, into: &Path) -> Result<io::Result<Passed>> {
        copy(from, into, 0o600, Algorithm::Sha256, &Pace::new(None), |_| {})
    }

    #[test]
    fn reading_fails_apart_from_writing() {
        let folder = tempfile::tempdir().unwrap();
        let reading = copied(&mut Damaged(3 << 20), &folder.path().join("file")).unwrap();
        let said = reading.err().map(|error| error.to_string());
        assert_eq!(said.as_deref(), Some("a damaged sector"));

        let writing = copied(&mut io::repeat(1).take(10), Path::new("/dev/full"));
        let said = writing.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.starts_with("/dev/full: "), "{said}");
    }
}
