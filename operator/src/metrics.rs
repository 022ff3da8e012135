//! What the operator counts, for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    outcome: Outcome,
}

/// What came of a look at an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It is as it says.
    Ready,
    /// It is on the way.
    Working,
    /// Something failed that is tried again.
    Failing,
    /// A person must change something.
    Stalled,
    /// It is gone.
    Deleted,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciled: Family<Labels, Counter>,
    duration: Histogram,
    statuses: Counter,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("berth_operator");
        let reconciled = Family::<Labels, Counter>::default();
        let duration = Histogram::new([
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ]);
        let (statuses, leader) = (Counter::default(), Gauge::default());
        registry.register(
            "reconciliations",
            "Looks at an object, by what came of them",
            reconciled.clone(),
        );
        registry.register(
            "reconciliation_duration_seconds",
            "Time of a look at an object",
            duration.clone(),
        );
        registry.register("status_writes", "Statuses written", statuses.clone());
        registry.register("leader", "1 while this process is the leader", leader.clone());
        Self {
            registry,
            reconciled,
            duration,
            statuses,
            leader,
        }
    }
}

impl Metrics {
    /// An object was looked at.
    pub fn reconciled(&self, kind: &'static str, outcome: Outcome, took: Duration) {
        self.reconciled.get_or_create(&Labels { kind, outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A status was written.
    pub fn status_written(&self) {
        self.statuses.inc();
    }

    /// Whether this process is the leader.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// In the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
