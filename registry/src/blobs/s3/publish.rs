//! Making objects: whole ones by one request, large ones of their parts.
//!
//! A key is written by one upload only, but maybe by two of its writers, when a frozen one thaws. An object
//! made by one request carries the epoch of its writer, and replaces only an older writer's.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use uuid::Uuid;

use super::bucket::{Bucket, completing, sending};
use super::content::Content;
use super::errors::{failed, may_have_succeeded};
use super::state::{Part, SegmentName};
use crate::blobs::BlobError;

/// The metadata key of the writer's epoch.
const WRITER: &str = "berth-writer";
/// How often a write that met another one is tried again.
const CONFLICTS: u32 = 4;
/// Content type of every object.
pub(super) const CONTENT_TYPE: &str = "application/octet-stream";

/// An object that is there.
struct Found {
    size: u64,
    /// Epoch of the writer that made it by one request.
    writer: Option<i64>,
}

/// Makes the object of the upload by one request. `writer` is the epoch of the writer; none stands for a
/// call that completes an upload from its state, where any object of the right size is this one.
pub(super) async fn whole(
    bucket: &Arc<Bucket>,
    upload: Uuid,
    content: &Content,
    writer: Option<i64>,
) -> Result<u64, BlobError> {
    let key = bucket.object(upload);
    let mut replace = !bucket.takes_conditions();
    for attempt in 0..=CONFLICTS {
        if attempt > 0 {
            let pause = Duration::from_millis(200) * attempt;
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        }
        let (encryption, kms_key) = bucket.encryption();
        let sent = bucket
            .client
            .put_object()
            .bucket(bucket.name())
            .key(&key)
            .content_type(CONTENT_TYPE)
            .content_length(length(content.size)?)
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            // A service that does not know the condition writes, as it would without one.
            .set_if_none_match((!replace).then(|| "*".to_owned()))
            .set_metadata(writer.map(|epoch| [(WRITER.to_owned(), epoch.to_string())].into()))
            .body(content.body(bucket, upload))
            .customize()
            .disable_payload_signing()
            .config_override(sending(content.size))
            .send()
            .await;
        let error = match sent {
            Ok(_) => return Ok(content.size),
            Err(error) => error,
        };
        if matches!(error.code(), Some("NotImplemented")) && !replace {
            bucket.refuses_conditions();
            replace = true;
            continue;
        }
        if !may_have_succeeded(&error) {
            return Err(failed(key)(error));
        }
        match found(bucket, upload).await? {
            Some(found) if found.writer > writer && writer.is_some() => {
                return Err(BlobError::Broken(format!(
                    "another writer has taken over upload {upload}"
                )));
            }
            Some(found) if found.writer == writer || writer.is_none() => {
                return found.of_size(content.size, &key);
            }
            // A writer before this one made it, and never told anybody.
            Some(_) => replace = true,
            None if matches!(
                error.code(),
                Some("ConditionalRequestConflict" | "PreconditionFailed")
            ) => {}
            None => return Err(failed(key)(error)),
        }
    }
    Err(BlobError::Unavailable(format!(
        "writing {key} kept meeting other writes of it"
    )))
}

/// Puts the parts together. `size` is the size of the whole.
pub(super) async fn of_parts(
    bucket: &Bucket,
    upload: Uuid,
    multipart: &str,
    parts: &[Part],
    size: u64,
) -> Result<u64, BlobError> {
    let key = bucket.object(upload);
    let list = parts.iter().map(|Part(number, tag)| {
        CompletedPart::builder()
            .part_number(*number)
            .e_tag(format!("\"{tag}\""))
            .build()
    });
    let completed = bucket
        .client
        .complete_multipart_upload()
        .bucket(bucket.name())
        .key(&key)
        .upload_id(multipart)
        .multipart_upload(
            CompletedMultipartUpload::builder()
                .set_parts(Some(list.collect()))
                .build(),
        )
        .customize()
        .config_override(completing())
        .send()
        .await;
    match completed {
        Ok(_) => Ok(size),
        Err(error) if may_have_succeeded(&error) => match found(bucket, upload).await? {
            Some(found) => found.of_size(size, &key),
            None => Err(failed(key)(error)),
        },
        Err(error) => Err(failed(key)(error)),
    }
}

/// Starts a multipart upload and returns its id.
pub(super) async fn start(bucket: &Bucket, upload: Uuid) -> Result<String, BlobError> {
    let key = bucket.object(upload);
    let (encryption, kms_key) = bucket.encryption();
    let started = bucket
        .client
        .create_multipart_upload()
        .bucket(bucket.name())
        .key(&key)
        .content_type(CONTENT_TYPE)
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .send()
        .await
        .map_err(failed(&key))?;
    let nameless = || BlobError::Unavailable(format!("the multipart upload of {key} got no id"));
    started.upload_id.ok_or_else(nameless)
}

/// Sends one part.
pub(super) async fn part(
    bucket: &Arc<Bucket>,
    upload: Uuid,
    multipart: &str,
    number: i32,
    content: &Content,
) -> Result<Part, BlobError> {
    let key = bucket.object(upload);
    let sent = bucket
        .client
        .upload_part()
        .bucket(bucket.name())
        .key(&key)
        .upload_id(multipart)
        .part_number(number)
        .content_length(length(content.size)?)
        .body(content.body(bucket, upload))
        .customize()
        .disable_payload_signing()
        .config_override(sending(content.size))
        .send()
        .await
        .map_err(failed(format!("part {number} of {key}")))?;
    let tag = sent.e_tag().map(|tag| tag.trim_matches('"').to_owned());
    let tag = tag.ok_or_else(|| BlobError::Unavailable(format!("part {number} of {key} got no tag")))?;
    Ok(Part(number, tag))
}

/// Stores bytes in memory as a segment object.
pub(super) async fn segment(
    bucket: &Arc<Bucket>,
    upload: Uuid,
    name: SegmentName,
    content: &Content,
) -> Result<(), BlobError> {
    let (encryption, kms_key) = bucket.encryption();
    let key = bucket.segment(upload, name);
    let body: ByteStream = content.body(bucket, upload);
    bucket
        .client
        .put_object()
        .bucket(bucket.name())
        .key(&key)
        .content_type(CONTENT_TYPE)
        .content_length(length(content.size)?)
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .body(body)
        .customize()
        .disable_payload_signing()
        .config_override(sending(content.size))
        .send()
        .await
        .map_err(failed(key))?;
    Ok(())
}

/// The size of the upload's object, if it is there.
pub(super) async fn size(bucket: &Bucket, upload: Uuid) -> Result<Option<u64>, BlobError> {
    Ok(found(bucket, upload).await?.map(|found| found.size))
}

async fn found(bucket: &Bucket, upload: Uuid) -> Result<Option<Found>, BlobError> {
    let key = bucket.object(upload);
    match bucket
        .client
        .head_object()
        .bucket(bucket.name())
        .key(&key)
        .send()
        .await
    {
        Ok(head) => {
            let writer = head
                .metadata()
                .and_then(|metadata| metadata.get(WRITER)?.parse().ok());
            let size = u64::try_from(head.content_length().unwrap_or(0)).unwrap_or(0);
            Ok(Some(Found { size, writer }))
        }
        Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
        Err(error) => Err(failed(key)(error)),
    }
}

impl Found {
    fn of_size(&self, size: u64, key: &str) -> Result<u64, BlobError> {
        if self.size == size {
            return Ok(size);
        }
        Err(BlobError::Broken(format!(
            "{key} holds {} bytes, not {size}",
            self.size
        )))
    }
}

fn length(size: u64) -> Result<i64, BlobError> {
    i64::try_from(size).map_err(|_| BlobError::TooLarge(format!("{size} bytes in one request")))
}
