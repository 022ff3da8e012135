//! The one that works on a run: step by step, page by page, under the job's lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::run::{End, Run, Step};
use super::{LEASE, Shared, key};
use crate::blobs::BlobError;
use crate::metadata::inspection::Inspection;
use crate::metadata::lifecycle::PARKED;
use crate::metadata::{MetadataError, Time};

/// Between two times that the run is stored.
const SAVE: Duration = Duration::from_secs(2);
/// What is younger may be on its way: it is not expected to be referred to yet.
pub(super) const SETTLED: Duration = Duration::from_secs(3600);
/// When a repair takes effect.
pub(super) const REPAIR_DELAY: Duration = Duration::from_secs(3600);
/// The first pause after a store has failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why a worker does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    /// The run was stopped, or another process works on it.
    #[error("it is no longer this process's")]
    Lost,
    /// The metadata store failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// A worker and its run, of which the part up to the run's cursor is done with.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) run: Run,
    /// By which it holds the lease.
    name: String,
    saved: Instant,
    pace: Pace,
    has_seen_all: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, mut run: Run, name: String) -> Self {
        run.reading = 0;
        Self {
            pace: Pace::new(run.options.rate),
            shared,
            run,
            name,
            saved: Instant::now(),
            has_seen_all: false,
        }
    }

    /// Works until the run has ended or is somebody else's. A store that fails is waited for.
    pub(super) async fn work(mut self) {
        let mut pause = PAUSES.0;
        loop {
            match self.go_on().await {
                Ok(true) => return self.log_end(),
                Ok(false) => {
                    self.run.trouble = None;
                    pause = PAUSES.0;
                }
                Err(Halt::Lost) => return,
                Err(error) => {
                    tracing::warn!(%error, step = ?self.run.step, "the check of the stores waits");
                    self.run.trouble = Some(error.to_string());
                    if matches!(error, Halt::Metadata(MetadataError::Corrupt(_))) {
                        self.run.end(End::Failed, Time::now());
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    // It may be this store that fails.
                    if let Err(Halt::Lost) = self.save().await {
                        return;
                    }
                }
            }
        }
    }

    /// One page; true once the run has ended and that is stored.
    async fn go_on(&mut self) -> Result<bool, Halt> {
        if self.run.end.is_none() && !self.has_seen_all {
            self.page().await?;
        }
        if self.has_seen_all && self.run.end.is_none() {
            self.run.end(End::Done, Time::now());
        }
        if self.run.end.is_some() {
            self.save().await?;
            return Ok(true);
        }
        self.tick().await?;
        Ok(false)
    }

    async fn page(&mut self) -> Result<(), Halt> {
        let more = match (self.run.step, self.run.step.table()) {
            (_, Some(table)) => self.rows(table).await?,
            (Step::Payloads, _) => self.payloads().await?,
            (Step::Blobs, _) => self.sizes().await?,
            (Step::Contents, _) => self.contents().await?,
            (Step::Lost, _) => self.forget_lost().await?,
            (Step::Objects, _) => self.objects().await?,
            (Step::Orphans, _) => self.queue_orphans().await?,
            (_, None) => self.count().await?,
        };
        if !more {
            match self.run.next() {
                Some(step) => self.run.begin(step),
                None => self.has_seen_all = true,
            }
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<bool, Halt> {
        match self.inspection().totals().await {
            Ok(totals) => self.run.counted(&totals),
            // The check works without; only nobody sees how far it is.
            Err(error) => tracing::info!(%error, "what there is to check could not be counted"),
        }
        Ok(false)
    }

    pub(super) fn inspection(&self) -> Arc<dyn Inspection> {
        self.shared.parts.inspection.clone()
    }

    /// Lets a moment pass.
    pub(super) async fn moment(&mut self) -> Result<(), Halt> {
        tokio::time::sleep(self.shared.moment).await;
        self.tick().await
    }

    /// Lets as much time pass as so many bytes may take.
    pub(super) async fn pace(&mut self, bytes: usize) -> Result<(), Halt> {
        let until = self.pace.until(bytes);
        while let Some(left) = until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            tokio::time::sleep(left.min(SAVE)).await;
            self.tick().await?;
        }
        self.tick().await
    }

    /// Stores the run and renews the lease now and then. To be called more often than that.
    pub(super) async fn tick(&mut self) -> Result<(), Halt> {
        if self.saved.elapsed() < SAVE {
            return Ok(());
        }
        self.save().await
    }

    async fn save(&mut self) -> Result<(), Halt> {
        let now = Time::now();
        let (due, until) = match self.run.end {
            None => (None, now.plus(LEASE)),
            Some(_) => (Some(PARKED), now),
        };
        let lifecycle = &self.shared.parts.lifecycle;
        let state = self.run.to_stored();
        if !lifecycle.save_job(&key(), &self.name, state, due, until).await? {
            tracing::info!("the check of the stores was stopped, or taken over by another process");
            return Err(Halt::Lost);
        }
        self.saved = Instant::now();
        Ok(())
    }

    fn log_end(&self) {
        let Run { checked, end, .. } = &self.run;
        tracing::info!(
            end = ?end,
            rows = checked.rows,
            blobs = checked.blobs,
            objects = checked.objects,
            bytes_rehashed = checked.bytes_rehashed,
            found = self.run.found,
            repaired = self.run.repaired,
            duration = ?self.run.duration(Time::now()),
            "the check of the stores has ended"
        );
    }
}

/// A rate that is kept to on average, without bursts after a rest.
struct Pace {
    rate: Option<u64>,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            next: Instant::now(),
        }
    }

    /// When the bytes after these may be read.
    fn until(&mut self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else {
            return now;
        };
        self.next = self.next.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_without_bursts_after_a_rest() {
        let begun = Instant::now();
        let mut pace = Pace::new(Some(1000));
        for _ in 0..10 {
            tokio::time::sleep_until(pace.until(100)).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let rested = Instant::now();
        for _ in 0..10 {
            tokio::time::sleep_until(pace.until(100)).await;
        }
        assert_eq!(rested.elapsed(), Duration::from_secs(1));
        assert!(Pace::new(None).until(usize::MAX) <= Instant::now());
    }
}
