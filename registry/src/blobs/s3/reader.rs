//! Streaming an object's bytes, to the last one: an answer that breaks off is continued by another request.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::bucket::Bucket;
use super::errors::failed;
use crate::blobs::{BlobError, BlobStream};

/// The wait before the first continuation; it doubles, and half of it is random.
const PAUSE: Duration = Duration::from_millis(100);

struct Rest {
    bucket: Arc<Bucket>,
    key: String,
    range: Range<u64>,
    answer: ByteStream,
    breaks: u32,
}

/// Streams `range` of the object `key`. The first request is made before this returns.
pub(super) async fn read(
    bucket: Arc<Bucket>,
    key: String,
    range: Range<u64>,
) -> Result<BlobStream, BlobError> {
    if range.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let answer = request(&bucket, &key, &range).await?;
    Ok(stream::try_unfold(
        Rest {
            bucket,
            key,
            range,
            answer,
            breaks: 0,
        },
        next,
    )
    .boxed())
}

async fn next(mut rest: Rest) -> Result<Option<(Bytes, Rest)>, BlobError> {
    while !rest.range.is_empty() {
        let cause = match rest.answer.next().await {
            Some(Ok(bytes)) if bytes.is_empty() => continue,
            Some(Ok(mut bytes)) => {
                let left = rest.range.end - rest.range.start;
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                rest.range.start += bytes.len() as u64;
                rest.breaks = 0;
                return Ok(Some((bytes, rest)));
            }
            Some(Err(error)) => error.to_string(),
            None => "it ended early".to_owned(),
        };
        rest.breaks += 1;
        if rest.breaks > rest.bucket.breaks() {
            return Err(BlobError::Unavailable(format!(
                "reading {} broke off: {cause}",
                rest.key
            )));
        }
        let pause = PAUSE * 2u32.pow(rest.breaks - 1);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        rest.answer = request(&rest.bucket, &rest.key, &rest.range).await?;
    }
    Ok(None)
}

async fn request(bucket: &Bucket, key: &str, range: &Range<u64>) -> Result<ByteStream, BlobError> {
    let answer = bucket
        .client
        .get_object()
        .bucket(bucket.name())
        .key(key)
        .range(format!("bytes={}-{}", range.start, range.end - 1))
        .send()
        .await
        .map_err(failed(key))?;
    let length = u64::try_from(answer.content_length().unwrap_or(0)).unwrap_or(0);
    if length != range.end - range.start {
        let what = format!("{key} answered {length} bytes for {}..{}", range.start, range.end);
        return Err(BlobError::Broken(what));
    }
    Ok(answer.body)
}
