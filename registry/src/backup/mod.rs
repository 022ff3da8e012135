//! Backups of an installation on SQLite and a folder, and moves between its stores and others.
//!
//! ```text
//! <backup>/lock                            held by the one process that writes it
//! <backup>/blobs/<2 hex>/<uuid>            objects, which all generations share
//! <backup>/tmp/<uuid>                      an object that is being copied
//! <backup>/generations/<name>/berth.db     the metadata as they were at one instant
//! <backup>/generations/<name>/keys/        the installation's keys, unless they were left out
//! <backup>/generations/<name>/manifest.json    written last: without it there is no generation
//! ```
//!
//! It uses the metadata store's copies and transfers, and the blob store's keys; it never holds more than a page of rows
//! and a buffer for each object that is being copied. What must hold: a generation names objects only that the backup
//! has, with the bytes of their digests; whatever is cut leaves the generations before it as they were, and its own
//! second run goes on with the objects that are there; nothing is overwritten in place.

use std::io;
use std::path::{Path, PathBuf};

use crate::blobs::BlobError;
use crate::metadata::MetadataError;

pub mod convert;
mod files;
mod folder;
mod keys;
mod objects;
mod pace;
pub mod progress;
mod prune;
pub mod restore;
pub mod take;
pub mod verify;

pub use folder::{BackupFolder, Generation, Manifest};
pub use objects::{Fault, Faults};
pub use pace::Pace;

/// What backups and restores answer.
pub type Result<T> = std::result::Result<T, BackupError>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The metadata, or a copy of them.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Another process writes the folder, or reads what would be removed.
    #[error("{} is in use by another backup, restore or check: wait for its end", .0.display())]
    InUse(PathBuf),
    /// There is nothing to read.
    #[error("{} holds no generation{}; `berth-registry backup list` shows what there is", path.display(), name.as_ref().map(|name| format!(" {name}")).unwrap_or_default())]
    NoGeneration {
        /// The folder.
        path: PathBuf,
        /// Which was asked for.
        name: Option<String>,
    },
    /// A file of a generation is not what was written.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// Its backups are another installation's.
    #[error("{} holds backups of another installation: name another folder", .0.display())]
    Foreign(PathBuf),
    /// The server that answers is not the one whose files are copied.
    #[error("the server that answers does not use {}: name its admin listener by --admin-listen", .0.display())]
    OtherServer(PathBuf),
    /// A restore would overwrite something.
    #[error("{} is not empty: restore into a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// An earlier restore into the folder has not ended, of something else.
    #[error("a restore of {what} into {} was begun and has not ended: run it again, or remove the folder", path.display())]
    Unfinished {
        /// The data folder.
        path: PathBuf,
        /// Generation and backup.
        what: String,
    },
    /// The backup lacks objects, or has others.
    #[error("{0}")]
    Faulty(String),
    /// A blocking thread did not end.
    #[error("a file operation did not end: {0}")]
    Cut(String),
    /// The two sides of a conversion do not go together.
    #[error("{0}")]
    Convert(String),
}

/// An error of the system about a file.
fn failed(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::File {
        path: path.to_owned(),
        error,
    }
}

/// Runs file operations on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(BackupError::Cut(error.to_string())))
}
