//! The objects: each is a blob's, an upload's, or waits for its deletion.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::contents::{Bytes, Look};
use super::finding::{Finding, Kind};
use super::worker::{Halt, REPAIR_DELAY, SETTLED, Worker};
use crate::blobs::{ObjectPage, StoredObject};
use crate::domain::Algorithm;
use crate::metadata::Time;

/// What is told instead of a repair.
const TOO_MANY: &str = "more than half of all objects are orphans, so none of them was queued for its deletion: is this \
     the metadata store that belongs to the blob store, and is it complete?";

impl Worker {
    /// A page of the objects; false after the last one.
    pub(super) async fn objects(&mut self) -> Result<bool, Halt> {
        let page = self.shared.parts.blobs.objects(self.run.object.clone()).await?;
        let mut suspects = self.unknown(&page).await?;
        if !suspects.is_empty() {
            self.moment().await?;
            let keys: Vec<Uuid> = suspects.iter().map(|object| object.key.upload()).collect();
            let still = self.inspection().unknown_objects(&keys).await?;
            suspects.retain(|object| still.contains(&object.key.upload()));
        }
        let mut findings = Vec::new();
        for path in page.foreign.paths {
            findings.push(Finding {
                object: Some(path),
                ..Finding::new(Kind::ForeignFile)
            });
        }
        let untold = page.foreign.count - findings.len() as u64;
        for object in suspects {
            findings.extend(self.orphan(&object).await?);
            self.tick().await?;
        }
        self.run.object = page.next.clone();
        self.run.done += page.objects.len() as u64;
        self.run.checked.objects += page.objects.len() as u64;
        findings.into_iter().for_each(|finding| self.run.note(finding));
        self.run.note_more(untold);
        Ok(page.next.is_some())
    }

    /// Objects that were published long before the run began and that nothing knows.
    async fn unknown(&self, page: &ObjectPage) -> Result<Vec<StoredObject>, Halt> {
        let began = u64::try_from(self.run.started_at().minus(SETTLED).0).unwrap_or(0);
        let before = SystemTime::UNIX_EPOCH + Duration::from_micros(began);
        let old: Vec<&StoredObject> = page
            .objects
            .iter()
            .filter(|object| object.modified <= before)
            .collect();
        let keys: Vec<Uuid> = old.iter().map(|object| object.key.upload()).collect();
        let unknown = self.inspection().unknown_objects(&keys).await?;
        let unknown = old
            .into_iter()
            .filter(|object| unknown.contains(&object.key.upload()));
        Ok(unknown.cloned().collect())
    }

    async fn orphan(&mut self, object: &StoredObject) -> Result<Option<Finding>, Halt> {
        let Look::Size(size) = self.look(object.key.clone()).await? else {
            return Ok(None);
        };
        let mut finding = Finding {
            object: Some(object.key.path()),
            detail: format!("{size} bytes"),
            ..Finding::new(Kind::OrphanObject)
        };
        // Whose metadata are lost finds the content by this.
        if self.run.options.rehash {
            match self.read(&object.key, size, Algorithm::Sha256).await? {
                Bytes::Are(digest) => finding.digest = Some(digest.to_string()),
                Bytes::Changed => return Ok(None),
                Bytes::Unreadable(why) => finding.detail = why,
            }
            self.run.reading = 0;
        }
        Ok(Some(finding))
    }

    /// Queues the orphans of a page of objects for their deletion; false after the last one.
    pub(super) async fn queue_orphans(&mut self) -> Result<bool, Halt> {
        if self.run.orphans.saturating_mul(2) > self.run.checked.objects {
            self.run.warning = Some(TOO_MANY.to_owned());
            return Ok(false);
        }
        let page = self.shared.parts.blobs.objects(self.run.object.clone()).await?;
        for object in self.unknown(&page).await? {
            let is_there = matches!(self.look(object.key.clone()).await?, Look::Size(_));
            let due = Time::now().plus(REPAIR_DELAY);
            if is_there && self.inspection().delete_unknown(object.key.upload(), due).await? {
                self.run.orphan_queued(&object.key.path());
            }
            self.tick().await?;
        }
        self.run.object = page.next.clone();
        self.run.done += page.objects.len() as u64;
        Ok(page.next.is_some())
    }
}
