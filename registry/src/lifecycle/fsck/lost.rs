//! Blobs whose bytes are lost are forgotten, by whoever asks for it.
//!
//! As long as the rows of such a blob are there, HEAD says that it is, clients skip its upload, and bytes that are pushed
//! all the same are a spare copy of what is gone. Without them a manifest that needs it lacks a blob, which the next push
//! of the image brings.

use super::contents::Look;
use super::worker::{Halt, REPAIR_DELAY, Worker};
use crate::metadata::inspection::{BlobSeen, Start};
use crate::metadata::lifecycle::{ForgetBlob, Forgotten};
use crate::metadata::{TenantId, Time};

/// Repositories that a blob is taken from at a time.
const AT_ONCE: u32 = 100;

/// What is told instead.
const TOO_MANY: &str = "more than half of all blobs have no object, so none of them was forgotten: is this the blob store \
     that belongs to the metadata store, and is it complete?";

impl Worker {
    /// Forgets the lost blobs of a page of blobs; false after the last one.
    pub(super) async fn forget_lost(&mut self) -> Result<bool, Halt> {
        if self.run.lost.saturating_mul(2) > self.run.checked.blobs {
            self.run.warning = Some(TOO_MANY.to_owned());
            return Ok(false);
        }
        let page = self.blobs_from(Start::After(self.run.row.clone())).await?;
        let Some(last) = page.last().map(|seen| seen.at.clone()) else {
            return Ok(false);
        };
        let count = page.len() as u64;
        let looks = self.looks(&page).await?;
        for (seen, look) in page.iter().zip(looks) {
            if look == Look::Gone
                && self.look(seen.key.clone()).await? == Look::Gone
                && self.forget(seen).await?
            {
                self.run.lost_forgotten(&seen.key.path());
            }
            self.tick().await?;
        }
        self.run.row = last;
        self.run.done += count;
        Ok(true)
    }

    /// Forgets a blob in all its repositories; false if it has changed.
    async fn forget(&mut self, seen: &BlobSeen) -> Result<bool, Halt> {
        let Some(digest) = seen.digest else {
            return Ok(false);
        };
        let tenant = TenantId(seen.at.tenant);
        loop {
            let (among, _) = self
                .inspection()
                .repositories_of(tenant, &digest, AT_ONCE)
                .await?;
            let is_any = !among.is_empty();
            let blob = ForgetBlob {
                tenant,
                digest,
                object: seen.key.clone(),
                among,
                object_due: Time::now().plus(REPAIR_DELAY),
            };
            match self.shared.parts.lifecycle.forget_blob(blob).await? {
                Forgotten::Wholly => return Ok(true),
                Forgotten::InPart if is_any => self.tick().await?,
                // A link from a repository that does not exist is a finding of its own.
                Forgotten::InPart | Forgotten::Changed => return Ok(false),
            }
        }
    }
}
