//! The upload session that a blob is fetched into, from its beginning to the blob that it becomes.

use std::time::Duration;

use uuid::Uuid;

use super::super::uploads::{Hashes, LEASE, ending, new_session};
use super::fetch::Wanted;
use super::trouble::Trouble;
use crate::metadata::{
    BlobRow, CommitUpload, Linked, SessionKey, TakeUpload, Taken, Time, UploadRow, row_id,
};
use crate::tenancy::limits;

/// Bytes for which another replica's session is waited for, rather than to begin anew.
const WORTH_WAITING: u64 = 128 << 20;

impl Wanted {
    fn key(&self, id: Uuid) -> SessionKey {
        SessionKey {
            repository: self.repository.clone(),
            id,
            principal: format!("cache/{}", self.remote.cache.name),
        }
    }

    /// The session of whoever fetched before and died, or a new one.
    pub(super) async fn session(&self, begun: Option<Uuid>) -> Result<(UploadRow, Hashes), Trouble> {
        let Self { registry, digest, .. } = self;
        if let Some(id) = begun {
            let now = Time::now();
            let take = TakeUpload {
                now,
                until: now.plus(LEASE),
                closing: None,
            };
            let mut taken = registry.metadata.take_upload(&self.key(id), take.clone()).await?;
            if let Taken::Busy(row) = &taken
                && row.offset >= WORTH_WAITING
            {
                // A dead writer's lease is longer than its claim.
                let left = u64::try_from(row.writer_until.0 - now.0).unwrap_or_default();
                tokio::time::sleep(Duration::from_micros(left).min(LEASE)).await;
                let now = Time::now();
                let again = TakeUpload {
                    now,
                    until: now.plus(LEASE),
                    ..take
                };
                taken = registry.metadata.take_upload(&self.key(id), again).await?;
            }
            if let Taken::Yours(row) = taken
                && let Ok(hashes) = Hashes::from_stored(&row.hash_states)
            {
                tracing::info!(%digest, offset = row.offset, "going on with what another replica had begun to fetch");
                return Ok((row, hashes));
            }
        }
        let hashes = Hashes::new(Some(digest.algorithm()));
        let by = self.key(Uuid::nil()).principal;
        let row = new_session(registry, &self.repository, by, &hashes).await?;
        Ok((row, hashes))
    }

    pub(super) async fn drop_session(&self, id: &Uuid) {
        let registry = &self.registry;
        let dropped = async {
            if let Some(row) = registry.metadata.cancel_upload(&self.key(*id)).await? {
                registry.opened.of(self.tenant.id).freed(row.offset);
                registry.blobs.discard(*id, &row.state).await?;
            }
            Ok::<_, Trouble>(())
        };
        if dropped.await.is_err() {
            tracing::debug!(upload = %id, "what was fetched in vain stays until its session expires");
        }
    }

    pub(super) async fn commit(&self, session: &UploadRow, size: u64) -> Result<BlobRow, Trouble> {
        let Self {
            registry,
            tenant,
            repository,
            digest,
            ..
        } = self;
        let now = Time::now();
        let commit = CommitUpload {
            id: session.id,
            epoch: session.epoch,
            digest: *digest,
            size,
            now,
            leased_until: now.plus(registry.delays.lease),
            repository_id: row_id(),
            limits: tenant.limits(&repository.name),
            spare_due: now.plus(registry.delays.object),
        };
        match registry.metadata.commit_upload(repository, commit).await? {
            Linked::Done(_) => registry.opened.of(tenant.id).freed(size),
            Linked::Gone => {
                ending::free_unowned::<Trouble>(&*registry.metadata, &*registry.blobs, session.id).await?;
                return Err(Trouble::ended());
            }
            Linked::OverQuota(over) => {
                let key = self.key(session.id);
                ending::drop_published::<Trouble>(&*registry.metadata, &*registry.blobs, &key).await?;
                registry.opened.of(tenant.id).freed(size);
                tracing::warn!(
                    tenant = tenant.name.as_str(),
                    repository = repository.name.as_str(),
                    %digest,
                    "a blob was not kept: {}",
                    limits::exhausted(&over)
                );
                return Err(Trouble::over_quota(&over));
            }
        }
        let row = registry.metadata.blob(repository, digest).await?;
        row.ok_or_else(Trouble::ended)
    }
}
