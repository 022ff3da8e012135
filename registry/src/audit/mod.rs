//! The audit trail: every change and every denial, as a line of the log and as a row that can be asked for.
//!
//! Changes of configuration are rows of the transaction that makes them. What requests do is collected here
//! and stored in batches once a second; the same thing again within that second only counts. The queue is
//! bounded: what does not fit is counted and logged, not kept. No record holds a secret.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::metadata::Time;
use crate::metadata::configuration::{AuditRecord, Configuration};

/// The tracing target of the line per event.
const TARGET: &str = "audit";
/// Different events of one second that are kept.
const KEPT: usize = 5000;
/// Longest text of a field, in bytes.
const TEXT_LIMIT: usize = 512;
/// Between two batches.
const EVERY: Duration = Duration::from_secs(1);
/// Records of one statement.
const BATCH: usize = 500;
/// Between two rounds of forgetting, and records forgotten at once.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_BATCH: u32 = 1000;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Denied,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Row id of the tenant, 0 for the installation, and its name.
    pub tenant: (i64, String),
    /// Who.
    pub actor: String,
    /// What was done or tried.
    pub action: &'static str,
    /// On what.
    pub object: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, or with what.
    pub detail: String,
    /// From where.
    pub address: Option<IpAddr>,
}

/// Collects events.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    /// Nothing where the log alone keeps them.
    store: Option<Arc<dyn Configuration>>,
    collected: Mutex<Collected>,
}

#[derive(Default)]
struct Collected {
    events: HashMap<Event, i64>,
    lost: u64,
}

impl Event {
    /// The record of this event.
    pub fn record(self, count: i64) -> AuditRecord {
        AuditRecord {
            tenant_id: self.tenant.0,
            tenant: self.tenant.1,
            id: Uuid::new_v4(),
            at: Time::now(),
            actor: shortened(self.actor),
            action: self.action.to_owned(),
            object: shortened(self.object),
            outcome: self.outcome.text().to_owned(),
            detail: shortened(self.detail),
            address: self
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            count,
        }
    }

    /// Writes the event to the log.
    pub fn log(&self) {
        tracing::info!(
            target: TARGET,
            tenant = self.tenant.1,
            actor = self.actor,
            action = self.action,
            object = self.object,
            outcome = self.outcome.text(),
            detail = self.detail,
            address = self.address.map(tracing::field::display),
            "audit"
        );
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_LIMIT));
    text
}

impl Audit {
    /// Collects into this store, which keeps records for `keep`.
    pub fn start(store: Arc<dyn Configuration>, keep: Duration) -> Self {
        let audit = Self(Arc::new(Inner {
            store: Some(store.clone()),
            collected: Mutex::default(),
        }));
        tokio::spawn(audit.clone().run(store, keep));
        audit
    }

    /// Writes to the log alone, where no store takes anything.
    pub fn logging() -> Self {
        Self(Arc::new(Inner {
            store: None,
            collected: Mutex::default(),
        }))
    }

    /// Takes an event.
    pub fn add(&self, event: Event) {
        event.log();
        if self.0.store.is_none() {
            return;
        }
        let mut collected = self.0.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let full = collected.events.len() >= KEPT;
        match collected.events.get_mut(&event) {
            Some(count) => *count += 1,
            None if full => collected.lost += 1,
            None => drop(collected.events.insert(event, 1)),
        }
    }

    /// Stores what was collected.
    pub async fn flush(&self) {
        let Some(store) = &self.0.store else { return };
        let collected = std::mem::take(&mut *self.0.collected.lock().unwrap_or_else(PoisonError::into_inner));
        if collected.lost > 0 {
            tracing::error!(
                lost = collected.lost,
                "too many audit events at once; some are in the log alone"
            );
        }
        let records: Vec<AuditRecord> = collected
            .events
            .into_iter()
            .map(|(event, count)| event.record(count))
            .collect();
        for batch in records.chunks(BATCH) {
            if let Err(error) = store.record(batch.to_vec()).await {
                tracing::error!(%error, lost = batch.len(), "audit events could not be stored; they are in the log alone");
            }
        }
    }

    async fn run(self, store: Arc<dyn Configuration>, keep: Duration) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut forgotten = tokio::time::Instant::now();
        loop {
            ticks.tick().await;
            self.flush().await;
            if forgotten.elapsed() >= FORGET_EVERY {
                forgotten = tokio::time::Instant::now();
                forget(&*store, Time::now().minus(keep)).await;
            }
        }
    }
}

async fn forget(store: &dyn Configuration, before: Time) {
    loop {
        match store.forget_audit(before, FORGET_BATCH).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "old audit records could not be removed"),
        }
    }
}
