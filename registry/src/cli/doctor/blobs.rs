//! The blob store: each call that the registry makes, in the order of a push and a pull, with an object of its own that is
//! deleted at the end. An object that a killed doctor leaves is one that `fsck` finds and removes.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http::header::{DATE, HeaderMap, HeaderValue, RANGE};
use rustls::RootCertStore;
use url::Url;
use uuid::Uuid;

use super::super::web;
use super::report::Report;
use crate::blobs::budget::Budget;
use crate::blobs::{BlobError, BlobStore, ObjectKey, UploadState, open};
use crate::settings::{Redirect, Settings, redact};

/// S3's smallest part, so that little is sent.
const PART: u64 = 5 << 20;
/// A part and a byte, so that the object is of two parts.
const SIZE: u64 = PART + 1;
/// Memory for it.
const MEMORY: u64 = 64 << 20;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How far two clocks may be apart; S3 refuses signatures that are 15 minutes off.
const APART: Duration = Duration::from_secs(60);

pub(super) async fn look(
    report: &mut Report,
    settings: &Settings,
    roots: &Arc<RootCertStore>,
    is_served: bool,
) {
    let shown = redact::url(&settings.blobs);
    let is_bucket = settings.blobs.starts_with("s3:");
    if !is_bucket && is_served {
        // One process at a time uses a folder.
        return report.skipped(
            shown,
            "the server that runs holds it, and says below whether it can use it",
        );
    }
    if !is_bucket
        && !settings
            .blobs
            .strip_prefix("folder:")
            .is_some_and(|path| std::path::Path::new(path).exists())
    {
        return report.skipped(shown, "the first start makes it");
    }
    let store = match open::open(&small_parts(&settings.blobs), Budget::new(MEMORY)).await {
        Ok(store) => store,
        Err(error) => return report.failed(shown, error.to_string(), "correct --blobs"),
    };
    if let Err(error) = store.probe().await {
        return report.failed(
            shown,
            error.to_string(),
            match is_bucket {
                true => {
                    "check bucket, region, endpoint= and path-style= of --blobs, and the credentials (AWS_ACCESS_KEY_ID, \
                     AWS_SECRET_ACCESS_KEY, or the role of this machine or pod); s3:ListBucket must be allowed"
                }
                false => "check that the user who runs the server may write there",
            },
        );
    }
    report.ok(shown, "it answers");
    let id = Uuid::new_v4();
    let mut tried = Tried {
        report,
        store: &*store,
        id,
        is_bucket,
    };
    let done = tokio::time::timeout(PATIENCE, tried.all(settings, roots)).await;
    if done.is_err() {
        report.failed(
            "time",
            format!("the calls took longer than {} s", PATIENCE.as_secs()),
            "look at the network between here and the blob store, and at the store's own load",
        );
    }
    // Whatever became of it.
    let _ = store.sweep(id).await;
    let _ = store.delete(&ObjectKey::of_upload(id)).await;
}

/// The same store with the smallest parts there are.
fn small_parts(blobs: &str) -> String {
    let Some(mut url) = blobs.starts_with("s3:").then(|| Url::parse(blobs).ok()).flatten() else {
        return blobs.to_owned();
    };
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| key != "part-size")
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair("part-size", &PART.to_string());
    url.to_string()
}

/// The calls, one after the other. The first that fails ends them, since the next ones rest on it.
struct Tried<'a> {
    report: &'a mut Report,
    store: &'a dyn BlobStore,
    id: Uuid,
    is_bucket: bool,
}

impl Tried<'_> {
    async fn all(&mut self, settings: &Settings, roots: &Arc<RootCertStore>) {
        let allow = match self.is_bucket {
            true => {
                "allow s3:PutObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts on the bucket's objects"
            }
            false => "let the user who runs the server write there, and look for room on its disk",
        };
        // 1. Bytes that arrive, a chunk that ends within a part, and the object.
        let wrote = self.write().await;
        if !self.told("multipart upload", allow, wrote) {
            return;
        }
        let key = ObjectKey::of_upload(self.id);
        let allow = match self.is_bucket {
            true => "allow s3:GetObject on the bucket's objects",
            false => "let the user who runs the server read there",
        };
        let size = self.store.size(&key).await.and_then(|size| match size {
            Some(SIZE) => Ok(()),
            other => Err(BlobError::Broken(format!(
                "an object of {SIZE} bytes is told to have {other:?}"
            ))),
        });
        if !self.told("size of an object (HEAD)", allow, size) {
            return;
        }
        // 2. Across the border of its parts.
        let read = self.read(&key, PART - 3..SIZE).await;
        self.told("range of an object (GET)", allow, read);
        if self.is_bucket && settings.redirect != Redirect::Never {
            self.presigned(&key, roots).await;
        }
        // 3. What fsck and the sweeps need.
        let list = self.store.objects(None).await.map(|_| ());
        let allow = match self.is_bucket {
            true => "allow s3:ListBucket on the bucket",
            false => "let the user who runs the server list it",
        };
        self.told("listing objects", allow, list);
        let unpublished = self.store.unpublished(Duration::ZERO, None).await.map(|_| ());
        let allow = match self.is_bucket {
            true => "allow s3:ListBucketMultipartUploads on the bucket",
            false => allow,
        };
        self.told("listing unfinished uploads", allow, unpublished);
        let other = Uuid::new_v4();
        let aborted = self.abort(other).await;
        let _ = self.store.sweep(other).await;
        let allow = match self.is_bucket {
            true => "allow s3:AbortMultipartUpload and s3:DeleteObject on the bucket's objects",
            false => allow,
        };
        self.told("giving an upload up", allow, aborted);
        let deleted = match self.store.delete(&key).await {
            Ok(()) => self.store.size(&key).await.and_then(|size| match size {
                None => Ok(()),
                Some(_) => Err(BlobError::Broken("a deleted object is still there".to_owned())),
            }),
            Err(error) => Err(error),
        };
        self.told("deleting an object", allow, deleted);
    }

    fn told(&mut self, check: &str, remedy: &str, outcome: Result<(), BlobError>) -> bool {
        match outcome {
            Ok(()) => {
                self.report.ok(check, "");
                true
            }
            Err(error) => {
                self.report.failed(check, error.to_string(), remedy);
                false
            }
        }
    }

    async fn write(&self) -> Result<(), BlobError> {
        let bytes = Bytes::from(vec![b'.'; 1 << 20]);
        let mut left = SIZE - 1;
        let mut writer = self
            .store
            .resume(self.id, 1, self.store.begin(), Some(SIZE))
            .await?;
        while left > 0 {
            let step = left.min(writer.until_boundary()).min(bytes.len() as u64);
            let step = usize::try_from(step).unwrap_or(bytes.len());
            writer.write(bytes.slice(..step)).await?;
            left -= step as u64;
        }
        let state: UploadState = writer.flush().await?;
        drop(writer);
        // Another replica goes on.
        let mut writer = self.store.resume(self.id, 2, state, Some(SIZE)).await?;
        writer.write(bytes.slice(..1)).await?;
        let size = writer.finish().await?;
        match size {
            SIZE => Ok(()),
            size => Err(BlobError::Broken(format!("{SIZE} bytes became {size}"))),
        }
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<(), BlobError> {
        let wanted = range.end - range.start;
        let chunks: Vec<Bytes> = self.store.read(key, range).await?.try_collect().await?;
        let length: usize = chunks.iter().map(Bytes::len).sum();
        match length as u64 == wanted && chunks.iter().flatten().all(|byte| *byte == b'.') {
            true => Ok(()),
            false => Err(BlobError::Broken(
                "other bytes came back than were stored".to_owned(),
            )),
        }
    }

    async fn abort(&self, id: Uuid) -> Result<(), BlobError> {
        let mut writer = self.store.resume(id, 1, self.store.begin(), None).await?;
        writer.write(Bytes::from_static(b".")).await?;
        let state = writer.flush().await?;
        drop(writer);
        self.store.discard(id, &state).await
    }

    /// The way of a client that is sent to the store, and the store's clock.
    async fn presigned(&mut self, key: &ObjectKey, roots: &Arc<RootCertStore>) {
        let check = "a client's download by a signed URL";
        let signed = self.store.presign(key, Duration::from_secs(300)).await;
        let url = match signed {
            Ok(Some(text)) => match Url::parse(&text) {
                Ok(url) => url,
                Err(error) => {
                    return self.report.failed(
                        check,
                        error.to_string(),
                        "correct public-endpoint= of --blobs",
                    );
                }
            },
            Ok(None) => return,
            Err(error) => {
                return self
                    .report
                    .failed(check, error.to_string(), "check the store's credentials");
            }
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-3"))]);
        let remedy = "clients are sent there for blobs: give public-endpoint= in --blobs if they reach the store by \
                      another name, or turn that off by --redirect Never";
        let answered = match web::get(&url, headers, None, roots).await {
            Ok(answered) => answered,
            Err(error) => return self.report.failed(check, format!("{host}: {error}"), remedy),
        };
        match answered.parts.status {
            StatusCode::PARTIAL_CONTENT if answered.body.as_ref() == b"...." => {
                self.report.ok(check, host.clone());
            }
            status => {
                return self
                    .report
                    .failed(check, format!("{host} answers {status} to a Range"), remedy);
            }
        }
        let date = answered
            .parts
            .headers
            .get(DATE)
            .and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return;
        };
        let now = SystemTime::now();
        let apart = now
            .duration_since(theirs)
            .or_else(|_| theirs.duration_since(now))
            .unwrap_or_default();
        let told = format!("the store's is {} s from this machine's", apart.as_secs());
        match apart >= APART {
            true => self.report.failed(
                "clock",
                told,
                "have this machine follow NTP: signatures carry the time",
            ),
            false => self.report.ok("clock", told),
        }
    }
}
