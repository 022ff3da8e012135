//! Runs of retention policies: when they are due, who does them, and what is told of them.
//!
//! A policy has a job in the store. Whichever replica takes it walks through every repository that the policy covers and
//! renews its claim as it goes; if it dies, another one begins anew, which does no harm.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::walk::{self, Found, Mode, SAMPLE, Stores};
use crate::domain::{Algorithm, Digest, RepositoryName};
use crate::lifecycle::coverage::Coverage;
use crate::lifecycle::keeper::{Keeper, count};
use crate::metadata::lifecycle::{Job, JobKey, JobKind, PARKED};
use crate::metadata::{MetadataError, Repository, TenantId, Time};
use crate::telemetry::span;
use crate::tenancy::policies::Policy;
use crate::tenancy::{Snapshot, Tenant};

/// Between two looks at what is due.
const EVERY: Duration = Duration::from_secs(2);
/// How long a replica may be silent before another one takes over: longer than the walk through one large repository.
const CLAIM: Duration = Duration::from_secs(600);
/// Repositories or jobs of one query.
const PAGE: u32 = 500;
/// Repositories that are remembered.
const REMEMBERED: u64 = 100_000;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The rules cannot be read.
    #[error("{0}")]
    Rules(String),
    /// Another replica has taken over.
    #[error("another replica has taken the run over")]
    Overtaken,
    /// It runs already.
    #[error("the policy is being run")]
    Running,
}

/// What is known of a policy's runs.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct History {
    /// The configuration that was last looked at.
    pub hash: u64,
    /// The last run.
    pub last_run: Option<LastRun>,
    /// What a run would do.
    pub preview: Option<Preview>,
    /// When it runs next, in microseconds since 1970.
    pub next_run: Option<i64>,
}

/// A run.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LastRun {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// Tags that were looked at; if it failed, until then, as what follows.
    pub evaluated: u64,
    /// Tags that were deleted.
    pub deleted_tags: u64,
    /// Bytes that become free, at least.
    pub reclaimable: u64,
    /// Whether it only reported.
    pub dry_run: bool,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a run would do.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Preview {
    /// When that was so, in microseconds since 1970.
    pub at: i64,
    /// Tags that were looked at.
    pub evaluated: u64,
    /// Tags that it would delete.
    pub would_delete: u64,
    /// Bytes that would become free, at least.
    pub reclaimable: u64,
    /// Some of the tags, with their repositories.
    pub sample: Vec<String>,
}

/// What need not be looked at again: nothing has been pushed since, and no age has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quiet {
    hash: u64,
    newest: Option<Time>,
    until: Option<Time>,
    evaluated: u64,
}

/// Repositories in which a run has found nothing left to delete.
pub struct Seen(Cache<(TenantId, RepositoryName), Quiet>);

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

/// What this process is running: a claim in the store tells processes apart, not tasks.
#[derive(Default)]
pub struct Running(Mutex<HashSet<JobKey>>);

/// A run that this process is at.
struct Begun<'a>(&'a Running, JobKey);

impl Running {
    fn begin(&self, key: &JobKey) -> Option<Begun<'_>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(key.clone()).then(|| Begun(self, key.clone()))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut running = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.1);
    }
}

/// Runs policies for ever.
pub(in crate::lifecycle) async fn follow(keeper: Arc<Keeper>) {
    let mut known = Weak::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = keeper.look_now.notified() => {}
        }
        if let Err(error) = keeper.run_due(&mut known).await {
            tracing::warn!(%error, "looking for due retention policies failed; it is tried again");
        }
    }
}

fn key(tenant: TenantId, policy: &str) -> JobKey {
    JobKey {
        tenant,
        kind: JobKind::Retention,
        name: policy.to_owned(),
    }
}

/// Says which configuration this is, also to replicas of another release.
fn hash_of(policy: &Policy) -> u64 {
    let text = serde_json::to_vec(&*policy.config).unwrap_or_default();
    let digest = Digest::of(Algorithm::Sha256, &text);
    // 52 bits: a number in JSON everywhere.
    let first = digest.hash().iter().take(8);
    first.fold(0_u64, |hash, byte| (hash << 8) | u64::from(*byte)) >> 12
}

fn read(state: &str) -> History {
    // What a later release writes there is read as far as it is known.
    serde_json::from_str(state).unwrap_or_default()
}

fn write(history: &History) -> String {
    serde_json::to_string(history).unwrap_or_default()
}

impl Keeper {
    /// What is known of a policy's runs.
    pub async fn history(&self, tenant: TenantId, policy: &str) -> Result<History, MetadataError> {
        let job = self.store.job(&key(tenant, policy)).await?;
        Ok(job.map(|job| read(&job.state)).unwrap_or_default())
    }

    /// Runs what is due. `known` is the configuration of which every policy has been looked at; while it holds, only
    /// jobs that are due are read.
    async fn run_due(&self, known: &mut Weak<Snapshot>) -> Result<(), MetadataError> {
        let snapshot = self.directory.now();
        if known.as_ptr() != Arc::as_ptr(&snapshot) {
            let is_done = self.run_new(&snapshot).await?;
            *known = if is_done {
                Arc::downgrade(&snapshot)
            } else {
                Weak::new()
            };
            return Ok(());
        }
        let now = Time::now();
        for ((tenant, name), job) in self.jobs(now).await? {
            let Some(tenant) = snapshot.tenant(tenant) else {
                continue;
            };
            if let Some(policy) = tenant.policies.get(name.as_str()) {
                self.run_if_due(tenant, policy, Some(&job), now).await?;
            }
        }
        Ok(())
    }

    /// Jobs that are due by a time.
    async fn jobs(&self, due: Time) -> Result<HashMap<(TenantId, String), Job>, MetadataError> {
        let mut jobs = HashMap::new();
        let mut after = (0, String::new());
        loop {
            let page = self.store.jobs(JobKind::Retention, due, after, PAGE).await?;
            let Some((tenant, name, _)) = page.last() else {
                return Ok(jobs);
            };
            after = (tenant.0, name.clone());
            jobs.extend(page.into_iter().map(|(tenant, name, job)| ((tenant, name), job)));
        }
    }

    /// Runs what is due, previews policies that are new or have changed, and forgets those that are gone; false if
    /// another replica is at one that has changed.
    async fn run_new(&self, snapshot: &Snapshot) -> Result<bool, MetadataError> {
        let mut jobs = self.jobs(PARKED).await?;
        let now = Time::now();
        let mut is_done = true;
        for tenant in snapshot.tenants() {
            for policy in tenant.policies.values() {
                let job = jobs.remove(&(tenant.id, policy.name.to_string()));
                is_done &= self.run_if_due(tenant, policy, job.as_ref(), now).await?;
            }
        }
        // Policies that are gone. Those of tenants that this replica does not know are not its to judge.
        for ((tenant, name), _) in jobs {
            if snapshot.tenant(tenant).is_some() {
                self.store.drop_job(&key(tenant, &name)).await?;
            }
        }
        Ok(is_done)
    }

    /// Runs a policy that is due, or previews one that is new or has changed; false if it has changed and another
    /// replica is at it.
    async fn run_if_due(
        &self,
        tenant: &Tenant,
        policy: &Policy,
        job: Option<&Job>,
        now: Time,
    ) -> Result<bool, MetadataError> {
        let is_new = job.is_none_or(|job| read(&job.state).hash != hash_of(policy));
        let is_due = job.is_none_or(|job| job.due_at <= now);
        if !is_due && !is_new {
            return Ok(true);
        }
        let key = key(tenant.id, &policy.name);
        let Some(_running) = self.running.begin(&key) else {
            return Ok(!is_new);
        };
        if job.is_some() {
            self.store.advance_job(&key, now).await?;
        }
        let Some(job) = self.take(&key, now, CLAIM).await? else {
            return Ok(!is_new);
        };
        let history = read(&job.state);
        // A changed policy is only previewed: its run comes when it is due.
        let runs = history.hash == hash_of(policy) && history.next_run.is_some_and(|next| next <= now.0);
        self.turn(tenant, policy, history, runs).await;
        Ok(true)
    }

    /// One turn of a policy whose job is claimed.
    async fn turn(&self, tenant: &Tenant, policy: &Policy, mut history: History, runs: bool) -> History {
        let now = Time::now();
        let key = key(tenant.id, &policy.name);
        let schedule = policy.config.schedule.as_deref().map(str::parse::<Schedule>);
        let next = match schedule {
            None => Schedule::default().next(now),
            Some(Ok(schedule)) => schedule.next(now),
            // What cannot be read was let through by another release.
            Some(Err(_)) => None,
        };
        let dry = policy.config.dry_run || tenant.config.suspend;
        let by = format!("retention {}", policy.name);
        let mode = if runs && !dry {
            Mode::Run(&by)
        } else {
            Mode::Preview
        };
        // Not around the statements: they are as many as there are repositories.
        let spanned = span::task("retention");
        let mut found = Found::default();
        let outcome = self
            .walk_all(tenant, policy, mode, now, &write(&history), &mut found)
            .await;
        drop(spanned);
        match outcome {
            Err(RunError::Overtaken) => return history,
            Ok(()) => {
                if runs {
                    history.last_run = Some(LastRun {
                        at: now.0,
                        evaluated: found.evaluated,
                        deleted_tags: found.deleted,
                        reclaimable: found.reclaimable,
                        dry_run: dry,
                        error: None,
                    });
                }
                let left = mode == Mode::Preview;
                history.preview = Some(Preview {
                    at: now.0,
                    evaluated: found.evaluated,
                    would_delete: if left {
                        found.going
                    } else {
                        found.going - found.deleted
                    },
                    reclaimable: if left { found.reclaimable } else { 0 },
                    sample: if left { found.sample } else { Vec::new() },
                });
            }
            Err(error) => {
                count(&self.tally.failed_runs, 1);
                tracing::warn!(tenant = %tenant.name, policy = %policy.name, %error, "a retention policy failed");
                if runs {
                    history.last_run = Some(LastRun {
                        at: now.0,
                        evaluated: found.evaluated,
                        deleted_tags: found.deleted,
                        reclaimable: found.reclaimable,
                        dry_run: dry,
                        error: Some(error.to_string()),
                    });
                }
            }
        }
        history.hash = hash_of(policy);
        history.next_run = next.map(|next| next.0);
        let due = next.unwrap_or(Time(i64::MAX));
        let saved = self
            .store
            .save_job(&key, &self.name, write(&history), Some(due), Time(0))
            .await;
        if let Err(error) = saved {
            tracing::warn!(policy = %policy.name, %error, "what a run has done could not be kept");
        }
        history
    }

    /// Runs a policy now, unless that is being done.
    pub async fn run_now(&self, tenant: &Tenant, policy: &Policy) -> Result<History, RunError> {
        let key = key(tenant.id, &policy.name);
        let _running = self.running.begin(&key).ok_or(RunError::Running)?;
        let now = Time::now();
        self.store.advance_job(&key, now).await?;
        let job = self.take(&key, now, CLAIM).await?.ok_or(RunError::Running)?;
        Ok(self.turn(tenant, policy, read(&job.state), true).await)
    }

    /// What a policy would do now. Nothing is changed.
    pub async fn preview(&self, tenant: &Tenant, policy: &Policy) -> Result<Found, RunError> {
        let mut found = Found::default();
        self.walk_all(tenant, policy, Mode::Preview, Time::now(), "", &mut found)
            .await?;
        Ok(found)
    }

    /// What the policies would do in one repository now.
    pub async fn preview_in(&self, tenant: &Tenant, name: &RepositoryName) -> Result<Found, RunError> {
        let coverage =
            Coverage::acting(tenant, name, self.delays.restore, |_| true).map_err(RunError::Rules)?;
        let repository = Repository {
            tenant: tenant.id,
            name: name.clone(),
        };
        Ok(walk::walk(self.stores(), &repository, &coverage, Mode::Preview, Time::now()).await?)
    }

    /// What walks read.
    pub fn stores(&self) -> Stores<'_> {
        Stores {
            metadata: &*self.metadata,
            lifecycle: &*self.store,
        }
    }

    async fn walk_all(
        &self,
        tenant: &Tenant,
        policy: &Policy,
        mode: Mode<'_>,
        now: Time,
        state: &str,
        all: &mut Found,
    ) -> Result<(), RunError> {
        let mut after = String::new();
        loop {
            let names = self.metadata.repositories(tenant.id, after, None, PAGE).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = last.clone();
            for name in names
                .iter()
                .filter_map(|name| name.parse::<RepositoryName>().ok())
            {
                // What a policy would do is shown though it only reports.
                let acts = |other: &Policy| {
                    !other.config.dry_run || (mode == Mode::Preview && other.name == policy.name)
                };
                let coverage =
                    Coverage::acting(tenant, &name, self.delays.restore, acts).map_err(RunError::Rules)?;
                if coverage.policies.contains(&policy.name) {
                    let mut found = Found::default();
                    let walked = self
                        .walk_one(tenant, name, &coverage, mode, now, &mut found)
                        .await;
                    add(all, found);
                    walked?;
                }
                if !state.is_empty() {
                    self.hold(tenant, policy, state).await?;
                }
            }
        }
    }

    /// Renews the claim.
    async fn hold(&self, tenant: &Tenant, policy: &Policy, state: &str) -> Result<(), RunError> {
        let until = Time::now().plus(CLAIM);
        let key = key(tenant.id, &policy.name);
        let held = self
            .store
            .save_job(&key, &self.name, state.to_owned(), None, until)
            .await?;
        held.then_some(()).ok_or(RunError::Overtaken)
    }

    async fn walk_one(
        &self,
        tenant: &Tenant,
        name: RepositoryName,
        coverage: &Coverage,
        mode: Mode<'_>,
        now: Time,
        found: &mut Found,
    ) -> Result<(), RunError> {
        let repository = Repository {
            tenant: tenant.id,
            name,
        };
        let hash = hash_of_coverage(tenant, &repository.name, coverage);
        let place = (tenant.id, repository.name.clone());
        let (newest, _) = self.store.last_times(&repository).await?;
        let quiet = self.seen.0.get(&place);
        if let Some(quiet) = &quiet
            && quiet.hash == hash
            && quiet.newest == newest
            && quiet.until.is_none_or(|until| now < until)
        {
            found.evaluated = quiet.evaluated;
            return Ok(());
        }
        if mode != Mode::Preview
            && coverage.untagged_after.is_some()
            && quiet.is_none_or(|quiet| quiet.hash != hash)
        {
            // Manifests without a tag that have waited for such a rule.
            self.store.unpark(&repository, now).await?;
            self.collect_now.notify_one();
        }
        let walked = walk::walk_into(self.stores(), &repository, coverage, mode, now, found).await;
        if walked.is_ok() && mode != Mode::Preview && found.going == found.deleted {
            let quiet = Quiet {
                hash,
                newest,
                until: found.deadline,
                evaluated: found.evaluated - found.deleted,
            };
            self.seen.0.insert(place, quiet);
        }
        if found.deleted > 0 {
            count(&self.tally.retained_out, found.deleted);
            let by = match mode {
                Mode::Run(by) => by,
                Mode::Preview => "",
            };
            self.note(
                tenant,
                "retention",
                repository.name.to_string(),
                format!("{} of {} tags", found.deleted, found.evaluated),
                by,
            );
        }
        Ok(walked?)
    }
}

fn hash_of_coverage(tenant: &Tenant, name: &RepositoryName, coverage: &Coverage) -> u64 {
    let mut hasher = DefaultHasher::new();
    for policy in tenant.policies_of(name) {
        hash_of(policy).hash(&mut hasher);
    }
    coverage.immutable.hash(&mut hasher);
    coverage.untagged_after.hash(&mut hasher);
    tenant.repositories.ephemeral(name).hash(&mut hasher);
    hasher.finish()
}

fn add(all: &mut Found, found: Found) {
    all.evaluated += found.evaluated;
    all.going += found.going;
    all.deleted += found.deleted;
    all.reclaimable += found.reclaimable;
    let room = SAMPLE - all.sample.len();
    all.sample.extend(found.sample.into_iter().take(room));
}
