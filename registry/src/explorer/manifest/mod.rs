//! What a tag or digest stands for: platforms, layers, configuration, history, annotations, what refers to it, and the
//! commands that fetch it.

mod chart;
mod commands;
mod contents;
pub mod documents;
mod html;
pub mod read;
mod said;

use std::collections::BTreeMap;

use axum::response::Response;
use http::request::Parts;
use serde::Serialize;

pub use read::absent;

use self::commands::Command;
use self::contents::Contents;
use self::documents::Documents;
use super::answer::{self, Failure};
use super::artifact::{Descriptor, Kind, Platform, RunConfig, Step};
use super::visit::Visit;
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::metadata::{Reference, Time};

/// From this size on, in bytes, few manifests are made into pages at the same time.
const LARGE: u64 = 256 << 10;

/// What a page shows of a manifest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestPage {
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<Tag>,
    digest: String,
    media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    kind: Kind,
    /// Bytes of the manifest itself.
    manifest_size: u64,
    /// Bytes of all that it names, itself included; of an index, of all its children that are here.
    total_size: u64,
    /// Whether that is all: the children beyond the first, those that are not here, and very long ones are not added up.
    is_whole: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<Child>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Made>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// GETs by its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pulls: Option<u64>,
    /// Tags that point to it, at most 50.
    tags: Vec<String>,
    more_tags: bool,
    /// What was read of what it holds.
    contents: Contents,
    /// What documents say about it.
    documents: Documents,
    #[serde(skip)]
    may_tag: bool,
    #[serde(skip)]
    may_delete: bool,
    #[serde(skip)]
    is_known: bool,
    /// Digest of what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<Referrer>,
    /// Tags that stand for what is about it, as cosign names them, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attached: Vec<String>,
    /// Whether there are more than those.
    more_referrers: bool,
    commands: Vec<Command>,
    /// The manifest's own text, where it is short enough to be shown.
    #[serde(skip)]
    raw: Option<String>,
    #[serde(skip)]
    now: Time,
}

/// The tag by which it was asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tag {
    name: String,
    pushed_at: String,
    /// For whoever has shown who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled_at: Option<String>,
    /// GETs and HEADs by its name, whatever it pointed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pulls: Option<u64>,
    /// When it ends by an annotation of its manifest, or by its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip)]
    pushed: Time,
    #[serde(skip)]
    pulled: Option<Time>,
    #[serde(skip)]
    expires: Option<Time>,
}

/// A child of an index.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    kind: Kind,
    /// The child that it is about, as BuildKit's attestations say.
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    /// Bytes of all that it names; absent where it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
}

/// What refers to it, with what refers to that.
#[derive(Debug, Serialize)]
struct Referrer {
    #[serde(flatten)]
    descriptor: Descriptor,
    kind: Kind,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<Referrer>,
}

/// A layer, or a file of an artifact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    digest: String,
    media_type: String,
    size: u64,
    /// What it is called, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// The step that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
}

/// The configuration of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    platform: Platform,
    #[serde(flatten)]
    run: RunConfig,
}

/// A step of an image's history.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    #[serde(flatten)]
    step: Step,
    /// Bytes of its layer, if it made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

/// The page.
pub async fn get(
    visit: &Visit,
    name: RepositoryName,
    reference: Reference,
    parts: &Parts,
) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    // Its content is shown, not only that it is there.
    let repository = visit.repository(name, Action::Pull)?;
    if let Reference::Tag(tag) = &reference {
        visit.listed_tag(&repository, tag)?;
    }
    let store = &visit.explorer.metadata;
    let found = store.manifest(&repository, &reference).await?;
    let row = found.ok_or_else(|| read::absent(visit, &repository, &reference))?;
    // A page takes several times the manifest's own bytes while it is made.
    let _permit = match row.size > LARGE {
        true => Some(visit.explorer.large(visit.tenant.id).await?),
        false => None,
    };
    let page = read::page(visit, &repository, &reference, row).await?;
    Ok(answer::view(visit, &page))
}
