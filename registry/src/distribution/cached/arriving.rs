//! What an upstream sends of a blob.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::upstream::UpstreamError;

/// An answer's body, each piece of which must come in time.
pub(super) struct Arriving<'r> {
    pub body: Incoming,
    pub timeout: Duration,
    pub host: &'r str,
    /// Bytes that are here already.
    pub skip: u64,
}

impl Arriving<'_> {
    /// The next piece that is not here already.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let frame = tokio::time::timeout(self.timeout, self.body.frame()).await;
            let frame = frame.map_err(|_| UpstreamError::Late {
                host: self.host.to_owned(),
                timeout: self.timeout,
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| UpstreamError::Broken {
                host: self.host.to_owned(),
                why: error.to_string(),
            })?;
            let Ok(mut bytes) = frame.into_data() else {
                continue;
            };
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            // At most the length of a piece in memory.
            let rest = bytes.split_off(usize::try_from(skipped).unwrap_or_default());
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }
}

/// First byte and size of the whole, of a `Content-Range` (RFC 9110, section 14.4).
pub(super) fn partial(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()?))
}
