//! Finding and freeing what unpublished uploads have stored: multipart uploads and segments.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::DateTime;
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::bucket::Bucket;
use super::errors::failed;
use super::state::SegmentName;
use crate::blobs::BlobError;

/// Uploads of one answer.
const PAGE: usize = 1000;
/// Deletions under way at a time.
const DELETIONS: usize = 8;

/// The first uploads, by id and after `after`, that stored something longer than `idle` ago. Memory is
/// that of the answer; requests are one for 1,000 open uploads or segments.
pub(super) async fn find(
    bucket: &Bucket,
    idle: Duration,
    after: Option<Uuid>,
) -> Result<Vec<Uuid>, BlobError> {
    let before = DateTime::from(
        SystemTime::now()
            .checked_sub(idle)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    );
    let mut found = BTreeSet::new();
    let mut note = |id: Option<Uuid>, at: Option<&DateTime>| {
        let Some(id) = id else { return };
        if after.is_none_or(|after| id > after) && at.is_some_and(|at| *at <= before) {
            found.insert(id);
            if found.len() > PAGE {
                found.pop_last();
            }
        }
    };
    let blobs = bucket.key("blobs/");
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let page = multiparts(bucket, &blobs, key_marker, id_marker).await?;
        for upload in page.uploads() {
            let id = upload
                .key()
                .and_then(|key| key.strip_prefix(&blobs)?.get(3..)?.parse().ok());
            note(id, upload.initiated());
        }
        if !page.is_truncated().unwrap_or(false) {
            break;
        }
        (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
    }
    let uploads = bucket.key("uploads/");
    let mut pages = bucket
        .client
        .list_objects_v2()
        .bucket(bucket.name())
        .prefix(&uploads)
        // Segments are listed in the order of their uploads.
        .set_start_after(after.map(|after| format!("{uploads}{after}/~")))
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        for object in page.map_err(failed(&uploads))?.contents() {
            let id = object
                .key()
                .and_then(|key| key.strip_prefix(&uploads)?.get(..36)?.parse().ok());
            note(id, object.last_modified());
        }
    }
    Ok(found.into_iter().collect())
}

/// Aborts every multipart upload of this upload's object, and deletes all its segments.
pub(super) async fn free(bucket: &Bucket, upload: Uuid) -> Result<(), BlobError> {
    let object = bucket.object(upload);
    // Aborted uploads leave the listing, so every page is the first one.
    loop {
        let page = multiparts(bucket, &object, None, None).await?;
        let ids = page.uploads().iter().filter_map(|upload| upload.upload_id());
        for id in ids {
            abort(bucket, upload, id).await?;
        }
        if !page.is_truncated().unwrap_or(false) || page.uploads().is_empty() {
            break;
        }
    }
    let segments = bucket.key(&format!("uploads/{upload}/"));
    let mut pages = bucket
        .client
        .list_objects_v2()
        .bucket(bucket.name())
        .prefix(&segments)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(failed(&segments))?;
        let keys = page
            .contents()
            .iter()
            .filter_map(|object| object.key().map(str::to_owned));
        delete_all(bucket, keys.collect()).await?;
    }
    Ok(())
}

/// Aborts one multipart upload; absent is success.
pub(super) async fn abort(bucket: &Bucket, upload: Uuid, multipart: &str) -> Result<(), BlobError> {
    let key = bucket.object(upload);
    let request = bucket
        .client
        .abort_multipart_upload()
        .bucket(bucket.name())
        .key(&key)
        .upload_id(multipart)
        .send();
    match request.await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
        Err(error) => Err(failed(key)(error)),
    }
}

/// Deletes segments that nothing needs any more. What fails stays behind for [`find`].
pub(super) async fn drop_segments(bucket: &Bucket, upload: Uuid, names: Vec<SegmentName>) {
    let keys = names
        .into_iter()
        .map(|name| bucket.segment(upload, name))
        .collect();
    if let Err(error) = delete_all(bucket, keys).await {
        tracing::warn!(%upload, %error, "segments were not deleted; a later sweep will find them");
    }
}

/// Deletes one object; absent is success.
pub(super) async fn delete(bucket: &Bucket, key: String) -> Result<(), BlobError> {
    match bucket
        .client
        .delete_object()
        .bucket(bucket.name())
        .key(&key)
        .send()
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
        Err(error) => Err(failed(key)(error)),
    }
}

async fn delete_all(bucket: &Bucket, keys: Vec<String>) -> Result<(), BlobError> {
    stream::iter(keys)
        .map(|key| delete(bucket, key))
        .buffer_unordered(DELETIONS)
        .try_collect::<()>()
        .await
}

/// One page of the multipart uploads below a prefix.
async fn multiparts(
    bucket: &Bucket,
    prefix: &str,
    key_marker: Option<String>,
    id_marker: Option<String>,
) -> Result<aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput, BlobError> {
    let request = bucket
        .client
        .list_multipart_uploads()
        .bucket(bucket.name())
        .prefix(prefix)
        .set_key_marker(key_marker)
        .set_upload_id_marker(id_marker);
    request.send().await.map_err(failed(prefix))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every key below the prefix, of objects and of multipart uploads.
    pub(in crate::blobs) async fn listing(bucket: &Bucket) -> Vec<String> {
        let prefix = bucket.key("");
        let mut pages = bucket
            .client
            .list_objects_v2()
            .bucket(bucket.name())
            .prefix(&prefix)
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(
                page.unwrap()
                    .contents()
                    .iter()
                    .filter_map(|object| object.key().map(str::to_owned)),
            );
        }
        let unfinished = multiparts(bucket, &prefix, None, None).await.unwrap();
        keys.extend(
            unfinished
                .uploads()
                .iter()
                .filter_map(|upload| upload.key().map(str::to_owned)),
        );
        keys
    }

    /// Empties the prefix.
    pub(in crate::blobs) async fn wipe(bucket: &Bucket) {
        let unfinished = multiparts(bucket, &bucket.key(""), None, None).await.unwrap();
        for upload in unfinished.uploads() {
            let key = upload.key().unwrap_or_default();
            let id = key.rsplit('/').next().unwrap().parse().unwrap();
            abort(bucket, id, upload.upload_id().unwrap_or_default())
                .await
                .unwrap();
        }
        delete_all(bucket, listing(bucket).await).await.unwrap();
    }
}
