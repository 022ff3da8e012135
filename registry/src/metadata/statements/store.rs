//! The trait, over whichever database this file is compiled for.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::super::*;
use super::{Database, blobs, lookups, manifests, objects, put_manifest, repositories, tags, uploads, usage};
use crate::blobs::{ObjectKey, UploadState};
use crate::domain::{Digest, TagName};

#[async_trait]
impl Store for Database {
    async fn probe(&self) -> Result<()> {
        self.read((), |c, ()| {
            Box::pin(async { Ok(sqlx::query("SELECT 1").execute(&mut *c).await.map(drop)?) })
        })
        .await
    }

    async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Option<ManifestRow>> {
        self.manifests.ask((repository.clone(), reference.clone())).await
    }

    async fn manifest_payload(&self, repository: &Repository, digest: &Digest) -> Result<Option<Bytes>> {
        self.read((repository.clone(), *digest), |c, (r, d)| {
            Box::pin(lookups::manifest_payload(c, r, d))
        })
        .await
    }

    async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobRow>> {
        self.blobs.ask((repository.clone(), *digest)).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        after: Option<String>,
        limit: u32,
    ) -> Result<Option<Vec<String>>> {
        let asked = (repository.clone(), after, limit);
        self.read(asked, |c, (r, after, limit)| {
            Box::pin(lookups::tags(c, r, after.as_deref(), *limit))
        })
        .await
    }

    async fn repositories(
        &self,
        tenant: TenantId,
        after: String,
        end: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        self.read((tenant, (after, end), limit), |c, (tenant, span, limit)| {
            Box::pin(repositories::list(c, *tenant, span, *limit))
        })
        .await
    }

    async fn repositories_with(&self, tenant: TenantId, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        self.read((tenant, *digest, limit), |c, (tenant, digest, limit)| {
            Box::pin(repositories::with_blob(c, *tenant, digest, *limit))
        })
        .await
    }

    async fn standing(&self, repository: &Repository) -> Result<Standing> {
        self.read(repository.clone(), |c, r| Box::pin(usage::standing(c, r)))
            .await
    }

    async fn referrers(&self, repository: &Repository, query: &ReferrersQuery) -> Result<ReferrersPage> {
        self.read((repository.clone(), query.clone()), |c, (r, q)| {
            Box::pin(lookups::referrers(c, r, q))
        })
        .await
    }

    async fn lease_manifest(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool> {
        let lease = (repository.clone(), *digest, until);
        let leased = self.write(lease, |c, (r, d, until)| {
            Box::pin(manifests::lease(c, r, d, *until))
        });
        unless_nothing_is_written(leased.await)
    }

    async fn lease_blob(&self, repository: &Repository, digest: &Digest, until: Time) -> Result<bool> {
        let lease = (repository.clone(), *digest, until);
        let leased = self.write(lease, |c, (r, d, until)| Box::pin(blobs::lease(c, r, d, *until)));
        unless_nothing_is_written(leased.await)
    }

    async fn create_upload(&self, upload: NewUpload) -> Result<()> {
        self.write(upload, |c, upload| Box::pin(uploads::create(c, upload)))
            .await
    }

    async fn open_uploads(&self) -> Result<Vec<OpenUploads>> {
        self.read((), |c, ()| Box::pin(uploads::count_open(c))).await
    }

    async fn end_leases(&self) -> Result<()> {
        self.write((), |c, ()| Box::pin(uploads::end_leases(c))).await
    }

    async fn upload(&self, key: &SessionKey) -> Result<Option<UploadRow>> {
        self.read(key.clone(), |c, key| Box::pin(uploads::find(c, key)))
            .await
    }

    async fn take_upload(&self, key: &SessionKey, take: TakeUpload) -> Result<Taken> {
        self.write((key.clone(), take), |c, (key, take)| {
            Box::pin(uploads::take(c, key, take))
        })
        .await
    }

    async fn checkpoint_upload(&self, tenant: TenantId, id: Uuid, checkpoint: Checkpoint) -> Result<bool> {
        let asked = (tenant, id, checkpoint);
        self.write(asked, |c, (tenant, id, now)| {
            Box::pin(uploads::checkpoint(c, *tenant, *id, now))
        })
        .await
    }

    async fn renew_upload(&self, tenant: TenantId, id: Uuid, epoch: i64, until: Time) -> Result<bool> {
        let asked = (tenant, id, epoch, until);
        self.write(asked, |c, (tenant, id, epoch, until)| {
            Box::pin(uploads::renew(c, *tenant, *id, *epoch, *until))
        })
        .await
    }

    async fn commit_upload(&self, repository: &Repository, commit: CommitUpload) -> Result<Linked> {
        self.write((repository.clone(), commit), |c, (r, commit)| {
            Box::pin(uploads::commit(c, r, commit))
        })
        .await
    }

    async fn cancel_upload(&self, key: &SessionKey) -> Result<Option<UploadRow>> {
        self.write(key.clone(), |c, key| Box::pin(uploads::cancel(c, key)))
            .await
    }

    async fn expire_uploads(&self, before: Time, limit: u32) -> Result<Vec<(Uuid, UploadState)>> {
        self.write_later((before, limit), |c, (before, limit)| {
            Box::pin(uploads::expire(c, *before, *limit))
        })
        .await
    }

    async fn live_uploads(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        self.read(ids.to_vec(), |c, ids| Box::pin(uploads::live(c, ids)))
            .await
    }

    async fn live_objects(&self, keys: &[Uuid]) -> Result<Vec<Uuid>> {
        self.read(keys.to_vec(), |c, keys| Box::pin(objects::live(c, keys)))
            .await
    }

    async fn mount_blob(&self, into: &Repository, mount: MountBlob) -> Result<Linked> {
        self.write((into.clone(), mount), |c, (into, mount)| {
            Box::pin(blobs::mount(c, into, mount))
        })
        .await
    }

    async fn unlink_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        review_at: Time,
    ) -> Result<Unlinked> {
        self.write((repository.clone(), *digest, review_at), |c, (r, d, at)| {
            Box::pin(blobs::unlink(c, r, d, *at))
        })
        .await
    }

    async fn put_manifest(&self, repository: &Repository, put: PutManifest) -> Result<PutOutcome> {
        self.write((repository.clone(), put), |c, (r, put)| {
            Box::pin(put_manifest::put(c, r, put))
        })
        .await
    }

    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        by: Deletion,
    ) -> Result<Deleted> {
        self.write((repository.clone(), *digest, by), |c, (r, d, by)| {
            Box::pin(manifests::delete(c, r, d, by))
        })
        .await
    }

    async fn delete_tag(&self, repository: &Repository, tag: &TagName, by: Deletion) -> Result<bool> {
        self.write((repository.clone(), tag.clone(), by), |c, (r, tag, by)| {
            Box::pin(tags::delete(c, r, tag, by))
        })
        .await
    }

    async fn due_objects(&self, now: Time, retry: Time, limit: u32) -> Result<Vec<(TenantId, ObjectKey)>> {
        self.write_later((now, retry, limit), |c, (now, retry, limit)| {
            Box::pin(objects::due(c, *now, *retry, *limit))
        })
        .await
    }

    async fn forget_object(&self, tenant: TenantId, key: &ObjectKey) -> Result<()> {
        self.write_later((tenant, key.upload()), |c, (tenant, key)| {
            Box::pin(objects::forget(c, *tenant, *key))
        })
        .await
    }
}

/// What becomes of a lease that a store without room, or without writes, does not take. Its holder was found a moment
/// ago, and pulls begin with asking for it; only a push relies on the lease, and none is taken now. A push that comes
/// when writes are taken again, after a collection, is refused for what it lacks.
fn unless_nothing_is_written(leased: Result<bool>) -> Result<bool> {
    match leased {
        Err(error) if error.is_of_writes_alone() => Ok(true),
        leased => leased,
    }
}
