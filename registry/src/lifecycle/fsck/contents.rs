//! What lies in the stores is what it is said to be: sizes of objects, bytes of objects and of manifests.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::finding::{Finding, Kind};
use super::rows::{named, shown};
use super::worker::{Halt, REPAIR_DELAY, SETTLED, Worker};
use crate::blobs::{BlobError, ObjectKey};
use crate::domain::hasher::Hasher;
use crate::domain::{Algorithm, Digest};
use crate::metadata::inspection::{BlobSeen, PayloadSeen, Position, Problem, Start};
use crate::metadata::{TenantId, Time};

/// Objects that are looked up at a time.
const LOOKUPS: usize = 16;
/// Bytes of manifests that are in memory at a time, but for one that is larger.
const PAYLOADS: u64 = 4 << 20;
/// How often a store that answers is asked for an object that it does not give.
const TRIES: u32 = 3;
/// Repositories that are named with a lost blob.
const REPOSITORIES: u32 = 50;

/// What a look at an object shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It has so many bytes.
    Size(u64),
    /// It is not there.
    Gone,
    /// The store answers, but not about this object.
    Unreadable(String),
}

/// What reading an object shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bytes {
    /// Its bytes are these.
    Are(Digest),
    /// It is not there, or not of the size that it had.
    Changed,
    /// The store answers, but not about this object.
    Unreadable(String),
}

impl Worker {
    // -- Manifests ----------------------------------------------------------------------------------

    /// Hashes a page of manifests; false behind the last one.
    pub(super) async fn payloads(&mut self) -> Result<bool, Halt> {
        let start = Start::After(self.run.row.clone());
        let page = self.inspection().payloads(start, PAYLOADS).await?;
        let Some(last) = page.last().map(|seen| seen.at.clone()) else {
            return Ok(false);
        };
        let count = page.len() as u64;
        let (mut findings, mut bytes) = (Vec::new(), 0);
        for seen in page {
            bytes += seen.payload.len() as u64;
            self.pace(seen.payload.len()).await?;
            if differs(&seen) {
                let again = self
                    .inspection()
                    .payloads(Start::At(seen.at.clone()), u64::MAX)
                    .await?;
                if again
                    .first()
                    .is_some_and(|again| again.at == seen.at && differs(again))
                {
                    findings.extend(self.damaged_manifest(&seen.at).await?);
                }
            }
        }
        self.run.row = last;
        self.run.done += count;
        self.run.checked.bytes_rehashed += bytes;
        findings.into_iter().for_each(|finding| self.run.note(finding));
        Ok(true)
    }

    async fn damaged_manifest(&self, at: &Position) -> Result<Option<Finding>, Halt> {
        let names = self.inspection().names(at.tenant, Some(at.repository)).await?;
        let is_going = names.going;
        let finding = Finding {
            digest: Some(shown(&at.digest)),
            ..named(Kind::ManifestDiffers, names, at, Some(at.repository))
        };
        Ok((!is_going).then_some(finding))
    }

    // -- Sizes of blobs -----------------------------------------------------------------------------

    /// Looks up the objects of a page of blobs; false behind the last one.
    pub(super) async fn sizes(&mut self) -> Result<bool, Halt> {
        let page = self.blobs_from(Start::After(self.run.row.clone())).await?;
        let Some(last) = page.last().map(|seen| seen.at.clone()) else {
            return Ok(false);
        };
        let count = page.len() as u64;
        let looks = self.looks(&page).await?;
        let mut suspects: Vec<(BlobSeen, Option<Kind>)> = Vec::new();
        let mut unknown_tenant = self.run.row.tenant;
        for (seen, look) in page.into_iter().zip(looks) {
            let kind = suspicion(&seen, &look);
            // Of a tenant that does not exist, one row is told.
            let is_told = seen.problem == Some(Problem::NoTenant)
                && std::mem::replace(&mut unknown_tenant, seen.at.tenant) == seen.at.tenant;
            if kind.is_some() || (seen.problem.is_some() && !is_told) {
                suspects.push((seen, kind));
            }
        }
        if !suspects.is_empty() {
            self.moment().await?;
        }
        let mut findings = Vec::new();
        for (seen, kind) in suspects {
            let Some(again) = self.same_blob(&seen).await? else {
                continue;
            };
            if kind.is_some() {
                let look = self.look(again.key.clone()).await?;
                if suspicion(&again, &look) == kind {
                    findings.extend(self.damaged_blob(&again, look).await?);
                }
            }
            if again.problem.is_some() && again.problem == seen.problem {
                findings.extend(self.stray_blob(&again).await?);
            }
            self.tick().await?;
        }
        self.run.row = last;
        self.run.done += count;
        self.run.checked.blobs += count;
        findings.into_iter().for_each(|finding| self.run.note(finding));
        Ok(true)
    }

    /// Looks up the objects of some blobs, several at a time.
    pub(super) async fn looks(&self, blobs: &[BlobSeen]) -> Result<Vec<Look>, Halt> {
        let keys: Vec<ObjectKey> = blobs.iter().map(|seen| seen.key.clone()).collect();
        stream::iter(keys)
            .map(|key| self.look(key))
            .buffered(LOOKUPS)
            .try_collect()
            .await
    }

    pub(super) async fn blobs_from(&self, start: Start) -> Result<Vec<BlobSeen>, Halt> {
        let now = Time::now();
        Ok(self.inspection().blobs(start, now, now.minus(SETTLED)).await?)
    }

    /// The same blob as it is now, unless it has gone or lies in another object.
    pub(super) async fn same_blob(&self, seen: &BlobSeen) -> Result<Option<BlobSeen>, Halt> {
        let found = self.blobs_from(Start::At(seen.at.clone())).await?;
        let is_same = |found: &BlobSeen| found.at == seen.at && found.key == seen.key;
        Ok(found.into_iter().find(is_same))
    }

    async fn damaged_blob(&self, seen: &BlobSeen, look: Look) -> Result<Option<Finding>, Halt> {
        let (kind, detail) = match look {
            Look::Size(size) => (
                Kind::SizeDiffers,
                format!("{size} bytes instead of {}", seen.size),
            ),
            Look::Gone => (Kind::MissingObject, format!("{} bytes are lost", seen.size)),
            Look::Unreadable(why) => (Kind::Unreadable, why),
        };
        self.of_blob(kind, seen, detail).await
    }

    async fn of_blob(
        &self,
        kind: Kind,
        seen: &BlobSeen,
        mut detail: String,
    ) -> Result<Option<Finding>, Halt> {
        let names = self.inspection().names(seen.at.tenant, None).await?;
        if names.going {
            return Ok(None);
        }
        let tenant = TenantId(seen.at.tenant);
        let (repositories, count) = match &seen.digest {
            Some(digest) => {
                self.inspection()
                    .repositories_of(tenant, digest, REPOSITORIES)
                    .await?
            }
            None => (Vec::new(), 0),
        };
        if count > repositories.len() as u64 {
            detail.push_str(&format!(
                "; in {}{count} repositories",
                if count >= u64::from(REPOSITORIES) * 10 {
                    "at least "
                } else {
                    ""
                }
            ));
        }
        Ok(Some(Finding {
            digest: Some(shown(&seen.at.digest)),
            object: Some(seen.key.path()),
            repositories,
            detail,
            ..named(kind, names, &seen.at, None)
        }))
    }

    /// A blob whose row is not as it should be.
    async fn stray_blob(&self, seen: &BlobSeen) -> Result<Option<Finding>, Halt> {
        if seen.problem == Some(Problem::NoTenant) {
            let finding = self
                .of_blob(Kind::UnknownTenant, seen, "Blobs, among others".into())
                .await?;
            return Ok(finding);
        }
        let Some(mut finding) = self.of_blob(Kind::ForgottenBlob, seen, String::new()).await? else {
            return Ok(None);
        };
        if self.run.options.repair {
            let due = Time::now().plus(REPAIR_DELAY);
            finding.repaired = self.inspection().review_blob(&seen.at, due).await?;
        }
        Ok(Some(finding))
    }

    // -- Bytes of blobs -----------------------------------------------------------------------------

    /// Hashes the objects of a page of blobs, each of which is done with by itself; false behind the last one.
    pub(super) async fn contents(&mut self) -> Result<bool, Halt> {
        let page = self.blobs_from(Start::After(self.run.row.clone())).await?;
        if page.is_empty() {
            return Ok(false);
        }
        for seen in page {
            let finding = self.content(&seen).await?;
            self.run.done += seen.size;
            self.run.reading = 0;
            self.run.row = seen.at;
            finding.into_iter().for_each(|finding| self.run.note(finding));
            self.tick().await?;
        }
        Ok(true)
    }

    /// Reads one blob; twice, if its bytes are not what they should be. What is not there, or not of its size, has
    /// been told.
    async fn content(&mut self, seen: &BlobSeen) -> Result<Option<Finding>, Halt> {
        let Some(digest) = seen.digest else {
            return Ok(None);
        };
        let is_damage = |found: &Bytes| *found != Bytes::Changed && *found != Bytes::Are(digest);
        let mut found = self.read(&seen.key, seen.size, digest.algorithm()).await?;
        if is_damage(&found) {
            found = self.read(&seen.key, seen.size, digest.algorithm()).await?;
        }
        if !is_damage(&found) {
            return Ok(None);
        }
        let Some(seen) = self.same_blob(seen).await? else {
            return Ok(None);
        };
        match found {
            Bytes::Are(other) => {
                self.of_blob(Kind::DigestDiffers, &seen, format!("its bytes are {other}"))
                    .await
            }
            Bytes::Unreadable(why) => self.of_blob(Kind::Unreadable, &seen, why).await,
            Bytes::Changed => Ok(None),
        }
    }

    // -- One object ---------------------------------------------------------------------------------

    /// Looks an object up.
    pub(super) async fn look(&self, key: ObjectKey) -> Result<Look, Halt> {
        let blobs = &self.shared.parts.blobs;
        let mut tries = 0;
        loop {
            match blobs.size(&key).await {
                Ok(size) => return Ok(size.map_or(Look::Gone, Look::Size)),
                Err(BlobError::NotFound { .. }) => return Ok(Look::Gone),
                Err(error) => {
                    tries += 1;
                    if tries == TRIES {
                        blobs.probe().await?;
                        return Ok(Look::Unreadable(error.to_string()));
                    }
                }
            }
        }
    }

    /// Reads an object and hashes it, in the memory of a stream and at the run's rate.
    pub(super) async fn read(
        &mut self,
        key: &ObjectKey,
        size: u64,
        algorithm: Algorithm,
    ) -> Result<Bytes, Halt> {
        if self.look(key.clone()).await? != Look::Size(size) {
            return Ok(Bytes::Changed);
        }
        let mut tries = 0;
        loop {
            match self.read_once(key, size, algorithm).await {
                Ok(digest) => return Ok(Bytes::Are(digest)),
                Err(Halt::Blobs(BlobError::NotFound { .. })) => return Ok(Bytes::Changed),
                Err(Halt::Blobs(error)) => {
                    tries += 1;
                    if tries == TRIES {
                        self.shared.parts.blobs.probe().await?;
                        return Ok(Bytes::Unreadable(error.to_string()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_once(&mut self, key: &ObjectKey, size: u64, algorithm: Algorithm) -> Result<Digest, Halt> {
        let mut stream = self.shared.parts.blobs.read(key, 0..size).await?;
        let mut hasher = Hasher::new(algorithm);
        let mut length = 0;
        self.run.reading = 0;
        while let Some(bytes) = stream.try_next().await? {
            hasher.update(&bytes);
            length += bytes.len() as u64;
            self.run.reading = length;
            self.run.checked.bytes_rehashed += bytes.len() as u64;
            self.pace(bytes.len()).await?;
        }
        if length != size {
            return Err(BlobError::Broken(format!("{} ended after {length} bytes", key.path())).into());
        }
        Ok(hasher.digest())
    }
}

/// What an object that does not fit to its blob is called.
fn suspicion(seen: &BlobSeen, look: &Look) -> Option<Kind> {
    match look {
        Look::Size(size) if *size == seen.size => None,
        Look::Size(_) => Some(Kind::SizeDiffers),
        Look::Gone => Some(Kind::MissingObject),
        Look::Unreadable(_) => Some(Kind::Unreadable),
    }
}

/// Whether a manifest's bytes are not those of its digest.
fn differs(seen: &PayloadSeen) -> bool {
    let digest = Digest::from_bytes(&seen.at.digest);
    digest.is_none_or(|digest| Digest::of(digest.algorithm(), &seen.payload) != digest)
}
