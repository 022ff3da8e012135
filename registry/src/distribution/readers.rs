//! What registries that only read tell: the pulls that they have served.

use axum::extract::Request;
use axum::response::Response;
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};

use super::answer;
use super::error::{ApiError, Code};
use super::state::Registry;
use crate::standby::pulls::{LIMIT, Sender, Unheard};

pub(super) use crate::standby::pulls::PATH;

/// Counts a batch. Whoever sends it is judged before it is read.
pub(super) async fn hear(registry: &Registry, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        let message = "pulls are told by POST";
        return Err(ApiError::of(Code::Unsupported, message).header(ALLOW, HeaderValue::from_static("POST")));
    }
    if registry.only_reads() {
        return Err(ApiError::of(
            Code::Unsupported,
            "this registry only reads; tell its primary",
        ));
    }
    let sender = Sender::of(registry.cached.keys(), &parts.headers)?;
    let batch = axum::body::to_bytes(body, LIMIT).await;
    let batch = batch.map_err(|error| Unheard::Unreadable(error.to_string()))?;
    sender.tell(&batch, &registry.pulls)?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

impl From<Unheard> for ApiError {
    fn from(unheard: Unheard) -> Self {
        match unheard {
            Unheard::Stranger => Self::of(Code::Unauthorized, unheard.to_string()),
            Unheard::Unreadable(_) => {
                Self::of(Code::Unsupported, unheard.to_string()).status(StatusCode::BAD_REQUEST)
            }
        }
    }
}
