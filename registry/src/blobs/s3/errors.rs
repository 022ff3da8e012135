//! What S3's errors mean to the registry.

use std::error::Error;

use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::blobs::BlobError;

/// An error of the service, with what was being done.
pub(super) fn failed<E>(what: impl std::fmt::Display) -> impl FnOnce(SdkError<E>) -> BlobError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    move |error| {
        let message = format!("{what}: {}", describe(&error));
        match error.code() {
            Some("NoSuchKey" | "NotFound") => BlobError::NotFound {
                what: what.to_string(),
            },
            Some("NoSuchUpload" | "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "InvalidRange") => {
                BlobError::Broken(message)
            }
            Some("EntityTooLarge") => BlobError::TooLarge(message),
            Some("QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "InsufficientCapacity") => {
                BlobError::Full(message)
            }
            _ => BlobError::Unavailable(message),
        }
    }
}

/// Has calls tried again that met another call.
///
/// S3 answers 409 to them, and says in words to try again (`OperationAborted`, `ConditionalRequestConflict`). A server
/// that keeps objects as files in folders says `ExistingObjectIsDirectory` when it makes the folders of a new key while
/// it removes the same folders after the last object that was in them. Of our own keys none lies below another.
#[derive(Debug)]
pub(super) struct Conflicts;

impl ClassifyRetry for Conflicts {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().map(|answer| answer.status().as_u16()) {
            Some(409) => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Conflicts"
    }
}

/// Whether a call may have had its effect although it failed: its answer was lost, or is an answer to
/// the repetition of a call that succeeded.
pub(super) fn may_have_succeeded<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ServiceError(service) => {
            service.raw().status().is_server_error()
                || matches!(
                    error.code(),
                    Some("NoSuchUpload" | "PreconditionFailed" | "ConditionalRequestConflict")
                )
        }
        _ => true,
    }
}

/// The service's own words if there are any, else the chain of causes.
fn describe<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(code) = error.code() {
        return match error.message() {
            Some(message) if !message.is_empty() => format!("{code}: {message}"),
            _ => code.to_owned(),
        };
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
