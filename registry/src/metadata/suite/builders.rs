//! Names, documents and pushes, each with no more words than a test needs.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::TestStore;
use crate::blobs::{UploadState, folder};
use crate::domain::manifest::Manifest;
use crate::domain::media_type::{OCI_INDEX, OCI_MANIFEST};
use crate::domain::{Algorithm, Digest, TagName};
use crate::metadata::lifecycle::TagRow;
use crate::metadata::*;

/// When the tests take place.
pub(super) const NOW: Time = Time(1_700_000_000_000_000);

/// This many seconds after [`NOW`].
pub(super) fn after(seconds: u64) -> Time {
    NOW.plus(Duration::from_secs(seconds))
}

/// A repository of the tenant that most tests use.
pub(super) fn repository(name: &str) -> Repository {
    repository_of(1, name)
}

pub(super) fn repository_of(tenant: i64, name: &str) -> Repository {
    Repository {
        tenant: TenantId(tenant),
        name: name.parse().expect("a repository name"),
    }
}

pub(super) fn tag(name: &str) -> TagName {
    name.parse().expect("a tag")
}

pub(super) fn by_tag(name: &str) -> Reference {
    Reference::Tag(tag(name))
}

pub(super) fn by_digest(digest: Digest) -> Reference {
    Reference::Digest(digest)
}

pub(super) fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

pub(super) fn state(offset: u64) -> UploadState {
    UploadState::Folder(folder::State { offset })
}

// -- Uploads --------------------------------------------------------------------------------------------

pub(super) fn session(repository: &Repository, id: Uuid) -> NewUpload {
    NewUpload {
        repository: repository.clone(),
        id,
        principal: "ci".into(),
        hash_states: vec![1, 0],
        state: state(0),
        now: NOW,
    }
}

/// Makes a session and answers its id.
pub(super) async fn begin(store: &TestStore, repository: &Repository) -> Uuid {
    let id = Uuid::new_v4();
    store
        .create_upload(session(repository, id))
        .await
        .expect("a session can be made");
    id
}

/// A wish to write from [`NOW`] on, for 15 seconds.
pub(super) fn take() -> TakeUpload {
    TakeUpload {
        now: NOW,
        until: after(15),
        closing: None,
    }
}

pub(super) fn closing(digest: Digest) -> TakeUpload {
    TakeUpload {
        closing: Some(digest),
        ..take()
    }
}

/// Progress to `offset` under the lease `epoch`, which ends with it.
pub(super) fn progress(epoch: i64, offset: u64) -> Checkpoint {
    Checkpoint {
        epoch,
        offset,
        hash_states: vec![7; 40],
        state: state(offset),
        now: NOW,
        until: NOW,
    }
}

/// A commit under the session's first lease, with a blob lease of an hour.
pub(super) fn commit(id: Uuid, digest: Digest, size: u64) -> CommitUpload {
    CommitUpload {
        id,
        epoch: 1,
        digest,
        size,
        now: NOW,
        leased_until: after(3600),
        repository_id: row_id(),
        limits: Limits::default(),
        spare_due: after(60),
    }
}

/// Takes the free lease of a session.
pub(super) async fn taken(
    store: &TestStore,
    repository: &Repository,
    id: Uuid,
    take: TakeUpload,
) -> UploadRow {
    match store.take_upload(repository, id, take).await {
        Ok(Taken::Yours(row)) => row,
        other => panic!("the lease was not free: {other:?}"),
    }
}

/// Pushes `content` as a blob and answers the upload's id, which its object is named by.
pub(super) async fn push_object(store: &TestStore, repository: &Repository, content: &str) -> Uuid {
    let id = begin(store, repository).await;
    taken(store, repository, id, closing(digest(content))).await;
    let commit = commit(id, digest(content), content.len() as u64);
    assert!(
        store
            .commit_upload(repository, commit)
            .await
            .expect("a blob can be committed")
    );
    id
}

/// Pushes `content` as a blob and answers its digest.
pub(super) async fn push_blob(store: &TestStore, repository: &Repository, content: &str) -> Digest {
    push_object(store, repository, content).await;
    digest(content)
}

/// A mount of any repository's blob.
pub(super) fn mount(digest: Digest) -> MountBlob {
    MountBlob {
        digest,
        from: None,
        now: NOW,
        leased_until: after(3600),
        repository_id: row_id(),
        limits: Limits::default(),
    }
}

pub(super) fn mount_from(digest: Digest, from: &str) -> MountBlob {
    MountBlob {
        from: Some(from.parse().expect("a repository name")),
        ..mount(digest)
    }
}

// -- Manifests ------------------------------------------------------------------------------------------

/// A manifest that is being written.
#[derive(Clone)]
pub(super) struct Document {
    media_type: &'static str,
    json: Value,
}

fn descriptor(digest: &Digest) -> Value {
    json!({"mediaType": "application/x.thing", "digest": digest, "size": 1})
}

/// An image of these blobs; the first is its config.
pub(super) fn image(blobs: &[Digest]) -> Document {
    let (config, layers) = blobs.split_first().expect("an image has a config");
    let layers: Vec<Value> = layers.iter().map(descriptor).collect();
    let json = json!({"schemaVersion": 2, "config": descriptor(config), "layers": layers});
    Document {
        media_type: OCI_MANIFEST,
        json,
    }
}

pub(super) fn index(children: &[Digest]) -> Document {
    let children: Vec<Value> = children.iter().map(descriptor).collect();
    Document {
        media_type: OCI_INDEX,
        json: json!({"schemaVersion": 2, "manifests": children}),
    }
}

/// A manifest that refers to nothing and differs from others by its text.
pub(super) fn note(text: &str) -> Document {
    index(&[]).noted(text)
}

impl Document {
    pub(super) fn noted(mut self, text: &str) -> Self {
        self.json["annotations"] = json!({"note": text});
        self
    }

    pub(super) fn annotated(mut self, key: &str, value: &str) -> Self {
        self.json["annotations"][key] = json!(value);
        self
    }

    pub(super) fn about(mut self, subject: Digest) -> Self {
        self.json["subject"] = descriptor(&subject);
        self
    }

    pub(super) fn of_type(mut self, artifact_type: &str) -> Self {
        self.json["artifactType"] = json!(artifact_type);
        self
    }

    /// A push of this document without a tag.
    pub(super) fn push(&self) -> PutManifest {
        let payload = Bytes::from(self.json.to_string());
        PutManifest {
            digest: Digest::of(Algorithm::Sha256, &payload),
            manifest: Manifest::read(&payload, Some(self.media_type)).expect("a manifest"),
            payload,
            tags: Vec::new(),
            precondition: Precondition::None,
            sparse: Sparse::Never,
            principal: "ci".into(),
            now: NOW,
            leased_until: after(3600),
            review_at: after(7200),
            lifetime: None,
            repository_id: row_id(),
            immutable: Vec::new(),
            limits: Limits::default(),
            announce: None,
        }
    }

    /// A push of this document under a tag.
    pub(super) fn push_as(&self, name: &str) -> PutManifest {
        PutManifest {
            tags: vec![tag(name)],
            ..self.push()
        }
    }
}

/// Stores a manifest and answers its digest.
pub(super) async fn put(store: &TestStore, repository: &Repository, put: PutManifest) -> Digest {
    let digest = put.digest;
    let outcome = store
        .put_manifest(repository, put)
        .await
        .expect("the store answers");
    assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
    digest
}

/// The key of a session that [`begin`] made.
pub(super) fn key(repository: &Repository, id: Uuid) -> SessionKey {
    SessionKey {
        repository: repository.clone(),
        id,
        principal: "ci".into(),
    }
}

/// The trait's methods in the form in which most tests ask them: sessions of the usual principal, and yes or no
/// where nothing more is wanted.
impl TestStore {
    pub(super) async fn take_upload(
        &self,
        repository: &Repository,
        id: Uuid,
        take: TakeUpload,
    ) -> Result<Taken> {
        self.inner().take_upload(&key(repository, id), take).await
    }

    pub(super) async fn upload(&self, repository: &Repository, id: Uuid) -> Result<Option<UploadRow>> {
        self.inner().upload(&key(repository, id)).await
    }

    pub(super) async fn cancel_upload(&self, repository: &Repository, id: Uuid) -> Result<Option<UploadRow>> {
        self.inner().cancel_upload(&key(repository, id)).await
    }

    pub(super) async fn commit_upload(&self, repository: &Repository, commit: CommitUpload) -> Result<bool> {
        let outcome = self.inner().commit_upload(repository, commit).await?;
        Ok(matches!(outcome, Linked::Done(_)))
    }

    pub(super) async fn mount_blob(&self, into: &Repository, mount: MountBlob) -> Result<bool> {
        let outcome = self.inner().mount_blob(into, mount).await?;
        Ok(matches!(outcome, Linked::Done(_)))
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        by: Deletion,
    ) -> Result<bool> {
        Ok(self.inner().delete_manifest(repository, digest, by).await? == Deleted::Done)
    }

    pub(super) async fn repositories(
        &self,
        tenant: TenantId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        self.inner()
            .repositories(tenant, after.unwrap_or_default(), None, limit)
            .await
    }

    pub(super) async fn open_uploads(&self, tenant: TenantId) -> Result<u64> {
        let counts = self.inner().open_uploads().await?;
        Ok(counts
            .iter()
            .find(|open| open.tenant == tenant)
            .map_or(0, |open| open.count))
    }
}

/// A tag as retention sees it.
pub(super) async fn tag_row(store: &TestStore, repository: &Repository, name: &str) -> Option<TagRow> {
    let detail = store
        .lifecycle()
        .tag_detail(repository, &tag(name))
        .await
        .unwrap();
    Some(detail?.row)
}

/// The digest that a tag points to.
pub(super) async fn target(store: &TestStore, repository: &Repository, name: &str) -> Option<Digest> {
    let row = store
        .manifest(repository, &by_tag(name))
        .await
        .expect("the store answers");
    row.map(|row| row.digest)
}

pub(super) fn deletion() -> Deletion {
    Deletion {
        principal: "admin".into(),
        now: after(10),
        review_at: after(7200),
        until: after(10),
        immutable: Vec::new(),
        announce: None,
    }
}
