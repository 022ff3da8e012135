//! Objects from one folder to another, each verified as it passes; those that are there are not copied again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::{Pace, Result, blocking, failed, files};
use crate::metadata::copies::{Copy, Named};

/// Rows of the metadata that are in memory at a time.
pub(super) const PAGE: u32 = 1000;
/// Objects that are copied at once.
const AT_ONCE: usize = 4;

/// An object that is not what its blob says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its path in the blob store.
    pub object: String,
    /// What its bytes should be.
    pub digest: String,
    /// What is wrong.
    pub why: String,
}

/// The first of the faults, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// All of them.
    pub count: u64,
    /// At most [`Faults::LISTED`].
    pub listed: Vec<Fault>,
}

impl Faults {
    /// Most faults that are listed.
    pub const LISTED: usize = 1000;

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.count += 1;
        if self.listed.len() < Self::LISTED {
            self.listed.push(fault);
        }
    }
}

impl Fault {
    pub(super) fn of(named: &Named, why: String) -> Self {
        Self {
            object: named.key.path(),
            digest: named.digest.to_string(),
            why,
        }
    }
}

/// What became of all objects.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Not there before.
    pub(super) objects: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    pub(super) faults: Faults,
}

/// From where to where.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) from: PathBuf,
    pub(super) into: PathBuf,
    pub(super) pace: Pace,
    pub(super) progress: Arc<Progress>,
}

enum Outcome {
    There,
    Copied(u64),
    Fault(Fault),
}

impl Way {
    /// Copies every object that the metadata name, and makes all of them durable. An object that cannot be read is a fault
    /// as one that is not there; what cannot be written, or opened for another reason than a damaged disk, ends it.
    pub(super) async fn copy_all(&self, copy: &mut Copy) -> Result<Copied> {
        let mut copied = Copied::default();
        let mut after = None;
        loop {
            let page = copy.objects(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let mut outcomes = stream::iter(page)
                .map(|named| {
                    let way = self.clone();
                    blocking(move || way.copy(&named))
                })
                .buffer_unordered(AT_ONCE);
            while let Some(outcome) = outcomes.try_next().await? {
                match outcome {
                    Outcome::There => {}
                    Outcome::Copied(bytes) => {
                        copied.objects += 1;
                        copied.bytes += bytes;
                    }
                    Outcome::Fault(fault) => copied.faults.add(fault),
                }
                self.progress.add(1);
            }
        }
        let into = self.into.join("blobs");
        blocking(move || sync_all(&into)).await?;
        Ok(copied)
    }

    fn copy(&self, named: &Named) -> Result<Outcome> {
        let into = self.into.join(named.key.path());
        // It came there by its whole name, with its digest verified.
        if fs::metadata(&into).is_ok_and(|found| found.len() == named.size) {
            self.progress.add_bytes(named.size);
            return Ok(Outcome::There);
        }
        let from = self.from.join(named.key.path());
        let fault = |why: String| Ok(Outcome::Fault(Fault::of(named, why)));
        let mut source = match File::open(&from) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return fault("it is not there".to_owned());
            }
            Err(error) if is_damage(&error) => return fault(format!("it cannot be read: {error}")),
            Err(error) => return Err(failed(&from)(error)),
        };
        let temporary = self.into.join("tmp").join(named.key.upload().to_string());
        let passed = files::copy(
            &mut source,
            &temporary,
            0o600,
            named.digest.algorithm(),
            &self.pace,
            |bytes| self.progress.add_bytes(bytes),
        )?;
        let passed = match passed {
            Ok(passed) => passed,
            // A disk that cannot read one file may read the others.
            Err(error) => {
                files::remove(&temporary)?;
                return fault(format!("it cannot be read: {error}"));
            }
        };
        if passed.size != named.size || passed.digest != named.digest {
            files::remove(&temporary)?;
            return fault(differs(&passed));
        }
        if let Some(shard) = into.parent() {
            files::make_folder(shard)?;
        }
        fs::rename(&temporary, &into).map_err(failed(&into))?;
        Ok(Outcome::Copied(passed.size))
    }
}

/// What an object is that should be another.
pub(super) fn differs(passed: &files::Passed) -> String {
    format!("it has {} bytes that are {}", passed.size, passed.digest)
}

/// Whether a file cannot be opened for what the disk has lost of it. Other errors, such as too many open files, would be
/// every object's.
fn is_damage(error: &io::Error) -> bool {
    // The second and the third are a file system's checksums.
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN)
    )
}

/// Makes the names of all objects durable.
fn sync_all(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.is_dir() {
            files::sync_folder(&path)?;
        }
    }
    files::sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::blobs::ObjectKey;
    use crate::domain::{Algorithm, Digest};

    fn place() -> (tempfile::TempDir, Way, Named) {
        let root = tempfile::tempdir().unwrap();
        let key = ObjectKey::of_upload(Uuid::new_v4());
        fs::create_dir_all(root.path().join("from").join(key.path()).parent().unwrap()).unwrap();
        fs::create_dir_all(root.path().join("into/tmp")).unwrap();
        let way = Way {
            from: root.path().join("from"),
            into: root.path().join("into"),
            pace: Pace::new(None),
            progress: Arc::default(),
        };
        let named = Named {
            key,
            digest: Digest::of(Algorithm::Sha256, b"bytes"),
            size: 5,
        };
        (root, way, named)
    }

    #[test]
    fn an_object_that_cannot_be_read_is_a_fault_and_leaves_nothing() {
        let (_root, way, named) = place();
        // What opens and cannot be read.
        fs::create_dir(way.from.join(named.key.path())).unwrap();
        match way.copy(&named).unwrap() {
            Outcome::Fault(fault) => assert!(fault.why.starts_with("it cannot be read: "), "{}", fault.why),
            Outcome::There | Outcome::Copied(_) => panic!("it cannot be read"),
        }
        assert_eq!(fs::read_dir(way.into.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_backup_that_cannot_be_written_ends() {
        let (_root, way, named) = place();
        fs::write(way.from.join(named.key.path()), b"bytes").unwrap();
        fs::remove_dir(way.into.join("tmp")).unwrap();
        assert!(way.copy(&named).is_err());
        fs::create_dir(way.into.join("tmp")).unwrap();
        assert!(matches!(way.copy(&named).unwrap(), Outcome::Copied(5)));
    }

    #[test]
    fn only_what_a_disk_has_lost_is_one_object_s_fault() {
        assert!(is_damage(&Errno::IO.into()));
        assert!(is_damage(&Errno::UCLEAN.into()));
        for other in [Errno::MFILE, Errno::ACCESS, Errno::STALE] {
            assert!(!is_damage(&other.into()), "{other}");
        }
    }
}
