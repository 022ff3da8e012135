//! Exact caching of lookups in front of SQLite.
//!
//! The process is the database's only writer, so it knows every change. Each repository has, in one of a
//! fixed number of slots, a count of the writes that have begun and of those that have ended. A cached answer
//! counts only while no write is under way and none has begun since before the answer's query. Reads are
//! therefore linearizable: nobody sees less than what was acknowledged, or was shown to anybody, before.
//!
//! Collection changes nothing of a repository but the one manifest or blob that it looks at. It is counted for that
//! alone, in slots of a second kind, or every pull would go to the database while garbage is collected.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use moka::sync::Cache;
use tracing::Instrument as _;
use uuid::Uuid;

use super::*;
use crate::domain::{Digest, attachment};

mod lifecycle;

/// Version slots of each kind; two repositories that share one only cost each other a query.
const SLOTS: usize = 4096;

/// Most cached answers of each kind; an entry takes a few hundred bytes.
const ENTRIES: u64 = 50_000;

/// The number of writes of a repository, and of one manifest or blob in it.
type Version = [u64; 2];

/// Keys hold a repository by tenant and name; answers carry the version they were read at.
type Answers<Q, A> = Cache<(Repository, Q), (Version, Option<A>)>;

/// A store and the cache of its lookups.
pub(super) struct Cached<S> {
    store: Arc<S>,
    versions: Arc<Versions>,
    manifests: Answers<Reference, ManifestRow>,
    blobs: Answers<Digest, BlobRow>,
}

struct Versions {
    hasher: RandomState,
    repositories: Box<[Slot]>,
    contents: Box<[Slot]>,
}

/// One manifest or blob of a repository, whatever kind it is.
#[derive(Hash)]
enum Content<'a> {
    Of(Digest),
    Under(&'a str),
}

impl<'a> From<&'a Reference> for Content<'a> {
    fn from(reference: &'a Reference) -> Self {
        match reference {
            Reference::Digest(digest) => Self::Of(*digest),
            // A tag that stands for a manifest may go with it.
            Reference::Tag(tag) => {
                attachment::subject(tag.as_str()).map_or(Self::Under(tag.as_str()), Self::Of)
            }
        }
    }
}

/// The writes of whatever shares this slot.
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

impl Default for Versions {
    fn default() -> Self {
        let slots = || (0..SLOTS).map(|_| Slot::default()).collect();
        Self {
            hasher: RandomState::new(),
            repositories: slots(),
            contents: slots(),
        }
    }
}

impl Versions {
    fn at(&self, of: impl Hash) -> usize {
        // The remainder is smaller than the number of slots.
        usize::try_from(self.hasher.hash_one(of) % SLOTS as u64).unwrap_or_default()
    }

    /// The version of what is looked up, if nothing is changing it.
    fn quiet(&self, repository: &Repository, content: Content<'_>) -> Option<Version> {
        let content = self.at((repository, content));
        Some([
            self.repositories[self.at(repository)].quiet()?,
            self.contents[content].quiet()?,
        ])
    }
}

/// A write under way; it ends when this is dropped, whatever came of it.
struct Writing {
    versions: Arc<Versions>,
    slots: fn(&Versions) -> &[Slot],
    at: usize,
}

impl Writing {
    /// Of anything in a repository.
    fn begin(versions: Arc<Versions>, repository: &Repository) -> Self {
        let at = versions.at(repository);
        Self::at(versions, |versions| &versions.repositories, at)
    }

    /// Of one manifest with the tags that stand for it, or of one blob.
    fn of_content(versions: Arc<Versions>, repository: &Repository, digest: Digest) -> Self {
        let at = versions.at((repository, Content::Of(digest)));
        Self::at(versions, |versions| &versions.contents, at)
    }

    fn at(versions: Arc<Versions>, slots: fn(&Versions) -> &[Slot], at: usize) -> Self {
        slots(&versions)[at].begun.fetch_add(1, Ordering::SeqCst);
        Self { versions, slots, at }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let slot = &(self.slots)(&self.versions)[self.at];
        slot.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl<S: Store> Cached<S> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self {
            store,
            versions: Arc::default(),
            manifests: Cache::new(ENTRIES),
            blobs: Cache::new(ENTRIES),
        }
    }

    /// Runs a write that changes `repository`.
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
        counted(vec![writing], write(self.store.clone(), repository.clone())).await
    }

    /// Runs a write that changes nothing of a repository but one manifest, with the tags that stand for it.
    async fn changing_one<T, F>(
        &self,
        repository: &Repository,
        digest: Digest,
        write: impl FnOnce(Arc<S>, Repository) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let writing = Writing::of_content(self.versions.clone(), repository, digest);
        counted(vec![writing], write(self.store.clone(), repository.clone())).await
    }
}

/// Runs a write in a task of its own: a caller that goes away stops neither the write nor the count of it.
async fn counted<T: Send + 'static>(
    writing: Vec<Writing>,
    write: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let work = async move {
        let outcome = write.await;
        drop(writing);
        outcome
    };
    let task = tokio::spawn(work.in_current_span());
    task.await
        .map_err(|error| MetadataError::Unavailable(error.to_string()))?
}

/// A cached answer, or the store's, which is then cached under the version that was read before it was asked.
async fn looked_up<Q, A>(
    cache: &Answers<Q, A>,
    version: Option<Version>,
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
        let version = self.versions.quiet(repository, reference.into());
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
        let version = self.versions.quiet(repository, Content::Of(*digest));
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

    async fn open_uploads(&self) -> Result<Vec<OpenUploads>> {
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
    use crate::domain::Algorithm;

    fn app() -> Repository {
        Repository {
            tenant: TenantId(1),
            name: "app".parse().unwrap(),
        }
    }

    fn tag(name: &str) -> Reference {
        Reference::Tag(name.parse().unwrap())
    }

    #[test]
    fn collection_of_a_manifest_concerns_its_digest_and_its_signatures_alone() {
        let app = app();
        let [digest, other] = ["one", "other"].map(|text| Digest::of(Algorithm::Sha256, text.as_bytes()));
        let [name, ..] = attachment::tags(&digest);
        let concerned = [Reference::Digest(digest), tag(&name), tag(&format!("{name}.sig"))];
        let others = [
            Reference::Digest(other),
            tag("v1"),
            tag(&attachment::tags(&other)[0]),
        ];
        // Which of them share a slot is chance.
        let versions = loop {
            let versions = Arc::<Versions>::default();
            let at = |reference: &Reference| versions.at((&app, Content::from(reference)));
            if others.iter().all(|reference| at(reference) != at(&concerned[0])) {
                break versions;
            }
        };
        let quiet = |reference: &Reference| versions.quiet(&app, reference.into());
        let before: Vec<_> = concerned.iter().chain(&others).map(quiet).collect();

        let writing = Writing::of_content(versions.clone(), &app, digest);
        assert!(concerned.iter().all(|reference| quiet(reference).is_none()));
        assert!(others.iter().all(|reference| quiet(reference).is_some()));
        drop(writing);
        let after: Vec<_> = concerned.iter().chain(&others).map(quiet).collect();
        assert!((0..3).all(|at| after[at] != before[at]));
        assert_eq!(after[3..], before[3..]);

        drop(Writing::begin(versions.clone(), &app));
        assert!(
            others
                .iter()
                .zip(&before[3..])
                .all(|(reference, before)| quiet(reference) != *before)
        );
    }

    #[tokio::test]
    async fn a_cached_answer_counts_until_a_write_begins_and_never_again() {
        let (versions, cache, app) = (Arc::<Versions>::default(), Answers::<u8, u8>::new(10), app());
        let quiet = || versions.quiet(&app, Content::Under("v1"));
        let ask = async |answer: u8| {
            let version = quiet();
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
        let (versions, cache, app) = (Arc::<Versions>::default(), Answers::<u8, u8>::new(10), app());
        let quiet = || versions.quiet(&app, Content::Under("v1"));

        let version = quiet();
        let slow = async {
            drop(Writing::begin(versions.clone(), &app));
            Ok(Some(1))
        };
        assert_eq!(
            looked_up(&cache, version, (app.clone(), 0), slow).await.unwrap(),
            Some(1)
        );

        let fresh = looked_up(&cache, quiet(), (app.clone(), 0), async { Ok(Some(2)) });
        assert_eq!(fresh.await.unwrap(), Some(2));
    }
}
