//! What the metrics tell of the standby.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Standby;

/// Shows how far it is behind.
#[derive(Debug)]
pub struct Figures(Arc<Standby>);

impl Figures {
    /// Of this one.
    pub fn of(standby: Arc<Standby>) -> Self {
        Self(standby)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(standing) = self.0.standing() else {
            return Ok(());
        };
        let help = "How old what is read from the standby may be; absent while that is not known";
        let metric = encoder.encode_descriptor("berth_standby_lag_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(standing.behind.as_secs_f64()).encode(metric)
    }
}
