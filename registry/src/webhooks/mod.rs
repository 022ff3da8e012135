//! Webhooks: what waits in the outbox goes out by HTTP POST, as CloudEvents that are signed.
//!
//! [`message`] is what a receiver gets, [`schedule`] when it gets it again, [`attempt`] one POST, [`turn`] what a replica
//! does for one webhook while it has claimed it, [`teller`] writes the events that no transaction of the store writes
//! (quotas, caches), [`figures`] the metrics. It may use the outbox of the metadata store, tenancy, the keys of identity,
//! and egress; it knows nothing of requests.
//!
//! What must hold: a tenant's events go to that tenant's webhooks alone; an event is forgotten only after a receiver has
//! answered with 2xx, after its dead letter has been kept for `--webhook-keep`, or with its webhook; of one place only one
//! event is on its way to a webhook at a time; a slow receiver takes one claim and [`turn::AT_ONCE`] connections, for the
//! length of one turn.

mod attempt;
mod figures;
mod message;
mod schedule;
mod teller;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::egress::Client;
use crate::identity::keys::KeyRing;
use crate::metadata::events::{Events, WebhookKey};
use crate::metadata::{MetadataError, Time};
use crate::tenancy::{Directory, Snapshot};
pub use attempt::{Answered, without_path};
pub use figures::Figures;
pub use message::Site;
pub use schedule::Patience;
pub use teller::{QuotaNews, Teller};

/// Between two looks for webhooks that have something to deliver.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Webhooks that a replica serves at the same time.
const TURNS: usize = 64;
/// For how long a webhook is claimed: a turn ends before that.
const CLAIM: Duration = Duration::from_secs(30);
/// Between two looks for what is to be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Rows of one statement.
const BATCH: u32 = 1000;
/// Events of a webhook that is not configured are kept this long: another replica may know it already.
const STRANGE_FOR: Duration = Duration::from_secs(60);

/// What deliveries are made of.
pub struct Parts {
    /// The outbox.
    pub store: Arc<dyn Events>,
    /// Whose webhooks there are.
    pub directory: Arc<Directory>,
    /// What opens their secrets.
    pub keys: Arc<KeyRing>,
    /// The way out.
    pub client: Client,
    /// How the tenants' hosts are called.
    pub site: Site,
    /// For how long a failing delivery is tried.
    pub retry: Duration,
    /// For how long what was given up is kept.
    pub keep: Duration,
}

/// Delivers events.
pub struct Webhooks {
    store: Arc<dyn Events>,
    directory: Arc<Directory>,
    keys: Arc<KeyRing>,
    client: Client,
    site: Site,
    patience: Patience,
    keep: Duration,
    /// By which name this process claims.
    name: Uuid,
    tally: figures::Tally,
    looked: figures::Last,
}

impl Webhooks {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            store,
            directory,
            keys,
            client,
            site,
            retry,
            keep,
        } = parts;
        Arc::new(Self {
            store,
            directory,
            keys,
            client,
            site,
            patience: Patience { retry },
            keep,
            name: Uuid::new_v4(),
            tally: figures::Tally::default(),
            looked: figures::Last::default(),
        })
    }

    /// Starts all tasks; they end with the process. `alone`: no other process uses the store, so that what is claimed is
    /// an earlier process's that has died.
    pub fn start(self: &Arc<Self>, alone: bool) {
        tokio::spawn(self.clone().deliver(alone));
        tokio::spawn(self.clone().forget());
        tokio::spawn(figures::follow(self.clone()));
    }

    /// Delivers for ever.
    async fn deliver(self: Arc<Self>, alone: bool) {
        if alone && let Err(error) = self.store.end_webhook_claims().await {
            tracing::warn!(%error, "claims of webhooks by an earlier process end by themselves");
        }
        let turns = Arc::new(Semaphore::new(TURNS));
        loop {
            match self.claim(turns.available_permits()).await {
                Ok(claimed) => {
                    for key in claimed {
                        // Never closed, and only this task takes of it.
                        let Ok(turn) = turns.clone().acquire_owned().await else {
                            return;
                        };
                        let webhooks = self.clone();
                        tokio::spawn(async move {
                            webhooks.turn(&key).await;
                            drop(turn);
                        });
                    }
                }
                Err(error) => tracing::warn!(%error, "webhooks could not be looked for; they will be"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn claim(&self, limit: usize) -> Result<Vec<WebhookKey>, MetadataError> {
        let now = Time::now();
        if limit == 0 || !self.store.has_due_webhooks(now).await? {
            return Ok(Vec::new());
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.store
            .claim_webhooks(self.name, now, now.plus(CLAIM), limit)
            .await
    }

    /// Forgets for ever what nobody will ask for any more.
    async fn forget(self: Arc<Self>) {
        loop {
            if let Err(error) = self.forget_once().await {
                tracing::warn!(%error, "old events could not be removed");
            }
            tokio::time::sleep(FORGET_EVERY).await;
        }
    }

    async fn forget_once(&self) -> Result<(), MetadataError> {
        let before = Time::now().minus(self.keep);
        while self.store.forget_dead(before, BATCH).await? == u64::from(BATCH) {}
        let mut after = None;
        loop {
            let known = self.store.known_webhooks(after, BATCH).await?;
            let Some(last) = known.last() else { return Ok(()) };
            after = Some(last.clone());
            let snapshot = self.directory.now();
            for key in &known {
                let tenant = snapshot.tenant(key.tenant);
                if tenant.is_none_or(|tenant| tenant.webhook(&key.webhook).is_none()) {
                    self.drop_webhook(&snapshot, key).await?;
                }
            }
        }
    }

    /// Forgets the events of a webhook that is not configured, but for those that another replica may just have written, and
    /// those of a tenant whose configuration only a later release can read.
    async fn drop_webhook(&self, snapshot: &Snapshot, key: &WebhookKey) -> Result<(), MetadataError> {
        if !snapshot.is_read(snapshot.tenant(key.tenant).map(AsRef::as_ref)) {
            return Ok(());
        }
        let now = Time::now();
        let before = now.minus(STRANGE_FOR);
        while self.store.drop_webhook(key, before, now, BATCH).await? == u64::from(BATCH) {}
        Ok(())
    }
}
