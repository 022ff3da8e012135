//! From which bucket a blob's bytes come: that of the client's region if it has them, else home's.

use std::ops::Range;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer;
use super::asked::Asked;
use super::error::{ApiError, Code};
use crate::blobs::{BlobError, BlobStore, BlobStream, ObjectKey};
use crate::metadata::BlobRow;
use crate::regions::Regions;
use crate::regions::presence::Found;
use crate::regions::region::Region;
use crate::settings::URL_LIFETIME;

/// Which region's bucket a blob comes from, or its client is sent to.
pub(super) const REGION: HeaderName = HeaderName::from_static("berth-region");
/// When to ask again for what has not been replicated yet, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// The bucket to read one blob from.
#[derive(Clone)]
pub(super) struct Nearest {
    key: ObjectKey,
    region: Option<Arc<Region>>,
    regions: Option<Arc<Regions>>,
    home: Arc<dyn BlobStore>,
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
        if region.is_none()
            && let Some(arrived) = &registry.arrived
            && arrived.of(&registry.blobs, key, size).await == Found::Missing
        {
            let message = "the blob has not been replicated to this registry's bucket yet; try again";
            return Err(ApiError::of(Code::Unavailable, message).header(RETRY_AFTER, AGAIN));
        }
        Ok(Self {
            key: key.clone(),
            region,
            regions: registry.regions.clone(),
            home: registry.blobs.clone(),
        })
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
        let url = self.home.presign(&self.key, URL_LIFETIME).await?;
        let Some(url) = url.filter(|url| is_followed(url)) else {
            return Ok(None);
        };
        Ok(Some((url, self.at_home(true))))
    }

    /// Streams a part of the blob; with the region's name, if there are regions.
    pub async fn read(&self, range: Range<u64>) -> Result<(BlobStream, Option<HeaderValue>), BlobError> {
        if let Some(region) = &self.region
            && let Some(stream) = region.read(&self.home, &self.key, range.clone()).await
        {
            return Ok((stream, Some(answer::value(region.name()))));
        }
        let stream = self.home.read(&self.key, range).await?;
        Ok((stream, self.at_home(false)))
    }

    fn at_home(&self, redirected: bool) -> Option<HeaderValue> {
        let regions = self.regions.as_ref()?;
        regions.home_read(redirected);
        Some(answer::value(regions.home()))
    }
}
