//! What can be wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wrong with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A blob whose object is not in the blob store: its bytes are lost.
    MissingObject,
    /// A blob whose object has another size.
    SizeDiffers,
    /// A blob whose object has other bytes.
    DigestDiffers,
    /// A blob whose object cannot be read, although the blob store answers.
    Unreadable,
    /// An object that nothing refers to.
    OrphanObject,
    /// Something among the objects that the registry did not make.
    ForeignFile,
    /// A tag whose manifest is not there.
    DanglingTag,
    /// A manifest that is not there, although what it refers to is still noted.
    MissingManifest,
    /// A manifest whose bytes are not those of its digest.
    ManifestDiffers,
    /// A blob that a manifest needs and that the tenant does not have.
    MissingBlob,
    /// A blob that a manifest needs and that its repository does not have, although the tenant does.
    MissingLink,
    /// A repository's link to a blob that the tenant does not have.
    DanglingLink,
    /// A blob that nothing refers to and nobody would collect.
    ForgottenBlob,
    /// A manifest that nothing refers to and nobody would collect.
    ForgottenManifest,
    /// Rows of a tenant that does not exist.
    UnknownTenant,
    /// Rows of a repository that does not exist.
    UnknownRepository,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// Name of the tenant, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The repositories that have the blob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// The tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Digest of the manifest or blob; of an orphan, what its bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Path in the blob store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whether it has been taken care of.
    pub repaired: bool,
}

impl Finding {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            tenant: None,
            repository: None,
            repositories: Vec::new(),
            tag: None,
            digest: None,
            object: None,
            detail: String::new(),
            repaired: false,
        }
    }

    pub(super) fn log(&self) {
        tracing::warn!(
            kind = ?self.kind,
            tenant = self.tenant,
            repository = self.repository,
            tag = self.tag,
            digest = self.digest,
            object = self.object,
            detail = self.detail,
            repaired = self.repaired,
            "the check of the stores found something"
        );
    }
}
