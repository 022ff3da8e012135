//! The snapshot that this replica serves, kept up with the store.
//!
//! The version of the configuration is asked for every half second; a notification only shortens the wait.
//! What changed since is read and swapped in whole. Each replica tells what it serves by a heartbeat, so that
//! a writer can see when all of them serve its change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::snapshot::Snapshot;
use crate::metadata::configuration::{Configuration, ObjectCursor, REPLICA_LIFE, Replica};
use crate::metadata::{Result, Time};

/// Between two looks at the version.
const EVERY: Duration = Duration::from_millis(500);
/// Between two heartbeats without news.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Objects of one query.
const PAGE: u32 = 500;
/// Traces of deleted objects are kept for this long. A replica that has not heard from the store for most of it
/// reads everything again.
const TRACES: Duration = Duration::from_secs(24 * 3600);
const TOO_LONG: Duration = Duration::from_secs(12 * 3600);

/// Ids of the signing keys that this replica knows.
pub type KeyIds = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The configuration as this replica serves it.
pub struct Directory {
    store: Arc<dyn Configuration>,
    snapshot: ArcSwap<Snapshot>,
    /// What the replicas were heard to be, last time.
    replicas: ArcSwap<Vec<Replica>>,
    /// One refresh at a time; when the store last answered.
    refreshing: Mutex<Instant>,
    /// The same time, for whoever must not wait for a refresh.
    heard: ArcSwap<Instant>,
    /// Nothing where this process only reads: writers do not wait for it.
    replica: Option<Replica>,
    keys: KeyIds,
}

impl Directory {
    /// Reads the whole configuration, and tells the replicas that it is served here.
    pub async fn open(store: Arc<dyn Configuration>, keys: KeyIds) -> Result<Arc<Self>> {
        let now = Time::now();
        let replica = Replica {
            id: Uuid::new_v4(),
            host: host_name(),
            started_at: now,
            seen_at: now,
            version: 0,
            keys: Vec::new(),
            failed: Vec::new(),
        };
        Self::begin(store, Some(replica), keys).await
    }

    /// Reads the whole configuration without a word to anybody.
    pub async fn look(store: Arc<dyn Configuration>, keys: KeyIds) -> Result<Arc<Self>> {
        Self::begin(store, None, keys).await
    }

    async fn begin(
        store: Arc<dyn Configuration>,
        replica: Option<Replica>,
        keys: KeyIds,
    ) -> Result<Arc<Self>> {
        let directory = Self {
            store,
            snapshot: ArcSwap::default(),
            replicas: ArcSwap::default(),
            refreshing: Mutex::new(Instant::now()),
            heard: ArcSwap::from_pointee(Instant::now()),
            replica,
            keys,
        };
        directory.refresh().await?;
        directory.beat().await?;
        Ok(Arc::new(directory))
    }

    /// The present snapshot.
    pub fn now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The replicas that were live when they were last asked for, this one included.
    pub fn replicas(&self) -> Arc<Vec<Replica>> {
        self.replicas.load_full()
    }

    /// Serves what the store says by now.
    pub async fn refresh(&self) -> Result<()> {
        let mut heard = self.refreshing.lock().await;
        let version = self.store.version().await?;
        let mut base = self.now();
        // A version that has gone back is that of a standby which took over without the last changes, or of a restored
        // database: it will count further without us having seen what.
        if version < base.version {
            tracing::warn!(
                served = base.version,
                stored = version,
                "the store has lost changes of the configuration; all of it is read again"
            );
        }
        if heard.elapsed() > TOO_LONG || version < base.version {
            base = Arc::default();
        }
        if version != base.version {
            let mut cursor = ObjectCursor::after(base.version);
            let mut objects = Vec::new();
            loop {
                let page = self.store.objects(cursor.clone(), PAGE).await?;
                let Some(last) = page.last() else { break };
                cursor = ObjectCursor::behind(last);
                objects.extend(page);
            }
            let mut next = base.with(objects);
            // A change may have left no trace, such as the removal of one that was forgotten.
            next.version = next.version.max(version);
            tracing::debug!(
                version = next.version,
                "serving a new version of the configuration"
            );
            self.snapshot.store(Arc::new(next));
        }
        *heard = Instant::now();
        self.heard.store(Arc::new(*heard));
        Ok(())
    }

    /// Since the store last said what is to be served, and it was.
    pub fn age(&self) -> Duration {
        self.heard.load().elapsed()
    }

    /// Tells the others what is served here, and hears what they serve.
    async fn beat(&self) -> Result<()> {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        let snapshot = self.now();
        let now = Time::now();
        let replica = Replica {
            seen_at: now,
            version: snapshot.version,
            keys: (self.keys)(),
            failed: snapshot.failed().map(|(object, _)| object.to_owned()).collect(),
            ..replica.clone()
        };
        self.store.heartbeat(replica).await?;
        let live = self.store.replicas(now.minus(REPLICA_LIFE)).await?;
        self.replicas.store(Arc::new(live));
        Ok(())
    }

    /// Follows the store until `end`, then takes leave of the other replicas.
    pub async fn follow(self: Arc<Self>, end: impl Future<Output = ()> + Send) {
        let mut end = std::pin::pin!(end);
        let (mut beaten, mut cleaned) = (Instant::now(), Instant::now());
        let mut told = (self.now().version, (self.keys)());
        loop {
            tokio::select! {
                () = &mut end => break,
                () = self.store.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the configuration cannot be read; the last one is served on");
                continue;
            }
            let news = (self.now().version, (self.keys)());
            if news != told || beaten.elapsed() >= HEARTBEAT {
                match self.beat().await {
                    Ok(()) => (beaten, told) = (Instant::now(), news),
                    Err(error) => tracing::warn!(%error, "this replica's heartbeat could not be stored"),
                }
            }
            if self.replica.is_some() && cleaned.elapsed() >= TRACES / 24 {
                cleaned = Instant::now();
                if let Err(error) = self.store.forget_deleted(Time::now().minus(TRACES)).await {
                    tracing::warn!(%error, "traces of deleted objects could not be removed");
                }
            }
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(%error, "this replica's row stays until it is too old");
        }
    }

    /// Takes leave of the other replicas.
    pub async fn leave(&self) -> Result<()> {
        match &self.replica {
            Some(replica) => self.store.leave(replica.id).await,
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directory")
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
