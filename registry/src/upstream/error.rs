//! Why an upstream gave no answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::egress::EgressError;

/// Why an upstream gave no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// It was not reached, or is not to be.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It did not begin to answer in time.
    #[error("{host} did not answer within {timeout:?}")]
    Late {
        /// Who.
        host: String,
        /// For how long it was waited.
        timeout: Duration,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to {host} broke: {why}")]
    Broken {
        /// Who.
        host: String,
        /// Why.
        why: String,
    },
    /// There is no such thing.
    #[error("{host} has no {path}")]
    Absent {
        /// Who.
        host: String,
        /// What was asked for.
        path: String,
    },
    /// It wants other credentials.
    #[error("{host} refuses {path}: {status}; look at the cache's credentials")]
    Denied {
        /// Who.
        host: String,
        /// What was asked for.
        path: String,
        /// How it was refused.
        status: StatusCode,
    },
    /// Too much was asked.
    #[error("{host} limits pulls; it can be asked again in {after:?}")]
    Limited {
        /// Who.
        host: String,
        /// When it may be asked again, from now.
        after: Duration,
    },
    /// It fails.
    #[error("{host} answers {status} to {path}")]
    Failing {
        /// Who.
        host: String,
        /// What was asked for.
        path: String,
        /// What it said.
        status: StatusCode,
        /// When it wants to be asked again, from now.
        after: Option<Duration>,
    },
    /// It is left alone for a while.
    #[error("{host} is not asked for another {after:?}: {why}")]
    Paused {
        /// Who.
        host: String,
        /// For how long, from now.
        after: Duration,
        /// What has happened.
        why: Arc<str>,
        /// Whether it limits pulls; else it has failed.
        limits: bool,
    },
    /// It does not speak as a registry does.
    #[error("{host}: {why}")]
    Strange {
        /// Who.
        host: String,
        /// What is wrong.
        why: String,
    },
}

impl UpstreamError {
    /// Whether the upstream speaks, and what it says is about what was asked for.
    pub fn is_about_the_question(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Denied { .. } | Self::Strange { .. } => true,
            Self::Failing { status, .. } => {
                status.is_client_error() && *status != StatusCode::REQUEST_TIMEOUT
            }
            Self::Egress(_)
            | Self::Late { .. }
            | Self::Broken { .. }
            | Self::Limited { .. }
            | Self::Paused { .. } => false,
        }
    }
}
