//! Why the registry did not do what it was asked for.

use reqwest::StatusCode;
use serde::Deserialize;

/// Why the registry did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer, or says that it cannot now.
    #[error("the registry's admin API does not answer: {0}")]
    Unreachable(String),
    /// Another operator is the leader.
    #[error("another operator has taken over: {0}")]
    StaleTerm(String),
    /// A name is another object's.
    #[error("{0}")]
    Taken(String),
    /// The content is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The object comes from another source.
    #[error("{0}")]
    Replaced(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// It is at it already; later it can be done.
    #[error("{0}")]
    Busy(String),
    /// Anything else.
    #[error("the registry refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    error: String,
}

pub(super) fn broken(what: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Invalid(format!("{what}: {why}"))
}

pub(super) fn unreachable(error: reqwest::Error) -> RegistryError {
    // The innermost cause says why; the outer ones name the URL once more.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    RegistryError::Unreachable(cause.to_string())
}

pub(super) fn refused(status: StatusCode, body: &[u8]) -> RegistryError {
    let refusal = serde_json::from_slice(body).unwrap_or(Refusal {
        reason: String::new(),
        error: String::new(),
    });
    match refusal.reason.as_str() {
        "StaleTerm" => RegistryError::StaleTerm(refusal.error),
        "Taken" => RegistryError::Taken(refusal.error),
        "Invalid" => RegistryError::Invalid(refusal.error),
        "Replaced" => RegistryError::Replaced(refusal.error),
        "NotFound" => RegistryError::NotFound(refusal.error),
        "Running" => RegistryError::Busy(refusal.error),
        "Unavailable" => RegistryError::Unreachable(refusal.error),
        _ => RegistryError::Refused {
            status: status.as_u16(),
            message: refusal.error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_errors_by_their_reason() {
        let of = |body: &str| refused(StatusCode::CONFLICT, body.as_bytes());
        assert_eq!(
            of(r#"{"reason":"StaleTerm","error":"over"}"#),
            RegistryError::StaleTerm("over".to_owned())
        );
        assert_eq!(
            of(r#"{"reason":"Taken","error":"held"}"#),
            RegistryError::Taken("held".to_owned())
        );
        assert!(matches!(of("<html>"), RegistryError::Refused { status: 409, .. }));
    }
}
