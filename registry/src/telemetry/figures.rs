//! What has become of spans, for the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Spans that the collector took.
    Exported,
    /// Spans for which the queue had no place.
    Overflowed,
    /// Spans that the collector did not take.
    Failed,
    /// Requests whose clients wanted a trace, one too many.
    Refused,
}

static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Adds to a count.
pub(super) fn count(figure: Figure, by: usize) {
    COUNTS[figure as usize].fetch_add(by as u64, Ordering::Relaxed);
}

fn read(figure: Figure) -> u64 {
    COUNTS[figure as usize].load(Ordering::Relaxed)
}

/// Shows them.
#[derive(Debug)]
pub struct Figures;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "berth_trace_exported_spans",
                "Spans that the collector has taken",
                read(Figure::Exported),
            ),
            (
                "berth_trace_refused_requests",
                "Requests not traced although their clients wanted it, because too many did",
                read(Figure::Refused),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let help = "Spans that were dropped: the queue was full, or the collector did not take them";
        let mut family =
            encoder.encode_descriptor("berth_trace_dropped_spans", help, None, MetricType::Counter)?;
        for (reason, figure) in [("queue", Figure::Overflowed), ("export", Figure::Failed)] {
            ConstCounter::new(read(figure)).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
