//! What the metrics tell of the configuration that this replica serves.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Directory;

/// Shows how far this replica follows the store.
#[derive(Debug)]
pub struct Figures(Arc<Directory>);

impl Figures {
    /// Of this directory.
    pub fn of(directory: Arc<Directory>) -> Self {
        Self(directory)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.now();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "berth_config_version",
                "Version of the configuration that this replica serves",
                snapshot.version,
            ),
            (
                "berth_config_age_seconds",
                "Since this replica last knew that it serves what the store says",
                i64::try_from(self.0.age().as_secs()).unwrap_or(i64::MAX),
            ),
            (
                "berth_config_unreadable_objects",
                "Objects whose newest spec this replica cannot read, counted up to 100",
                count(snapshot.failed().count()),
            ),
            (
                "berth_config_replicas",
                "Replicas that this one has heard of within their life, itself included",
                count(self.0.replicas().len()),
            ),
            (
                "berth_tenants",
                "Tenants that are configured",
                count(snapshot.tenants().count()),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}
