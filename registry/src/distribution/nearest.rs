//! From which bucket a blob's bytes come: that of the client's region if it has them, else home's.

use std::ops::Range;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer;
use super::asked::Asked;
use super::error::{ApiError, Code};
use super::state::Registry;
use crate::blobs::{BlobError, BlobStream, ObjectKey};
use crate::metadata::BlobRow;
use crate::regions::presence::Found;
use crate::regions::region::Region;
use crate::settings::URL_LIFETIME;

/// Which region's bucket a blob comes from, or its client is sent to.
pub(super) const REGION: HeaderName = HeaderName::from_static("berth-region");
/// When to ask again for what has not been replicated yet, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

const NOT_YET: &str = "the blob has not been replicated to this registry's bucket yet; try again";

/// The bucket to read one blob from.
#[derive(Clone)]
pub(super) struct Nearest {
    key: ObjectKey,
    size: u64,
    region: Option<Arc<Region>>,
    registry: Registry,
}

impl Nearest {
    /// The nearest that has the blob, as far as is known.
    pub async fn of(asked: &Asked, headers: &HeaderMap, blob: &BlobRow) -> Result<Self, ApiError> {
        let registry = &asked.registry;
        let (key, size) = (&blob.key, blob.size);
        let wished = registry
            .regions
            .as_ref()
            .and_then(|regions| regions.of(headers, &asked.origin));
        let region = match wished {
            Some(region) if region.holds(key, size).await => Some(region.clone()),
            Some(_) | None => None,
        };
        let nearest = Self {
            key: key.clone(),
            size,
            region,
            registry: registry.clone(),
        };
        if nearest.region.is_none() && nearest.home().await == Found::Missing {
            return Err(ApiError::of(Code::Unavailable, NOT_YET).header(RETRY_AFTER, AGAIN));
        }
        Ok(nearest)
    }

    /// Whether home has it; where nothing is replicated to it, what the metadata names is there.
    async fn home(&self) -> Found {
        match &self.registry.arrived {
            Some(arrived) => arrived.of(&self.registry.blobs, &self.key, self.size).await,
            None => Found::There,
        }
    }

    /// Where the client gets the blob itself, if the bucket has such links and the client follows it there; and the
    /// region's name, if there are regions.
    pub async fn link(
        &self,
        is_followed: impl Fn(&str) -> bool,
    ) -> Result<Option<(String, Option<HeaderValue>)>, BlobError> {
        if let Some(region) = &self.region
            && let Some(url) = region.presign(&self.key, URL_LIFETIME).await
            && is_followed(&url)
        {
            region.redirected();
            return Ok(Some((url, Some(answer::value(region.name())))));
        }
        // Nobody is sent to what may not be there; what is streamed instead fails here if it is not.
        if self.home().await != Found::There {
            return Ok(None);
        }
        let url = self.registry.blobs.presign(&self.key, URL_LIFETIME).await?;
        let Some(url) = url.filter(|url| is_followed(url)) else {
            return Ok(None);
        };
        Ok(Some((url, self.at_home(true))))
    }

    /// Streams a part of the blob; with the region's name, if there are regions.
    pub async fn read(&self, range: Range<u64>) -> Result<(BlobStream, Option<HeaderValue>), BlobError> {
        if let Some(region) = &self.region
            && let Some(stream) = region.read(&self.registry.blobs, &self.key, range.clone()).await
        {
            return Ok((stream, Some(answer::value(region.name()))));
        }
        if self.home().await == Found::Missing {
            return Err(BlobError::Unavailable(NOT_YET.to_owned()));
        }
        let stream = self.registry.blobs.read(&self.key, range).await?;
        Ok((stream, self.at_home(false)))
    }

    fn at_home(&self, redirected: bool) -> Option<HeaderValue> {
        let regions = self.registry.regions.as_ref()?;
        regions.home_read(redirected);
        Some(answer::value(regions.home()))
    }
}
