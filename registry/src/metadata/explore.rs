//! The side of the store that people look around in: repositories by last push and by size, the tags of a digest, images
//! by their build. Every answer is bounded by what was asked for, and walks an index.

use async_trait::async_trait;

use super::lifecycle::TagRow;
use super::{Repository, Result, TenantId, Time};
use crate::domain::build::{BuildKey, BuildKind};
use crate::domain::{Digest, RepositoryName, TagName};

/// An order of repositories, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryOrder {
    /// By the last push.
    Pushed,
    /// By their bytes.
    Size,
}

/// A place in an order: behind the repository of this id, of which the order saw this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepositoryPlace {
    /// Time or bytes.
    pub value: i64,
    /// Id of the repository.
    pub id: i64,
}

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRow {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Bytes that it stores.
    pub bytes: u64,
    /// The same as counted, which may have drifted below 0.
    pub counted: i64,
    /// Number of its tags.
    pub tags: u64,
    /// Its last push, of whatever manifest.
    pub pushed_at: Option<Time>,
    /// Its last pull.
    pub pulled_at: Option<Time>,
}

impl RepositoryRow {
    /// The place behind it.
    pub fn place(&self, order: RepositoryOrder) -> RepositoryPlace {
        let value = match order {
            RepositoryOrder::Pushed => self.pushed_at.map_or(0, |at| at.0),
            RepositoryOrder::Size => self.counted,
        };
        RepositoryPlace { value, id: self.id }
    }
}

/// A manifest that a build is known to have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// By what it was found.
    pub kind: BuildKind,
    /// Name of its repository.
    pub repository: String,
    /// The manifest.
    pub digest: Digest,
}

/// A tag of some repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTag {
    /// Name of its repository.
    pub repository: String,
    /// Its name.
    pub tag: String,
    /// What it points to.
    pub digest: Digest,
}

/// A manifest whose configuration or provenance is to be read for its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueBuild {
    /// Where.
    pub repository: Repository,
    /// Which.
    pub digest: Digest,
}

/// Manifests to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueBuilds {
    /// How many were due, those included that are gone and were forgotten.
    pub seen: usize,
    /// Those to be read.
    pub builds: Vec<DueBuild>,
}

/// Names that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundNames {
    /// Those that were searched for, by name.
    pub names: Vec<String>,
    /// How many were looked at, and the last of them.
    pub looked: usize,
    /// Where the search goes on; absent if it looked at nothing.
    pub last: Option<String>,
}

impl FoundNames {
    /// All that were looked at.
    pub fn all(names: Vec<String>) -> Self {
        Self {
            looked: names.len(),
            last: names.last().cloned(),
            names,
        }
    }
}

/// What a repository stored at the end of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970, UTC.
    pub day: i64,
    /// Bytes.
    pub bytes: u64,
}

/// What a repository stored in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Month {
    /// Year times 100, plus 1 to 12.
    pub month: i64,
    /// Bytes, each for as many hours as it was stored.
    pub byte_hours: u64,
}

/// Lists for people.
#[async_trait]
pub trait Explore: Send + Sync + 'static {
    /// Up to `limit` repositories of a tenant in an order, behind a place.
    async fn repositories_in(
        &self,
        tenant: TenantId,
        order: RepositoryOrder,
        after: Option<RepositoryPlace>,
        limit: u32,
    ) -> Result<Vec<RepositoryRow>>;

    /// These repositories, by name; those that are gone are left out.
    async fn repository_rows(
        &self,
        tenant: TenantId,
        names: Vec<RepositoryName>,
    ) -> Result<Vec<RepositoryRow>>;

    /// Names of a tenant's repositories that contain `part`, among the first `rows` names of a span, which begins after
    /// its first text and ends before its second.
    async fn names_with(
        &self,
        tenant: TenantId,
        part: String,
        span: (String, Option<String>),
        rows: u32,
    ) -> Result<FoundNames>;

    /// What a repository stored on the days from `from` on, and on the last before them; days without a change are left
    /// out. The newest `limit`, the oldest first.
    async fn days(&self, repository: &Repository, from: i64, limit: u32) -> Result<Vec<Day>>;

    /// The newest `limit` months of a repository in which it stored anything, the oldest first.
    async fn months(&self, repository: &Repository, limit: u32) -> Result<Vec<Month>>;

    /// How often a manifest was asked for by its digest; 0 if it is gone.
    async fn pulls_of(&self, repository: &Repository, digest: &Digest) -> Result<u64>;

    /// These tags, by name, pulls included; those that are gone are left out.
    async fn tag_rows(&self, repository: &Repository, tags: Vec<TagName>) -> Result<Vec<TagRow>>;

    /// Up to `limit` names of tags that point to a manifest, by name.
    async fn tags_of(&self, repository: &Repository, digest: &Digest, limit: u32) -> Result<Vec<String>>;

    /// Up to `limit` indexes that name a manifest.
    async fn indexes_of(&self, repository: &Repository, digest: &Digest, limit: u32) -> Result<Vec<Digest>>;

    /// Up to `limit` manifests of a tenant whose build is known by `value`.
    async fn builds(&self, tenant: TenantId, value: String, limit: u32) -> Result<Vec<BuildRow>>;

    /// Up to `limit` tags of a tenant that are `name`, or begin with it and a dash.
    async fn tags_named(&self, tenant: TenantId, name: String, limit: u32) -> Result<Vec<NamedTag>>;

    /// Up to `limit` manifests to be read, each put off until `retry` in case the reading fails.
    async fn due_builds(&self, now: Time, retry: Time, limit: u32) -> Result<DueBuilds>;

    /// Keeps what was read of a manifest, at most 64 keys; it is due no longer.
    async fn note_build(&self, due: &DueBuild, keys: Vec<BuildKey>) -> Result<()>;
}
