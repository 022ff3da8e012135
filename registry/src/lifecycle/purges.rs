//! Content that goes as a whole, in small steps: of tenants that were erased, and of repositories that were deleted with
//! their objects.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::collection::CollectionError;
use super::keeper::Keeper;
use crate::metadata::Time;
use crate::metadata::lifecycle::Purge;
use crate::telemetry::span;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Purges taken at once.
const AT_ONCE: u32 = 4;
/// Rows of each kind in one transaction.
const STEP: u32 = 500;
/// Steps of one turn, so that every purge gets on.
const STEPS: u32 = 50;

/// Purges for ever.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    loop {
        if let Err(error) = keeper.purge_some().instrument(span::task("purge")).await {
            tracing::warn!(%error, "purging failed; it is tried again");
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Keeper {
    async fn purge_some(&self) -> Result<(), CollectionError> {
        for purge in self.store.purges(Time::now(), AT_ONCE).await? {
            self.purge(purge).await?;
        }
        Ok(())
    }

    async fn purge(&self, purge: Purge) -> Result<(), CollectionError> {
        for _ in 0..STEPS {
            let now = Time::now();
            let step = self
                .store
                .purge(&purge, now, now.plus(self.delays.object), STEP)
                .await?;
            for (id, state) in &step.uploads {
                self.blobs.discard(*id, state).await?;
            }
            if step.done {
                tracing::info!(
                    tenant = purge.tenant_name,
                    repository = purge.repository,
                    "purged"
                );
                return Ok(());
            }
            if step.deleted == 0 {
                // The collector does the rest.
                self.collect_now.notify_one();
                return Ok(());
            }
        }
        Ok(())
    }
}
