//! Changes that a person or a client asks for: deletions, restores, and tags put to manifests that are there. One place
//! decides how long what goes can come back, and which tags stay.

use std::sync::Arc;

use super::coverage::restore_window;
use crate::domain::manifest::Manifest;
use crate::domain::{Digest, TagName};
use crate::metadata::events::Kind;
use crate::metadata::lifecycle::{Lifecycle, RestoreTag, Restored};
use crate::metadata::{
    Deleted, Deletion, MetadataError, Precondition, PutManifest, PutOutcome, Reference, Repository, Store,
    Time, row_id,
};
use crate::settings::Delays;
use crate::tenancy::Tenant;
use crate::tenancy::limits::exhausted;

/// Missing contents that are told by their digest.
const TOLD: usize = 5;

/// Why a tag is not set, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tag is there.
    #[error("{0}")]
    Exists(String),
    /// The tag may not be moved.
    #[error("{0}")]
    Immutable(String),
    /// What it needs is no longer there.
    #[error("{0}")]
    Missing(String),
    /// A quota is exhausted.
    #[error("{0}")]
    OverQuota(String),
    /// What it would point to is not there.
    #[error("{0}")]
    Absent(String),
}

/// Who changes what is stored, and where.
pub struct Changes<'a> {
    /// What is stored.
    pub metadata: &'a dyn Store,
    /// What is kept.
    pub lifecycle: &'a dyn Lifecycle,
    /// How long things stay.
    pub delays: Delays,
    /// Whose.
    pub tenant: &'a Arc<Tenant>,
    /// Who asks, as the history will say.
    pub principal: &'a str,
}

impl Changes<'_> {
    /// Deletes a tag, or a manifest with its tags.
    pub async fn delete(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Deleted, MetadataError> {
        let now = Time::now();
        let immutable: Vec<String> = self
            .tenant
            .repositories
            .immutable(&repository.name)
            .map(ToString::to_string)
            .collect();
        let by = Deletion {
            until: now.plus(restore_window(self.tenant, &repository.name, self.delays.restore)),
            principal: self.principal.to_owned(),
            now,
            review_at: now.plus(self.delays.review),
            immutable,
            announce: self.tenant.announce(Kind::Delete, Some(&repository.name)),
        };
        match reference {
            Reference::Tag(tag) if self.is_immutable(repository, tag) => {
                Ok(Deleted::Immutable(tag.to_string()))
            }
            Reference::Tag(tag) => Ok(match self.metadata.delete_tag(repository, tag, by).await? {
                true => Deleted::Done,
                false => Deleted::Absent,
            }),
            Reference::Digest(digest) => self.metadata.delete_manifest(repository, digest, by).await,
        }
    }

    /// Brings a tag back as by a push: within the quotas, and only if all that it needs is still there.
    pub async fn restore(
        &self,
        repository: &Repository,
        tag: TagName,
    ) -> Result<Result<Digest, Refusal>, MetadataError> {
        let object = format!("{}:{tag}", repository.name);
        let now = Time::now();
        let restore = RestoreTag {
            tag,
            principal: self.principal.to_owned(),
            now,
            leased_until: now.plus(self.delays.lease),
            limits: self.tenant.limits(&repository.name),
            sparse: self.tenant.sparse(&repository.name),
            announce: self.tenant.announce(Kind::Restore, Some(&repository.name)),
        };
        let restored = self.lifecycle.restore_tag(repository, restore).await?;
        Ok(match restored {
            Restored::Done(digest) => Ok(digest),
            Restored::Exists(digest) => Err(exists(&object, &format!(" and points to {digest}"))),
            Restored::Gone => Err(Refusal::Absent(format!(
                "{object} was not deleted, or too long ago to come back"
            ))),
            Restored::Refused(outcome) => Err(refusal(&object, &outcome)),
        })
    }

    /// Puts a tag to a manifest that is there, as by a push of the same bytes.
    pub async fn retag(
        &self,
        repository: &Repository,
        digest: &Digest,
        tag: TagName,
    ) -> Result<Result<(), Refusal>, MetadataError> {
        let object = format!("{}:{tag}", repository.name);
        let absent = || Refusal::Absent(format!("{} has no manifest {digest}", repository.name));
        let reference = Reference::Digest(*digest);
        let Some(row) = self.metadata.manifest(repository, &reference).await? else {
            return Ok(Err(absent()));
        };
        let Some(payload) = self.metadata.manifest_payload(repository, digest).await? else {
            return Ok(Err(absent()));
        };
        let manifest = Manifest::read_any(&payload, Some(&row.media_type))
            .map_err(|error| MetadataError::Corrupt(format!("manifest {digest}: {error}")))?;
        let now = Time::now();
        let immutable = self.is_immutable(repository, &tag).then(|| tag.clone());
        let put = PutManifest {
            digest: *digest,
            // What its annotation says of its life counts for this tag as for one that is pushed.
            lifetime: manifest.lifetime().ok().flatten(),
            payload,
            manifest,
            immutable: immutable.into_iter().collect(),
            tags: vec![tag],
            precondition: Precondition::None,
            sparse: self.tenant.sparse(&repository.name),
            principal: self.principal.to_owned(),
            now,
            leased_until: now.plus(self.delays.lease),
            review_at: now.plus(self.delays.review),
            repository_id: row_id(),
            limits: self.tenant.limits(&repository.name),
            announce: self.tenant.announce(Kind::Push, Some(&repository.name)),
        };
        Ok(match self.metadata.put_manifest(repository, put).await? {
            PutOutcome::Stored(_) => Ok(()),
            outcome => Err(refusal(&object, &outcome)),
        })
    }

    fn is_immutable(&self, repository: &Repository, tag: &TagName) -> bool {
        let mut globs = self.tenant.repositories.immutable(&repository.name);
        globs.any(|glob| glob.matches(tag.as_str()))
    }
}

fn exists(object: &str, what: &str) -> Refusal {
    Refusal::Exists(format!(
        "{object} exists{what}; delete it first, or push under another tag"
    ))
}

/// Why a tag was not set by what is pushed once more.
fn refusal(object: &str, outcome: &PutOutcome) -> Refusal {
    match outcome {
        PutOutcome::Missing(digests) => {
            let mut missing: Vec<String> = digests.iter().take(TOLD).map(ToString::to_string).collect();
            if digests.len() > TOLD {
                missing.push(format!("{} more", digests.len() - TOLD));
            }
            Refusal::Missing(format!(
                "{object} cannot be set: its repository no longer has {}; push the image again",
                missing.join(", ")
            ))
        }
        PutOutcome::OverQuota(over) => Refusal::OverQuota(exhausted(over)),
        PutOutcome::Immutable(_) => Refusal::Immutable(format!("{object} is immutable; choose another tag")),
        // It was set meanwhile.
        PutOutcome::PreconditionFailed | PutOutcome::Stored(_) => exists(object, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Algorithm;
    use crate::metadata::{OverQuota, Quota};

    #[test]
    fn a_refusal_names_what_is_missing_and_what_to_do() {
        let digests: Vec<Digest> = (0..7_u8).map(|n| Digest::of(Algorithm::Sha256, &[n])).collect();
        let first = digests[0].to_string();
        let Refusal::Missing(why) = refusal("app:v1", &PutOutcome::Missing(digests)) else {
            panic!("something is missing");
        };
        assert!(
            why.contains(&first) && why.contains(", 2 more; push the image again"),
            "{why}"
        );
        let over = OverQuota {
            quota: Quota::Tags,
            usage: 3,
            limit: 3,
        };
        let Refusal::OverQuota(why) = refusal("app:v1", &PutOutcome::OverQuota(over)) else {
            panic!("a quota is exhausted");
        };
        assert!(why.contains("3 of 3 tags used"), "{why}");
    }
}
