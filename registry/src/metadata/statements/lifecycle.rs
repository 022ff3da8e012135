//! The trait of what is kept, over whichever database this file is compiled for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::super::lifecycle::*;
use super::super::{Repository, Result, TenantId, Time};
use super::{
    Database, collect, collect_blobs, collect_manifests, forget_blob, jobs, metering, purge, restore,
    retention,
};
use crate::domain::{Digest, TagName};

#[async_trait]
impl Lifecycle for Database {
    async fn tags_by_push(&self, repository: &Repository, page: TagPage) -> Result<Vec<TagRow>> {
        self.read((repository.clone(), page), |c, (repository, page)| {
            Box::pin(retention::by_push(c, repository, page))
        })
        .await
    }

    async fn tag_detail(&self, repository: &Repository, tag: &TagName) -> Result<Option<TagDetail>> {
        self.read((repository.clone(), tag.clone()), |c, (repository, tag)| {
            Box::pin(retention::one(c, repository, tag))
        })
        .await
    }

    async fn last_times(&self, repository: &Repository) -> Result<(Option<Time>, Option<Time>)> {
        self.read(repository.clone(), |c, repository| {
            Box::pin(retention::last_times(c, repository))
        })
        .await
    }

    async fn drop_tags(&self, repository: &Repository, tags: DropTags) -> Result<u64> {
        self.write_later((repository.clone(), tags), |c, (repository, tags)| {
            Box::pin(retention::drop_tags(c, repository, tags))
        })
        .await
    }

    async fn expired_tags(&self, after: Time, now: Time, limit: u32) -> Result<Vec<ExpiredTag>> {
        self.read((after, now, limit), |c, (after, now, limit)| {
            Box::pin(retention::expired(c, *after, *now, *limit))
        })
        .await
    }

    async fn reclaimable(&self, repository: &Repository, digests: BTreeMap<Digest, u64>) -> Result<u64> {
        self.read((repository.clone(), digests), |c, (repository, digests)| {
            Box::pin(retention::reclaimable(c, repository, digests))
        })
        .await
    }

    async fn record_pulls(&self, pulls: Vec<Pull>, now: Time) -> Result<()> {
        self.write_later((pulls, now), |c, (pulls, now)| {
            Box::pin(retention::record_pulls(c, pulls, *now))
        })
        .await
    }

    async fn count_pulls(&self, pulls: Vec<(Pull, u64)>) -> Result<()> {
        self.write_later((pulls,), |c, (pulls,)| Box::pin(retention::count_pulls(c, pulls)))
            .await
    }

    async fn renew_tag(
        &self,
        repository: &Repository,
        tag: &TagName,
        digest: &Digest,
        now: Time,
    ) -> Result<bool> {
        self.write(
            (repository.clone(), tag.clone(), *digest, now),
            |c, (repository, tag, digest, now)| Box::pin(retention::renew(c, repository, tag, digest, *now)),
        )
        .await
    }

    async fn deleted_tags(
        &self,
        repository: &Repository,
        before: Option<(Time, String)>,
        now: Time,
        limit: u32,
    ) -> Result<Vec<DeletedTag>> {
        self.read(
            (repository.clone(), before, now, limit),
            |c, (repository, before, now, limit)| {
                Box::pin(restore::deleted_tags(
                    c,
                    repository,
                    before.as_ref(),
                    *now,
                    *limit,
                ))
            },
        )
        .await
    }

    async fn restore_tag(&self, repository: &Repository, restore: RestoreTag) -> Result<Restored> {
        self.write((repository.clone(), restore), |c, (repository, restore)| {
            Box::pin(restore::restore(c, repository, restore))
        })
        .await
    }

    async fn tag_history(
        &self,
        repository: &Repository,
        tag: &TagName,
        before: Option<(Time, Uuid)>,
        limit: u32,
    ) -> Result<Vec<TagEvent>> {
        self.read(
            (repository.clone(), tag.clone(), before, limit),
            |c, (repository, tag, before, limit)| {
                Box::pin(restore::history(c, repository, tag, *before, *limit))
            },
        )
        .await
    }

    async fn forget_history(&self, repository: &Repository, before: Time, limit: u32) -> Result<u64> {
        self.write_later(
            (repository.clone(), before, limit),
            |c, (repository, before, limit)| {
                Box::pin(restore::forget_history(c, repository, *before, *limit))
            },
        )
        .await
    }

    fn looks_at_once(&self) -> usize {
        self.at_once()
    }

    async fn candidates(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<Candidate>> {
        self.write_later((now, retry, limit), |c, (now, retry, limit)| {
            Box::pin(collect::candidates(c, *now, *retry, *limit))
        })
        .await
    }

    async fn put_off(&self, candidate: &Candidate, claimed: Time, until: Time) -> Result<()> {
        self.write_later(
            (candidate.clone(), claimed, until),
            |c, (candidate, claimed, until)| Box::pin(collect::put_off(c, candidate, *claimed, *until)),
        )
        .await
    }

    async fn collect_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected> {
        self.write_later(
            (repository.clone(), *digest, judgement),
            |c, (repository, digest, judgement)| {
                Box::pin(collect_manifests::look(c, repository, digest, judgement))
            },
        )
        .await
    }

    async fn unused_links(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        self.read((tenant, *digest, limit), |c, (tenant, digest, limit)| {
            Box::pin(collect_blobs::unused_links(c, *tenant, digest, *limit))
        })
        .await
    }

    async fn collect_blob(&self, blob: CollectBlob) -> Result<Collected> {
        self.write_later(blob, |c, blob| Box::pin(collect_blobs::look(c, blob)))
            .await
    }

    async fn forget_blob(&self, blob: ForgetBlob) -> Result<Forgotten> {
        self.write_later(blob, |c, blob| Box::pin(forget_blob::forget(c, blob)))
            .await
    }

    async fn forget_deleted(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected> {
        self.write_later(
            (repository.clone(), *digest, judgement),
            |c, (repository, digest, judgement)| {
                Box::pin(collect_manifests::forget_deleted(
                    c, repository, digest, judgement,
                ))
            },
        )
        .await
    }

    async fn unpark(&self, repository: &Repository, due: Time) -> Result<u64> {
        self.write_later((repository.clone(), due), |c, (repository, due)| {
            Box::pin(collect::unpark(c, repository, *due))
        })
        .await
    }

    async fn queues(&self, now: Time) -> Result<Queues> {
        self.read(now, |c, now| Box::pin(collect::queues(c, *now))).await
    }

    async fn purges(&self, now: Time, limit: u32) -> Result<Vec<Purge>> {
        self.write_later((now, limit), |c, (now, limit)| {
            Box::pin(purge::due(c, *now, *limit))
        })
        .await
    }

    async fn pending_purges(&self, after: (i64, String), limit: u32) -> Result<Vec<Purge>> {
        self.read((after, limit), |c, (after, limit)| {
            Box::pin(purge::pending(c, after, *limit))
        })
        .await
    }

    async fn erase_repository(&self, repository: &Repository, erase: EraseRepository) -> Result<Erased> {
        self.write((repository.clone(), erase), |c, (repository, erase)| {
            Box::pin(purge::erase(c, repository, erase))
        })
        .await
    }

    async fn purge(&self, purge: &Purge, now: Time, object_due: Time, limit: u32) -> Result<PurgeStep> {
        self.write_later(
            (purge.clone(), now, object_due, limit),
            |c, (purge, now, object_due, limit)| Box::pin(purge::step(c, purge, *now, *object_due, *limit)),
        )
        .await
    }

    async fn job(&self, key: &JobKey) -> Result<Option<Job>> {
        self.read(key.clone(), |c, key| Box::pin(jobs::find(c, key)))
            .await
    }

    async fn jobs(
        &self,
        kind: JobKind,
        due: Time,
        after: (i64, String),
        limit: u32,
    ) -> Result<Vec<(TenantId, String, Job)>> {
        self.read((kind, due, after, limit), |c, (kind, due, after, limit)| {
            Box::pin(jobs::list(c, *kind, *due, after, *limit))
        })
        .await
    }

    async fn put_job(&self, key: &JobKey, due_at: Time, state: String) -> Result<()> {
        self.write((key.clone(), due_at, state), |c, (key, due_at, state)| {
            Box::pin(jobs::put(c, key, *due_at, state))
        })
        .await
    }

    async fn advance_job(&self, key: &JobKey, due_at: Time) -> Result<bool> {
        self.write((key.clone(), due_at), |c, (key, due_at)| {
            Box::pin(jobs::advance(c, key, *due_at))
        })
        .await
    }

    async fn claim_job(&self, key: &JobKey, by: &str, now: Time, until: Time) -> Result<Option<Job>> {
        self.write_later(
            (key.clone(), by.to_owned(), now, until),
            |c, (key, by, now, until)| Box::pin(jobs::claim(c, key, by, *now, *until)),
        )
        .await
    }

    async fn save_job(
        &self,
        key: &JobKey,
        by: &str,
        state: String,
        due_at: Option<Time>,
        claimed_until: Time,
    ) -> Result<bool> {
        self.write_later(
            (key.clone(), by.to_owned(), state, due_at, claimed_until),
            |c, (key, by, state, due_at, claimed_until)| {
                Box::pin(jobs::save(c, key, by, state, *due_at, *claimed_until))
            },
        )
        .await
    }

    async fn drop_job(&self, key: &JobKey) -> Result<()> {
        self.write_later(key.clone(), |c, key| Box::pin(jobs::drop_job(c, key)))
            .await
    }

    async fn sample(
        &self,
        key: &JobKey,
        by: &str,
        hours: (i64, i64),
        state: String,
        next: Time,
    ) -> Result<bool> {
        self.write_later(
            (key.clone(), by.to_owned(), hours, state, next),
            |c, (key, by, hours, state, next)| Box::pin(metering::sample(c, key, by, *hours, state, *next)),
        )
        .await
    }

    async fn month(&self, query: MonthQuery) -> Result<Vec<MonthUsage>> {
        self.read(query, |c, query| Box::pin(metering::month(c, query)))
            .await
    }

    async fn samples(&self, tenant: TenantId, from: i64, limit: u32) -> Result<Vec<Sample>> {
        self.read((tenant, from, limit), |c, (tenant, from, limit)| {
            Box::pin(metering::samples(c, *tenant, *from, *limit))
        })
        .await
    }

    async fn forget_samples(&self, before: i64, limit: u32) -> Result<u64> {
        self.write_later((before, limit), |c, (before, limit)| {
            Box::pin(async move {
                let hours = metering::forget_samples(c, *before, *limit).await?;
                Ok(hours + metering::forget_days(c, *before, *limit).await?)
            })
        })
        .await
    }

    async fn largest_tenants(&self, limit: u32) -> Result<Vec<TenantTotal>> {
        self.read(limit, |c, limit| Box::pin(metering::largest(c, *limit)))
            .await
    }

    async fn storage(&self) -> Result<Storage> {
        self.read((), |c, ()| Box::pin(metering::storage(c))).await
    }

    async fn recount(&self, tenant: TenantId) -> Result<Vec<Drift>> {
        // A look, which keeps nobody from writing; what is wrong is counted once more where nobody else corrects it.
        let drifts = self
            .look_later(tenant, |c, tenant| Box::pin(metering::drifts(c, *tenant)))
            .await?;
        if drifts.is_empty() {
            return Ok(drifts);
        }
        self.write_later(tenant, |c, tenant| Box::pin(metering::recount(c, *tenant)))
            .await
    }

    async fn tenant_ids(&self, after: i64, limit: u32) -> Result<Vec<i64>> {
        self.read((after, limit), |c, (after, limit)| {
            Box::pin(metering::tenant_ids(c, *after, *limit))
        })
        .await
    }
}
