//! The operator's life: wait for the Lease, watch, reconcile; end when told or overthrown.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Failures;
use crate::context::{Context, Memory};
use crate::follow::ClusterKeys;
use crate::keys::Keeper;
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryError};
use crate::settings::Settings;
use crate::tenant::accounts::Seen;
use crate::{MANAGER, controllers, ops, sweep, watches};

/// Why the operator ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster cannot be reached as configured.
    #[error("no access to the cluster: {0}")]
    Cluster(String),
    /// The registry's access is wrong.
    #[error("no access to the registry: {0}")]
    Registry(#[from] RegistryError),
    /// A port is taken.
    #[error("--ops-listen: {0}")]
    Ops(std::io::Error),
    /// Another operator is the leader.
    #[error(
        "another operator has taken over, or the Lease could not be renewed in time; restart to wait for it again"
    )]
    Overthrown,
}

/// Runs until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let client = Client::try_default()
        .await
        .map_err(|error| RunError::Cluster(error.to_string()))?;
    let registry = Arc::new(Registry::new(&settings.registry_url)?);
    if let Some(file) = &settings.registry_key_file {
        registry.open_files(file, settings.registry_ca_file.as_deref())?;
    }
    let keeper = Keeper::new(&settings, &client, &registry);
    let identity = identity();
    let (watched, streams) = watches::prepare(&settings, &client);
    let leadership = Leadership::new(
        client.clone(),
        &settings.namespace,
        &settings.lease,
        &identity,
        settings.lease_duration,
    );
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(identity.clone()),
    };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        registry,
        failures: Failures::default(),
        metrics: Metrics::default(),
        leading: OnceLock::new(),
        overthrown: CancellationToken::new(),
        untold: Notify::new(),
        watched,
        cluster_keys: ClusterKeys::default(),
        accounts_seen: Seen::default(),
        memory: Memory::default(),
        settings,
    });
    let mut tasks = JoinSet::new();
    ops::listen(ctx.clone(), &mut tasks)
        .await
        .map_err(RunError::Ops)?;
    tokio::select! {
        () = leadership.acquire() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    tracing::info!(identity, lease = ctx.settings.lease, "this operator leads");
    ctx.metrics.leads(true);
    if let Some(keeper) = keeper {
        // Nothing can be told to the registry before; the Lease is held meanwhile.
        tokio::select! {
            () = keeper.ready() => {}
            () = leadership.hold() => return Err(RunError::Overthrown),
            () = shutdown.cancelled() => {
                leadership.release().await;
                return Ok(());
            }
        }
        tasks.spawn(async move { keeper.follow().await });
    }
    let taking = ctx.registry.clone();
    tasks.spawn(async move {
        // At once, so that nothing of an earlier leader comes in between; the first write does it otherwise.
        if let Err(error) = taking.term().await {
            tracing::warn!(%error, "the registry does not take this leader yet");
        }
    });
    ctx.leading.get_or_init(Instant::now);
    controllers::start(&ctx, streams, &mut tasks);
    let sweeping = ctx.clone();
    tasks.spawn(async move {
        sweep::run(&sweeping).await;
        sweeping.overthrown.cancel();
    });
    let outcome = tokio::select! {
        () = ctx.overthrown.cancelled() => Err(RunError::Overthrown),
        () = leadership.hold() => Err(RunError::Overthrown),
        () = shutdown.cancelled() => Ok(()),
    };
    // Nothing is written after the Lease is given up.
    tasks.shutdown().await;
    ctx.metrics.leads(false);
    if outcome.is_ok() {
        leadership.release().await;
    }
    outcome
}

/// The pod's name, which is the host's; unlike for each start, so that a restarted process is another one.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    format!("{host}_{:08x}", rand::random::<u32>())
}
