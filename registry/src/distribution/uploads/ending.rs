//! Sessions whose object was published and is not to be kept.
//!
//! Publishing is not fenced: a writer that stood still for longer than its lease finds out only here that another one has
//! taken the session, and perhaps committed it. The object is then that one's, and stays.

use uuid::Uuid;

use crate::blobs::{BlobError, BlobStore, ObjectKey};
use crate::metadata::{MetadataError, SessionKey, Store, UploadRow};

/// Forgets a session, then frees all its bytes, and returns what it was; none if somebody else has ended it, whose bytes
/// they are.
pub(in super::super) async fn drop_published<E>(
    metadata: &dyn Store,
    blobs: &dyn BlobStore,
    key: &SessionKey,
) -> Result<Option<UploadRow>, E>
where
    E: From<MetadataError> + From<BlobError>,
{
    let Some(row) = metadata.cancel_upload(key).await? else {
        free_unowned::<E>(metadata, blobs, key.id).await?;
        return Ok(None);
    };
    blobs.discard(key.id, &row.state).await?;
    blobs.delete(&ObjectKey::of_upload(key.id)).await?;
    Ok(Some(row))
}

/// Frees the object of a session that was cancelled or has expired while it was made, and whose bytes were freed before
/// that: nobody would look for it again. If another writer has the session, or has published it, the object is its own.
pub(in super::super) async fn free_unowned<E>(
    metadata: &dyn Store,
    blobs: &dyn BlobStore,
    id: Uuid,
) -> Result<(), E>
where
    E: From<MetadataError> + From<BlobError>,
{
    // In this order: a session becomes a blob, never the other way.
    let owners = [
        metadata.live_uploads(&[id]).await?,
        metadata.live_objects(&[id]).await?,
    ];
    if owners.iter().all(Vec::is_empty) {
        blobs.delete(&ObjectKey::of_upload(id)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::error::ApiError;
    use super::super::Hashes;
    use super::*;
    use crate::blobs::budget::Budget;
    use crate::domain::{Algorithm, Digest};
    use crate::metadata::{
        self, CommitUpload, Limits, Linked, NewUpload, Options, Repository, TenantId, Time, row_id,
    };

    const CONTENT: &[u8] = b"what is pushed";

    struct Scene {
        metadata: Arc<dyn Store>,
        blobs: Arc<dyn BlobStore>,
        key: SessionKey,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        /// A session whose object a writer has published.
        async fn published() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name).display().to_string();
            let options = Options::default();
            let opened = metadata::open(&format!("sqlite:{}", at("berth.db")), &options)
                .await
                .unwrap();
            let budget = Budget::new(1 << 20);
            let blobs = crate::blobs::open::open(&format!("folder:{}", at("blobs")), budget)
                .await
                .unwrap();
            let key = SessionKey {
                repository: Repository {
                    tenant: TenantId(1),
                    name: "app".parse().unwrap(),
                },
                id: Uuid::new_v4(),
                principal: "ci".to_owned(),
            };
            let new = NewUpload {
                repository: key.repository.clone(),
                id: key.id,
                principal: key.principal.clone(),
                hash_states: Hashes::new(None).to_stored(),
                state: blobs.begin(),
                now: Time::now(),
            };
            let state = new.state.clone();
            opened.store.create_upload(new).await.unwrap();
            let mut writer = blobs.resume(key.id, 0, state, None).await.unwrap();
            writer.write(CONTENT.into()).await.unwrap();
            writer.finish().await.unwrap();
            Self {
                metadata: opened.store,
                blobs,
                key,
                _folder: folder,
            }
        }

        async fn commit(&self) {
            let now = Time::now();
            let commit = CommitUpload {
                id: self.key.id,
                epoch: 0,
                digest: Digest::of(Algorithm::Sha256, CONTENT),
                size: CONTENT.len() as u64,
                now,
                leased_until: now,
                repository_id: row_id(),
                limits: Limits::default(),
                spare_due: now,
            };
            let committed = self
                .metadata
                .commit_upload(&self.key.repository, commit)
                .await
                .unwrap();
            assert!(matches!(committed, Linked::Done(_)), "{committed:?}");
        }

        async fn drop_published(&self) -> bool {
            let dropped = drop_published::<ApiError>(&*self.metadata, &*self.blobs, &self.key).await;
            dropped.unwrap_or_else(|error| panic!("{error:?}")).is_some()
        }

        async fn has_object(&self) -> bool {
            let key = ObjectKey::of_upload(self.key.id);
            self.blobs.size(&key).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn an_object_that_another_writer_has_committed_meanwhile_stays() {
        let scene = Scene::published().await;
        scene.commit().await;
        assert!(!scene.drop_published().await);
        assert!(scene.has_object().await);
    }

    #[tokio::test]
    async fn an_object_that_nobody_has_committed_goes() {
        let scene = Scene::published().await;
        assert!(scene.drop_published().await);
        assert!(!scene.has_object().await);
        // Nor does it stay if the session is gone already.
        let scene = Scene::published().await;
        scene.metadata.cancel_upload(&scene.key).await.unwrap();
        assert!(!scene.drop_published().await);
        assert!(!scene.has_object().await);
    }
}
