//! Errors as clients see them: the spec's codes, and a message that says what to change.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::blobs::BlobError;
use crate::domain::digest::DigestError;
use crate::domain::manifest::ManifestError;
use crate::domain::name::NameError;
use crate::metadata::MetadataError;

/// Error codes (distribution-spec, "Error Codes"), and the few that registries have added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A blob is not in the repository.
    BlobUnknown,
    /// An upload's chunk does not fit.
    BlobUploadInvalid,
    /// There is no such upload session.
    BlobUploadUnknown,
    /// A digest is malformed, unsupported or not the content's.
    DigestInvalid,
    /// A manifest names what is not in the repository.
    ManifestBlobUnknown,
    /// A manifest cannot be read.
    ManifestInvalid,
    /// A manifest is not in the repository.
    ManifestUnknown,
    /// A name is not of the grammar.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// A length is not the content's.
    SizeInvalid,
    /// A credential is needed.
    Unauthorized,
    /// The credential's rights do not suffice, or a rule forbids it.
    Denied,
    /// The registry does not do this.
    Unsupported,
    /// Slow down.
    TooManyRequests,
    /// A byte range lies outside of the content.
    RangeInvalid,
    /// A tag is not of the grammar.
    TagInvalid,
    /// `n` is not a number.
    PaginationNumberInvalid,
    /// A store does not answer.
    Unavailable,
    /// Anything else that is our fault.
    Unknown,
}

impl Code {
    const fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status that goes with the code where nothing more exact is known.
    const fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::BlobUploadInvalid | Self::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::TagInvalid
            | Self::PaginationNumberInvalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One error answer.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Code, message, detail; docker acts on the first.
    errors: Vec<(Code, String, Option<Value>)>,
}

impl ApiError {
    /// An error with the code's own status.
    pub fn of(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            headers: Vec::new(),
            errors: vec![(code, message.into(), None)],
        }
    }

    /// The code of its first entry.
    pub fn code(&self) -> Option<Code> {
        self.errors.first().map(|(code, _, _)| *code)
    }

    /// The same with another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with a detail on its first entry.
    pub fn detail(mut self, detail: Value) -> Self {
        if let Some((_, _, slot)) = self.errors.first_mut() {
            *slot = Some(detail);
        }
        self
    }

    /// One entry for each thing that a manifest names and the repository lacks.
    pub fn missing(digests: &[crate::domain::Digest]) -> Self {
        let entry = |digest: &crate::domain::Digest| {
            let message = format!("{digest} is not in this repository; push or mount it before the manifest");
            (
                Code::ManifestBlobUnknown,
                message,
                Some(json!({ "digest": digest.to_string() })),
            )
        };
        // Enough to act on, however many are missing.
        let errors = digests.iter().take(100).map(entry).collect();
        Self {
            status: Code::ManifestBlobUnknown.status(),
            headers: Vec::new(),
            errors,
        }
    }

    /// 405 with `Allow`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        Self::of(Code::Unsupported, message).header(ALLOW, HeaderValue::from_static(allow))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let entry = |(code, message, detail): &(Code, String, Option<Value>)| {
            let mut entry = json!({ "code": code.text(), "message": message });
            if let Some(detail) = detail {
                entry["detail"] = detail.clone();
            }
            entry
        };
        if self.status.is_server_error() {
            let why = self.errors.first().map_or("", |(_, message, _)| message);
            tracing::error!(status = self.status.as_u16(), why, "request failed");
        }
        let body = json!({ "errors": self.errors.iter().map(entry).collect::<Vec<_>>() }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Unavailable(_) | MetadataError::Conflict(_) => {
                tracing::warn!(%error, "metadata store");
                Self::of(
                    Code::Unavailable,
                    "the registry's metadata store does not answer; try again",
                )
                .header(RETRY_AFTER, HeaderValue::from_static("2"))
            }
            MetadataError::OnlyRead => Self::of(Code::Unsupported, error.to_string()),
            MetadataError::ReadOnly(_) => {
                tracing::warn!(%error, "metadata store");
                Self::of(
                    Code::Unavailable,
                    "the registry's metadata store takes no writes at present; try again",
                )
                .header(RETRY_AFTER, HeaderValue::from_static("2"))
            }
            MetadataError::Full(_) => {
                tracing::error!(%error, "metadata store");
                Self::of(Code::Unavailable, "the registry's metadata store is full")
                    .status(StatusCode::INSUFFICIENT_STORAGE)
            }
            MetadataError::Url { .. }
            | MetadataError::Migration(_)
            | MetadataError::Behind
            | MetadataError::Unfinished
            | MetadataError::Corrupt(_) => Self::of(Code::Unknown, error.to_string()),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Unavailable(_) => {
                tracing::warn!(%error, "blob store");
                Self::of(
                    Code::Unavailable,
                    "the registry's blob store does not answer; try again",
                )
                .header(RETRY_AFTER, HeaderValue::from_static("2"))
            }
            BlobError::Full(_) => {
                tracing::error!(%error, "blob store");
                Self::of(Code::Unavailable, "the registry's blob store is full")
                    .status(StatusCode::INSUFFICIENT_STORAGE)
            }
            BlobError::TooLarge(why) => {
                Self::of(Code::SizeInvalid, why).status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            BlobError::Broken(why) => {
                Self::of(Code::BlobUploadUnknown, format!("{why}; start the upload again"))
            }
            BlobError::NotFound { .. } => Self::of(Code::Unknown, error.to_string()),
        }
    }
}

impl From<DigestError> for ApiError {
    fn from(error: DigestError) -> Self {
        Self::of(Code::DigestInvalid, error.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let code = match error {
            NameError::Tag => Code::TagInvalid,
            NameError::Repository | NameError::RepositoryTooLong | NameError::Tenant => Code::NameInvalid,
        };
        Self::of(code, error.to_string())
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        let unsupported = matches!(error, ManifestError::Unsupported(_));
        let answer = Self::of(Code::ManifestInvalid, error.to_string());
        if unsupported {
            answer.status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        } else {
            answer
        }
    }
}
