//! The blob store in a folder.
//!
//! Uses the file system only, from blocking threads. What must hold: a file under `blobs/` is complete and
//! durable before its writer is told so and never changes afterwards; a state that was handed out describes
//! durable bytes; exactly one process uses a folder ([`layout`] locks it), and exactly one writer an upload
//! ([`claims`]).

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::Budget;
use super::{BlobError, BlobStore, BlobStream, BlobWriter, ObjectKey, ObjectPage, UploadState};

mod claims;
mod layout;
mod listing;
mod reader;
mod space;
mod writer;

/// What an upload has stored durably: the first `offset` bytes of its temporary file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Durable bytes.
    pub offset: u64,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process uses it.
    #[error("{path} is in use by process {holder}; stop it, or choose another folder")]
    Held {
        /// The folder.
        path: PathBuf,
        /// The other process' id.
        holder: String,
    },
    /// It cannot be made, locked or made durable.
    #[error("cannot use {path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// A folder that holds objects; locked as long as this lives. Cheap to clone.
#[derive(Clone)]
pub struct FolderStore {
    folder: Arc<Folder>,
    budget: Budget,
    buffers: reader::Buffers,
}

/// What writers share.
struct Folder {
    layout: layout::Layout,
    claims: claims::Claims,
    space: space::Space,
}

impl FolderStore {
    /// Makes and locks the folder. Upload buffers come out of `budget`. Blocking, for milliseconds.
    pub fn open(root: &Path, budget: Budget) -> Result<Self, LockError> {
        let layout = layout::Layout::open(root)?;
        let handle = fs::File::open(root).map_err(|error| LockError::Io {
            path: root.to_owned(),
            error,
        })?;
        let folder = Folder {
            layout,
            claims: claims::Claims::default(),
            space: space::Space::new(handle),
        };
        Ok(Self {
            folder: Arc::new(folder),
            budget,
            buffers: reader::Buffers::default(),
        })
    }
}

#[async_trait]
impl BlobStore for FolderStore {
    fn begin(&self) -> UploadState {
        UploadState::Folder(State::default())
    }

    async fn resume(
        &self,
        id: Uuid,
        epoch: i64,
        state: UploadState,
        _expected: Option<u64>,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        let offset = own(&state)?.offset;
        let writer = writer::FolderWriter::resume(&self.folder, &self.budget, id, epoch, offset).await?;
        Ok(Box::new(writer))
    }

    async fn complete(&self, id: Uuid, state: &UploadState) -> Result<u64, BlobError> {
        let offset = own(state)?.offset;
        let folder = self.folder.clone();
        blocking(move || folder.complete(id, offset)).await
    }

    async fn discard(&self, id: Uuid, state: &UploadState) -> Result<(), BlobError> {
        own(state)?;
        let folder = self.folder.clone();
        blocking(move || {
            folder.claims.shut_out(id, || {
                remove(&folder.layout.unpublished(id))?;
                folder.delete(&ObjectKey::of_upload(id))
            })?;
            folder.claims.end(id);
            Ok(())
        })
        .await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<BlobStream, BlobError> {
        reader::read(
            self.folder.layout.object(key),
            key.clone(),
            range,
            self.buffers.clone(),
        )
        .await
    }

    async fn read_unpublished(&self, id: Uuid, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let path = self.folder.layout.unpublished(id);
        let stream = reader::read(path, ObjectKey::of_upload(id), range, self.buffers.clone());
        stream.await.map(Some)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BlobError> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || folder.delete(&key)).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, BlobError> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || match fs::metadata(folder.layout.object(&key)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("cannot read an object's size")(error)),
        })
        .await
    }

    async fn objects(&self, after: Option<ObjectKey>) -> Result<ObjectPage, BlobError> {
        let folder = self.folder.clone();
        blocking(move || listing::page(&folder.layout, after)).await
    }

    async fn presign(&self, _key: &ObjectKey, _lifetime: Duration) -> Result<Option<String>, BlobError> {
        Ok(None)
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let folder = self.folder.clone();
        blocking(move || {
            fs::metadata(folder.layout.tmp().path()).map_err(failed("cannot reach the folder"))?;
            fs::metadata(folder.layout.root().join("blobs")).map_err(failed("cannot reach the folder"))?;
            Ok(())
        })
        .await
    }

    async fn unpublished(&self, idle: Duration, after: Option<Uuid>) -> Result<Vec<Uuid>, BlobError> {
        let folder = self.folder.clone();
        blocking(move || folder.unpublished(idle, after)).await
    }

    async fn sweep(&self, id: Uuid) -> Result<(), BlobError> {
        let folder = self.folder.clone();
        blocking(move || {
            folder
                .claims
                .shut_out(id, || remove(&folder.layout.unpublished(id)).map(drop))?;
            folder.claims.end(id);
            Ok(())
        })
        .await
    }
}

impl Folder {
    /// Publishes the first `offset` bytes of an upload, or finds them published.
    fn complete(&self, id: Uuid, offset: u64) -> Result<u64, BlobError> {
        let key = ObjectKey::of_upload(id);
        self.claims.shut_out(id, || {
            let path = self.layout.unpublished(id);
            let file = match fs::File::options().write(true).create(offset == 0).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.published(&key, offset),
                Err(error) => return Err(failed("cannot open an upload")(error)),
            };
            truncate(&file, id, offset)?;
            file.sync_data().map_err(failed("cannot sync an upload"))?;
            self.layout.publish(id)?;
            Ok(offset)
        })
    }

    /// Finds an object that an earlier call published; its name may not be durable yet.
    fn published(&self, key: &ObjectKey, size: u64) -> Result<u64, BlobError> {
        match fs::metadata(self.layout.object(key)) {
            Ok(found) if found.len() == size => {
                self.layout
                    .shard(key)
                    .sync()
                    .map_err(failed("cannot sync a directory"))?;
                Ok(size)
            }
            Ok(found) => {
                let what = format!("{} holds {} bytes, not {size}", key.path(), found.len());
                Err(BlobError::Broken(what))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound {
                what: format!("upload {}", key.upload()),
            }),
            Err(error) => Err(failed("cannot read an object's size")(error)),
        }
    }

    /// Deletes an object durably, so that a power cut does not bring it back as an orphan.
    fn delete(&self, key: &ObjectKey) -> Result<(), BlobError> {
        if remove(&self.layout.object(key))? {
            self.layout
                .shard(key)
                .sync()
                .map_err(failed("cannot sync a directory"))?;
        }
        Ok(())
    }

    fn unpublished(&self, idle: Duration, after: Option<Uuid>) -> Result<Vec<Uuid>, BlobError> {
        let mut found = Vec::new();
        let now = SystemTime::now();
        for entry in fs::read_dir(self.layout.tmp().path()).map_err(failed("cannot list uploads"))? {
            let entry = entry.map_err(failed("cannot list uploads"))?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| Uuid::parse_str(name).ok())
            else {
                continue;
            };
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            // A file that vanishes meanwhile was published or swept.
            let Ok(changed) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if now.duration_since(changed).unwrap_or_default() >= idle {
                found.push(id);
            }
        }
        found.sort_unstable();
        found.truncate(1000);
        Ok(found)
    }
}

/// The folder's state out of the state of any store.
fn own(state: &UploadState) -> Result<&State, BlobError> {
    match state {
        UploadState::Folder(state) => Ok(state),
        UploadState::S3(_) => Err(BlobError::Broken(
            "it was begun on an S3 store, this is a folder".into(),
        )),
    }
}

/// Drops bytes beyond `offset`; a file that ends before it has lost durable bytes.
fn truncate(file: &fs::File, id: Uuid, offset: u64) -> Result<(), BlobError> {
    let size = file
        .metadata()
        .map_err(failed("cannot read an upload's size"))?
        .len();
    if size < offset {
        return Err(BlobError::Broken(format!(
            "upload {id} has {size} bytes, its state says {offset}"
        )));
    }
    if size > offset {
        file.set_len(offset).map_err(failed("cannot shorten an upload"))?;
    }
    Ok(())
}

/// Removes a file; tells whether it was there.
fn remove(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("cannot remove a file")(error)),
    }
}

/// An error of the file system, with what was being done.
fn failed(what: &'static str) -> impl Fn(io::Error) -> BlobError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BlobError::Full(format!("{what}: {error}"))
        }
        io::ErrorKind::FileTooLarge => BlobError::TooLarge(format!("{what}: {error}")),
        _ => BlobError::Unavailable(format!("{what}: {error}")),
    }
}

/// Runs file operations on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    join(tokio::task::spawn_blocking(work).await)
}

/// The result of a blocking thread.
fn join<T>(joined: Result<Result<T, BlobError>, tokio::task::JoinError>) -> Result<T, BlobError> {
    joined.unwrap_or_else(|error| {
        Err(BlobError::Unavailable(format!(
            "a file operation did not end: {error}"
        )))
    })
}
