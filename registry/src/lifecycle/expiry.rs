//! Tags whose time is over: those of ephemeral repositories, and those whose manifest says so itself.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::coverage::Coverage;
use super::keeper::{Keeper, count, repository};
use super::retention::rules::{Goes, Tag, Verdict};
use crate::domain::{RepositoryName, TagName};
use crate::metadata::events::Kind;
use crate::metadata::lifecycle::{DropTags, ExpiredTag, JobKey, JobKind, TagPage, TagRow};
use crate::metadata::{MetadataError, Repository, Time};
use crate::telemetry::span;
use crate::tenancy::Tenant;
use crate::tenancy::repositories::Covers;

/// Longest time between two rounds.
const EVERY: Duration = Duration::from_secs(30);
/// How long a replica may be silent before another one takes the round.
const CLAIM: Duration = Duration::from_secs(60);
/// Tags of one transaction.
const BATCH: u32 = 500;
/// Repositories of one query.
const PAGE: u32 = 500;
/// Who deletes.
const PRINCIPAL: &str = "expiry";

/// Lets tags expire for ever.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    let every = (keeper.delays.review / 10).clamp(Duration::from_millis(200), EVERY);
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = keeper.expire(every).instrument(span::task("expiry")).await {
            tracing::warn!(%error, "expiring tags failed; it is tried again");
        }
    }
}

impl Keeper {
    async fn expire(&self, every: Duration) -> Result<(), MetadataError> {
        let (key, now) = (JobKey::of(JobKind::Expiry), Time::now());
        let Some(job) = self.take(&key, now, CLAIM).await? else {
            return Ok(());
        };
        self.expire_annotated(now).await?;
        let snapshot = self.directory.now();
        for tenant in snapshot.tenants().filter(|tenant| !tenant.config.suspend) {
            self.expire_ephemeral(tenant, now).await?;
            // A long round shows that it is alive.
            self.store
                .save_job(&key, &self.name, job.state.clone(), None, Time::now().plus(CLAIM))
                .await?;
        }
        let next = Time::now().plus(every);
        self.store
            .save_job(&key, &self.name, job.state, Some(next), Time(0))
            .await?;
        Ok(())
    }

    /// Those that have an end of their own.
    async fn expire_annotated(&self, now: Time) -> Result<(), MetadataError> {
        let snapshot = self.directory.now();
        // Beginning anew each time: what stays because it may not be deleted is passed by.
        let mut after = Time(0);
        loop {
            let due = self.store.expired_tags(after, now, BATCH).await?;
            let Some(last) = due.last() else {
                return Ok(());
            };
            after = last.at;
            for ExpiredTag {
                tenant,
                repository: name,
                row: tag,
                ..
            } in due
            {
                let (Some(repository), Some(tenant)) = (repository(tenant, &name), snapshot.tenant(tenant))
                else {
                    continue;
                };
                if may_go(tenant, &repository.name, &tag) {
                    let window =
                        super::coverage::restore_window(tenant, &repository.name, self.delays.restore);
                    self.drop_expired(tenant, &repository, vec![tag], window, now)
                        .await?;
                }
            }
        }
    }

    async fn expire_ephemeral(&self, tenant: &Arc<Tenant>, now: Time) -> Result<(), MetadataError> {
        let mut listed = false;
        for (covers, _) in tenant.repositories.ephemeral_rules() {
            match covers {
                Covers::One(name) => self.expire_in(tenant, name, now).await?,
                Covers::Matching(_) => listed = true,
            }
        }
        if !listed {
            return Ok(());
        }
        let mut after = String::new();
        loop {
            let names = self.metadata.repositories(tenant.id, after, None, PAGE).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = last.clone();
            for name in names
                .iter()
                .filter_map(|name| name.parse::<RepositoryName>().ok())
            {
                if !tenant.repositories.declares(&name) {
                    self.expire_in(tenant, &name, now).await?;
                }
            }
        }
    }

    /// One look at the oldest tags of an ephemeral repository.
    async fn expire_in(
        &self,
        tenant: &Arc<Tenant>,
        name: &RepositoryName,
        now: Time,
    ) -> Result<(), MetadataError> {
        let Some(lifetime) = tenant.repositories.ephemeral(name) else {
            return Ok(());
        };
        let repository = Repository {
            tenant: tenant.id,
            name: name.clone(),
        };
        let coverage = match Coverage::of(tenant, name, self.delays.restore) {
            Ok(coverage) => coverage,
            Err(error) => {
                tracing::error!(repository = %name, error, "the rules of a repository cannot be read");
                return Ok(());
            }
        };
        let place = (tenant.id, name.clone());
        if self.woken.get(&place) != Some(lifetime) {
            // It may not have been ephemeral when they came.
            self.store.unpark(&repository, now).await?;
            self.woken.insert(place, lifetime);
        }
        let mut page = TagPage {
            before: Some(now.minus(lifetime)),
            limit: BATCH,
            ..TagPage::default()
        };
        loop {
            let tags = self.store.tags_by_push(&repository, page.clone()).await?;
            let Some(last) = tags.last() else { return Ok(()) };
            page.after = Some((last.pushed_at, last.name.clone()));
            let due: Vec<TagRow> = tags
                .into_iter()
                .filter(|tag| is_over(&coverage, tag, now))
                .collect();
            if !due.is_empty() {
                self.drop_expired(tenant, &repository, due, coverage.window, now)
                    .await?;
            }
        }
    }

    async fn drop_expired(
        &self,
        tenant: &Tenant,
        repository: &Repository,
        tags: Vec<TagRow>,
        window: Duration,
        now: Time,
    ) -> Result<(), MetadataError> {
        let drop = DropTags {
            tags,
            principal: PRINCIPAL.to_owned(),
            now,
            until: now.plus(window),
            announce: tenant.announce(Kind::Expiry, Some(&repository.name)),
        };
        let gone = self.store.drop_tags(repository, drop).await?;
        if gone > 0 {
            count(&self.tally.expired, gone);
            self.note(
                tenant,
                "expire",
                repository.name.to_string(),
                format!("{gone} tags"),
                PRINCIPAL,
            );
        }
        Ok(())
    }

    /// Takes a job of the installation, which is made if need be.
    pub(super) async fn take(
        &self,
        key: &JobKey,
        now: Time,
        claim: Duration,
    ) -> Result<Option<crate::metadata::lifecycle::Job>, MetadataError> {
        let until = now.plus(claim);
        if let Some(job) = self.store.claim_job(key, &self.name, now, until).await? {
            return Ok(Some(job));
        }
        if self.store.job(key).await?.is_some() {
            return Ok(None);
        }
        self.store.put_job(key, now, String::new()).await?;
        self.store.claim_job(key, &self.name, now, until).await
    }
}

/// Whether the time of a tag in an ephemeral repository is over. Whatever the other rules say is retention's.
fn is_over(coverage: &Coverage, tag: &TagRow, now: Time) -> bool {
    let seen = Tag {
        name: &tag.name,
        pushed_at: tag.pushed_at,
        renewed_at: tag.renewed_at,
        pulled_at: tag.pulled_at,
    };
    let verdict = coverage.plan.walk(now, coverage.plan.versions()).judge(&seen);
    !tag.attached && matches!(verdict, Verdict::Goes(Goes::Expired { .. }))
}

fn may_go(tenant: &Tenant, repository: &RepositoryName, tag: &TagRow) -> bool {
    let name: Result<TagName, _> = tag.name.parse();
    let is_immutable = |name: &TagName| {
        tenant
            .repositories
            .immutable(repository)
            .any(|glob| glob.matches(name.as_str()))
    };
    !tenant.config.suspend && name.is_ok_and(|name| !is_immutable(&name))
}
