//! The blob store in a bucket of any service that speaks S3.
//!
//! Uses the AWS SDK, nothing of the machine. What must hold: a state that was handed out describes stored
//! bytes; a segment that a persisted state names is not deleted; a writer that was overtaken changes no byte
//! of its successor: its segments have their own names, its parts cost a tag that no longer fits and an error
//! at the end at worst, and its object gives way.
//!
//! ```text
//! <prefix>/blobs/<2 hex>/<uuid>           objects, and multipart uploads of them
//! <prefix>/uploads/<uuid>/<epoch>/<n>     tail segments: bytes that do not fill a part yet
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::presigning::PresigningConfig;
use uuid::Uuid;

use super::budget::Budget;
use super::{BlobError, BlobStore, BlobStream, BlobWriter, ObjectKey, ObjectPage, UploadState};

mod bucket;
mod content;
mod errors;
mod leftovers;
mod listing;
mod publish;
mod reader;
mod state;
mod traced;
mod writer;

pub use bucket::{Encryption, Options, Patience};
pub use state::State;

use errors::failed;

/// S3's limit for an object: 5 TiB.
pub const MAX_OBJECT: u64 = 5 << 40;
/// S3's limit for the number of a part.
const MAX_PARTS: i64 = 10_000;
/// Parts that an upload of known length is cut into at most: some numbers stay free for gaps.
const PLANNED_PARTS: u64 = 9_500;

/// A bucket, or a prefix in it. Cheap to clone.
#[derive(Clone)]
pub struct S3Store {
    bucket: Arc<bucket::Bucket>,
    budget: Budget,
}

impl S3Store {
    /// Reads credentials by the AWS default chain. Upload buffers come out of `budget`. Makes no request to
    /// the bucket; [`BlobStore::probe`] does.
    pub async fn open(options: Options, budget: Budget) -> Self {
        Self {
            bucket: Arc::new(bucket::Bucket::open(options).await),
            budget,
        }
    }
}

#[async_trait]
impl BlobStore for S3Store {
    fn begin(&self) -> UploadState {
        UploadState::S3(State::default())
    }

    async fn resume(
        &self,
        id: Uuid,
        epoch: i64,
        state: UploadState,
        expected: Option<u64>,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        let state = match state {
            UploadState::S3(state) => state,
            UploadState::Folder(_) => return Err(foreign()),
        };
        let part_size = part_size(self.bucket.part_size(), &state, expected)?;
        Ok(Box::new(writer::S3Writer::new(
            &self.bucket,
            &self.budget,
            id,
            epoch,
            state,
            part_size,
        )))
    }

    async fn complete(&self, id: Uuid, state: &UploadState) -> Result<u64, BlobError> {
        let (state, size) = (own(state)?, state.offset());
        match publish::size(&self.bucket, id).await? {
            Some(found) if found == size => {}
            Some(found) => {
                let what = format!("its object holds {found} bytes, its state says {size}");
                return Err(BlobError::Broken(what));
            }
            None => self.publish(id, state).await?,
        }
        leftovers::drop_segments(&self.bucket, id, state.segments()).await;
        Ok(size)
    }

    async fn discard(&self, id: Uuid, state: &UploadState) -> Result<(), BlobError> {
        // Some services list multipart uploads late or not at all: the known one is aborted by its id.
        if let Some(multipart) = &own(state)?.multipart {
            leftovers::abort(&self.bucket, id, multipart).await?;
        }
        leftovers::free(&self.bucket, id).await?;
        leftovers::delete(&self.bucket, self.bucket.object(id)).await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<BlobStream, BlobError> {
        reader::read(self.bucket.clone(), self.bucket.key(&key.path()), range).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), BlobError> {
        leftovers::delete(&self.bucket, self.bucket.key(&key.path())).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, BlobError> {
        publish::size(&self.bucket, key.upload()).await
    }

    async fn objects(&self, after: Option<ObjectKey>) -> Result<ObjectPage, BlobError> {
        listing::page(&self.bucket, after).await
    }

    async fn presign(&self, key: &ObjectKey, lifetime: Duration) -> Result<Option<String>, BlobError> {
        let lifetime = PresigningConfig::expires_in(lifetime)
            .map_err(|error| BlobError::Unavailable(format!("cannot presign: {error}")))?;
        let request = self
            .bucket
            .public
            .get_object()
            .bucket(self.bucket.name())
            .key(self.bucket.key(&key.path()))
            .response_content_type(publish::CONTENT_TYPE)
            .presigned(lifetime)
            .await
            .map_err(failed("cannot presign"))?;
        Ok(Some(request.uri().to_owned()))
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let name = self.bucket.name();
        self.bucket
            .client
            .head_bucket()
            .bucket(name)
            .send()
            .await
            .map_err(failed(format!("bucket {name}")))?;
        Ok(())
    }

    async fn unpublished(&self, idle: Duration, after: Option<Uuid>) -> Result<Vec<Uuid>, BlobError> {
        leftovers::find(&self.bucket, idle, after).await
    }

    async fn sweep(&self, id: Uuid) -> Result<(), BlobError> {
        leftovers::free(&self.bucket, id).await
    }
}

impl S3Store {
    /// A look behind the store at `url`, for tests.
    #[cfg(test)]
    pub(super) async fn of_url(url: &str) -> Self {
        Self::open(super::open::bucket_options(url), Budget::new(1)).await
    }

    /// Everything below the prefix.
    #[cfg(test)]
    pub(super) async fn listing(&self) -> Vec<String> {
        leftovers::tests::listing(&self.bucket).await
    }

    /// Puts a small object there.
    #[cfg(test)]
    pub(super) async fn plant(&self, path: &str) {
        let body = aws_sdk_s3::primitives::ByteStream::from_static(b"x");
        let put = self
            .bucket
            .client
            .put_object()
            .bucket(self.bucket.name())
            .key(self.bucket.key(path))
            .body(body);
        put.send().await.unwrap();
    }

    /// Empties the prefix.
    #[cfg(test)]
    pub(super) async fn wipe(&self) {
        leftovers::tests::wipe(&self.bucket).await;
    }

    /// Makes the object from the state alone.
    async fn publish(&self, id: Uuid, state: &State) -> Result<(), BlobError> {
        let rest = content::Content::of_tail(&state.tail);
        let Some(multipart) = &state.multipart else {
            return publish::whole(&self.bucket, id, &rest, None).await.map(drop);
        };
        let mut parts = state.parts.clone();
        if rest.size > 0 {
            let number = next_number(state, state.epoch.saturating_add(1))?;
            match publish::part(&self.bucket, id, multipart, number, &rest).await {
                Ok(part) => parts.push(part),
                // Another call may have completed the upload meanwhile: completing it again settles that.
                Err(BlobError::Broken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        publish::of_parts(&self.bucket, id, multipart, &parts, state.offset())
            .await
            .map(drop)
    }
}

/// Numbers that are left free for a writer that may still have parts under way.
const GAP: i64 = 16;
/// So many such writers at most get numbers of their own. What they send otherwise meets their successor's
/// parts, and shows when the object is put together.
const MOST_GAPS: i64 = 16;

/// The number of the first part of the writer `epoch` after a state.
fn next_number(state: &State, epoch: i64) -> Result<i32, BlobError> {
    let last = state.parts.last().map_or(0, |part| i64::from(part.0));
    // The writer of the state, unless it sealed it, and those since then that left no state.
    let dangling = epoch.saturating_sub(state.epoch).saturating_sub(1) + i64::from(!state.sealed);
    let gap = if state.multipart.is_some() {
        GAP * dangling.clamp(0, MOST_GAPS)
    } else {
        0
    };
    let number = if last + 1 + gap > MAX_PARTS {
        last + 1
    } else {
        last + 1 + gap
    };
    match i32::try_from(number) {
        Ok(number) if i64::from(number) <= MAX_PARTS => Ok(number),
        _ => Err(BlobError::TooLarge(format!(
            "it takes more than {MAX_PARTS} parts; configure larger ones"
        ))),
    }
}

/// Bytes of a part of this upload: fixed once a part was sent.
fn part_size(configured: u64, state: &State, expected: Option<u64>) -> Result<u64, BlobError> {
    if expected.is_some_and(|expected| expected > MAX_OBJECT) {
        return Err(BlobError::TooLarge(format!(
            "an object of this store holds at most {MAX_OBJECT} bytes"
        )));
    }
    if !state.parts.is_empty() {
        return Ok(state.part_size);
    }
    let needed = expected
        .unwrap_or(0)
        .div_ceil(PLANNED_PARTS)
        .next_multiple_of(1 << 20);
    Ok(configured.max(needed).max(state.part_size))
}

fn own(state: &UploadState) -> Result<&State, BlobError> {
    match state {
        UploadState::S3(state) => Ok(state),
        UploadState::Folder(_) => Err(foreign()),
    }
}

fn foreign() -> BlobError {
    BlobError::Broken("it was begun in a folder, this is an S3 store".into())
}

#[cfg(test)]
mod tests {
    use super::state::Part;
    use super::*;

    #[test]
    fn the_part_size_grows_with_the_expected_length_and_is_fixed_by_the_first_part() {
        let mib = 1 << 20;
        let new = State::default();
        assert_eq!(part_size(16 * mib, &new, None).unwrap(), 16 * mib);
        assert_eq!(part_size(16 * mib, &new, Some(50 << 30)).unwrap(), 16 * mib);
        let largest = part_size(16 * mib, &new, Some(MAX_OBJECT)).unwrap();
        assert!(MAX_OBJECT.div_ceil(largest) <= PLANNED_PARTS && largest < 5 << 30);
        assert!(matches!(
            part_size(16 * mib, &new, Some(MAX_OBJECT + 1)),
            Err(BlobError::TooLarge(_))
        ));
        let begun = State {
            part_size: 8 * mib,
            parts: vec![Part(1, "a".into())],
            ..State::default()
        };
        assert_eq!(part_size(16 * mib, &begun, Some(MAX_OBJECT)).unwrap(), 8 * mib);
    }

    #[test]
    fn part_numbers_keep_clear_of_writers_that_left_no_sealed_state() {
        let after = |last, sealed| State {
            multipart: Some("m".into()),
            parts: vec![Part(last, "a".into())],
            epoch: 7,
            sealed,
            ..State::default()
        };
        assert_eq!(next_number(&after(3, true), 8).unwrap(), 4);
        assert_eq!(next_number(&after(3, false), 8).unwrap(), 4 + 16);
        assert_eq!(next_number(&after(3, true), 9).unwrap(), 4 + 16);
        assert_eq!(next_number(&after(3, true), i64::MAX).unwrap(), 4 + 256);
        assert_eq!(next_number(&after(9_999, false), 8).unwrap(), 10_000);
        assert!(next_number(&after(10_000, false), 8).is_err());
        assert_eq!(next_number(&State::default(), 5).unwrap(), 1);
    }
}
