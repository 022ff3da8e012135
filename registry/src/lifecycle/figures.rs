//! What the metrics tell of all this. The store is asked now and then by one task, never by whoever reads the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::keeper::Keeper;
use crate::metadata::lifecycle::{Queues, Storage, TenantTotal};
use crate::metadata::{MetadataError, Time};

/// Between two looks at the store.
const EVERY: Duration = Duration::from_secs(15);

/// Tenants that are told by name: each is a series of its own wherever the metrics go.
const TENANTS: u32 = 1000;

/// What the store last said.
#[derive(Debug, Default, Clone)]
pub(super) struct Looked {
    queues: Queues,
    storage: Storage,
    /// The largest.
    tenants: Vec<Told>,
}

/// A tenant that is told by name.
#[derive(Debug, Clone)]
struct Told {
    name: String,
    total: TenantTotal,
    /// Most bytes that it may store, if there is a limit.
    quota: Option<u64>,
}

/// Shows what a keeper has done, and what waits for it.
pub struct Figures(Arc<Keeper>);

impl Figures {
    /// Of this keeper.
    pub fn of(keeper: Arc<Keeper>) -> Self {
        Self(keeper)
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

/// Looks for ever.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    loop {
        match keeper.look_at_store().await {
            Ok(looked) => *keeper.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked,
            Err(error) => tracing::debug!(%error, "the figures of what is stored are old"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Keeper {
    async fn look_at_store(&self) -> Result<Looked, MetadataError> {
        let snapshot = self.directory.now();
        // Whoever reaches the metrics reads them: they say nothing of tenants unless that is asked for.
        let totals = match self.tells_tenants {
            true => self.store.largest_tenants(TENANTS).await?,
            false => Vec::new(),
        };
        // Those that this replica does not know are gone, or new.
        let named = |total: TenantTotal| {
            let tenant = snapshot.tenant(total.tenant)?;
            let quota = tenant.config.quota.storage.as_ref();
            Some(Told {
                name: tenant.name.to_string(),
                total,
                quota: quota.and_then(|quantity| quantity.limit()),
            })
        };
        Ok(Looked {
            queues: self.store.queues(Time::now()).await?,
            storage: self.store.storage().await?,
            tenants: totals.into_iter().filter_map(named).collect(),
        })
    }
}

/// Where what the store said is kept.
pub(super) type Last = Mutex<Looked>;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tally = &self.0.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        counters(
            &mut encoder,
            "berth_gc_collected",
            "Manifests, blobs and objects collected",
            &[
                ("manifest", read(&tally.manifests)),
                ("blob", read(&tally.blobs)),
                ("object", read(&tally.objects)),
            ],
        )?;
        for (name, help, value) in [
            (
                "berth_gc_reclaimed_bytes",
                "Bytes of manifests and blobs collected",
                read(&tally.bytes),
            ),
            (
                "berth_gc_failures",
                "Looks at candidates of collection, and deletions of objects, that failed",
                read(&tally.failures),
            ),
            (
                "berth_gc_object_failures",
                "Deletions of objects that failed",
                read(&tally.undeleted),
            ),
            (
                "berth_retention_deleted_tags",
                "Tags deleted by retention policies",
                read(&tally.retained_out),
            ),
            (
                "berth_retention_failed_runs",
                "Runs of retention policies that failed",
                read(&tally.failed_runs),
            ),
            ("berth_expired_tags", "Tags that expired", read(&tally.expired)),
            (
                "berth_usage_drift",
                "Counters of what is stored that a recount found wrong",
                read(&tally.drifts),
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let looked = self
            .0
            .looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Queues {
            manifests,
            blobs,
            objects,
            object_bytes,
            oldest_due,
        } = looked.queues;
        gauges(
            &mut encoder,
            "berth_gc_queue",
            "What waits for collection, counted up to 100000",
            &[("manifest", manifests), ("blob", blobs), ("object", objects)],
        )?;
        let late = oldest_due.map_or(0, |due| Time::now().0.saturating_sub(due.0).max(0) / 1_000_000);
        for (name, help, value) in [
            (
                "berth_gc_queue_bytes",
                "Bytes of objects that wait for their deletion",
                signed(object_bytes),
            ),
            (
                "berth_gc_oldest_due_seconds",
                "For how long the oldest candidate has been due",
                late,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let Storage {
            logical,
            stored,
            garbage,
            uploads,
        } = looked.storage;
        gauges(
            &mut encoder,
            "berth_storage_bytes",
            "What the installation stores: as tenants are told, as objects, of these those about to be deleted, and open uploads",
            &[
                ("logical", logical),
                ("stored", stored),
                ("garbage", garbage),
                ("uploads", uploads),
            ],
        )?;
        if !self.0.tells_tenants {
            return Ok(());
        }
        of_tenants(
            &mut encoder,
            "berth_tenant_bytes",
            "What a tenant stores, as it is told; of the 1000 largest",
            &looked.tenants,
            |told| Some(told.total.bytes),
        )?;
        of_tenants(
            &mut encoder,
            "berth_tenant_quota_bytes",
            "Most bytes that a tenant may store, where there is a limit; of the 1000 largest",
            &looked.tenants,
            |told| told.quota,
        )?;
        of_tenants(
            &mut encoder,
            "berth_tenant_tags",
            "Tags of a tenant; of the 1000 largest",
            &looked.tenants,
            |told| Some(told.total.tags),
        )?;
        of_tenants(
            &mut encoder,
            "berth_tenant_repositories",
            "Repositories of a tenant; of the 1000 largest",
            &looked.tenants,
            |told| Some(told.total.repositories),
        )
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kinds: &[(&str, u64)],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (kind, value) in kinds {
        ConstCounter::new(*value).encode(metric.encode_family(&[("kind", *kind)])?)?;
    }
    Ok(())
}

fn of_tenants(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    tenants: &[Told],
    value: impl Fn(&Told) -> Option<u64>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for told in tenants {
        let Some(value) = value(told) else { continue };
        let gauge = ConstGauge::new(signed(value));
        gauge.encode(metric.encode_family(&[("tenant", told.name.as_str())])?)?;
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, kinds: &[(&str, u64)]) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (kind, value) in kinds {
        ConstGauge::new(signed(*value)).encode(metric.encode_family(&[("kind", *kind)])?)?;
    }
    Ok(())
}
