//! What the metrics tell of webhooks. The store is asked now and then by one task, never by whoever reads the metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Webhooks;
use crate::metadata::events::Tried;
use crate::metadata::{MetadataError, Time};

/// Between two looks at the store.
const EVERY: Duration = Duration::from_secs(15);
/// Tenants that are looked at, and told by name.
const TENANTS: usize = 1000;
/// Outcomes of tries, as labels.
const OUTCOMES: [&str; 3] = ["delivered", "failed", "dead"];
/// Where the last of them is counted.
const DEAD: usize = 2;

/// Tries since the process began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    tries: Mutex<Tries>,
}

#[derive(Debug, Default, Clone)]
struct Tries {
    all: [u64; 3],
    /// By tenant; of those beyond the limit only the sum is known.
    of: BTreeMap<String, [u64; 3]>,
}

impl Tally {
    pub(super) fn count(&self, tenant: &str, tried: &Tried) {
        let at = match tried {
            Tried::Delivered => 0,
            Tried::Again { .. } => 1,
            Tried::Dead { .. } => DEAD,
        };
        self.add(tenant, at, 1);
    }

    /// Counts events that were given up without a try.
    pub(super) fn count_dead(&self, tenant: &str, events: u64) {
        if events > 0 {
            self.add(tenant, DEAD, events);
        }
    }

    fn add(&self, tenant: &str, at: usize, events: u64) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.all[at] += events;
        if !tries.of.contains_key(tenant) && tries.of.len() >= TENANTS {
            return;
        }
        tries.of.entry(tenant.to_owned()).or_default()[at] += events;
    }
}

/// What waits.
#[derive(Debug, Default, Clone, Copy)]
struct Backlog {
    pending: u64,
    dead: u64,
    oldest: Option<Time>,
}

impl Backlog {
    fn add(&mut self, other: Self) {
        self.pending += other.pending;
        self.dead += other.dead;
        self.oldest = match (self.oldest, other.oldest) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
    }

    fn age(&self) -> i64 {
        self.oldest
            .map_or(0, |at| Time::now().0.saturating_sub(at.0).max(0) / 1_000_000)
    }
}

/// What the store last said, by tenant.
pub(super) type Last = Mutex<Looked>;

/// By tenant.
#[derive(Debug, Default, Clone)]
pub(super) struct Looked(BTreeMap<String, Backlog>);

/// Looks for ever.
pub(super) async fn follow(webhooks: Arc<Webhooks>) {
    loop {
        match webhooks.look().await {
            Ok(looked) => *webhooks.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked,
            Err(error) => tracing::debug!(%error, "the figures of webhooks are old"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Webhooks {
    async fn look(&self) -> Result<Looked, MetadataError> {
        let snapshot = self.directory.now();
        let mut looked = Looked::default();
        let hooked = snapshot.tenants().filter(|tenant| !tenant.webhooks.is_empty());
        for tenant in hooked.take(TENANTS) {
            let mut backlog = Backlog::default();
            for state in self.store.webhook_states(tenant.id).await? {
                backlog.add(Backlog {
                    pending: state.pending,
                    dead: state.dead,
                    oldest: state.oldest,
                });
            }
            looked.0.insert(tenant.name.to_string(), backlog);
        }
        Ok(looked)
    }
}

/// Shows what has been delivered, and what waits.
pub struct Figures {
    webhooks: Arc<Webhooks>,
    tells_tenants: bool,
}

impl Figures {
    /// Of these. Whoever reaches the metrics reads them: they name tenants only if `tells_tenants`.
    pub fn of(webhooks: Arc<Webhooks>, tells_tenants: bool) -> Self {
        Self {
            webhooks,
            tells_tenants,
        }
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

type Value = fn(&Backlog) -> i64;

/// Gauges of what waits: name, meaning, value.
const GAUGES: [(&str, &str, Value); 3] = [
    (
        "pending",
        "Events that wait for their delivery, counted up to 100000 a webhook",
        |backlog| i64::try_from(backlog.pending).unwrap_or(i64::MAX),
    ),
    (
        "dead",
        "Events that were given up and are kept, counted up to 100000 a webhook",
        |backlog| i64::try_from(backlog.dead).unwrap_or(i64::MAX),
    ),
    (
        "oldest_seconds",
        "For how long the oldest event has waited",
        Backlog::age,
    ),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tries = self
            .webhooks
            .tally
            .tries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let looked = self
            .webhooks
            .looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let help = "Tries to deliver an event, by what came of them";
        let mut family =
            encoder.encode_descriptor("berth_webhook_deliveries", help, None, MetricType::Counter)?;
        for (outcome, count) in OUTCOMES.into_iter().zip(tries.all) {
            ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        let mut all = Backlog::default();
        for backlog in looked.0.values() {
            all.add(*backlog);
        }
        for (name, help, value) in GAUGES {
            let name = format!("berth_webhook_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value(&all)).encode(metric)?;
        }
        if self.tells_tenants {
            tell_tenants(&mut encoder, &tries, &looked)?;
        }
        Ok(())
    }
}

fn tell_tenants(encoder: &mut DescriptorEncoder<'_>, tries: &Tries, looked: &Looked) -> fmt::Result {
    let help = "Tries to deliver an event of a tenant, by what came of them";
    let name = "berth_tenant_webhook_deliveries";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (tenant, counts) in &tries.of {
        for (outcome, count) in OUTCOMES.into_iter().zip(*counts) {
            let labels = [("tenant", tenant.as_str()), ("outcome", outcome)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    for (name, help, value) in GAUGES {
        let name = format!("berth_tenant_webhook_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (tenant, backlog) in &looked.0 {
            let gauge = ConstGauge::new(value(backlog));
            gauge.encode(family.encode_family(&[("tenant", tenant.as_str())])?)?;
        }
    }
    Ok(())
}
