//! What changes a repository's tags, manifests or links goes through the versions of the cache; the rest passes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Cached, Writing, counted};
use crate::domain::{Digest, TagName};
use crate::metadata::lifecycle::*;
use crate::metadata::{Repository, Result, Store, TenantId, Time};

impl<S> Cached<S> {
    /// All repositories from which a blob may be unlinked change.
    fn unlinking(&self, tenant: TenantId, digest: Digest, among: &[String]) -> Vec<Writing> {
        let parsed = among.iter().filter_map(|name| {
            let name = name.parse().ok()?;
            Some(Repository { tenant, name })
        });
        parsed
            .map(|repository| Writing::of_content(self.versions.clone(), &repository, digest))
            .collect()
    }
}

#[async_trait]
impl<S: Store + Lifecycle> Lifecycle for Cached<S> {
    async fn tags_by_push(&self, repository: &Repository, page: TagPage) -> Result<Vec<TagRow>> {
        self.store.tags_by_push(repository, page).await
    }

    async fn tag_detail(&self, repository: &Repository, tag: &TagName) -> Result<Option<TagDetail>> {
        self.store.tag_detail(repository, tag).await
    }

    async fn last_times(&self, repository: &Repository) -> Result<(Option<Time>, Option<Time>)> {
        self.store.last_times(repository).await
    }

    async fn drop_tags(&self, repository: &Repository, tags: DropTags) -> Result<u64> {
        self.changing(repository, move |s, r| async move { s.drop_tags(&r, tags).await })
            .await
    }

    async fn expired_tags(&self, after: Time, now: Time, limit: u32) -> Result<Vec<ExpiredTag>> {
        self.store.expired_tags(after, now, limit).await
    }

    async fn reclaimable(&self, repository: &Repository, digests: BTreeMap<Digest, u64>) -> Result<u64> {
        self.store.reclaimable(repository, digests).await
    }

    async fn record_pulls(&self, pulls: Vec<Pull>, now: Time) -> Result<()> {
        self.store.record_pulls(pulls, now).await
    }

    async fn count_pulls(&self, pulls: Vec<(Pull, u64)>) -> Result<()> {
        self.store.count_pulls(pulls).await
    }

    async fn renew_tag(
        &self,
        repository: &Repository,
        tag: &TagName,
        digest: &Digest,
        now: Time,
    ) -> Result<bool> {
        self.store.renew_tag(repository, tag, digest, now).await
    }

    async fn deleted_tags(
        &self,
        repository: &Repository,
        before: Option<(Time, String)>,
        now: Time,
        limit: u32,
    ) -> Result<Vec<DeletedTag>> {
        self.store.deleted_tags(repository, before, now, limit).await
    }

    async fn restore_tag(&self, repository: &Repository, restore: RestoreTag) -> Result<Restored> {
        self.changing(
            repository,
            move |s, r| async move { s.restore_tag(&r, restore).await },
        )
        .await
    }

    async fn tag_history(
        &self,
        repository: &Repository,
        tag: &TagName,
        before: Option<(Time, Uuid)>,
        limit: u32,
    ) -> Result<Vec<TagEvent>> {
        self.store.tag_history(repository, tag, before, limit).await
    }

    async fn forget_history(&self, repository: &Repository, before: Time, limit: u32) -> Result<u64> {
        self.store.forget_history(repository, before, limit).await
    }

    fn looks_at_once(&self) -> usize {
        self.store.looks_at_once()
    }

    async fn candidates(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<Candidate>> {
        self.store.candidates(now, retry, limit).await
    }

    async fn put_off(&self, candidate: &Candidate, claimed: Time, until: Time) -> Result<()> {
        self.store.put_off(candidate, claimed, until).await
    }

    async fn collect_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected> {
        let digest = *digest;
        self.changing_one(repository, digest, move |s, r| async move {
            s.collect_manifest(&r, &digest, judgement).await
        })
        .await
    }

    async fn unused_links(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        self.store.unused_links(tenant, digest, limit).await
    }

    async fn collect_blob(&self, blob: CollectBlob) -> Result<Collected> {
        let writing = self.unlinking(blob.tenant, blob.digest, &blob.among);
        let store: Arc<S> = self.store.clone();
        counted(writing, async move { store.collect_blob(blob).await }).await
    }

    async fn forget_blob(&self, blob: ForgetBlob) -> Result<Forgotten> {
        let writing = self.unlinking(blob.tenant, blob.digest, &blob.among);
        let store: Arc<S> = self.store.clone();
        counted(writing, async move { store.forget_blob(blob).await }).await
    }

    async fn forget_deleted(
        &self,
        repository: &Repository,
        digest: &Digest,
        judgement: Judgement,
    ) -> Result<Collected> {
        let digest = *digest;
        self.changing_one(repository, digest, move |s, r| async move {
            s.forget_deleted(&r, &digest, judgement).await
        })
        .await
    }

    async fn unpark(&self, repository: &Repository, due: Time) -> Result<u64> {
        self.store.unpark(repository, due).await
    }

    async fn queues(&self, now: Time) -> Result<Queues> {
        self.store.queues(now).await
    }

    async fn purges(&self, now: Time, limit: u32) -> Result<Vec<Purge>> {
        self.store.purges(now, limit).await
    }

    async fn pending_purges(&self, after: (i64, String), limit: u32) -> Result<Vec<Purge>> {
        self.store.pending_purges(after, limit).await
    }

    async fn erase_repository(&self, repository: &Repository, erase: EraseRepository) -> Result<Erased> {
        self.changing(repository, move |s, r| async move {
            s.erase_repository(&r, erase).await
        })
        .await
    }

    async fn purge(&self, purge: &Purge, now: Time, object_due: Time, limit: u32) -> Result<PurgeStep> {
        self.store.purge(purge, now, object_due, limit).await
    }

    async fn job(&self, key: &JobKey) -> Result<Option<Job>> {
        self.store.job(key).await
    }

    async fn jobs(
        &self,
        kind: JobKind,
        due: Time,
        after: (i64, String),
        limit: u32,
    ) -> Result<Vec<(TenantId, String, Job)>> {
        self.store.jobs(kind, due, after, limit).await
    }

    async fn put_job(&self, key: &JobKey, due_at: Time, state: String) -> Result<()> {
        self.store.put_job(key, due_at, state).await
    }

    async fn advance_job(&self, key: &JobKey, due_at: Time) -> Result<bool> {
        self.store.advance_job(key, due_at).await
    }

    async fn claim_job(&self, key: &JobKey, by: &str, now: Time, until: Time) -> Result<Option<Job>> {
        self.store.claim_job(key, by, now, until).await
    }

    async fn save_job(
        &self,
        key: &JobKey,
        by: &str,
        state: String,
        due_at: Option<Time>,
        claimed_until: Time,
    ) -> Result<bool> {
        self.store.save_job(key, by, state, due_at, claimed_until).await
    }

    async fn drop_job(&self, key: &JobKey) -> Result<()> {
        self.store.drop_job(key).await
    }

    async fn sample(
        &self,
        key: &JobKey,
        by: &str,
        hours: (i64, i64),
        state: String,
        next: Time,
    ) -> Result<bool> {
        self.store.sample(key, by, hours, state, next).await
    }

    async fn month(&self, query: MonthQuery) -> Result<Vec<MonthUsage>> {
        self.store.month(query).await
    }

    async fn samples(&self, tenant: TenantId, from: i64, limit: u32) -> Result<Vec<Sample>> {
        self.store.samples(tenant, from, limit).await
    }

    async fn forget_samples(&self, before: i64, limit: u32) -> Result<u64> {
        self.store.forget_samples(before, limit).await
    }

    async fn largest_tenants(&self, limit: u32) -> Result<Vec<TenantTotal>> {
        self.store.largest_tenants(limit).await
    }

    async fn storage(&self) -> Result<Storage> {
        self.store.storage().await
    }

    async fn recount(&self, tenant: TenantId) -> Result<Vec<Drift>> {
        self.store.recount(tenant).await
    }

    async fn tenant_ids(&self, after: i64, limit: u32) -> Result<Vec<i64>> {
        self.store.tenant_ids(after, limit).await
    }
}
