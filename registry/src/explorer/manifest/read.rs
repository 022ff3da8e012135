//! Asks the stores for all that a page shows: a number of questions that does not depend on the content, of answers that
//! are bounded by it.

use super::contents::Contents;
use super::documents::{ABOUT, Documents};
use super::{Child, Config, Layer, Made, ManifestPage, Referrer, Tag, commands};
use crate::domain::grant::Action;
use crate::domain::media_type::MediaType;
use crate::domain::{Digest, TagName};
use crate::explorer::answer::Failure;
use crate::explorer::artifact::{Descriptor, Document, ImageConfig, Kind, Platform};
use crate::explorer::content;
use crate::explorer::visit::Visit;
use crate::lifecycle::retention::explain;
use crate::metadata::{ManifestRow, Reference, ReferrersQuery, Repository, Time};
use crate::rfc3339;

/// Longest configuration that is read, in bytes.
const CONFIG_LIMIT: u64 = 256 << 10;
/// Children of an index whose own sizes are looked up.
const CHILDREN: usize = 32;
/// Longest of them that is read, in bytes.
const CHILD_LIMIT: u64 = 256 << 10;
/// Tags on the same manifest that are shown.
const TAGS: u32 = 50;
/// Referrers that are shown.
const REFERRERS: u32 = 100;
/// Of how many of them what refers to them is shown, and how much of that.
const BRANCHES: usize = 20;
const LEAVES: u32 = 10;
/// Tags of things about a manifest that are shown.
const ATTACHED: u32 = 20;
const REFERRERS_BYTES: u64 = 1 << 20;
/// Longest manifest whose text stands in the page, in bytes.
const RAW_LIMIT: usize = 64 << 10;
/// By which a layer says what it is called (image-spec, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// All that a page shows.
pub(super) async fn page(
    visit: &Visit,
    repository: &Repository,
    reference: &Reference,
    row: ManifestRow,
) -> Result<ManifestPage, Failure> {
    // 1. What it is.
    let payload = visit.explorer.metadata.manifest_payload(repository, &row.digest);
    let payload = payload
        .await?
        .ok_or_else(|| absent(visit, repository, reference))?;
    // Whatever can be stored can be shown, though a part of it may be of another shape than is read here.
    let document: Document = serde_json::from_slice(&payload).unwrap_or_default();
    let is_index = MediaType::parse(&row.media_type).is_some_and(MediaType::is_index);
    let kind = Kind::of(&document, is_index);
    let tag = match reference {
        Reference::Tag(tag) => tag_of(visit, repository, tag).await?,
        Reference::Digest(_) => None,
    };

    // 2. What it names.
    let platforms = children(visit, repository, &document.manifests).await?;
    let config = image_config(visit, repository, &document, kind).await?;
    let layers = layers(&document.layers, config.as_ref());
    let history = history(&layers, config.as_ref());
    let own = document
        .layers
        .iter()
        .chain(&document.config)
        .map(|part| part.size);
    let below = platforms.iter().filter_map(|child| child.total_size);
    let total_size = own.chain(below).fold(row.size, u64::saturating_add);
    let is_whole = platforms.iter().all(|child| child.total_size.is_some());

    // 3. What names it.
    let mut tags = visit
        .explorer
        .explore
        .tags_of(repository, &row.digest, TAGS + 1)
        .await?;
    if let Some((cache, _)) = visit.tenant.caches.of(&repository.name) {
        tags.retain(|tag| cache.allows_tag(tag));
    }
    let more_tags = tags.len() > TAGS as usize;
    tags.truncate(TAGS as usize);
    let (referring, more_referrers) = referrers(visit, repository, &row.digest, REFERRERS).await?;
    let documents = Documents::of(visit, repository, &row.digest, kind, &document, &referring).await?;
    let referrers = tree(visit, repository, referring).await?;
    let attached = attached(visit, repository, &row.digest).await?;

    let contents = Contents::of(visit, repository, kind, &document).await?;

    let commands = commands::of(
        visit,
        repository,
        tag.as_ref().map(|tag| &*tag.name),
        &row.digest,
        kind,
    );
    let config = config.map(|config| shown(config, document.config.as_ref()));
    let pulls = match visit.is_known() {
        true => Some(visit.explorer.explore.pulls_of(repository, &row.digest).await?),
        false => None,
    };
    Ok(ManifestPage {
        repository: repository.name.to_string(),
        tag,
        digest: row.digest.to_string(),
        media_type: row.media_type,
        artifact_type: document.artifact_type,
        kind,
        manifest_size: row.size,
        total_size,
        is_whole,
        platforms,
        layers,
        config,
        history,
        annotations: document.annotations,
        contents,
        documents,
        attached,
        pulls,
        tags,
        more_tags,
        may_tag: visit.may(Action::Push, &repository.name),
        may_delete: visit.may(Action::Delete, &repository.name),
        is_known: visit.is_known(),
        subject: document.subject.map(|subject| subject.digest),
        referrers,
        more_referrers,
        commands,
        raw: (payload.len() <= RAW_LIMIT).then(|| String::from_utf8_lossy(&payload).into_owned()),
        now: Time::now(),
    })
}

/// What is told of a manifest that is not here.
pub fn absent(visit: &Visit, repository: &Repository, reference: &Reference) -> Failure {
    let what = match reference {
        Reference::Tag(tag) => format!("tag {tag}"),
        Reference::Digest(digest) => format!("manifest {digest}"),
    };
    let name = &repository.name;
    Failure::absent(match visit.tenant.caches.of(name) {
        Some(_) => format!("{what} of {name} has not been fetched yet; the first pull does that"),
        None => format!("there is no {what} in {name}"),
    })
}

async fn tag_of(visit: &Visit, repository: &Repository, tag: &TagName) -> Result<Option<Tag>, Failure> {
    let detail = visit.explorer.keeper.store().tag_detail(repository, tag).await?;
    Ok(detail.map(|detail| {
        let expires = explain::ends(&visit.tenant, repository, &detail);
        let row = &detail.row;
        let pulled = row.pulled_at.filter(|_| visit.is_known());
        Tag {
            name: row.name.clone(),
            pushed_at: rfc3339::write(row.pushed_at),
            pushed_by: visit.is_known().then_some(detail.pushed_by),
            pulled_at: pulled.map(rfc3339::write),
            pulls: visit.is_known().then_some(row.pulls),
            expires_at: expires.map(rfc3339::write),
            pushed: row.pushed_at,
            pulled,
            expires,
        }
    }))
}

/// One after the other: an index may name the largest manifests there are, and the same one many times.
async fn children(
    visit: &Visit,
    repository: &Repository,
    listed: &[Descriptor],
) -> Result<Vec<Child>, Failure> {
    let mut children = Vec::with_capacity(listed.len());
    for (at, child) in listed.iter().enumerate() {
        let mut shown = Child {
            digest: child.digest.clone(),
            platform: child.platform.clone(),
            kind: Kind::of_type(child.artifact_type.as_deref().unwrap_or(&child.media_type)),
            about: child.annotations.get(ABOUT).cloned(),
            total_size: None,
            layers: None,
        };
        let digest = child.digest.parse::<Digest>().ok().filter(|_| at < CHILDREN);
        if let Some(document) = match digest {
            Some(digest) => child_document(visit, repository, digest).await?,
            None => None,
        } {
            let (size, document) = document;
            let parts = document
                .layers
                .iter()
                .chain(&document.config)
                .map(|part| part.size);
            shown.total_size = Some(parts.fold(size, u64::saturating_add));
            shown.kind = Kind::of(&document, !document.manifests.is_empty());
            shown.layers = Some(document.layers.len());
        }
        children.push(shown);
    }
    Ok(children)
}

/// A child with its own size, if it is here and not unusually long.
pub async fn child_document(
    visit: &Visit,
    repository: &Repository,
    digest: Digest,
) -> Result<Option<(u64, Document)>, Failure> {
    let store = &visit.explorer.metadata;
    let row = store.manifest(repository, &Reference::Digest(digest)).await?;
    let Some(row) = row.filter(|row| row.size <= CHILD_LIMIT) else {
        return Ok(None);
    };
    let payload = store.manifest_payload(repository, &row.digest).await?;
    Ok(payload.map(|payload| (row.size, serde_json::from_slice(&payload).unwrap_or_default())))
}

pub async fn image_config(
    visit: &Visit,
    repository: &Repository,
    document: &Document,
    kind: Kind,
) -> Result<Option<ImageConfig>, Failure> {
    let Some(config) = document.config.as_ref().filter(|_| kind == Kind::Image) else {
        return Ok(None);
    };
    let Ok(digest) = config.digest.parse::<Digest>() else {
        return Ok(None);
    };
    let bytes = content::small(&visit.explorer, repository, &digest, CONFIG_LIMIT).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn shown(config: ImageConfig, descriptor: Option<&Descriptor>) -> Config {
    Config {
        digest: descriptor.map(|config| config.digest.clone()).unwrap_or_default(),
        created: config.created,
        author: config.author.filter(|author| !author.is_empty()),
        platform: Platform {
            os: config.os.unwrap_or_default(),
            architecture: config.architecture.unwrap_or_default(),
            variant: config.variant,
            os_version: None,
        },
        run: config.config,
    }
}

/// The layers, each with the step that made it, where the history says as much of layers as there are.
fn layers(listed: &[Descriptor], config: Option<&ImageConfig>) -> Vec<Layer> {
    let steps = config.map(|config| config.history.as_slice()).unwrap_or_default();
    let mut made = steps.iter().filter(|step| !step.empty_layer);
    let matches = made.clone().count() == listed.len();
    listed
        .iter()
        .map(|layer| Layer {
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            size: layer.size,
            title: layer.annotations.get(TITLE).cloned(),
            made_by: made
                .next()
                .filter(|_| matches)
                .and_then(|step| step.created_by.clone()),
        })
        .collect()
}

fn history(layers: &[Layer], config: Option<&ImageConfig>) -> Vec<Made> {
    let steps = config.map(|config| config.history.as_slice()).unwrap_or_default();
    let matches = steps.iter().filter(|step| !step.empty_layer).count() == layers.len();
    let mut layers = layers.iter();
    steps
        .iter()
        .map(|step| Made {
            step: step.clone(),
            size: match matches && !step.empty_layer {
                true => layers.next().map(|layer| layer.size),
                false => None,
            },
        })
        .collect()
}

pub async fn referrers(
    visit: &Visit,
    repository: &Repository,
    subject: &Digest,
    limit: u32,
) -> Result<(Vec<Descriptor>, bool), Failure> {
    let query = ReferrersQuery {
        subject: subject.to_string(),
        artifact_types: Vec::new(),
        after: None,
        limit,
        bytes: REFERRERS_BYTES,
    };
    let page = visit.explorer.metadata.referrers(repository, &query).await?;
    let descriptors = page.descriptors.iter();
    let read = descriptors.filter_map(|(_, text)| serde_json::from_str(text).ok());
    Ok((read.collect(), page.more))
}

/// Referrers, the first of them with what refers to them, as a signature does to a bill of materials.
async fn tree(
    visit: &Visit,
    repository: &Repository,
    referring: Vec<Descriptor>,
) -> Result<Vec<Referrer>, Failure> {
    let mut tree = Vec::with_capacity(referring.len());
    for (at, descriptor) in referring.into_iter().enumerate() {
        let digest = descriptor.digest.parse::<Digest>().ok().filter(|_| at < BRANCHES);
        let below = match digest {
            Some(digest) => referrers(visit, repository, &digest, LEAVES).await?.0,
            None => Vec::new(),
        };
        let below = below
            .into_iter()
            .map(|descriptor| referrer(descriptor, Vec::new()));
        tree.push(referrer(descriptor, below.collect()));
    }
    Ok(tree)
}

fn referrer(descriptor: Descriptor, referrers: Vec<Referrer>) -> Referrer {
    let kind = descriptor
        .artifact_type
        .as_deref()
        .unwrap_or(&descriptor.media_type);
    Referrer {
        kind: Kind::of_type(kind),
        descriptor,
        referrers,
    }
}

/// Tags that begin as cosign names what is about a manifest.
async fn attached(visit: &Visit, repository: &Repository, digest: &Digest) -> Result<Vec<String>, Failure> {
    let begin = digest.to_string().replacen(':', "-", 1);
    let tags = visit
        .explorer
        .metadata
        .tags(repository, Some(begin.clone()), ATTACHED)
        .await?;
    let tags = tags.unwrap_or_default().into_iter();
    let cache = visit.tenant.caches.of(&repository.name);
    let shows = |tag: &String| cache.is_none_or(|(cache, _)| cache.allows_tag(tag));
    Ok(tags
        .take_while(|tag| tag.starts_with(&begin))
        .filter(shows)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(size: u64) -> Descriptor {
        Descriptor {
            size,
            ..Descriptor::default()
        }
    }

    #[test]
    fn steps_stand_beside_the_layers_that_they_made() {
        let config = r#"{"history":[{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true},{"created_by":"RUN"}]}"#;
        let config: ImageConfig = serde_json::from_str(config).unwrap();
        let layers = layers(&[descriptor(3), descriptor(4)], Some(&config));
        let made: Vec<_> = layers.iter().map(|layer| layer.made_by.as_deref()).collect();
        assert_eq!(made, [Some("ADD"), Some("RUN")]);
        let sizes: Vec<_> = history(&layers, Some(&config))
            .iter()
            .map(|made| made.size)
            .collect();
        assert_eq!(sizes, [Some(3), None, Some(4)]);
    }

    #[test]
    fn a_history_that_does_not_fit_is_put_to_no_layer() {
        let config: ImageConfig = serde_json::from_str(r#"{"history":[{"created_by":"ADD"}]}"#).unwrap();
        let layers = layers(&[descriptor(3), descriptor(4)], Some(&config));
        assert!(layers.iter().all(|layer| layer.made_by.is_none()));
        assert_eq!(history(&layers, Some(&config))[0].size, None);
    }
}
