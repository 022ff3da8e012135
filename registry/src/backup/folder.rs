//! The folder that backups are kept in: its generations and its lock.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files;
use super::objects::Faults;
use super::{BackupError, Result, failed};

/// The newest form that is read and written.
pub(super) const FORMAT: u32 = 1;
/// Largest manifest in bytes.
const MANIFEST_LIMIT: u64 = 4 << 20;
const MANIFEST: &str = "manifest.json";

/// What a generation is, as its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Which form the folder has.
    pub format: u32,
    /// The release that wrote it.
    pub release: String,
    /// When the metadata were copied (RFC 3339).
    pub taken_at: String,
    /// The copy of the metadata.
    pub database: Sum,
    /// How many objects it names.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them no generation before it had.
    pub new_objects: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// The keys; absent if they were left out.
    pub keys: Option<Vec<Sum>>,
    /// Objects that the installation itself had lost or damaged.
    #[serde(default, skip_serializing_if = "Faults::is_empty")]
    pub faults: Faults,
}

/// A file by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// `sha256:…`.
    pub digest: String,
    /// Its mode.
    pub mode: u32,
}

/// A finished generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// A number that only grows, and when it was taken.
    pub name: String,
    /// What it is.
    pub manifest: Manifest,
    pub(super) path: PathBuf,
}

impl Generation {
    /// The copy of the metadata.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(&self.manifest.database.name)
    }

    /// The copies of the keys.
    pub(super) fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }
}

/// The folder, locked as long as this lives.
pub struct BackupFolder {
    pub(super) root: PathBuf,
    /// Absent on a medium that cannot be written.
    _lock: Option<File>,
}

impl BackupFolder {
    /// Makes the folder if need be, and takes it for this process alone.
    pub fn write(root: &Path) -> Result<Self> {
        files::make_folder(root)?;
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed(&path))?;
        locked(root, lock.try_lock())?;
        for folder in ["blobs", "generations", "tmp"] {
            files::make_folder(&root.join(folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: Some(lock),
        })
    }

    /// Opens a folder to be read, beside others who read.
    pub fn read(root: &Path) -> Result<Self> {
        let folder = root.join("generations");
        fs::read_dir(&folder).map_err(failed(&folder))?;
        // A copy of the folder may lack the file.
        let lock = File::open(root.join("lock")).ok();
        if let Some(lock) = &lock {
            locked(root, lock.try_lock_shared())?;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// Finished generations, oldest first.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        let mut generations = Vec::new();
        for name in self.names()? {
            let path = self.root.join("generations").join(&name);
            match read(&path.join(MANIFEST))? {
                Some(manifest) => generations.push(Generation { name, manifest, path }),
                None => continue,
            }
        }
        Ok(generations)
    }

    /// The generation of this name, or the newest.
    pub fn generation(&self, name: Option<&str>) -> Result<Generation> {
        let mut generations = self.generations()?;
        if let Some(name) = name {
            generations.retain(|generation| generation.name == name);
        }
        generations.pop().ok_or_else(|| BackupError::NoGeneration {
            path: self.root.clone(),
            name: name.map(str::to_owned),
        })
    }

    /// A folder for a generation that is being made, which none is yet; what was cut before is removed.
    pub(super) fn begin(&self, taken_at: &str) -> Result<(String, PathBuf)> {
        let mut last = 0;
        for name in self.names()? {
            last = last.max(number(&name));
            let path = self.root.join("generations").join(&name);
            let manifest = path.join(MANIFEST);
            // What cannot be looked at may be a generation.
            if !manifest.try_exists().map_err(failed(&manifest))? {
                files::remove(&path)?;
            }
        }
        let tmp = self.root.join("tmp");
        files::remove(&tmp)?;
        files::make_folder(&tmp)?;
        let compact: String = taken_at
            .chars()
            .take_while(|character| *character != '.')
            .filter(|character| character.is_ascii_alphanumeric())
            .collect();
        let name = format!("{:06}-{}Z", last + 1, compact.trim_end_matches('Z'));
        let path = self.root.join("generations").join(&name);
        files::make_folder(&path)?;
        Ok((name, path))
    }

    /// Makes a generation of what lies in its folder.
    pub(super) fn finish(&self, name: &str, manifest: &Manifest) -> Result<()> {
        let path = self.root.join("generations").join(name);
        let text =
            serde_json::to_vec_pretty(manifest).map_err(|error| BackupError::Cut(error.to_string()))?;
        files::sync_folder(&path)?;
        files::write(&path.join(MANIFEST), &text)?;
        files::sync_folder(&self.root.join("generations"))?;
        files::sync_folder(&self.root)
    }

    /// Removes a generation; first of all it ceases to be one.
    pub(super) fn remove(&self, generation: &Generation) -> Result<()> {
        files::remove(&generation.path.join(MANIFEST))?;
        files::sync_folder(&generation.path)?;
        files::remove(&generation.path)
    }

    fn names(&self) -> Result<Vec<String>> {
        let folder = self.root.join("generations");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let entry = entry.map_err(failed(&folder))?;
            if let Some(name) = entry.file_name().to_str().filter(|name| number(name) > 0) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The number that a generation's name begins with; 0 if it is none.
fn number(name: &str) -> u64 {
    let (number, _) = name.split_once('-').unwrap_or_default();
    number.parse().unwrap_or_default()
}

fn locked(root: &Path, outcome: std::result::Result<(), TryLockError>) -> Result<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(root)(error)),
    }
}

fn read(path: &Path) -> Result<Option<Manifest>> {
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    let damaged = |why: String| BackupError::Damaged {
        path: path.to_owned(),
        why,
    };
    if size > MANIFEST_LIMIT {
        return Err(damaged(format!("{size} bytes are too many")));
    }
    let text = fs::read(path).map_err(failed(path))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if manifest.format > FORMAT {
        return Err(damaged(format!(
            "it has the form {}; use the release that wrote it, {}, or a newer one",
            manifest.format, manifest.release
        )));
    }
    // It becomes a part of paths.
    let names = manifest.keys.iter().flatten().chain([&manifest.database]);
    for sum in names {
        if sum.name.contains('/') || sum.name.starts_with('.') || sum.name.is_empty() {
            return Err(damaged(format!("{:?} is no name of a file", sum.name)));
        }
    }
    Ok(Some(manifest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_generation_that_cannot_be_looked_at_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = BackupFolder::write(root.path()).unwrap();
        let (name, path) = folder.begin("2026-01-02T03:04:05.6Z").unwrap();
        fs::write(path.join("berth.db"), "").unwrap();
        // It leads to itself: whoever follows it gets an error that is not "not found".
        symlink(MANIFEST, path.join(MANIFEST)).unwrap();
        let refused = folder.begin("2026-01-03T03:04:05.6Z").unwrap_err().to_string();
        assert!(refused.contains(MANIFEST), "{refused}");
        assert!(path.join("berth.db").exists());

        fs::remove_file(path.join(MANIFEST)).unwrap();
        let (second, _) = folder.begin("2026-01-03T03:04:05.6Z").unwrap();
        assert!(second > name && !path.exists(), "what was cut is removed");
    }
}
