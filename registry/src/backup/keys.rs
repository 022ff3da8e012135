//! The installation's keys: small secret files in one folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::folder::Sum;
use super::{BackupError, Pace, Result, failed, files};
use crate::domain::Algorithm;

/// Copies every file of a folder, with its mode; what they are.
pub(super) fn copy(from: &Path, into: &Path) -> Result<Vec<Sum>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        // What a mounted Secret shows as files are links.
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_file() => names.push(name.to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&entry.path())(error)),
        }
    }
    names.sort_unstable();
    files::make_folder(into)?;
    let mut sums = Vec::new();
    for name in names {
        sums.push(file(&from.join(&name), &into.join(&name), name)?);
    }
    files::sync_folder(into)?;
    Ok(sums)
}

/// Copies a file with its mode, which is never wider than its owner and group.
fn file(from: &Path, into: &Path, name: String) -> Result<Sum> {
    let mut source = File::open(from).map_err(failed(from))?;
    let mode = source.metadata().map_err(failed(from))?.permissions().mode() & 0o770;
    let passed = files::copy(
        &mut source,
        into,
        0o600,
        Algorithm::Sha256,
        &Pace::new(None),
        |_| {},
    )?
    .map_err(failed(from))?;
    fs::set_permissions(into, fs::Permissions::from_mode(mode)).map_err(failed(into))?;
    Ok(Sum {
        name,
        size: passed.size,
        digest: passed.digest.to_string(),
        mode,
    })
}

/// Puts the keys back, verified.
pub(super) fn restore(from: &Path, into: &Path, sums: &[Sum]) -> Result<()> {
    files::make_folder(into)?;
    for sum in sums {
        let path = from.join(&sum.name);
        let put = file(&path, &into.join(&sum.name), sum.name.clone())?;
        same(&path, sum, &put.digest, put.size)?;
        let mode = fs::Permissions::from_mode(sum.mode & 0o770);
        fs::set_permissions(into.join(&sum.name), mode).map_err(failed(into))?;
    }
    files::sync_folder(into)
}

/// Fails unless a file is what it was when it was copied.
pub(super) fn same(path: &Path, sum: &Sum, digest: &str, size: u64) -> Result<()> {
    if digest == sum.digest && size == sum.size {
        return Ok(());
    }
    Err(BackupError::Damaged {
        path: path.to_owned(),
        why: format!(
            "{digest} with {size} bytes instead of {} with {}",
            sum.digest, sum.size
        ),
    })
}
