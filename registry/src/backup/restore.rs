//! Putting a generation back into an empty data folder.
//!
//! A mark lies in the folder until everything is there: until then no server starts in it, and the same restore goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::folder::{BackupFolder, Generation};
use super::objects::{Faults, Way};
use super::progress::Progress;
use super::{BackupError, Pace, Result, blocking, failed, files, keys, verify};
use crate::blobs::budget::Budget;
use crate::blobs::folder::FolderStore;
use crate::domain::Algorithm;
use crate::metadata::copies;

/// The mark.
pub const UNFINISHED: &str = "restore.json";

/// Where to, and how.
pub struct Options {
    /// The data folder, held by the caller.
    pub data: PathBuf,
    /// The metadata store's file.
    pub metadata: PathBuf,
    /// The blob store's folder.
    pub blobs: PathBuf,
    /// The folder of the keys, if they are to be restored.
    pub keys: Option<PathBuf>,
    /// The limit on bytes.
    pub pace: Pace,
    /// Whether objects that the backup lacks are done without.
    pub despite_faults: bool,
}

/// What came of it.
pub struct Restored {
    /// What was restored.
    pub generation: Generation,
    /// Objects that are not there.
    pub faults: Faults,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    backup: PathBuf,
    generation: String,
}

/// Restores a generation, by default the newest.
pub async fn run(
    folder: &BackupFolder,
    name: Option<&str>,
    options: &Options,
    progress: &Arc<Progress>,
) -> Result<Restored> {
    let generation = folder.generation(name)?;
    let mark = Mark {
        backup: fs::canonicalize(&folder.root).map_err(failed(&folder.root))?,
        generation: generation.name.clone(),
    };
    // 1. Nothing is overwritten but what an earlier run of the same restore has put there.
    begin(options, &mark)?;
    let mut copy = verify::metadata(&generation, progress).await?;
    // 2. The objects, each against its digest.
    let (objects, bytes) = copy.totals().await?;
    progress.begin("objects", objects, bytes);
    // Makes the folders, and keeps others away.
    let store = FolderStore::open(&options.blobs, Budget::new(1))
        .map_err(|error| BackupError::Faulty(error.to_string()))?;
    let way = Way {
        from: folder.root.clone(),
        into: options.blobs.clone(),
        pace: options.pace.clone(),
        progress: progress.clone(),
    };
    let faults = way.copy_all(&mut copy).await?.faults;
    drop(store);
    if !faults.is_empty() && !options.despite_faults {
        let first = faults.listed.first();
        let first = first.map(|fault| format!("{} ({}): {}", fault.object, fault.digest, fault.why));
        return Err(BackupError::Faulty(format!(
            "{} objects of the backup are missing or damaged, the first is {}; restore another generation into another \
             folder, or add --despite-faults to do without them",
            faults.count,
            first.unwrap_or_default()
        )));
    }
    // 3. The keys, and the metadata last.
    progress.begin("metadata", 0, 0);
    let (from, into, of) = (generation.clone(), options.keys.clone(), options.metadata.clone());
    let temporary = blocking(move || {
        if let (Some(sums), Some(into)) = (&from.manifest.keys, &into) {
            keys::restore(&from.keys(), into, sums)?;
        }
        place_database(&from, &of)
    })
    .await?;
    copies::settle(&temporary).await?;
    let (options_metadata, data) = (options.metadata.clone(), options.data.clone());
    blocking(move || {
        let file = fs::File::open(&temporary).map_err(failed(&temporary))?;
        file.sync_all().map_err(failed(&temporary))?;
        fs::rename(&temporary, &options_metadata).map_err(failed(&options_metadata))?;
        options_metadata.parent().map_or(Ok(()), files::sync_folder)?;
        files::remove(&data.join(UNFINISHED))?;
        files::sync_folder(&data)
    })
    .await?;
    Ok(Restored { generation, faults })
}

fn begin(options: &Options, mark: &Mark) -> Result<()> {
    let path = options.data.join(UNFINISHED);
    match fs::read(&path) {
        Ok(text) => {
            let found = serde_json::from_slice::<Mark>(&text);
            return match found {
                Ok(found) if found == *mark => Ok(()),
                Ok(found) => Err(BackupError::Unfinished {
                    path: options.data.clone(),
                    what: format!("{} of {}", found.generation, found.backup.display()),
                }),
                Err(error) => Err(BackupError::Damaged {
                    path,
                    why: error.to_string(),
                }),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&path)(error)),
    }
    let folders: Vec<&Path> = [&options.data, &options.blobs]
        .into_iter()
        .chain(&options.keys)
        .map(PathBuf::as_path)
        .collect();
    for folder in &folders {
        if !is_empty(folder, &folders)? {
            return Err(BackupError::NotEmpty(folder.to_path_buf()));
        }
    }
    if options.metadata.exists() {
        return Err(BackupError::NotEmpty(options.metadata.clone()));
    }
    let text = serde_json::to_vec_pretty(mark).map_err(|error| BackupError::Cut(error.to_string()))?;
    files::write(&path, &text)
}

/// Whether nothing is there that a restore might overwrite: the lock is the caller's, `lost+found` the file system's where
/// the folder is the root of a volume, and the other `folders`, which may be volumes too, are looked at by themselves.
fn is_empty(folder: &Path, folders: &[&Path]) -> Result<bool> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed(folder))?;
        let is_folder = entry.file_type().map_err(failed(folder))?.is_dir();
        let is_passed_over = match entry.file_name().to_str() {
            Some("lock") => !is_folder,
            Some("lost+found") => is_folder,
            _ => is_folder && folders.contains(&entry.path().as_path()),
        };
        if !is_passed_over {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies the metadata beside their place, verified; where.
fn place_database(generation: &Generation, into: &Path) -> Result<PathBuf> {
    let temporary = into.with_extension("restoring");
    if let Some(parent) = into.parent() {
        files::make_folder(parent)?;
    }
    files::remove(&temporary)?;
    let from = generation.database();
    let mut source = fs::File::open(&from).map_err(failed(&from))?;
    let passed = files::copy(
        &mut source,
        &temporary,
        0o600,
        Algorithm::Sha256,
        &Pace::new(None),
        |_| {},
    )?
    .map_err(failed(&from))?;
    let (sum, digest) = (&generation.manifest.database, passed.digest.to_string());
    keys::same(&from, sum, &digest, passed.size)?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(root: &Path) -> Result<()> {
        let options = Options {
            data: root.to_owned(),
            metadata: root.join("berth.db"),
            blobs: root.join("blobs"),
            keys: Some(root.join("keys")),
            pace: Pace::new(None),
            despite_faults: false,
        };
        let mark = Mark {
            backup: "/backup".into(),
            generation: "000001".into(),
        };
        begin(&options, &mark)
    }

    #[test]
    fn the_roots_of_new_volumes_are_restored_into() {
        let volume = tempfile::tempdir().unwrap();
        fs::write(volume.path().join("lock"), "1").unwrap();
        fs::create_dir(volume.path().join("lost+found")).unwrap();
        // Another volume, mounted below.
        fs::create_dir_all(volume.path().join("blobs/lost+found")).unwrap();
        begun(volume.path()).unwrap();
        // The same restore goes on.
        begun(volume.path()).unwrap();
    }

    #[test]
    fn what_lies_in_any_of_the_folders_is_not_overwritten() {
        for (path, is_folder) in [
            ("lost+found", false),
            ("other", true),
            ("berth.db", false),
            ("blobs/lost+found", false),
            ("blobs/blobs", true),
            ("keys/admin", false),
            ("blobs", false),
        ] {
            let volume = tempfile::tempdir().unwrap();
            let path = volume.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match is_folder {
                true => fs::create_dir(&path).unwrap(),
                false => fs::write(&path, "").unwrap(),
            }
            let refused = begun(volume.path());
            assert!(refused.is_err(), "{}", path.display());
            assert!(!volume.path().join(UNFINISHED).exists(), "{}", path.display());
        }
    }
}
