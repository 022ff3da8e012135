//! What the operator counts, for Prometheus.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
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

/// Tenants whose tokens are told: each is a series of its own wherever the metrics go.
const TENANTS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTenant {
    tenant: String,
}

/// When the first of a tenant's tokens is to be replaced, and when the first ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// By which it should have a successor; nothing if none is ever replaced by itself.
    pub renewal: Option<Timestamp>,
    /// The end of the one that ends first; nothing if none ends.
    pub expiry: Option<Timestamp>,
}

impl TokenTimes {
    /// The earlier of both, for either time.
    pub fn earliest(self, other: Self) -> Self {
        let first = |one: Option<Timestamp>, other| [one, other].into_iter().flatten().min();
        Self {
            renewal: first(self.renewal, other.renewal),
            expiry: first(self.expiry, other.expiry),
        }
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciled: Family<Labels, Counter>,
    duration: Histogram,
    statuses: Counter,
    leader: Gauge,
    renewals: Family<OfTenant, Gauge>,
    expiries: Family<OfTenant, Gauge>,
    /// The tenants that each of the two before has.
    told: Mutex<[HashSet<String>; 2]>,
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
        let (renewals, expiries) = (Family::default(), Family::default());
        registry.register(
            "token_renewal_timestamp_seconds",
            "When the first of a tenant's tokens is to be replaced, in seconds since 1970; of at most 1000 tenants",
            Family::clone(&renewals),
        );
        registry.register(
            "token_expiry_timestamp_seconds",
            "When the first of a tenant's tokens ends, in seconds since 1970; of at most 1000 tenants",
            Family::clone(&expiries),
        );
        Self {
            registry,
            reconciled,
            duration,
            statuses,
            leader,
            renewals,
            expiries,
            told: Mutex::default(),
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

    /// Whether this process is the leader. One that is not knows nothing of tokens.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            *told = Default::default();
            self.renewals.clear();
            self.expiries.clear();
        }
    }

    /// When a tenant's tokens are to be replaced and end; that of a tenant without any is forgotten.
    pub fn tokens(&self, tenant: &str, times: TokenTimes) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let both = [(&self.renewals, times.renewal), (&self.expiries, times.expiry)];
        for ((family, time), told) in both.into_iter().zip(&mut *told) {
            let labels = OfTenant {
                tenant: tenant.to_owned(),
            };
            match time {
                None => {
                    told.remove(tenant);
                    family.remove(&labels);
                }
                Some(time) if told.contains(tenant) || told.len() < TENANTS => {
                    told.insert(tenant.to_owned());
                    family.get_or_create(&labels).set(time.as_second());
                }
                Some(_) => {}
            }
        }
    }

    /// In the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn a_tenant_s_earliest_times_are_told_until_it_or_the_lead_is_gone() {
        let metrics = Metrics::default();
        let ends = TokenTimes {
            renewal: at(90),
            expiry: at(100),
        };
        let rotates = TokenTimes {
            renewal: at(50),
            expiry: None,
        };
        metrics.tokens("acme", ends.earliest(rotates));
        let text = metrics.text();
        for line in [
            r#"berth_operator_token_renewal_timestamp_seconds{tenant="acme"} 50"#,
            r#"berth_operator_token_expiry_timestamp_seconds{tenant="acme"} 100"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        metrics.tokens("acme", TokenTimes::default());
        assert!(!metrics.text().contains("acme"));
        metrics.tokens("acme", ends);
        metrics.leads(false);
        assert!(!metrics.text().contains("acme"));
    }

    #[test]
    fn the_number_of_tenants_that_are_told_is_bounded() {
        let metrics = Metrics::default();
        for number in 0..TENANTS + 5 {
            let times = TokenTimes {
                renewal: at(1),
                expiry: None,
            };
            metrics.tokens(&format!("t{number}"), times);
        }
        let told = metrics.text().matches("{tenant=").count();
        assert_eq!(told, TENANTS);
    }

    /// Every metric with all its labels, once.
    fn all() -> Metrics {
        let metrics = Metrics::default();
        metrics.reconciled("Tenant", Outcome::Ready, Duration::ZERO);
        let times = TokenTimes {
            renewal: at(1),
            expiry: at(2),
        };
        metrics.tokens("acme", times);
        metrics
    }

    #[test]
    fn the_documents_name_every_metric_of_the_operator_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
        let text = std::fs::read_to_string(path).expect("docs/observability.md");
        let rows = text.lines().filter(|line| line.starts_with("| `berth_operator_"));
        let mut told: Vec<&str> = rows
            .filter_map(|row| row[3..].split(['`', '{']).next())
            .map(|name| name.trim_end_matches("_total"))
            .collect();
        let shown = all().text();
        let types = shown.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut shown: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
        told.sort_unstable();
        shown.sort_unstable();
        assert_eq!(told, shown, "the table of metrics and what is shown differ");
    }
}
