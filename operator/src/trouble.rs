//! Why an object is not as it says, and what follows from it.

use crate::condition::Verdict;
use crate::registry::RegistryError;

/// Why an object is not as it says.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A person must change something.
    #[error("{reason}: {message}")]
    Stalled {
        /// As a word for programs.
        reason: &'static str,
        /// What to change.
        message: String,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
}

impl Trouble {
    /// A person must change something.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Stalled {
            reason,
            message: message.into(),
        }
    }

    /// Fields that are wrong.
    pub fn invalid(problems: &[berth_crds::Invalid]) -> Self {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Self::stalled("Invalid", told.join("; "))
    }

    /// Whether another operator has taken over.
    pub fn is_overthrow(&self) -> bool {
        matches!(self, Self::Registry(RegistryError::StaleTerm(_)))
    }

    /// How the object fares by it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Stalled { reason, message } => Verdict::Stalled(reason, message.clone()),
            Self::Registry(error) => {
                let message = error.to_string();
                match error {
                    RegistryError::Unreachable(_) => Verdict::Failing("RegistryUnreachable", message),
                    RegistryError::StaleTerm(_) => Verdict::Failing("LeaderReplaced", message),
                    // It may be given up there any moment: it is tried again, unlike what is decided among objects.
                    RegistryError::Taken(_) => Verdict::Stalled("Conflict", message),
                    RegistryError::Invalid(_) => Verdict::Stalled("Invalid", message),
                    RegistryError::NotFound(_) => Verdict::Failing("TenantNotProgrammed", message),
                    RegistryError::Replaced(_) => Verdict::Failing("Replaced", message),
                    RegistryError::Busy(_) => Verdict::Failing("RegistryBusy", message),
                    RegistryError::Refused { .. } => Verdict::Failing("RegistryRefused", message),
                }
            }
            Self::Kube(_) => Verdict::Failing("ApiServer", self.to_string()),
        }
    }
}
