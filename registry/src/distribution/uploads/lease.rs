//! The writer's lease: one writer a session, by compare-and-set, never by a lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::state::Registry;
use super::super::{Asked, Named};
use super::unknown;
use crate::domain::Digest;
use crate::metadata::{MetadataError, TakeUpload, Taken, TenantId, Time, UploadRow};

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
    asked: &Asked,
    repository: &Named,
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
        match asked
            .registry
            .metadata
            .take_upload(&asked.session(repository, id), take)
            .await?
        {
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
    lease: Arc<Held>,
}

/// One lease of one session.
struct Held {
    registry: Registry,
    tenant: TenantId,
    id: Uuid,
    epoch: i64,
    lost: AtomicBool,
    confirmed: Mutex<Instant>,
}

impl Renewal {
    /// Starts renewing a lease that was taken just now.
    pub fn start(registry: &Registry, tenant: TenantId, id: Uuid, epoch: i64) -> Self {
        let lease = Arc::new(Held {
            registry: registry.clone(),
            tenant,
            id,
            epoch,
            lost: AtomicBool::new(false),
            confirmed: Mutex::new(Instant::now()),
        });
        let held = lease.clone();
        let task = tokio::spawn(async move {
            while !held.lost.load(Ordering::Relaxed) {
                tokio::time::sleep(RENEW).await;
                // A store that does not answer decides nothing: the next write is fenced by its epoch.
                let _ = held.renew().await;
            }
        });
        Self { task, lease }
    }

    /// Whether another writer, a cancel or the expiry has taken the session.
    pub fn lost(&self) -> bool {
        self.lease.lost.load(Ordering::Relaxed)
    }

    /// Fails unless the lease certainly holds: publishing is not fenced by the store of the sessions.
    pub async fn confirm(&self) -> Result<(), ApiError> {
        let confirmed = *self
            .lease
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if confirmed.elapsed() < RENEW || self.lease.renew().await? {
            Ok(())
        } else {
            Err(unknown(self.lease.id))
        }
    }
}

impl Held {
    async fn renew(&self) -> Result<bool, MetadataError> {
        let until = Time::now().plus(LEASE);
        let asked_at = Instant::now();
        let mine = self
            .registry
            .metadata
            .renew_upload(self.tenant, self.id, self.epoch, until)
            .await?;
        if mine {
            *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = asked_at;
        } else {
            self.lost.store(true, Ordering::Relaxed);
        }
        Ok(mine)
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}
