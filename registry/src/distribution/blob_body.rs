//! Bodies of blob answers.

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::HeaderValue;
use uuid::Uuid;

use super::error::ApiError;
use super::nearest::Nearest;
use crate::blobs::BlobError;

/// The bytes of one range, and the name of the region that they come from, if there are regions. The store is asked
/// before the answer begins, so that its errors have a status.
pub async fn whole(from: &Nearest, range: Range<u64>) -> Result<(Body, Option<HeaderValue>), ApiError> {
    if range.is_empty() {
        return Ok((Body::empty(), None));
    }
    let (stream, region) = from.read(range).await?;
    Ok((Body::from_stream(stream), region))
}

/// Several ranges as `multipart/byteranges` (RFC 9110 §14.6): the body, its length and its content type.
/// Each range is opened when it is reached.
pub fn multipart(from: Nearest, ranges: Vec<Range<u64>>, size: u64) -> (Body, u64, String) {
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
        let from = from.clone();
        async move {
            let (content, _) = from.read(range).await?;
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
