//! What the metrics tell of the standby.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Standby;
use super::pulls::Teller;

/// Shows how far it is behind, and what becomes of the pulls that are served here.
pub struct Figures {
    standby: Arc<Standby>,
    teller: Option<Arc<Teller>>,
}

impl Figures {
    /// Of these.
    pub fn of(standby: Arc<Standby>, teller: Option<Arc<Teller>>) -> Self {
        Self { standby, teller }
    }

    fn encode_pulls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(teller) = &self.teller else { return Ok(()) };
        let (told, failures, waiting) = teller.figures();
        let help = "Pulls served here that the primary has counted";
        let metric =
            encoder.encode_descriptor("berth_standby_pulls_told", help, None, MetricType::Counter)?;
        ConstCounter::new(told).encode(metric)?;
        let help = "Batches of pulls that the primary did not take; they are told again";
        let metric =
            encoder.encode_descriptor("berth_standby_pulls_failures", help, None, MetricType::Counter)?;
        ConstCounter::new(failures).encode(metric)?;
        let help = "Tags and manifests with pulls that the primary does not know of yet";
        let metric =
            encoder.encode_descriptor("berth_standby_pulls_waiting", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(waiting).unwrap_or(i64::MAX)).encode(metric)
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_pulls(&mut encoder)?;
        let Some(standing) = self.standby.standing() else {
            return Ok(());
        };
        let help = "How old what is read from the standby may be; absent while that is not known";
        let metric = encoder.encode_descriptor("berth_standby_lag_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(standing.behind.as_secs_f64()).encode(metric)
    }
}
