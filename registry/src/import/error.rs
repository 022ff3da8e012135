//! Why something was not copied.

use std::time::Duration;

use http::StatusCode;

use crate::egress::EgressError;
use crate::upstream::UpstreamError;

/// Why something was not copied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImportError {
    /// A registry was not reached, or gave no token.
    #[error("{}", told(.0))]
    Upstream(#[from] UpstreamError),
    /// A registry refuses.
    #[error("{host} answers {status} to {what}{}", because(.why))]
    Refused {
        /// Who.
        host: String,
        /// What was asked for.
        what: String,
        /// How it was refused.
        status: StatusCode,
        /// Its own words; empty if it has none.
        why: String,
    },
    /// A registry does not have it.
    #[error("{host} has no {what}")]
    Absent {
        /// Who.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// What was sent is not what it should be.
    #[error("{what} from {host}: {why}")]
    Wrong {
        /// Who sent it.
        host: String,
        /// What.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// It cannot be stored here, whoever sends it.
    #[error("{0}")]
    Unsupported(String),
    /// The upload cannot go on: the blob begins anew.
    #[error("{0}")]
    UploadLost(String),
    /// No list of repositories.
    #[error(
        "{host} gives no list of its repositories ({why}); name them: --repositories team/app, without '*' and '?', as \
         often as needed"
    )]
    NoCatalog {
        /// Who.
        host: String,
        /// How it was refused.
        why: String,
    },
    /// Nothing is meant.
    #[error("no repository of {0} matches --repositories")]
    NothingMeant(String),
    /// Two repositories would become one.
    #[error(
        "{one} and {other} would both be called {name}: choose other names, or import them one after the other"
    )]
    SameName {
        /// One of them.
        one: String,
        /// The other.
        other: String,
        /// What both would be called.
        name: String,
    },
    /// A name at the destination is none.
    #[error("{from} would be called {to:?}: {why}")]
    Name {
        /// At the source.
        from: String,
        /// At the destination.
        to: String,
        /// Why it is no name.
        why: String,
    },
}

/// Whether asking again makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It does not.
    Never,
    /// After a while, or after this time.
    Later(Option<Duration>),
    /// After this time, and so for everything that the same registry is asked.
    Limited(Duration),
}

impl ImportError {
    /// Whether the same may succeed if it is asked again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Upstream(error) => match error {
                UpstreamError::Egress(EgressError::Unreachable { .. })
                | UpstreamError::Late { .. }
                | UpstreamError::Broken { .. } => Again::Later(None),
                UpstreamError::Failing { status, after, .. } if is_passing(*status) => Again::Later(*after),
                UpstreamError::Limited { after, .. } => Again::Limited(*after),
                UpstreamError::Paused { after, .. } => Again::Later(Some(*after)),
                UpstreamError::Egress(
                    EgressError::Url(_) | EgressError::Refused { .. } | EgressError::TooLarge { .. },
                )
                | UpstreamError::Absent { .. }
                | UpstreamError::Denied { .. }
                | UpstreamError::Failing { .. }
                | UpstreamError::Strange { .. } => Again::Never,
            },
            Self::Refused { .. }
            | Self::Absent { .. }
            | Self::Wrong { .. }
            | Self::Unsupported(_)
            | Self::UploadLost(_)
            | Self::NoCatalog { .. }
            | Self::NothingMeant(_)
            | Self::SameName { .. }
            | Self::Name { .. } => Again::Never,
        }
    }

    /// Whether it says that something is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::Upstream(UpstreamError::Absent { .. })
        )
    }
}

/// Whether a status says that it may be otherwise soon.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504 | 507)
}

/// What the client says of caches is of no use to whoever imports.
fn told(error: &UpstreamError) -> String {
    match error {
        UpstreamError::Denied { host, path, status } => format!(
            "{host} gives no token ({path}: {status}): look at the credentials; they are sent only to the registry's own \
             host and, by https, to others of its domain; --source-realm-host names a further one"
        ),
        UpstreamError::Limited { host, after } => {
            format!("{host} answers 429 for too long; it can be asked again in {after:?}")
        }
        other => other.to_string(),
    }
}

fn because(why: &str) -> String {
    match why {
        "" => String::new(),
        why => format!(": {why}"),
    }
}
