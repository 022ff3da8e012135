//! Taking a backup, also while a server runs.
//!
//! 1. Whoever deletes objects has been told to wait ([`Options::held`]), or cannot run: the caller holds the data folder.
//! 2. The metadata are copied as they are at one instant; from then on nothing that the copy names is deleted, because
//!    objects go after their rows and after the hold.
//! 3. The objects that the copy names and the backup lacks are copied, each against its digest.
//! 4. The manifest makes a generation of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::folder::{BackupFolder, FORMAT, Generation, Manifest, Sum};
use super::objects::Way;
use super::progress::Progress;
use super::{BackupError, Pace, Result, blocking, failed, files, keys, prune};
use crate::domain::Algorithm;
use crate::metadata::Time;
use crate::metadata::copies::{self, Copy};
use crate::rfc3339;

const DATABASE: &str = "berth.db";

/// What to copy, and how.
pub struct Options {
    /// The metadata store's file.
    pub metadata: PathBuf,
    /// The blob store's folder.
    pub blobs: PathBuf,
    /// The folder of the keys, if they are to be copied.
    pub keys: Option<PathBuf>,
    /// How many generations to keep, this one among them; all if absent.
    pub keep: Option<usize>,
    /// The limit on bytes.
    pub pace: Pace,
    /// Until when the server deletes no object; whoever asked for it keeps it up. Absent where none runs.
    pub held: Option<Time>,
}

/// What came of it.
pub struct Taken {
    /// The new generation.
    pub generation: Generation,
    /// Names of those that were removed.
    pub removed: Vec<String>,
    /// Objects that were removed with them.
    pub pruned: prune::Pruned,
}

/// Makes a generation in `folder`.
pub async fn run(folder: &BackupFolder, options: &Options, progress: &Arc<Progress>) -> Result<Taken> {
    // 1. Nothing is deleted: that is the caller's part.
    // 2. The metadata.
    progress.begin("metadata", 0, 0);
    let taken_at = rfc3339::now();
    let (name, path) = folder.begin(&taken_at)?;
    let database = path.join(DATABASE);
    copies::take(&options.metadata, &database).await?;
    let summed = database.clone();
    let sum = blocking(move || sum(summed)).await?;
    let mut copy = Copy::open(&database).await?;
    if let Some(held) = options.held
        && copy.held_until().await?.is_none_or(|found| found < held)
    {
        return Err(BackupError::OtherServer(options.metadata.clone()));
    }
    if let Some(newest) = folder.generations()?.last() {
        let mut before = Copy::open(&newest.database()).await?;
        if !copy.is_related_to(&mut before).await? {
            return Err(BackupError::Foreign(folder.root.clone()));
        }
    }
    let kept_keys = match options.keys.clone() {
        Some(from) => Some(blocking(move || keys::copy(&from, &path.join("keys"))).await?),
        None => None,
    };
    // 3. The objects.
    let (objects, bytes) = copy.totals().await?;
    progress.begin("objects", objects, bytes);
    let way = Way {
        from: options.blobs.clone(),
        into: folder.root.clone(),
        pace: options.pace.clone(),
        progress: progress.clone(),
    };
    let copied = way.copy_all(&mut copy).await?;
    // 4. The generation, and the end of older ones.
    let manifest = Manifest {
        format: FORMAT,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at,
        database: sum,
        objects,
        bytes,
        new_objects: copied.objects,
        new_bytes: copied.bytes,
        keys: kept_keys,
        faults: copied.faults,
    };
    folder.finish(&name, &manifest)?;
    let generation = folder.generation(Some(&name))?;
    let (removed, pruned) = match options.keep {
        Some(keep) => prune::keep(folder, keep, progress).await?,
        None => Default::default(),
    };
    Ok(Taken {
        generation,
        removed,
        pruned,
    })
}

/// Makes the copy of the metadata durable; what it is.
fn sum(path: PathBuf) -> Result<Sum> {
    let file = std::fs::File::open(&path).map_err(failed(&path))?;
    file.sync_all().map_err(failed(&path))?;
    let passed = files::hash(&path, Algorithm::Sha256, &Pace::new(None), |_| {}).map_err(failed(&path))?;
    Ok(Sum {
        name: DATABASE.to_owned(),
        size: passed.size,
        digest: passed.digest.to_string(),
        mode: 0o600,
    })
}
