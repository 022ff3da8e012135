//! Uploads that were cut: where they stand, so that the next run goes on.
//!
//! A note holds the session's location, how many bytes the destination has acknowledged, and the state of the hash at just
//! that byte: the digest of the whole is compared although the run has seen only the rest of it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::hasher::Hasher;
use crate::domain::{Algorithm, Digest, RepositoryName};

/// Where notes are kept, if anywhere.
#[derive(Debug, Clone)]
pub struct Notes(Option<PathBuf>);

/// An upload that goes on.
pub(super) struct Resumed {
    /// The session's path at the destination.
    pub location: String,
    /// Bytes that the destination had acknowledged.
    pub offset: u64,
    /// The hash of these.
    pub hasher: Hasher,
}

/// The place of one upload's note, which is this run's alone for as long as it is held.
pub(super) struct Note {
    path: Option<PathBuf>,
    /// Locked. Whoever finds it locked does without a note: of two runs that go on with one upload, each would cut the
    /// other's.
    _lock: Option<fs::File>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    location: String,
    offset: u64,
    midstate: String,
}

impl Notes {
    /// In this folder, which is made when it is needed; without one, blobs that were cut begin anew.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// The note on a blob's way to a repository of the registry at `base`.
    pub(super) fn of(&self, base: &str, repository: &RepositoryName, digest: &Digest) -> Note {
        let key = format!("{base} {repository} {digest}");
        let name = Digest::of(Algorithm::Sha256, key.as_bytes());
        let path = self
            .0
            .as_ref()
            .map(|folder| folder.join(hex::encode(name.hash())));
        let lock = path
            .as_ref()
            .and_then(|path| match locked(&path.with_extension("lock")) {
                Ok(lock) => Some(lock),
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "an upload goes without its note");
                    None
                }
            });
        Note {
            path: path
                .filter(|_| lock.is_some())
                .map(|path| path.with_extension("json")),
            _lock: lock,
        }
    }
}

impl Note {
    /// Where the upload stood when it was last noted; what cannot be read is as good as nothing.
    pub(super) fn read(&self) -> Option<Resumed> {
        let bytes = fs::read(self.path.as_ref()?).ok()?;
        let written: Written = serde_json::from_slice(&bytes).ok()?;
        let midstate = hex::decode(&written.midstate).ok()?;
        Some(Resumed {
            location: written.location,
            offset: written.offset,
            hasher: Hasher::from_midstate(&midstate).ok()?,
        })
    }

    /// Notes how far it has come. Without a note nothing is lost but time, so that no failure stops an import.
    pub(super) fn write(&self, location: &str, offset: u64, hasher: &Hasher) {
        let Some(path) = &self.path else { return };
        let written = Written {
            location: location.to_owned(),
            offset,
            midstate: hex::encode(hasher.midstate()),
        };
        if let Err(error) = replace(path, &serde_json::to_vec(&written).unwrap_or_default()) {
            tracing::debug!(%error, path = %path.display(), "an upload's note was not written");
        }
    }

    /// The upload is over.
    pub(super) fn forget(&self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Note {
    /// Takes the lock's file away while it is still locked. A run that has opened it by then locks a file that no other finds:
    /// at worst two runs have one note, and the destination refuses what does not fit.
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path.with_extension("lock"));
        }
    }
}

/// The file at a path, made if need be, locked for as long as it is open.
fn locked(path: &Path) -> io::Result<fs::File> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// Whoever reads sees the old or the new, whole. The folder is there: its lock is.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_found_where_it_was_noted_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::new(Some(folder.path().join("deep/er")));
        let (name, digest) = ("a/b".parse().unwrap(), Digest::of(Algorithm::Sha256, b"whole"));
        let note = notes.of("http://127.0.0.1:1", &name, &digest);
        assert!(note.read().is_none());
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"who");
        note.write("/v2/a/b/blobs/uploads/1", 3, &hasher);

        let mut found = note.read().unwrap();
        assert_eq!(
            (found.location.as_str(), found.offset),
            ("/v2/a/b/blobs/uploads/1", 3)
        );
        found.hasher.update(b"le");
        assert_eq!(found.hasher.digest(), digest);
        assert!(notes.of("http://127.0.0.1:2", &name, &digest).read().is_none());
        assert!(
            Notes::new(None)
                .of("http://127.0.0.1:1", &name, &digest)
                .read()
                .is_none()
        );

        fs::write(note.path.as_ref().unwrap(), b"{}").unwrap();
        assert!(note.read().is_none(), "a note that is damaged is none");
        note.forget();
        drop(note);
        assert_eq!(fs::read_dir(folder.path().join("deep/er")).unwrap().count(), 0);
    }

    #[test]
    fn an_upload_is_gone_on_with_by_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let of = || {
            let name = "a/b".parse().unwrap();
            let digest = Digest::of(Algorithm::Sha256, b"whole");
            Notes::new(Some(folder.path().to_owned())).of("http://127.0.0.1:1", &name, &digest)
        };
        let hasher = Hasher::new(Algorithm::Sha256);
        let first = of();
        first.write("/v2/a/b/blobs/uploads/1", 0, &hasher);
        let second = of();
        assert!(second.read().is_none(), "it is another run's");
        second.write("/v2/a/b/blobs/uploads/2", 0, &hasher);
        second.forget();
        drop(second);
        assert_eq!(first.read().unwrap().location, "/v2/a/b/blobs/uploads/1");
        drop(first);
        assert_eq!(of().read().unwrap().location, "/v2/a/b/blobs/uploads/1");
    }
}
