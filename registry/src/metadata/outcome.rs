//! Which answers of a write are kept: a refusal rolls back whatever the write had begun.

use uuid::Uuid;

use super::{PutOutcome, Taken, Tenant, TenantId, Unlinked, UploadRow};
use crate::blobs::{ObjectKey, UploadState};

/// An answer of a write.
pub(super) trait Outcome: Send + 'static {
    /// Whether the transaction commits.
    fn commits(&self) -> bool {
        true
    }
}

impl Outcome for () {}
impl Outcome for Tenant {}
impl Outcome for Option<UploadRow> {}
impl Outcome for Vec<(Uuid, UploadState)> {}
impl Outcome for Vec<(TenantId, ObjectKey)> {}

impl Outcome for bool {
    fn commits(&self) -> bool {
        *self
    }
}

impl Outcome for Taken {
    fn commits(&self) -> bool {
        matches!(self, Self::Yours(_))
    }
}

impl Outcome for Unlinked {
    fn commits(&self) -> bool {
        *self == Self::Done
    }
}

impl Outcome for PutOutcome {
    fn commits(&self) -> bool {
        *self == Self::Stored
    }
}
