//! What is cleaned up beside requests: idle upload sessions, and bytes that crashes left.
//!
//! Every step can be cut anywhere and is done again later: rows go before bytes, and bytes without a row are
//! found by listing the blob store.

use std::collections::HashSet;
use std::time::Duration;

use tracing::Instrument as _;
use uuid::Uuid;

use super::state::Registry;
use crate::blobs::BlobError;
use crate::metadata::{MetadataError, Time};
use crate::telemetry::span;

/// Most time between two rounds; less where sessions expire sooner.
const EVERY: Duration = Duration::from_secs(60);
/// Rows of one statement.
const BATCH: u32 = 200;
/// Rounds between two listings of the blob store, which costs requests.
const LISTING: u32 = 30;

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// Starts the rounds, unless everything here is another registry's; they end with the process.
pub fn start(registry: &Registry) {
    if registry.only_reads() {
        return;
    }
    let registry = registry.clone();
    tokio::spawn(async move {
        let mut rounds = tokio::time::interval(registry.upload_expiry.clamp(Duration::from_secs(1), EVERY));
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round: u32 = 0;
        loop {
            rounds.tick().await;
            let work = sweep(&registry, round.is_multiple_of(LISTING));
            if let Err(error) = work.instrument(span::task("sweep")).await {
                tracing::warn!(%error, "sweeping failed; it is tried again");
            }
            round = round.wrapping_add(1);
        }
    });
}

async fn sweep(registry: &Registry, listing: bool) -> Result<(), SweepError> {
    expire_uploads(registry).await?;
    registry.opened.counted(&registry.metadata.open_uploads().await?);
    if listing {
        sweep_leftovers(registry).await?;
    }
    Ok(())
}

async fn expire_uploads(registry: &Registry) -> Result<(), SweepError> {
    loop {
        let before = Time::now().minus(registry.upload_expiry);
        let expired = registry.metadata.expire_uploads(before, BATCH).await?;
        for (id, state) in &expired {
            registry.blobs.discard(*id, state).await?;
            tracing::info!(upload = %id, "an idle upload session expired");
        }
        if expired.is_empty() {
            return Ok(());
        }
    }
}

/// Frees unpublished bytes whose session is gone: the process died between forgetting the one and freeing
/// the other.
async fn sweep_leftovers(registry: &Registry) -> Result<(), SweepError> {
    let mut after = None;
    loop {
        let found = registry.blobs.unpublished(registry.upload_expiry, after).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after = Some(*last);
        let mut live: HashSet<Uuid> = registry
            .metadata
            .live_uploads(&found)
            .await?
            .into_iter()
            .collect();
        live.extend(registry.metadata.live_objects(&found).await?);
        for id in found.iter().filter(|id| !live.contains(id)) {
            registry.blobs.sweep(*id).await?;
            tracing::info!(upload = %id, "freed bytes that no upload session owns");
        }
    }
}
