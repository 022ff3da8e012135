//! The stores of a process: opened, and watched.

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::budget::Budget;
use crate::blobs::{self, BlobStore};
use crate::metadata::configuration::Configuration;
use crate::metadata::events::Events;
use crate::metadata::explore::Explore;
use crate::metadata::inspection::Inspection;
use crate::metadata::lifecycle::Lifecycle;
use crate::metadata::position::Position;
use crate::metadata::pull_through::PullThrough;
use crate::metadata::{self, MetadataError, Store};
use crate::ops::ready::{Probe, Readiness};
use crate::settings::Settings;

/// Between two tries to open a standby.
const STANDBY_AGAIN: Duration = Duration::from_secs(2);

/// Every side of both stores.
pub(super) struct Stores {
    pub(super) metadata: Arc<dyn Store>,
    pub(super) configuration: Arc<dyn Configuration>,
    pub(super) lifecycle: Arc<dyn Lifecycle>,
    pub(super) inspection: Arc<dyn Inspection>,
    pub(super) pull_through: Arc<dyn PullThrough>,
    pub(super) events: Arc<dyn Events>,
    pub(super) position: Arc<dyn Position>,
    pub(super) explore: Arc<dyn Explore>,
    pub(super) blobs: Arc<dyn BlobStore>,
    /// Whether no other process can use them.
    pub(super) alone: bool,
}

/// Opens the stores. A registry that only reads waits for a standby that is away, or that has not replayed the schema
/// of this release yet: it may be started at the same time as either.
pub(super) async fn once_there(
    settings: &Settings,
    budget: &Budget,
    readiness: &Readiness,
) -> Result<Stores, Box<dyn std::error::Error>> {
    loop {
        let error = match open(settings, budget.clone()).await {
            Ok(stores) => return Ok(stores),
            Err(error) => error,
        };
        match error.downcast_ref::<MetadataError>() {
            Some(MetadataError::Unavailable(_) | MetadataError::Behind) if settings.read_only => {
                readiness.is_held_up(&error.to_string());
                tracing::warn!(%error, "the standby cannot be used yet; it is tried again");
                tokio::time::sleep(STANDBY_AGAIN).await;
            }
            _ => return Err(error),
        }
    }
}

pub(super) async fn open(settings: &Settings, budget: Budget) -> Result<Stores, Box<dyn std::error::Error>> {
    let options = metadata::Options {
        migrate: settings.migrate,
        connections: settings.postgres_connections,
        prepared: settings.postgres_prepared,
        read_only: settings.read_only,
    };
    let opened = metadata::open(&settings.metadata, &options).await?;
    let blobs = blobs::open::open(&settings.blobs, budget).await?;
    Ok(Stores {
        metadata: opened.store,
        configuration: opened.configuration,
        lifecycle: opened.lifecycle,
        explore: opened.explore,
        inspection: opened.inspection,
        pull_through: opened.pull_through,
        events: opened.events,
        position: opened.position,
        blobs,
        alone: settings.holds_data_folder(),
    })
}

/// Asks both stores for ever.
pub(super) fn watch(readiness: Arc<Readiness>, stores: &Stores) -> impl Future<Output = ()> + Send + use<> {
    let (metadata, blobs) = (stores.metadata.clone(), stores.blobs.clone());
    let ask_metadata = Probe {
        name: "metadata",
        ask: Box::new(move || {
            let store = metadata.clone();
            Box::pin(async move { store.probe().await.map_err(|error| error.to_string()) })
        }),
    };
    let ask_blobs = Probe {
        name: "blobs",
        ask: Box::new(move || {
            let store = blobs.clone();
            Box::pin(async move { store.probe().await.map_err(|error| error.to_string()) })
        }),
    };
    async move { readiness.watch(vec![ask_metadata, ask_blobs]).await }
}
