//! The check of the stores against each other, and of each in itself: `fsck`.
//!
//! One run at a time goes through all tables, all blobs and all objects, while the registry serves. Where it stands
//! and what it has found is a job of the metadata store: whichever replica holds the job's lease works, another one
//! goes on from the last page should that one die, and all of them can tell about it.
//!
//! What must hold: memory does not grow with what is stored; what is found is looked at again a moment later before
//! it is told, since clients change things meanwhile; a repair only ever asks for a review or for a later deletion,
//! and what an acknowledged push stored is never touched; that its bytes are gone is only acted upon by whoever asks for
//! it ([`Options::forget_lost`]). It may use the stores and the directory of tenants.

mod contents;
mod finding;
mod lost;
mod objects;
mod rows;
mod run;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::blobs::BlobStore;
use crate::metadata::inspection::Inspection;
use crate::metadata::lifecycle::{Job, JobKey, JobKind, Lifecycle, PARKED};
use crate::metadata::{MetadataError, Time};
use crate::tenancy::Directory;

pub use finding::{Finding, Kind};
pub use run::{Checked, End, Options, Progress, Run, Step};

/// For how long a worker that says nothing is waited for.
const LEASE: Duration = Duration::from_secs(60);
/// Between two looks for a run that was cut off.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks at something that seems wrong.
const MOMENT: Duration = Duration::from_secs(3);

/// Between who holds the lease and for which run.
const RUN: &str = ", run ";

/// What a check works with.
#[derive(Clone)]
pub struct Parts {
    /// The walks.
    pub inspection: Arc<dyn Inspection>,
    /// The jobs.
    pub lifecycle: Arc<dyn Lifecycle>,
    /// The objects.
    pub blobs: Arc<dyn BlobStore>,
    /// Which tenants may lack blobs.
    pub directory: Arc<Directory>,
}

/// The check of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Fsck(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// Who this process is. It is the same after a restart if no other process can use the stores.
    by: String,
    moment: Duration,
    /// The work that runs in this process.
    task: Mutex<Option<AbortHandle>>,
}

/// Why a check cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// One runs.
    #[error("a check runs already{}", described(.since, .options))]
    Running {
        /// Its start.
        since: Time,
        /// What it was asked for.
        options: Options,
    },
    /// The store failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

fn described(since: &Time, options: &Options) -> String {
    let mut text = format!(", since {}", crate::rfc3339::write(*since));
    let named = [
        ("rehash", options.rehash),
        ("repair", options.repair),
        ("forgetting what is lost", options.forget_lost),
    ];
    for (name, is_on) in named {
        text.push_str(&format!(", {} {name}", if is_on { "with" } else { "without" }));
    }
    text
}

/// The newest run, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Where it stands.
    pub run: Run,
    /// Who works on it; nobody, once it has ended or while it waits to be taken up again.
    pub worker: Option<String>,
}

impl Fsck {
    /// The check of an installation. `alone` says that no other process can use its stores at the same time.
    pub fn new(parts: Parts, alone: bool) -> Self {
        let by = if alone {
            "the one process of this installation".to_owned()
        } else {
            let system = rustix::system::uname();
            format!("{}/{}", system.nodename().to_string_lossy(), Uuid::new_v4())
        };
        Self::with(parts, by, MOMENT)
    }

    fn with(parts: Parts, by: String, moment: Duration) -> Self {
        Self(Arc::new(Shared {
            parts,
            by,
            moment,
            task: Mutex::default(),
        }))
    }

    /// Starts a run in this process; or goes on with one that was cut off, if it was asked for the same.
    pub async fn start(&self, options: Options) -> Result<Standing, StartError> {
        let mut task = self.0.task.lock().await;
        let found = self.0.find(is_working(&task)).await?;
        let cut = match found {
            Some(Standing { run, worker: Some(_) }) => {
                return Err(StartError::Running {
                    since: run.started_at(),
                    options: run.options,
                });
            }
            Some(Standing { run, worker: None }) => run.end.is_none() && run.options == options,
            None => false,
        };
        let now = Time::now();
        if !cut {
            let new = Run::new(options, now);
            let lifecycle = &self.0.parts.lifecycle;
            lifecycle.put_job(&key(), now, new.to_stored()).await?;
        }
        // A worker that has not noticed yet that its run has ended.
        if let Some(task) = task.take() {
            task.abort();
        }
        let claimed = self.0.claim().await?;
        // Somebody else may have been faster.
        let Some((run, name)) = claimed.filter(|(run, _)| run.options == options) else {
            return Err(StartError::Running { since: now, options });
        };
        *task = Some(self.work(run.clone(), name));
        let worker = Some(self.0.by.clone());
        Ok(Standing { run, worker })
    }

    /// Where the newest run stands; `None` if there was none.
    pub async fn standing(&self) -> Result<Option<Standing>, MetadataError> {
        let task = self.0.task.lock().await;
        self.0.find(is_working(&task)).await
    }

    /// Ends the run, whoever works on it.
    pub async fn stop(&self) -> Result<Option<Standing>, MetadataError> {
        let mut task = self.0.task.lock().await;
        if let Some(task) = task.take() {
            task.abort();
        }
        let Some(mut standing) = self.0.find(false).await? else {
            return Ok(None);
        };
        if standing.run.end.is_none() {
            standing.run.end(End::Stopped, Time::now());
            let state = standing.run.to_stored();
            // Its worker finds that the job is no longer its own.
            self.0.parts.lifecycle.put_job(&key(), PARKED, state).await?;
            tracing::info!("the check of the stores was stopped");
        }
        standing.worker = None;
        Ok(Some(standing))
    }

    /// Takes up a run whose worker has died. To be called now and then.
    pub async fn round(&self) -> Result<(), MetadataError> {
        let mut task = self.0.task.lock().await;
        if is_working(&task) {
            return Ok(());
        }
        if let Some((run, name)) = self.0.claim().await? {
            tracing::info!(step = ?run.step, "the check of the stores goes on");
            *task = Some(self.work(run, name));
        }
        Ok(())
    }

    /// Takes up runs whose workers have died, for ever.
    pub async fn follow(self) {
        let mut rounds = tokio::time::interval(EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.round().await {
                tracing::debug!(%error, "whether a check of the stores was cut off is asked again");
            }
        }
    }

    fn work(&self, run: Run, name: String) -> AbortHandle {
        let worker = worker::Worker::new(self.0.clone(), run, name);
        tokio::spawn(worker.work()).abort_handle()
    }
}

fn is_working(task: &Option<AbortHandle>) -> bool {
    task.as_ref().is_some_and(|task| !task.is_finished())
}

fn key() -> JobKey {
    JobKey::of(JobKind::Fsck)
}

impl Shared {
    async fn find(&self, works_here: bool) -> Result<Option<Standing>, MetadataError> {
        let Some(job) = self.parts.lifecycle.job(&key()).await? else {
            return Ok(None);
        };
        let Some(run) = read(&job) else { return Ok(None) };
        let (by, _) = job.claimed_by.rsplit_once(RUN).unwrap_or((&job.claimed_by, ""));
        // A lease of this process's that nothing here works under is that of its predecessor.
        let is_held = works_here || (job.claimed_until > Time::now() && by != self.by);
        let worker = Some(by.to_owned()).filter(|_| is_held && run.end.is_none());
        Ok(Some(Standing { run, worker }))
    }

    /// Takes the job, if there is something to do and nobody does it: the run, and the name it was taken by. That
    /// names the run too, so that a worker that comes late changes nothing of the next one.
    async fn claim(&self) -> Result<Option<(Run, String)>, MetadataError> {
        let lifecycle = &self.parts.lifecycle;
        let found = lifecycle.job(&key()).await?.as_ref().and_then(read);
        let Some(run) = found.filter(|run| run.end.is_none()) else {
            return Ok(None);
        };
        let name = format!("{}{RUN}{}", self.by, run.started_at().0);
        let now = Time::now();
        let claimed = lifecycle.claim_job(&key(), &name, now, now.plus(LEASE)).await?;
        let run = claimed.as_ref().and_then(read).filter(|run| run.end.is_none());
        Ok(run.map(|run| (run, name)))
    }
}

/// The run of a job, unless another release has written it in a way that this one does not know.
fn read(job: &Job) -> Option<Run> {
    let run = Run::from_stored(&job.state);
    if let Err(error) = &run {
        tracing::warn!(%error, "the state of the check of the stores cannot be read");
    }
    run.ok()
}
