//! Garbage collection: manifests, blobs and objects that nothing refers to, as their time comes.
//!
//! The store's queues say what to look at; each candidate is looked at in a transaction of its own, under lock. The
//! work is proportional to what has lost a reference, never to what is stored. Replicas share it: a candidate that one
//! has taken is put off, and comes again only if that replica fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_crds::Redirect;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::coverage::Coverage;
use super::keeper::{Keeper, count, repository};
use crate::blobs::BlobError;
use crate::domain::Digest;
use crate::metadata::lifecycle::{Candidate, CollectBlob, Collected, JobKey, JobKind, Judgement, Queues};
use crate::metadata::{MetadataError, TenantId, Time};
use crate::telemetry::span;
use crate::tenancy::Tenant;

/// A candidate whose look failed, or was cut by the end of the process, comes again after a part of the delay.
const SHORTEST_RETRY: Duration = Duration::from_secs(5);
/// And no later than this.
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// A candidate of a suspended tenant comes again after this.
const SUSPENDED: Duration = Duration::from_secs(3600);
/// Candidates taken at once.
const BATCH: u32 = 128;
/// While requests come, so many times fewer candidates are looked at at once.
const FEWER: usize = 4;
/// Repositories from which a blob is unlinked at once.
const LINKS: u32 = 100;
/// Longest pause between two looks at the queues.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Shortest pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// Why a round of collection failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// The metadata store.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

type Result<T> = std::result::Result<T, CollectionError>;

/// The switch that all replicas heed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Switch {
    /// Whether nothing is collected.
    pub paused: bool,
    /// Since when, in microseconds since 1970.
    pub since: i64,
}

/// What one round has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Manifests collected.
    pub manifests: u64,
    /// Blobs collected.
    pub blobs: u64,
    /// Objects deleted.
    pub objects: u64,
    /// Bytes of manifests and blobs.
    pub bytes: u64,
    /// Candidates that were looked at.
    pub looked_at: u64,
}

impl Round {
    fn add(&mut self, other: Self) {
        self.manifests += other.manifests;
        self.blobs += other.blobs;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.looked_at += other.looked_at;
    }
}

/// Collects for ever.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    // Short delays, as in tests, want short pauses.
    let pause = (keeper.delays.review / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        let worked = match keeper.collect_some().instrument(span::task("collection")).await {
            Ok(round) => round.looked_at > 0,
            Err(error) => {
                count(&keeper.tally.failures, 1);
                tracing::warn!(%error, "a round of collection failed; it is tried again");
                false
            }
        };
        if !worked {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = keeper.collect_now.notified() => {}
            }
        }
    }
}

impl Keeper {
    /// The switch.
    pub async fn switch(&self) -> std::result::Result<Switch, MetadataError> {
        let job = self.store.job(&JobKey::of(JobKind::Collection)).await?;
        // What a later release writes there is read as far as it is known.
        Ok(job.map_or_else(Switch::default, |job| {
            serde_json::from_str(&job.state).unwrap_or_default()
        }))
    }

    /// Pauses collection on all replicas, or lets it go on.
    pub async fn pause(&self, paused: bool) -> std::result::Result<Switch, MetadataError> {
        let switch = Switch {
            paused,
            since: Time::now().0,
        };
        let state =
            serde_json::to_string(&switch).map_err(|error| MetadataError::Corrupt(error.to_string()))?;
        self.store
            .put_job(&JobKey::of(JobKind::Collection), Time::now(), state)
            .await?;
        self.collect_now.notify_one();
        Ok(switch)
    }

    /// Until when no object is deleted, if that is still to come.
    pub async fn held_until(&self) -> std::result::Result<Option<Time>, MetadataError> {
        let job = self.store.job(&JobKey::of(JobKind::Hold)).await?;
        Ok(job.map(|job| job.due_at).filter(|until| *until > Time::now()))
    }

    /// Has no replica delete an object for so long from now on, or longer if somebody else wants that; until when.
    pub async fn hold_objects(&self, wanted: Duration) -> std::result::Result<Time, MetadataError> {
        let until = Time::now().plus(wanted);
        if let Some(held) = self.held_until().await?.filter(|held| *held >= until) {
            return Ok(held);
        }
        self.store
            .put_job(&JobKey::of(JobKind::Hold), until, "{}".to_owned())
            .await?;
        Ok(until)
    }

    /// How much waits.
    pub async fn queues(&self) -> std::result::Result<Queues, MetadataError> {
        self.store.queues(Time::now()).await
    }

    /// Collects whatever is due now, though the switch says pause; what has been done.
    pub async fn collect_all(&self) -> Result<Round> {
        let mut all = Round::default();
        loop {
            let round = self.collect_once().await?;
            if round.looked_at == 0 {
                return Ok(all);
            }
            all.add(round);
        }
    }

    async fn collect_some(&self) -> Result<Round> {
        if self.switch().await?.paused {
            return Ok(Round::default());
        }
        self.collect_once().await
    }

    /// One batch of candidates and of objects.
    async fn collect_once(&self) -> Result<Round> {
        let begun = Instant::now();
        let now = Time::now();
        let claimed = now.plus(self.retry());
        let candidates = self.store.candidates(now, claimed, BATCH).await?;
        let mut round = Round {
            looked_at: candidates.len() as u64,
            ..Round::default()
        };
        let looks = candidates.iter().map(|candidate| self.look(candidate, claimed));
        for outcome in self.giving_way(looks).await {
            match outcome {
                Ok(done) => round.add(done),
                Err(error) => {
                    count(&self.tally.failures, 1);
                    tracing::warn!(%error, "a candidate could not be looked at; it comes again");
                }
            }
        }
        round.add(self.delete_objects().await?);
        count(&self.tally.manifests, round.manifests);
        count(&self.tally.blobs, round.blobs);
        count(&self.tally.objects, round.objects);
        count(&self.tally.bytes, round.bytes);
        // The rate is kept by waiting for as long as the batch should have taken.
        let due = Duration::from_secs(round.looked_at) / self.rate;
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        Ok(round)
    }

    /// Does all pieces of some work, several at once; while requests come fewer at once, and with rests.
    async fn giving_way<T>(
        &self,
        pieces: impl Iterator<Item = impl Future<Output = T> + Send> + Send,
    ) -> Vec<T>
    where
        T: Send,
    {
        let mut pieces = pieces.fuse();
        let mut done = Vec::new();
        loop {
            let begun = Instant::now();
            let at_once = match self.traffic.is_busy() {
                true => self.store.looks_at_once().div_ceil(FEWER),
                false => self.store.looks_at_once(),
            };
            let some: Vec<_> = pieces.by_ref().take(at_once).collect();
            if some.is_empty() {
                return done;
            }
            done.extend(join_all(some).await);
            self.traffic.rest(begun.elapsed()).await;
        }
    }

    /// When an object of a tenant may be deleted after its blob: a tenant may have URLs handed out though the
    /// installation does not.
    fn object_delay(&self, tenant: Option<&Tenant>) -> Duration {
        let urls = tenant.is_some_and(|tenant| tenant.config.redirect == Redirect::Always);
        if urls {
            self.delays.object.max(self.delays.url)
        } else {
            self.delays.object
        }
    }

    fn retry(&self) -> Duration {
        (self.delays.review / 10).clamp(SHORTEST_RETRY, LONGEST_RETRY)
    }

    async fn look(&self, candidate: &Candidate, claimed: Time) -> Result<Round> {
        let mut done = Round::default();
        let (Candidate::Manifest(of, ..) | Candidate::Blob(of, _) | Candidate::Deleted(of, ..)) = candidate;
        let owner = self.directory.now().tenant(*of).cloned();
        // Nothing of a suspended tenant is deleted, and it is not looked at again and again.
        if owner.as_ref().is_some_and(|tenant| tenant.config.suspend) {
            let later = Time::now().plus(SUSPENDED);
            self.store.put_off(candidate, claimed, later).await?;
            return Ok(done);
        }
        match candidate {
            Candidate::Manifest(tenant, name, digest) => {
                let collected = self.look_at_manifest(*tenant, name, digest, claimed).await?;
                if let Collected::Done(bytes) = collected {
                    tracing::debug!(repository = name, %digest, "a manifest was collected");
                    (done.manifests, done.bytes) = (1, bytes);
                }
            }
            Candidate::Blob(tenant, digest) => {
                let among = self.store.unused_links(*tenant, digest, LINKS).await?;
                let now = Time::now();
                let blob = CollectBlob {
                    tenant: *tenant,
                    digest: *digest,
                    among,
                    now,
                    claimed,
                    object_due: now.plus(self.object_delay(owner.as_deref())),
                };
                if let Collected::Done(bytes) = self.store.collect_blob(blob).await? {
                    tracing::debug!(%digest, "a blob was collected");
                    (done.blobs, done.bytes) = (1, bytes);
                }
            }
            Candidate::Deleted(tenant, name, digest) => {
                if let (Some(repository), judgement) = self.judgement(*tenant, name, claimed) {
                    self.store.forget_deleted(&repository, digest, judgement).await?;
                }
            }
        }
        Ok(done)
    }

    async fn look_at_manifest(
        &self,
        tenant: TenantId,
        name: &str,
        digest: &Digest,
        claimed: Time,
    ) -> Result<Collected> {
        let (Some(repository), judgement) = self.judgement(tenant, name, claimed) else {
            // It is about to be purged.
            return Ok(Collected::Later);
        };
        Ok(self
            .store
            .collect_manifest(&repository, digest, judgement)
            .await?)
    }

    /// What decides in a repository. That of an unknown tenant keeps what is not condemned.
    fn judgement(
        &self,
        tenant: TenantId,
        name: &str,
        claimed: Time,
    ) -> (Option<crate::metadata::Repository>, Judgement) {
        let now = Time::now();
        let mut judgement = Judgement {
            now,
            claimed,
            untagged_after: None,
            pulls_count: false,
            immutable: Vec::new(),
            review_at: now,
        };
        let repository = repository(tenant, name);
        if let (Some(repository), Some(tenant)) = (&repository, self.directory.now().tenant(tenant))
            && let Ok(coverage) = Coverage::of(tenant, &repository.name, self.delays.restore)
        {
            judgement.untagged_after = coverage.untagged_after;
            judgement.pulls_count = tenant.caches.of(&repository.name).is_some();
            judgement.immutable = coverage.immutable;
        }
        (repository, judgement)
    }

    /// Deletes objects that are due. The row goes last: what is cut in between is done again.
    async fn delete_objects(&self) -> Result<Round> {
        // Before the hold is looked at: what is due by then was let go before a hold that is not seen yet began.
        let now = Time::now();
        if self.held_until().await?.is_some() {
            return Ok(Round::default());
        }
        let due = self
            .metadata
            .due_objects(now, now.plus(self.retry()), BATCH)
            .await?;
        let mut done = Round {
            looked_at: due.len() as u64,
            ..Round::default()
        };
        let deletions = due.into_iter().map(|(tenant, key)| async move {
            self.blobs.delete(&key).await?;
            self.metadata.forget_object(tenant, &key).await?;
            Ok::<_, CollectionError>(())
        });
        for outcome in self.giving_way(deletions).await {
            match outcome {
                Ok(()) => done.objects += 1,
                Err(error) => {
                    count(&self.tally.failures, 1);
                    count(&self.tally.undeleted, 1);
                    tracing::warn!(%error, "an object could not be deleted; it is tried again");
                }
            }
        }
        Ok(done)
    }

    /// What has been collected since the process began.
    pub fn collected(&self) -> Round {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Round {
            manifests: read(&self.tally.manifests),
            blobs: read(&self.tally.blobs),
            objects: read(&self.tally.objects),
            bytes: read(&self.tally.bytes),
            looked_at: 0,
        }
    }
}
