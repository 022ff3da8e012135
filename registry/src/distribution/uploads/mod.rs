//! Upload sessions: one state machine in a row, so that any replica takes the next request.
//!
//! A session has an offset, the running hashes at that offset and the blob store's state; all three are
//! stored together, and only what is durable is stored. Whoever writes holds a lease by its number, the epoch,
//! and no lock while the client sends. The first closing PUT binds the digest, so that whatever a writer
//! that lost its lease may still publish under the session's key is the same content.

pub mod append;
pub mod close;
pub(super) mod ending;
pub(crate) mod hashes;
mod lease;
pub(super) mod opened;
mod pace;
pub mod start;
pub mod status;
mod writing;

pub(super) use hashes::Hashes;
pub(super) use lease::LEASE;
pub(super) use start::new_session;
pub(super) use writing::Writing;

use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use uuid::Uuid;

use super::error::{ApiError, Code};
use super::{Named, answer};
use crate::domain::range;
use crate::server::{BodyError, body_error};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The error of a body that could not be read to its end.
pub(super) fn body_failed(error: &axum::Error) -> ApiError {
    match body_error(error) {
        Some(slow @ (BodyError::Idle(_) | BodyError::TooSlow(_))) => {
            ApiError::of(Code::BlobUploadInvalid, slow.to_string()).status(StatusCode::REQUEST_TIMEOUT)
        }
        Some(BodyError::Broken(_)) | None => ApiError::of(
            Code::SizeInvalid,
            "the connection broke before the end of the body",
        ),
    }
}

/// The id of a session in a path; anything that is no id of ours names no session.
fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: impl std::fmt::Display) -> ApiError {
    ApiError::of(
        Code::BlobUploadUnknown,
        format!("there is no upload {id} in this repository; start a new one"),
    )
}

/// `Location` never changes during a session and carries no state.
fn location(repository: &Named, id: Uuid) -> String {
    format!("/v2/{}/blobs/uploads/{id}", repository.shown)
}

/// Headers that say where a session stands. `Range` cannot say "no byte" in its grammar: `0-0` is what
/// clients expect while pushing, `0--1` where they ask (distribution-spec issue 578).
fn describe(headers: &mut HeaderMap, repository: &Named, id: Uuid, offset: u64, asking: bool) {
    let range = match (offset, asking) {
        (0, true) => "0--1".to_owned(),
        (0, false) => "0-0".to_owned(),
        (offset, _) => format!("0-{}", offset - 1),
    };
    headers.insert(LOCATION, answer::value(location(repository, id)));
    headers.insert(RANGE, answer::value(range));
    headers.insert(UPLOAD_UUID, answer::value(id.to_string()));
}

fn accepted(repository: &Named, id: Uuid, offset: u64) -> Response {
    let mut response = answer::empty(StatusCode::ACCEPTED);
    describe(response.headers_mut(), repository, id, offset, false);
    response
}

/// 416 that tells where to go on.
fn out_of_order(repository: &Named, id: Uuid, offset: u64) -> ApiError {
    let mut headers = HeaderMap::new();
    describe(&mut headers, repository, id, offset, true);
    let message = format!("the upload has {offset} bytes; send the chunk that begins there");
    let mut error = ApiError::of(Code::BlobUploadInvalid, message);
    for (name, value) in headers {
        if let Some(name) = name {
            error = error.header(name, value);
        }
    }
    error
}

/// What the headers of a request say about its body.
struct Sent {
    /// `Content-Range`, half open.
    range: Option<std::ops::Range<u64>>,
    /// `Content-Length`.
    length: Option<u64>,
}

impl Sent {
    /// Reads the headers and refuses those that contradict each other.
    fn of(parts: &Parts) -> Result<Self, ApiError> {
        if parts.headers.contains_key(CONTENT_ENCODING) {
            return Err(ApiError::of(
                Code::BlobUploadInvalid,
                "send the blob's bytes without Content-Encoding",
            )
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let length = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let range = match parts.headers.get(CONTENT_RANGE) {
            None => None,
            Some(value) => Some(value.to_str().ok().and_then(range::chunk).ok_or_else(|| {
                ApiError::of(
                    Code::BlobUploadInvalid,
                    "Content-Range is <first byte>-<last byte> of the chunk",
                )
            })?),
        };
        if let (Some(range), Some(length)) = (&range, length)
            && range.end - range.start != length
        {
            return Err(ApiError::of(
                Code::SizeInvalid,
                "Content-Range and Content-Length differ",
            ));
        }
        Ok(Self { range, length })
    }
}
