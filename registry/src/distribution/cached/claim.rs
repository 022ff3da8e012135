//! Work that many replicas ask for at once and that is done once: a lease in the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::state::Cached;
use crate::metadata::pull_through::{ClaimKey, Claimed, PullThrough, TakeClaim};
use crate::metadata::{Repository, Result, Time};

/// How long a claim holds without being renewed: what a killed replica delays the others by.
const LEASE: Duration = Duration::from_secs(6);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How often whoever waits for another replica looks again.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// What came of asking for it.
pub(super) enum Taking {
    /// The work is the caller's. With it what a holder that died had begun.
    Mine(Claim, Option<Uuid>),
    /// Another replica does it, and is reached there.
    Theirs(Option<String>),
}

/// The right to do a piece of work; given back when it is dropped.
pub(super) struct Claim(Option<Held>);

struct Held {
    store: Arc<dyn PullThrough>,
    key: ClaimKey,
    holder: Uuid,
    upload: Arc<Mutex<Option<Uuid>>>,
    lost: Arc<AtomicBool>,
    renewal: JoinHandle<()>,
}

impl Claim {
    /// Asks for a piece of work in a repository. A process that shares its store with no other has all of it.
    pub async fn take(cached: &Cached, repository: &Repository, what: String) -> Result<Taking> {
        if !cached.shared {
            return Ok(Taking::Mine(Self(None), None));
        }
        let store = cached.remotes.store().clone();
        let key = ClaimKey {
            repository: repository.clone(),
            what,
        };
        let holder = Uuid::new_v4();
        let now = Time::now();
        let take = TakeClaim {
            holder,
            address: cached.address.clone(),
            now,
            until: now.plus(LEASE),
        };
        match store.take_claim(&key, take).await? {
            Claimed::Busy { address, .. } => Ok(Taking::Theirs(address)),
            Claimed::Yours { upload } => {
                let lost = Arc::new(AtomicBool::new(false));
                let noted = Arc::new(Mutex::new(upload));
                let renewal = tokio::spawn(renew(
                    store.clone(),
                    key.clone(),
                    holder,
                    noted.clone(),
                    lost.clone(),
                ));
                let held = Held {
                    store,
                    key,
                    holder,
                    upload: noted,
                    lost,
                    renewal,
                };
                Ok(Taking::Mine(Self(Some(held)), upload))
            }
        }
    }

    /// Notes the upload session that is being filled, so that whoever takes over can go on with it.
    pub async fn note(&self, upload: Uuid) -> Result<()> {
        let Some(held) = &self.0 else { return Ok(()) };
        *held.upload.lock().unwrap_or_else(PoisonError::into_inner) = Some(upload);
        let until = Time::now().plus(LEASE);
        held.store
            .renew_claim(&held.key, held.holder, Some(upload), until)
            .await?;
        Ok(())
    }

    /// Whether another replica has taken it over.
    pub fn is_lost(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|held| held.lost.load(Ordering::Relaxed))
    }

    /// Gives it back, and waits until the others can see that.
    pub async fn release(mut self) {
        if let Some(held) = self.0.take() {
            held.release().await;
        }
    }
}

impl Held {
    async fn release(self) {
        self.renewal.abort();
        // A store that does not answer keeps it until its lease ends.
        if let Err(error) = self.store.release_claim(&self.key, self.holder).await {
            tracing::debug!(%error, what = self.key.what, "a claim could not be given back; it ends by itself");
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.renewal.abort();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(held.release());
            }
        }
    }
}

async fn renew(
    store: Arc<dyn PullThrough>,
    key: ClaimKey,
    holder: Uuid,
    upload: Arc<Mutex<Option<Uuid>>>,
    lost: Arc<AtomicBool>,
) {
    loop {
        tokio::time::sleep(RENEW).await;
        let noted = *upload.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Time::now().plus(LEASE);
        // A store that does not answer decides nothing.
        if let Ok(false) = store.renew_claim(&key, holder, noted, until).await {
            lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}
