//! What the metrics tell of regions. Their names come from the settings, so that there are few.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Regions;

/// Shows which region has sent what.
#[derive(Debug)]
pub struct Figures(Arc<Regions>);

impl Figures {
    /// Of these.
    pub fn of(regions: Arc<Regions>) -> Self {
        Self(regions)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let regions = &self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        {
            let help = "Blobs that this region's bucket has sent (stream), or that clients were sent to it for (redirect)";
            let mut family =
                encoder.encode_descriptor("berth_region_reads", help, None, MetricType::Counter)?;
            let home = (regions.home.as_str(), &regions.home_tally);
            let others = regions
                .regions
                .iter()
                .map(|region| (region.name(), &region.tally));
            for (name, tally) in std::iter::once(home).chain(others) {
                for (how, counter) in [("redirect", &tally.redirected), ("stream", &tally.streamed)] {
                    let labels = [("region", name), ("how", how)];
                    ConstCounter::new(read(counter)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        {
            let help = "Blobs of this region that were read at home: its bucket lacks the object (missing), does not \
                        answer (away), or broke off (broken)";
            let mut family =
                encoder.encode_descriptor("berth_region_fallbacks", help, None, MetricType::Counter)?;
            for region in &regions.regions {
                let tally = &region.tally;
                for (why, counter) in [
                    ("missing", &tally.missing),
                    ("away", &tally.away),
                    ("broken", &tally.broken),
                ] {
                    let labels = [("region", region.name()), ("why", why)];
                    ConstCounter::new(read(counter)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "1 while this region's bucket answers";
        let mut family = encoder.encode_descriptor("berth_region_up", help, None, MetricType::Gauge)?;
        for region in &regions.regions {
            let value = ConstGauge::new(i64::from(region.is_up()));
            value.encode(family.encode_family(&[("region", region.name())])?)?;
        }
        Ok(())
    }
}
