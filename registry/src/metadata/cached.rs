//! Exact caching of lookups in front of SQLite.
//!
//! The process is the database's only writer, so it knows every change. Each repository has, in one of a
//! fixed number of slots, a count of the writes that have begun and of those that have ended. A cached answer
//! counts only while no write is under way and none has begun since before the answer's query. Reads are
//! therefore linearizable: nobody sees less than what was acknowledged, or was shown to anybody, before.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use moka::sync::Cache;
use uuid::Uuid;

use super::*;
use crate::domain::Digest;

mod lifecycle;

/// Version slots; two repositories that share one only cost each other a query.
const SLOTS: usize = 4096;

/// Most cached answers of each kind; an entry takes a few hundred bytes.
const ENTRIES: u64 = 50_000;

/// Keys hold a repository by tenant and name; answers carry the version they were read at.
type Answers<Q, A> = Cache<(Repository, Q), (u64, Option<A>)>;

/// A store and the cache of its lookups.
pub(super) struct Cached<S> {
    store: Arc<S>,
    versions: Arc<Versions>,
    manifests: Answers<Reference, ManifestRow>,
    blobs: Answers<Digest, BlobRow>,
}

struct Versions {
    hasher: RandomState,
    slots: Box<[Slot]>,
}

/// The writes of the repositories that share this slot.
#[derive(Default)]
struct Slot {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Slot {
    /// The number of writes so far, if none is under way.
    fn quiet(&self) -> Option<u64> {
        // In this order: `ended` never exceeds `begun`, so a `begun` read later and equal to it means that
        // nothing was under way from one reading to the other.
        let ended = self.ended.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }
}

impl Versions {
    fn at(&self, repository: &Repository) -> usize {
        let hash = self.hasher.hash_one(repository);
        // The remainder is smaller than the number of slots.
        usize::try_from(hash % SLOTS as u64).unwrap_or_default()
    }

    fn quiet(&self, repository: &Repository) -> Option<u64> {
        self.slots[self.at(repository)].quiet()
    }
}

/// A write under way; it ends when this is dropped, whatever came of it.
struct Writing {
    versions: Arc<Versions>,
    at: usize,
}

impl Writing {
    fn begin(versions: Arc<Versions>, repository: &Repository) -> Self {
        let at = versions.at(repository);
        versions.slots[at].begun.fetch_add(1, Ordering::SeqCst);
        Self { versions, at }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.versions.slots[self.at].ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl<S: Store> Cached<S> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self {
            store,
            versions: Arc::new(Versions {
                hasher: RandomState::new(),
                slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            }),
            manifests: Cache::new(ENTRIES),
            blobs: Cache::new(ENTRIES),
        }
    }

    /// Runs a write that changes `repository`. It runs in a task of its own: a caller that goes away stops
    /// neither the write nor the count of it.
    async fn changing<T, F>(
        &self,
        repository: &Repository,
        write: impl FnOnce(Arc<S>, Repository) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let writing = Writing::begin(self.versions.clone(), repository);
        let write = write(self.store.clone(), repository.clone());
        let task = tokio::spawn(async move {
            let outcome = write.await;
            drop(writing);
            outcome
        });
        task.await
            .map_err(|error| MetadataError::Unavailable(error.to_string()))?
    }
}

/// A cached answer, or the store's, which is then cached under the version that was read before it was asked.
async fn looked_up<Q, A>(
    cache: &Answers<Q, A>,
    version: Option<u64>,
    question: (Repository, Q),
    ask: impl Future<Output = Result<Option<A>>>,
) -> Result<Option<A>>
where
    Q: Hash + Eq + Send + Sync + 'static,
    A: Clone + Send + Sync + 'static,
{
    let Some(version) = version else { return ask.await };
    if let Some((_, answer)) = cache.get(&question).filter(|(read_at, _)| *read_at == version) {
        return Ok(answer);
    }
    let answer = ask.await?;
    cache.insert(question, (version, answer.clone()));
    Ok(answer)
}

#[async_trait]
impl<S: Store> Store for Cached<S> {
    async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Option<ManifestRow>> {
        let question = (repository.clone(), reference.clone());
        let version = self.versions.quiet(repository);
        looked_up(
            &self.manifests,
            version,
            question,
            self.store.manifest(repository, reference),
        )
        .await
    }

    async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobRow>> {
        let question = (repository.clone(), *digest);
        let version = self.versions.quiet(repository);
        looked_up(
            &self.blobs,
            version,
            question,
            self.store.blob(repository, digest),
        )
        .await
    }

    // -- What changes a repository ------------------------------------------------------------------

    async fn lease_manifest(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool> {
        let digest = *digest;
        self.changing(repository, move |s, r| async move {
            s.lease_manifest(&r, &digest, until).await
        })
        .await
    }

    async fn lease_blob(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool> {
        let digest = *digest;
        self.changing(repository, move |s, r| async move {
            s.lease_blob(&r, &digest, until).await
        })
        .await
    }

    async fn commit_upload(&self, repository: &Repository, commit: CommitUpload) -> Result<Linked> {
        self.changing(repository, move |s, r| async move {
            s.commit_upload(&r, commit).await
        })
        .await
    }

    async fn mount_blob(&self, into: &Repository, mount: MountBlob) -> Result<Linked> {
        self.changing(into, move |s, r| async move { s.mount_blob(&r, mount).await })
            .await
    }

    async fn unlink_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        review_at: Time,
    ) -> Result<Unlinked> {
        let digest = *digest;
        self.changing(repository, move |s, r| async move {
            s.unlink_blob(&r, &digest, review_at).await
        })
        .await
    }

    async fn put_manifest(&self, repository: &Repository, put: PutManifest) -> Result<PutOutcome> {
        self.changing(
            repository,
            move |s, r| async move { s.put_manifest(&r, put).await },
        )
        .await
    }

    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        by: Deletion,
    ) -> Result<Deleted> {
        let digest = *digest;
        self.changing(repository, move |s, r| async move {
            s.delete_manifest(&r, &digest, by).await
        })
        .await
    }

    async fn delete_tag(&self, repository: &Repository, tag: &TagName, by: Deletion) -> Result<bool> {
        let tag = tag.clone();
        self.changing(
            repository,
            move |s, r| async move { s.delete_tag(&r, &tag, by).await },
        )
        .await
    }

    // -- What passes through ------------------------------------------------------------------------

    async fn probe(&self) -> Result<()> {
        self.store.probe().await
    }

    async fn manifest_payload(&self, repository: &Repository, digest: &Digest) -> Result<Option<Bytes>> {
        self.store.manifest_payload(repository, digest).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        after: Option<String>,
        limit: u32,
    ) -> Result<Option<Vec<String>>> {
        self.store.tags(repository, after, limit).await
    }

    async fn repositories(
        &self,
        tenant: TenantId,
        after: String,
        end: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        self.store.repositories(tenant, after, end, limit).await
    }

    async fn repositories_with(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        self.store.repositories_with(tenant, digest, limit).await
    }

    async fn standing(&self, repository: &Repository) -> Result<Standing> {
        self.store.standing(repository).await
    }

    async fn referrers(&self, repository: &Repository, query: &ReferrersQuery) -> Result<ReferrersPage> {
        self.store.referrers(repository, query).await
    }

    async fn create_upload(&self, upload: NewUpload) -> Result<()> {
        self.store.create_upload(upload).await
    }

    async fn open_uploads(&self) -> Result<Vec<(TenantId, u64)>> {
        self.store.open_uploads().await
    }

    async fn end_leases(&self) -> Result<()> {
        self.store.end_leases().await
    }

    async fn upload(&self, key: &SessionKey) -> Result<Option<UploadRow>> {
        self.store.upload(key).await
    }

    async fn take_upload(&self, key: &SessionKey, take: TakeUpload) -> Result<Taken> {
        self.store.take_upload(key, take).await
    }

    async fn checkpoint_upload(&self, tenant: TenantId, id: Uuid, checkpoint: Checkpoint) -> Result<bool> {
        self.store.checkpoint_upload(tenant, id, checkpoint).await
    }

    async fn renew_upload(&self, tenant: TenantId, id: Uuid, epoch: i64, until: Time) -> Result<bool> {
        self.store.renew_upload(tenant, id, epoch, until).await
    }

    async fn cancel_upload(&self, key: &SessionKey) -> Result<Option<UploadRow>> {
        self.store.cancel_upload(key).await
    }

    async fn expire_uploads(&self, before: Time, limit: u32) -> Result<Vec<(Uuid, UploadState)>> {
        self.store.expire_uploads(before, limit).await
    }

    async fn live_uploads(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        self.store.live_uploads(ids).await
    }

    async fn live_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>> {
        self.store.live_objects(keys).await
    }

    async fn due_objects(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<(TenantId, ObjectKey)>> {
        self.store.due_objects(now, retry, limit).await
    }

    async fn forget_object(&self, tenant: TenantId, key: &ObjectKey) -> Result<()> {
        self.store.forget_object(tenant, key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Arc<Versions> {
        Arc::new(Versions {
            hasher: RandomState::new(),
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
        })
    }

    #[tokio::test]
    async fn a_cached_answer_counts_until_a_write_begins_and_never_again() {
        let (versions, cache) = (versions(), Answers::<u8, u8>::new(10));
        let app = Repository {
            tenant: TenantId(1),
            name: "app".parse().unwrap(),
        };
        let ask = async |answer: u8| {
            let version = versions.quiet(&app);
            looked_up(&cache, version, (app.clone(), 0), async move { Ok(Some(answer)) })
                .await
                .unwrap()
                .unwrap()
        };

        assert_eq!((ask(1).await, ask(2).await), (1, 1), "cached");
        let first = Writing::begin(versions.clone(), &app);
        assert_eq!(
            (ask(3).await, ask(4).await),
            (3, 4),
            "asked while a write is under way"
        );
        let second = Writing::begin(versions.clone(), &app);
        drop(first);
        assert_eq!((ask(5).await, ask(6).await), (5, 6), "asked while another one is");
        drop(second);
        assert_eq!((ask(7).await, ask(8).await), (7, 7), "cached anew");
    }

    #[tokio::test]
    async fn an_answer_that_a_write_overtook_is_not_used_again() {
        let (versions, cache) = (versions(), Answers::<u8, u8>::new(10));
        let app = Repository {
            tenant: TenantId(1),
            name: "app".parse().unwrap(),
        };

        let version = versions.quiet(&app);
        let slow = async {
            drop(Writing::begin(versions.clone(), &app));
            Ok(Some(1))
        };
        assert_eq!(
            looked_up(&cache, version, (app.clone(), 0), slow).await.unwrap(),
            Some(1)
        );

        let fresh = looked_up(&cache, versions.quiet(&app), (app.clone(), 0), async {
            Ok(Some(2))
        });
        assert_eq!(fresh.await.unwrap(), Some(2));
    }
}
