//! Reading a backup as a whole: every file is what it was, every object has the bytes of its digest.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::folder::{BackupFolder, Generation};
use super::objects::{Fault, Faults, PAGE, differs};
use super::progress::Progress;
use super::{Pace, Result, blocking, failed, files, keys};
use crate::domain::Algorithm;
use crate::metadata::copies::{Copy, Named};

/// Objects that are read at once.
const AT_ONCE: usize = 4;

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Names of the generations.
    pub generations: Vec<String>,
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong now.
    pub faults: Faults,
    /// What was missing when a generation was taken.
    pub known: u64,
    /// How many more were missing then, of which the manifests' lists have no room to say which: so many of the faults
    /// may be of these.
    pub unlisted: u64,
}

/// Reads one generation, or all of them; an object that several name is read once.
pub async fn run(
    folder: &BackupFolder,
    name: Option<&str>,
    pace: &Pace,
    progress: &Arc<Progress>,
) -> Result<Verified> {
    let generations = match name {
        Some(name) => vec![folder.generation(Some(name))?],
        None => {
            folder.generation(None)?;
            folder.generations()?
        }
    };
    let mut verified = Verified::default();
    let mut newer: Vec<Copy> = Vec::new();
    for generation in generations.iter().rev() {
        let mut copy = metadata(generation, progress).await?;
        objects(
            folder,
            generation,
            &mut copy,
            &mut newer,
            pace,
            progress,
            &mut verified,
        )
        .await?;
        newer.push(copy);
        verified.generations.push(generation.name.clone());
    }
    Ok(verified)
}

/// Checks the small files of a generation and opens its metadata.
pub(super) async fn metadata(generation: &Generation, progress: &Arc<Progress>) -> Result<Copy> {
    progress.begin("metadata", 0, 0);
    let of = generation.clone();
    blocking(move || {
        let same = |path: PathBuf, sum| {
            let passed =
                files::hash(&path, Algorithm::Sha256, &Pace::new(None), |_| {}).map_err(failed(&path))?;
            keys::same(&path, sum, &passed.digest.to_string(), passed.size)
        };
        same(of.database(), &of.manifest.database)?;
        for sum in of.manifest.keys.iter().flatten() {
            same(of.keys().join(&sum.name), sum)?;
        }
        Ok(())
    })
    .await?;
    let mut copy = Copy::open(&generation.database()).await?;
    copy.check().await?;
    Ok(copy)
}

async fn objects(
    folder: &BackupFolder,
    generation: &Generation,
    copy: &mut Copy,
    newer: &mut [Copy],
    pace: &Pace,
    progress: &Arc<Progress>,
    verified: &mut Verified,
) -> Result<()> {
    let (objects, bytes) = copy.totals().await?;
    progress.begin("objects", objects, bytes);
    let known = &generation.manifest.faults;
    verified.unlisted += known.count.saturating_sub(known.listed.len() as u64);
    let known: HashSet<&str> = known.listed.iter().map(|fault| fault.object.as_str()).collect();
    let mut after = None;
    loop {
        let page = copy.objects(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key.clone());
        let mut unread = Vec::new();
        for named in page {
            let mut is_read = false;
            for other in &mut *newer {
                is_read = other.object(&named.key).await?.as_ref() == Some(&named);
                if is_read {
                    break;
                }
            }
            if is_read {
                progress.add(1);
                progress.add_bytes(named.size);
            } else {
                unread.push(named);
            }
        }
        let mut looks = stream::iter(unread)
            .map(|named| {
                let (root, pace, progress) = (folder.root.clone(), pace.clone(), progress.clone());
                blocking(move || {
                    Ok((
                        look(&root.join(named.key.path()), &named, &pace, &progress)?,
                        named,
                    ))
                })
            })
            .buffer_unordered(AT_ONCE);
        while let Some((why, named)) = looks.try_next().await? {
            progress.add(1);
            verified.objects += 1;
            verified.bytes += named.size;
            let Some(why) = why else { continue };
            let fault = Fault::of(&named, why);
            if known.contains(fault.object.as_str()) {
                verified.known += 1;
            } else {
                verified.faults.add(fault);
            }
        }
    }
}

/// What is wrong with an object.
fn look(path: &std::path::Path, named: &Named, pace: &Pace, progress: &Progress) -> Result<Option<String>> {
    match files::hash(path, named.digest.algorithm(), pace, |bytes| {
        progress.add_bytes(bytes)
    }) {
        Ok(passed) if passed.size == named.size && passed.digest == named.digest => Ok(None),
        Ok(passed) => Ok(Some(differs(&passed))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some("it is not there".to_owned())),
        // A disk that cannot read one file may read the others.
        Err(error) => Ok(Some(error.to_string())),
    }
}
