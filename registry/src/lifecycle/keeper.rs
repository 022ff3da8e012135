//! What the parts share, and the tasks that run them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Notify;
use uuid::Uuid;

use super::changes::Changes;
use super::pulls::Pulls;
use super::retention::run::{Running, Seen};
use super::traffic::Traffic;
use super::{collection, expiry, figures, metering, purges, retention};
use crate::audit::{Audit, Event, Outcome};
use crate::blobs::BlobStore;
use crate::domain::RepositoryName;
use crate::metadata::lifecycle::Lifecycle;
use crate::metadata::{Repository, Store, TenantId};
use crate::settings::Delays;
use crate::tenancy::{Directory, Tenant};

/// Ephemeral repositories that are remembered.
const WOKEN: u64 = 100_000;

/// What a keeper is made of.
pub struct Parts {
    /// What is stored.
    pub metadata: Arc<dyn Store>,
    /// What is kept of it.
    pub store: Arc<dyn Lifecycle>,
    /// Its bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Who lives here.
    pub directory: Arc<Directory>,
    /// What happened.
    pub audit: Audit,
    /// How long things are kept.
    pub delays: Delays,
    /// Most candidates collected a second.
    pub rate: u32,
    /// For how long the history of tags is kept.
    pub history: Duration,
    /// What stored bytes cost.
    pub price: metering::Price,
    /// Whether the metrics tell what each tenant stores.
    pub tells_tenants: bool,
}

/// Counts since the process began.
#[derive(Default)]
pub struct Tally {
    /// Manifests collected.
    pub manifests: AtomicU64,
    /// Blobs collected.
    pub blobs: AtomicU64,
    /// Objects deleted.
    pub objects: AtomicU64,
    /// Bytes of manifests and blobs that have become free.
    pub bytes: AtomicU64,
    /// Looks at candidates that failed, and objects that could not be deleted.
    pub failures: AtomicU64,
    /// Objects that could not be deleted.
    pub undeleted: AtomicU64,
    /// Tags deleted by retention policies.
    pub retained_out: AtomicU64,
    /// Tags that expired.
    pub expired: AtomicU64,
    /// Counters that a recount found wrong.
    pub drifts: AtomicU64,
    /// Runs of retention policies that failed.
    pub failed_runs: AtomicU64,
}

/// Looks after what is kept.
pub struct Keeper {
    pub(super) metadata: Arc<dyn Store>,
    pub(super) store: Arc<dyn Lifecycle>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) directory: Arc<Directory>,
    pub(super) audit: Audit,
    pub(super) delays: Delays,
    pub(super) rate: u32,
    pub(super) history: Duration,
    pub(super) price: metering::Price,
    pub(super) tells_tenants: bool,
    /// By which name this process takes jobs.
    pub(super) name: String,
    /// Repositories of which retention need not look at every tag again.
    pub(super) seen: Seen,
    /// Policies that this process is running.
    pub(super) running: Running,
    /// Ephemeral repositories whose manifests without a tag have been woken, with their lifetimes.
    pub(super) woken: Cache<(TenantId, RepositoryName), Duration>,
    /// Wakes the collector.
    pub(super) collect_now: Notify,
    /// Wakes what runs jobs.
    pub(super) look_now: Notify,
    /// What the store last said, for the metrics.
    pub(super) looked: figures::Last,
    /// What has been done.
    pub tally: Tally,
    /// Pulls to be noted.
    pub pulls: Arc<Pulls>,
    /// What its work gives way to.
    pub traffic: Arc<Traffic>,
}

impl Keeper {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            metadata,
            store,
            blobs,
            directory,
            audit,
            delays,
            rate,
            history,
            price,
            tells_tenants,
        } = parts;
        Arc::new(Self {
            metadata,
            store,
            blobs,
            directory,
            audit,
            delays,
            rate,
            history,
            price,
            tells_tenants,
            name: Uuid::new_v4().simple().to_string(),
            seen: Seen::default(),
            running: Running::default(),
            woken: Cache::new(WOKEN),
            collect_now: Notify::new(),
            look_now: Notify::new(),
            looked: figures::Last::default(),
            tally: Tally::default(),
            pulls: Arc::default(),
            traffic: Arc::default(),
        })
    }

    /// Starts all tasks; they end with the process, and whatever cuts them is gone on with later.
    pub fn start(self: &Arc<Self>) {
        tokio::spawn(self.pulls.clone().follow(self.store.clone()));
        tokio::spawn(collection::follow(self.clone()));
        tokio::spawn(retention::run::follow(self.clone()));
        tokio::spawn(expiry::follow(self.clone()));
        tokio::spawn(purges::follow(self.clone()));
        tokio::spawn(metering::follow(self.clone()));
        tokio::spawn(figures::follow(self.clone()));
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Lifecycle> {
        &self.store
    }

    /// Changes of a tenant's content on somebody's behalf.
    pub fn changes<'a>(&'a self, tenant: &'a Arc<Tenant>, principal: &'a str) -> Changes<'a> {
        Changes {
            metadata: &*self.metadata,
            lifecycle: &*self.store,
            delays: self.delays,
            tenant,
            principal,
        }
    }

    /// How long things are kept.
    pub fn delays(&self) -> Delays {
        self.delays
    }

    /// What stored bytes cost.
    pub fn price(&self) -> &metering::Price {
        &self.price
    }

    /// Keeps in the audit trail what was done to a repository.
    pub(super) fn note(
        &self,
        tenant: &Tenant,
        action: &'static str,
        object: String,
        detail: String,
        by: &str,
    ) {
        self.audit.add(Event {
            tenant: (tenant.id.0, tenant.name.to_string()),
            actor: by.to_owned(),
            action,
            object,
            outcome: Outcome::Done,
            detail,
            address: None,
        });
    }
}

/// A repository of a tenant, if the text is a name.
pub(super) fn repository(tenant: TenantId, name: &str) -> Option<Repository> {
    let name: RepositoryName = name.parse().ok()?;
    Some(Repository { tenant, name })
}

/// Adds to a count.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
