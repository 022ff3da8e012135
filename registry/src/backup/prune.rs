//! The end of old generations, and of objects that no generation names any more.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::folder::BackupFolder;
use super::progress::Progress;
use super::{Result, blocking, failed, files};
use crate::blobs::ObjectKey;
use crate::metadata::copies::Copy;

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes all generations but the newest `keep`, and every object that none of these names; names of the generations.
pub(super) async fn keep(
    folder: &BackupFolder,
    keep: usize,
    progress: &Arc<Progress>,
) -> Result<(Vec<String>, Pruned)> {
    let mut generations = folder.generations()?;
    let kept = generations.split_off(generations.len().saturating_sub(keep.max(1)));
    for generation in &generations {
        folder.remove(generation)?;
    }
    let mut copies = Vec::new();
    for generation in kept.iter().rev() {
        copies.push(Copy::open(&generation.database()).await?);
    }
    progress.begin("objects that nothing names", 256, 0);
    let mut pruned = Pruned::default();
    for shard in 0..=u8::MAX {
        let path = folder.root.join(format!("blobs/{shard:02x}"));
        let listed = path.clone();
        for (key, size) in blocking(move || list(listed, shard)).await? {
            let mut is_named = false;
            for copy in &mut copies {
                is_named = copy.object(&key).await?.is_some();
                if is_named {
                    break;
                }
            }
            if !is_named {
                let object = folder.root.join(key.path());
                blocking(move || files::remove(&object)).await?;
                pruned.objects += 1;
                pruned.bytes += size;
            }
        }
        progress.add(1);
    }
    let removed = generations
        .into_iter()
        .map(|generation| generation.name)
        .collect();
    Ok((removed, pruned))
}

/// The objects of one of the 256 folders: 16 bytes and a size for each, a small part of all.
fn list(path: PathBuf, shard: u8) -> Result<Vec<(ObjectKey, u64)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(&path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed(&path))?;
        let name = entry.file_name();
        // What is no object was put there by somebody else.
        if let Some(key) = ObjectKey::of_path(&format!("blobs/{shard:02x}/{}", name.to_string_lossy())) {
            found.push((key, entry.metadata().map_err(failed(&path))?.len()));
        }
    }
    Ok(found)
}
