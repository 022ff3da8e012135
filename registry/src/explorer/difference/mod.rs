//! Two tags or manifests of a repository side by side: sizes, layers, configuration, packages.

mod compare;
mod html;

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use serde::Serialize;

use self::compare::{Change, LayerRow};
use super::answer::{self, Failure};
use super::artifact::{Descriptor, Document, ImageConfig, Kind, Platform};
use super::manifest::documents::Documents;
use super::manifest::read as manifests;
use super::parsed::{self, Content, Sort};
use super::supply::sbom;
use super::visit::{self, Visit};
use crate::domain::grant::Action;
use crate::domain::media_type::MediaType;
use crate::domain::{Digest, RepositoryName, TagName};
use crate::metadata::{Reference, Repository};

/// Longest manifest that is compared, in bytes: some thousand layers.
const MANIFEST_LIMIT: u64 = 1 << 20;
/// Referrers among which a bill of materials is looked for.
const REFERRERS: u32 = 100;

/// The page.
#[derive(Debug, Serialize)]
struct Difference {
    repository: String,
    /// The older, as it was asked for.
    from: String,
    /// The newer, as it was asked for.
    to: String,
    /// What was compared, where indexes have several platforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    /// Platforms that both have.
    platforms: Vec<String>,
    /// Absent where something is still to be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

/// What differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    from_digest: String,
    to_digest: String,
    /// Bytes of manifest, configuration and layers.
    from_size: u64,
    to_size: u64,
    /// Bytes of layers that both have, once.
    shared_size: u64,
    /// Layers of the newer in their order, then those that only the older has.
    layers: Vec<LayerRow>,
    /// Of the configuration, by key.
    config: Vec<Change>,
    /// Of what they are made of; absent where not both have a bill of materials that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<sbom::Difference>,
}

/// The page.
pub async fn get(visit: &Visit, name: RepositoryName, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    let repository = visit.repository(name, Action::Pull)?;
    let (mut from, mut to, mut platform) = (String::new(), String::new(), None);
    for (key, value) in visit::query(parts)? {
        match &*key {
            "from" => value.trim().clone_into(&mut from),
            "to" => value.trim().clone_into(&mut to),
            "platform" => platform = Some(value).filter(|text| !text.is_empty()),
            _ => {}
        }
    }
    let mut page = Difference {
        repository: repository.name.to_string(),
        platform: None,
        platforms: Vec::new(),
        compared: None,
        from,
        to,
    };
    if !page.from.is_empty() && !page.to.is_empty() {
        compare(visit, &repository, &mut page, platform).await?;
    }
    Ok(answer::view(visit, &page))
}

async fn compare(
    visit: &Visit,
    repository: &Repository,
    page: &mut Difference,
    platform: Option<String>,
) -> Result<(), Failure> {
    // Documents of some size, two at a time.
    let _permit = visit.explorer.large(visit.tenant.id).await?;
    let from = Side::read(visit, repository, &page.from).await?;
    let to = Side::read(visit, repository, &page.to).await?;

    // 1. Of indexes, the images of one platform that both have.
    page.platforms = common(&from, &to);
    if let Some(platform) = &platform
        && !page.platforms.contains(platform)
    {
        return Err(Failure::Absent(format!("not both have the platform {platform}")));
    }
    let platform = platform.or_else(|| page.platforms.first().cloned());
    let (Some(from), Some(to)) = (
        from.of(visit, repository, platform.as_deref()).await?,
        to.of(visit, repository, platform.as_deref()).await?,
    ) else {
        return Err(Failure::Absent(format!(
            "{} and {} have no platform in common that is here",
            page.from, page.to
        )));
    };

    // 2. What differs.
    let from_config = from.config(visit, repository).await?;
    let to_config = to.config(visit, repository).await?;
    let packages = match (
        from.packages(visit, repository).await?,
        to.packages(visit, repository).await?,
    ) {
        (Some(from), Some(to)) => packages(from, to).await,
        _ => None,
    };
    page.compared = Some(Compared {
        from_size: from.total(),
        to_size: to.total(),
        shared_size: compare::shared(&from.document.layers, &to.document.layers),
        layers: compare::layers(&from.document.layers, &to.document.layers, to_config.as_ref()),
        config: compare::configs(from_config.as_ref(), to_config.as_ref()),
        packages,
        from_digest: from.digest,
        to_digest: to.digest,
    });
    page.platform = platform;
    Ok(())
}

/// One of the two.
struct Side {
    digest: String,
    size: u64,
    kind: Kind,
    document: Document,
}

impl Side {
    async fn read(visit: &Visit, repository: &Repository, text: &str) -> Result<Self, Failure> {
        let reference = match text.contains(':') {
            true => text.parse::<Digest>().ok().map(Reference::Digest),
            false => text.parse::<TagName>().ok().map(Reference::Tag),
        };
        let reference =
            reference.ok_or_else(|| Failure::Bad(format!("{text:?} is neither a tag nor a digest")))?;
        if let Reference::Tag(tag) = &reference {
            visit.listed_tag(repository, tag)?;
        }
        let store = &visit.explorer.metadata;
        let absent = || super::manifest::absent(visit, repository, &reference);
        let row = store.manifest(repository, &reference).await?.ok_or_else(absent)?;
        if row.size > MANIFEST_LIMIT {
            return Err(Failure::Conflict(format!(
                "{text} is too large to be compared: {} bytes, of {MANIFEST_LIMIT}",
                row.size
            )));
        }
        let payload = store.manifest_payload(repository, &row.digest).await?;
        let document: Document = serde_json::from_slice(&payload.ok_or_else(absent)?).unwrap_or_default();
        let is_index = MediaType::parse(&row.media_type).is_some_and(MediaType::is_index);
        Ok(Self {
            digest: row.digest.to_string(),
            size: row.size,
            kind: Kind::of(&document, is_index),
            document,
        })
    }

    /// Platforms of an index; none of anything else.
    fn platforms(&self) -> impl Iterator<Item = (String, &Descriptor)> {
        let children = self.document.manifests.iter();
        children.filter_map(|child| {
            let platform = child.platform.as_ref()?;
            let is_real = !platform.os.is_empty() && platform.os != "unknown";
            is_real.then(|| (text(platform), child))
        })
    }

    /// Itself, or of an index the image of a platform; none if that is not here.
    async fn of(
        self,
        visit: &Visit,
        repository: &Repository,
        platform: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        if self.document.manifests.is_empty() {
            return Ok(Some(self));
        }
        let mut platforms = self.platforms();
        let found = platforms.find(|(text, _)| platform.is_none_or(|platform| platform == text));
        let digest = found.and_then(|(_, child)| child.digest.parse::<Digest>().ok());
        let Some(digest) = digest else { return Ok(None) };
        let child = manifests::child_document(visit, repository, digest).await?;
        Ok(child.map(|(size, document)| Self {
            digest: digest.to_string(),
            size,
            kind: Kind::of(&document, false),
            document,
        }))
    }

    async fn config(&self, visit: &Visit, repository: &Repository) -> Result<Option<ImageConfig>, Failure> {
        manifests::image_config(visit, repository, &self.document, self.kind).await
    }

    /// Its bill of materials, if it has one.
    async fn packages(
        &self,
        visit: &Visit,
        repository: &Repository,
    ) -> Result<Option<Arc<Content>>, Failure> {
        let Ok(digest) = self.digest.parse::<Digest>() else {
            return Ok(None);
        };
        let (referrers, _) = manifests::referrers(visit, repository, &digest, REFERRERS).await?;
        let documents =
            Documents::of(visit, repository, &digest, self.kind, &self.document, &referrers).await?;
        let told = documents
            .packages
            .and_then(|told| told.digest.parse::<Digest>().ok());
        Ok(match told {
            Some(digest) => parsed::read(&visit.explorer, repository, &digest, Sort::Packages).await?,
            None => None,
        })
    }

    fn total(&self) -> u64 {
        let parts = self.document.layers.iter().chain(&self.document.config);
        parts.fold(self.size, |sum, part| sum.saturating_add(part.size))
    }
}

/// What differs between two bills of materials; not on the request's thread, since they may be long.
async fn packages(from: Arc<Content>, to: Arc<Content>) -> Option<sbom::Difference> {
    let compared = tokio::task::spawn_blocking(move || match (&*from, &*to) {
        (Content::Packages(from), Content::Packages(to)) => Some(sbom::difference(from, to)),
        _ => None,
    });
    compared.await.ok().flatten()
}

/// Platforms that both have, in the order of the newer. One that is no index has what the other has.
fn common(from: &Side, to: &Side) -> Vec<String> {
    let of = |side: &Side| side.platforms().map(|(text, _)| text).collect::<Vec<_>>();
    let (from, mut to) = (of(from), of(to));
    match (from.is_empty(), to.is_empty()) {
        (_, true) => from,
        (true, false) => to,
        (false, false) => {
            to.retain(|platform| from.contains(platform));
            to
        }
    }
}

/// As `linux/arm64/v8`.
fn text(platform: &Platform) -> String {
    let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
    match variant {
        Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
        None => format!("{}/{}", platform.os, platform.architecture),
    }
}
