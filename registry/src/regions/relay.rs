//! Bytes of a region, continued at home when they break off: a client's answer has begun and cannot be taken back.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Bucket;
use super::region::Region;
use crate::blobs::{BlobError, BlobStream, ObjectKey};

/// How long a region's bytes may stand still.
const STILL: Duration = Duration::from_secs(5);

struct Rest {
    region: Arc<Region>,
    home: Bucket,
    key: ObjectKey,
    range: Range<u64>,
    stream: BlobStream,
    /// Whether the stream is home's by now.
    at_home: bool,
}

/// Sends on `stream`, which is `range` of the region's object `key`.
pub(super) fn relay(
    region: Arc<Region>,
    stream: BlobStream,
    home: Bucket,
    key: ObjectKey,
    range: Range<u64>,
) -> BlobStream {
    let rest = Rest {
        region,
        home,
        key,
        range,
        stream,
        at_home: false,
    };
    stream::try_unfold(rest, next).boxed()
}

async fn next(mut rest: Rest) -> Result<Option<(Bytes, Rest)>, BlobError> {
    if rest.range.is_empty() {
        return Ok(None);
    }
    if !rest.at_home {
        let why = match tokio::time::timeout(STILL, rest.stream.next()).await {
            Ok(Some(Ok(bytes))) => return Ok(Some(rest.sent(bytes))),
            Ok(Some(Err(error))) => error.to_string(),
            Ok(None) => "it ended early".to_owned(),
            Err(_) => format!("no byte came for {} s", STILL.as_secs()),
        };
        rest.region.broke(&why);
        rest.stream = rest.home.read(&rest.key, rest.range.clone()).await?;
        rest.at_home = true;
    }
    match rest.stream.next().await {
        Some(bytes) => Ok(Some(rest.sent(bytes?))),
        None => Ok(None),
    }
}

impl Rest {
    fn sent(mut self, bytes: Bytes) -> (Bytes, Self) {
        self.range.start += bytes.len() as u64;
        (bytes, self)
    }
}
