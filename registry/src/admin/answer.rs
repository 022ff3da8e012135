//! What the admin API answers: JSON, and errors with a reason for programs and a message for people.

use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use berth_crds::Invalid;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::configure::ConfigureError;
use crate::metadata::MetadataError;

/// An error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure {
    #[serde(skip)]
    status: u16,
    /// A word for programs.
    reason: &'static str,
    /// What to change.
    error: String,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

/// A field that is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Which.
    path: String,
    /// Why.
    why: String,
}

/// What a handler answers.
pub type Answer<T> = Result<Json<T>, Failure>;

impl Failure {
    /// An error of one sentence.
    pub fn new(status: StatusCode, reason: &'static str, error: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            reason,
            error: error.into(),
            problems: Vec::new(),
        }
    }

    /// Something that is not there.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("there is no {what}"))
    }

    /// Something that cannot be so.
    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", error)
    }
}

impl From<Vec<Invalid>> for Failure {
    fn from(problems: Vec<Invalid>) -> Self {
        let error = problems.first().map(ToString::to_string).unwrap_or_default();
        let problem = |invalid: Invalid| Problem {
            path: invalid.path,
            why: invalid.why,
        };
        Self {
            problems: problems.into_iter().map(problem).collect(),
            ..Self::invalid(error)
        }
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        tracing::error!(%error, "admin API");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Unavailable",
            "the metadata store does not answer; try again",
        )
    }
}

impl From<ConfigureError> for Failure {
    fn from(error: ConfigureError) -> Self {
        let message = error.to_string();
        match error {
            ConfigureError::Invalid { problems, .. } => problems.into(),
            ConfigureError::StaleTerm { .. } => Self::new(StatusCode::CONFLICT, "StaleTerm", message),
            ConfigureError::Taken { .. } => Self::new(StatusCode::CONFLICT, "Taken", message),
            ConfigureError::Replaced { .. } => Self::new(StatusCode::CONFLICT, "Replaced", message),
            ConfigureError::NoTenant(_) => Self::new(StatusCode::NOT_FOUND, "NotFound", message),
            ConfigureError::Seal(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Keys", message),
            ConfigureError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// A JSON body; whatever the client calls it.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes
            .map_err(|error: BytesRejection| Failure::new(error.status(), "Invalid", error.body_text()))?;
        // Without the value: the body may hold secrets.
        let invalid =
            |error: serde_json::Error| Failure::invalid(format!("the body: {}", without_values(&error)));
        serde_json::from_slice(&bytes).map(Self).map_err(invalid)
    }
}

/// A parse error; serde quotes values only where a type is wrong.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once("invalid type: ") {
        Some((before, after)) => {
            let expected = after
                .split_once("expected ")
                .map_or(after, |(_, expected)| expected);
            format!("{before}expected {expected}")
        }
        None => text,
    }
}

/// Query parameters.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let query = query.map_err(|error: QueryRejection| Failure::invalid(error.body_text()))?;
        Ok(Self(query.0))
    }
}
