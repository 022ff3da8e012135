//! What the metrics tell of other registries.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Remotes;

/// Caches that are told by name: each is a series of its own wherever the metrics go.
const CACHES: usize = 1000;

/// Shows what has been asked of upstreams, and what came of it.
pub struct Figures {
    remotes: Arc<Remotes>,
    tells_tenants: bool,
}

impl Figures {
    /// Of these. Whoever reaches the metrics reads them: they name tenants and caches only if `tells_tenants`.
    pub fn of(remotes: Arc<Remotes>, tells_tenants: bool) -> Self {
        Self {
            remotes,
            tells_tenants,
        }
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tally = self.remotes.tally();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            (
                "hits",
                "Requests for cached repositories answered without the upstream's bytes",
                read(&tally.hits),
            ),
            (
                "misses",
                "Requests for cached repositories for which bytes were fetched",
                read(&tally.misses),
            ),
            (
                "saved_bytes",
                "Bytes of cached repositories sent without being fetched for it",
                read(&tally.saved),
            ),
            (
                "fetched_bytes",
                "Bytes fetched from upstreams",
                read(&tally.fetched),
            ),
            (
                "failures",
                "Questions that upstreams did not answer as they should",
                read(&tally.failures),
            ),
        ] {
            let name = format!("berth_pull_through_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let heard = self.remotes.heard();
        {
            let count = |up: bool| {
                heard
                    .iter()
                    .filter(|(_, _, heard)| heard.is_up == Some(up))
                    .count()
            };
            let help = "Caches by whether their upstream answered when this replica last asked it";
            let mut family =
                encoder.encode_descriptor("berth_pull_through_upstreams", help, None, MetricType::Gauge)?;
            for (state, caches) in [("reachable", count(true)), ("failing", count(false))] {
                let value = ConstGauge::new(i64::try_from(caches).unwrap_or(i64::MAX));
                value.encode(family.encode_family(&[("state", state)])?)?;
            }
        }
        if self.tells_tenants {
            self.tell(&mut encoder, &heard)?;
        }
        Ok(())
    }
}

impl Figures {
    fn tell(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        heard: &[(String, String, super::remote::Heard)],
    ) -> fmt::Result {
        type Told = fn(&super::remote::Heard) -> Option<u64>;
        let series: [(&str, &str, Told); 3] = [
            (
                "upstream_up",
                "Whether a cache's upstream answered when this replica last asked it",
                |heard| heard.is_up.map(u64::from),
            ),
            (
                "rate_limit",
                "Pulls that an upstream allows in its window",
                |heard| heard.allowance.map(|allowance| allowance.limit),
            ),
            (
                "rate_limit_remaining",
                "Pulls that an upstream's window leaves",
                |heard| heard.allowance.map(|allowance| allowance.remaining),
            ),
        ];
        for (name, help, value) in series {
            let name = format!("berth_pull_through_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (tenant, cache, heard) in heard.iter().take(CACHES) {
                let Some(value) = value(heard) else { continue };
                let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                let labels = [("tenant", tenant.as_str()), ("cache", cache.as_str())];
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
