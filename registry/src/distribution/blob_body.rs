//! Bodies of blob answers.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::error::ApiError;
use crate::blobs::{BlobError, BlobStore, ObjectKey};

/// The bytes of one range. The store is asked before the answer begins, so that its errors have a status.
pub async fn whole(blobs: &Arc<dyn BlobStore>, key: &ObjectKey, range: Range<u64>) -> Result<Body, ApiError> {
    if range.is_empty() {
        return Ok(Body::empty());
    }
    Ok(Body::from_stream(blobs.read(key, range).await?))
}

/// Several ranges as `multipart/byteranges` (RFC 9110 §14.6): the body, its length and its content type.
/// Each range is opened when it is reached.
pub fn multipart(
    blobs: Arc<dyn BlobStore>,
    key: ObjectKey,
    ranges: Vec<Range<u64>>,
    size: u64,
) -> (Body, u64, String) {
    let boundary = Uuid::new_v4().simple().to_string();
    let head = |range: &Range<u64>| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
            range.start,
            range.end - 1
        )
    };
    let end = format!("\r\n--{boundary}--\r\n");
    let parts: Vec<(String, Range<u64>)> = ranges.into_iter().map(|range| (head(&range), range)).collect();
    let length = parts
        .iter()
        .map(|(head, range)| head.len() as u64 + range.end - range.start)
        .sum::<u64>()
        + end.len() as u64;
    let parts = stream::iter(parts).then(move |(head, range)| {
        let (blobs, key) = (blobs.clone(), key.clone());
        async move {
            let content = blobs.read(&key, range).await?;
            let head = stream::once(async move { Ok::<_, BlobError>(Bytes::from(head)) });
            Ok::<_, BlobError>(head.chain(content))
        }
    });
    let body = parts
        .try_flatten()
        .chain(stream::once(async move { Ok(Bytes::from(end)) }));
    (
        Body::from_stream(body),
        length,
        format!("multipart/byteranges; boundary={boundary}"),
    )
}
