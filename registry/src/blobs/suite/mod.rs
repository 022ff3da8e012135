//! How every blob store must behave: one set of tests, run on a folder and on a bucket.
//!
//! The bucket's half needs a server: `BERTH_TEST_S3` names it as an `s3://` URL, the credentials are in the
//! environment. Each test uses a prefix of its own and empties it at the end.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::budget::Budget;
use super::open::open;
use super::s3::S3Store;
use super::{BlobStore, BlobWriter, ObjectKey, UploadState};

mod behaviour;
mod listing;
mod pressure;
mod resumption;

/// The part size of the tests' buckets: the smallest there is.
const PART: usize = 5 << 20;
/// Ample memory.
const MEMORY: u64 = 64 << 20;

/// A store of one test's own, and a look behind it.
struct Place {
    store: Arc<dyn BlobStore>,
    behind: Behind,
}

enum Behind {
    Folder(tempfile::TempDir),
    Bucket(S3Store),
}

impl Place {
    async fn folder(memory: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("folder:{}", folder.path().display());
        let store = open(&url, Budget::new(memory)).await.unwrap();
        Self {
            store,
            behind: Behind::Folder(folder),
        }
    }

    async fn bucket(memory: u64) -> Self {
        let Ok(url) = std::env::var("BERTH_TEST_S3") else {
            panic!(
                "BERTH_TEST_S3 is not set: run these tests through ./tests/run, which starts an S3 server"
            );
        };
        let mut url = url::Url::parse(&url).unwrap();
        url.set_path(&format!(
            "{}/{}",
            url.path().trim_end_matches('/'),
            Uuid::now_v7()
        ));
        url.query_pairs_mut().append_pair("part-size", &PART.to_string());
        let store = open(url.as_str(), Budget::new(memory)).await.unwrap();
        let behind = Behind::Bucket(S3Store::of_url(url.as_str()).await);
        Self { store, behind }
    }

    /// Everything that lies in the store: objects, unfinished uploads, segments.
    async fn listing(&self) -> Vec<String> {
        match &self.behind {
            Behind::Folder(folder) => {
                let mut files = Vec::new();
                walk(folder.path(), &mut files);
                files.retain(|path| !path.ends_with("/lock"));
                files
            }
            Behind::Bucket(bucket) => bucket.listing().await,
        }
    }

    /// Puts something among the objects that the store did not make.
    async fn plant(&self, path: &str) {
        match &self.behind {
            Behind::Folder(folder) => {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            Behind::Bucket(bucket) => bucket.plant(path).await,
        }
    }

    async fn clean_up(self) {
        if let Behind::Bucket(bucket) = &self.behind {
            bucket.wipe().await;
        }
    }

    async fn writer(&self, id: Uuid, epoch: i64, state: &UploadState) -> Box<dyn BlobWriter> {
        self.store.resume(id, epoch, stored(state), None).await.unwrap()
    }

    /// Uploads `content` by one writer.
    async fn push(&self, content: &[u8]) -> ObjectKey {
        let id = Uuid::now_v7();
        let mut writer = self.writer(id, 1, &self.store.begin()).await;
        write(&mut writer, content, 200_000).await;
        assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
        ObjectKey::of_upload(id)
    }

    async fn content(&self, key: &ObjectKey, range: std::ops::Range<usize>) -> Vec<u8> {
        let range = range.start as u64..range.end as u64;
        let stream = self.store.read(key, range).await.unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        chunks.concat()
    }
}

fn walk(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path.display().to_string());
        }
    }
}

/// A state as it comes back from the session row.
fn stored(state: &UploadState) -> UploadState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// Bytes that differ at every position and between seeds.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Writes content in pieces, split at boundaries as a caller does.
async fn write(writer: &mut Box<dyn BlobWriter>, content: &[u8], piece: usize) {
    let mut rest = Bytes::copy_from_slice(content);
    while !rest.is_empty() {
        let room = usize::try_from(writer.until_boundary()).unwrap();
        let next = rest.split_to(piece.min(room).min(rest.len()));
        writer.write(next).await.unwrap();
    }
}

/// Declares each behaviour as a test on a folder and as one on a bucket.
macro_rules! on_both_stores {
    ($memory:ident; $($name:ident),+ $(,)?) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::blobs::suite::Place::folder(super::$memory).await).await;
            })+
        }
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::blobs::suite::Place::bucket(super::$memory).await).await;
            })+
        }
    };
}
use on_both_stores;
