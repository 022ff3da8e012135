//! The writer's lease: one writer a session, by compare-and-set, never by a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::Asked;
use super::super::error::ApiError;
use super::super::state::Registry;
use super::unknown;
use crate::domain::Digest;
use crate::metadata::{Repository, TakeUpload, Taken, TenantId, Time, UploadRow};

/// How long a lease holds without being renewed.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often a writer renews it.
const RENEW: Duration = Duration::from_secs(5);
/// How often a request that waits for another writer looks again.
const LOOK: Duration = Duration::from_millis(100);

/// What came of asking for a session.
pub enum Session {
    /// The caller writes now. `waited`: another writer wrote in between.
    Mine { row: UploadRow, waited: bool },
    /// The session was published before.
    Committed(UploadRow),
    /// It is bound to this other digest.
    Bound(Digest),
}

/// Takes the lease, waiting for the end of another writer's at most as long as one lease lasts.
pub async fn take(
    asked: &Asked<'_>,
    repository: &Repository,
    id: Uuid,
    closing: Option<Digest>,
) -> Result<Session, ApiError> {
    let deadline = tokio::time::Instant::now() + LEASE + LOOK;
    let mut waited = false;
    loop {
        let now = Time::now();
        let take = TakeUpload {
            now,
            until: now.plus(LEASE),
            closing,
        };
        match asked.registry.metadata.take_upload(repository, id, take).await? {
            Taken::Yours(row) => return Ok(Session::Mine { row, waited }),
            Taken::Committed(row) => return Ok(Session::Committed(row)),
            Taken::OtherDigest(digest) => return Ok(Session::Bound(digest)),
            Taken::Gone => return Err(unknown(id)),
            Taken::Busy(row) => {
                if tokio::time::Instant::now() >= deadline {
                    return Err(super::out_of_order(repository, id, row.offset));
                }
                waited = true;
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Renews a lease for as long as it lives.
pub struct Renewal {
    task: JoinHandle<()>,
    lost: Arc<AtomicBool>,
}

impl Renewal {
    /// Starts renewing.
    pub fn start(registry: &Registry, tenant: TenantId, id: Uuid, epoch: i64) -> Self {
        let registry = registry.clone();
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW).await;
                // A store that does not answer decides nothing: the next write is fenced by its epoch.
                let renewed = registry
                    .metadata
                    .renew_upload(tenant, id, epoch, Time::now().plus(LEASE))
                    .await;
                if matches!(renewed, Ok(false)) {
                    flag.store(true, Ordering::Relaxed);
                    return;
                }
            }
        });
        Self { task, lost }
    }

    /// Whether another writer, a cancel or the expiry has taken the session.
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}
