//! Which answers of a write are kept: a refusal rolls back whatever the write had begun.

use uuid::Uuid;

use super::configuration::{Applied, TokenChange};
use super::events::WebhookKey;
use super::explore::DueBuilds;
use super::lifecycle::{Candidate, Collected, Drift, Erased, Forgotten, Job, Purge, PurgeStep, Restored};
use super::pull_through::Claimed;
use super::{Deleted, Linked, PutOutcome, Taken, TenantId, Unlinked, UploadRow};
use crate::blobs::{ObjectKey, UploadState};

/// An answer of a write.
pub(super) trait Outcome: Send + 'static {
    /// Whether the transaction commits.
    fn commits(&self) -> bool {
        true
    }
}

impl Outcome for () {}
impl Outcome for i64 {}
impl Outcome for u64 {}
impl Outcome for Option<UploadRow> {}
impl Outcome for Vec<(Uuid, UploadState)> {}
impl Outcome for Vec<(TenantId, ObjectKey)> {}
impl Outcome for Vec<Candidate> {}
impl Outcome for Vec<Drift> {}
impl Outcome for Vec<Purge> {}
impl Outcome for Vec<WebhookKey> {}
impl Outcome for Collected {}
impl Outcome for Option<Job> {}
impl Outcome for PurgeStep {}

impl Outcome for bool {
    fn commits(&self) -> bool {
        *self
    }
}

impl Outcome for DueBuilds {
    fn commits(&self) -> bool {
        // Looked for every few seconds, and seldom found.
        self.seen > 0
    }
}

impl Outcome for Taken {
    fn commits(&self) -> bool {
        matches!(self, Self::Yours(_))
    }
}

impl Outcome for Claimed {
    fn commits(&self) -> bool {
        matches!(self, Self::Yours { .. })
    }
}

impl Outcome for Forgotten {
    fn commits(&self) -> bool {
        *self != Self::Changed
    }
}

impl Outcome for Unlinked {
    fn commits(&self) -> bool {
        *self == Self::Done
    }
}

impl Outcome for PutOutcome {
    fn commits(&self) -> bool {
        matches!(self, Self::Stored(_))
    }
}

impl Outcome for Linked {
    fn commits(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl Outcome for Erased {
    fn commits(&self) -> bool {
        *self == Self::Done
    }
}

impl Outcome for Restored {
    fn commits(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl Outcome for Deleted {
    fn commits(&self) -> bool {
        *self == Self::Done
    }
}

impl Outcome for TokenChange {
    fn commits(&self) -> bool {
        *self == Self::Done
    }
}

impl Outcome for Applied {
    fn commits(&self) -> bool {
        // An idle change must not make every replica look.
        matches!(self, Self::Done { changed, .. } if *changed > 0)
    }
}
