//! Why something of an upstream's cannot be given, and what a client is told.

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use super::super::answer;
use super::super::error::{ApiError, Code};
use crate::blobs::BlobError;
use crate::metadata::{MetadataError, OverQuota};
use crate::tenancy::limits::exhausted;
use crate::upstream::UpstreamError;

/// What stands in the way.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The upstream.
    Upstream(UpstreamError),
    /// Something here.
    Here(ApiError),
}

impl From<UpstreamError> for Trouble {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Here(error)
    }
}

impl From<MetadataError> for Trouble {
    fn from(error: MetadataError) -> Self {
        Self::Here(error.into())
    }
}

impl From<BlobError> for Trouble {
    fn from(error: BlobError) -> Self {
        Self::Here(error.into())
    }
}

impl Trouble {
    /// A task ended without an answer.
    pub fn ended() -> Self {
        Self::Here(ApiError::of(
            Code::Unavailable,
            "the registry is shutting down; try again",
        ))
    }

    /// Too much is being asked of upstreams at the moment.
    pub fn busy() -> Self {
        let message = "this tenant's caches are fetching all that they may fetch at once; try again";
        let error = ApiError::of(Code::Unavailable, message);
        Self::Here(error.header(RETRY_AFTER, HeaderValue::from_static("5")))
    }

    /// The cache has no room to keep what was fetched.
    pub fn over_quota(over: &OverQuota) -> Self {
        Self::Here(ApiError::of(Code::Denied, exhausted(over)))
    }

    /// What the upstream said, if it is its.
    pub fn upstream(&self) -> Option<&UpstreamError> {
        match self {
            Self::Upstream(error) => Some(error),
            Self::Here(_) => None,
        }
    }

    /// Whether there is no such thing, as far as the upstream tells us.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Upstream(UpstreamError::Absent { .. } | UpstreamError::Denied { .. })
        )
    }

    /// As a client is told, which goes on to its next mirror: fast, and without a challenge that it cannot meet.
    /// `unknown` is the error of what is not there.
    pub fn answer(self, unknown: impl FnOnce() -> ApiError) -> ApiError {
        let error = match self {
            Self::Here(error) => return error,
            Self::Upstream(error) => error,
        };
        let message = error.to_string();
        let seconds = |after: std::time::Duration| {
            let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            answer::value(whole.max(1).to_string())
        };
        let unavailable = |status| ApiError::of(Code::Unavailable, message.clone()).status(status);
        match error {
            UpstreamError::Absent { .. } => unknown(),
            // Whoever asks here cannot help it, and need not learn that there is something.
            UpstreamError::Denied { .. } => {
                tracing::warn!(message, "an upstream refuses a cache");
                unknown()
            }
            UpstreamError::Limited { after, .. }
            | UpstreamError::Paused {
                after, limits: true, ..
            } => ApiError::of(Code::TooManyRequests, message).header(RETRY_AFTER, seconds(after)),
            UpstreamError::Paused { after, .. } => {
                unavailable(StatusCode::SERVICE_UNAVAILABLE).header(RETRY_AFTER, seconds(after))
            }
            UpstreamError::Late { .. } | UpstreamError::Broken { .. } | UpstreamError::Failing { .. } => {
                unavailable(StatusCode::BAD_GATEWAY).header(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            UpstreamError::Egress(_) | UpstreamError::Strange { .. } => unavailable(StatusCode::BAD_GATEWAY),
        }
    }
}
