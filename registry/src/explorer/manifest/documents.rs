//! Documents about a manifest: which there are, wherever builders and tools put them, and which of them say how it was
//! built and what it is made of.
//!
//! They lie in the manifest itself, beside it in its index (BuildKit's attestations), in its referrers (distribution-spec,
//! "Listing Referrers"), or under a tag that is named after it (cosign's older way).

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::read;
use crate::domain::media_type::MediaType;
use crate::domain::{Digest, TagName};
use crate::explorer::answer::Failure;
use crate::explorer::artifact::{Descriptor, Document, Kind};
use crate::explorer::parsed::{self, Content, Sort};
use crate::explorer::visit::Visit;
use crate::metadata::{Reference, Repository};

/// By which BuildKit's attestations say what they are about.
pub const ABOUT: &str = "vnd.docker.reference.digest";
/// By which a document says what kind of predicate it holds.
const PREDICATES: [&str; 3] = [
    "in-toto.io/predicate-type",
    "predicateType",
    "dev.sigstore.bundle.predicateType",
];
/// Referrers that are looked into.
const REFERRERS: usize = 6;
/// Longest provenance that is read while a page is made, in bytes; of a longer one the page has a link.
const AT_ONCE: u64 = 1 << 20;

/// A document in the registry.
#[derive(Debug, Serialize)]
pub struct Told {
    /// The blob that it is.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// What it says, if that was read.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "content")]
    pub content: Option<Arc<Content>>,
}

/// What is known about a manifest.
#[derive(Debug, Default, Serialize)]
pub struct Documents {
    /// How it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Told>,
    /// What it is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<Told>,
}

impl Documents {
    /// Of a manifest: the first of each kind.
    pub async fn of(
        visit: &Visit,
        repository: &Repository,
        digest: &Digest,
        kind: Kind,
        document: &Document,
        referrers: &[Descriptor],
    ) -> Result<Self, Failure> {
        let mut found = Self::default();
        // Its own first: what it is about itself.
        found.take(document, None);
        if matches!(
            kind,
            Kind::Image | Kind::ImageIndex | Kind::HelmChart | Kind::Model | Kind::Artifact
        ) {
            found.beside(visit, repository, digest, document).await?;
            found.referring(visit, repository, referrers).await?;
            found.named(visit, repository, digest).await?;
        }
        if let Some(told) = found.provenance.as_mut().filter(|told| told.size <= AT_ONCE)
            && let Ok(digest) = told.digest.parse::<Digest>()
        {
            told.content =
                parsed::read_if_free(&visit.explorer, repository, &digest, Sort::Provenance).await?;
        }
        Ok(found)
    }

    fn is_whole(&self) -> bool {
        self.provenance.is_some() && self.packages.is_some()
    }

    /// What a manifest's layers are.
    fn take(&mut self, document: &Document, predicate: Option<&str>) {
        for layer in &document.layers {
            let place = match sort_of(layer, predicate.or_else(|| predicate_of(document))) {
                Some(Sort::Provenance) => &mut self.provenance,
                Some(Sort::Packages) => &mut self.packages,
                _ => continue,
            };
            place.get_or_insert_with(|| Told {
                digest: layer.digest.clone(),
                size: layer.size,
                content: None,
            });
        }
    }

    /// Of an index its first attestation; of an image that of the index that it is in.
    async fn beside(
        &mut self,
        visit: &Visit,
        repository: &Repository,
        digest: &Digest,
        document: &Document,
    ) -> Result<(), Failure> {
        let attestation = match document.manifests.is_empty() {
            false => attestation(&document.manifests, None),
            true => {
                let indexes = visit.explorer.explore.indexes_of(repository, digest, 1).await?;
                let index = match indexes.first() {
                    Some(index) => read::child_document(visit, repository, *index).await?,
                    None => None,
                };
                let about = digest.to_string();
                index.and_then(|(_, index)| attestation(&index.manifests, Some(&about)))
            }
        };
        if let Some(attestation) = attestation
            && let Some((_, document)) = read::child_document(visit, repository, attestation).await?
        {
            self.take(&document, None);
        }
        Ok(())
    }

    async fn referring(
        &mut self,
        visit: &Visit,
        repository: &Repository,
        referrers: &[Descriptor],
    ) -> Result<(), Failure> {
        let says = |referrer: &&Descriptor| {
            let kind = referrer.artifact_type.as_deref().unwrap_or_default();
            matches!(Kind::of_type(kind), Kind::Attestation | Kind::Sbom)
        };
        for referrer in referrers.iter().filter(says).take(REFERRERS) {
            if self.is_whole() {
                break;
            }
            let Ok(digest) = referrer.digest.parse::<Digest>() else {
                continue;
            };
            if let Some((_, document)) = read::child_document(visit, repository, digest).await? {
                let predicate = PREDICATES.iter().find_map(|key| referrer.annotations.get(*key));
                self.take(&document, predicate.map(String::as_str));
            }
        }
        Ok(())
    }

    /// `sha256-<hash>.att` and `.sbom`.
    async fn named(
        &mut self,
        visit: &Visit,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Failure> {
        for end in ["att", "sbom"] {
            if self.is_whole() {
                break;
            }
            let name = format!("{}.{end}", digest.to_string().replacen(':', "-", 1));
            let Ok(tag) = name.parse::<TagName>() else {
                continue;
            };
            let reference = Reference::Tag(tag);
            let row = visit.explorer.metadata.manifest(repository, &reference).await?;
            let is_index = |media_type: &str| MediaType::parse(media_type).is_some_and(MediaType::is_index);
            let Some(row) = row.filter(|row| !is_index(&row.media_type)) else {
                continue;
            };
            if let Some((_, document)) = read::child_document(visit, repository, row.digest).await? {
                self.take(&document, None);
            }
        }
        Ok(())
    }
}

/// The attestation among an index's children, of a certain one if that is named.
fn attestation(children: &[Descriptor], about: Option<&str>) -> Option<Digest> {
    let mut found = children.iter().filter_map(|child| {
        let subject = child.annotations.get(ABOUT)?;
        about
            .is_none_or(|about| about == subject)
            .then(|| child.digest.parse::<Digest>().ok())
            .flatten()
    });
    found.next()
}

fn predicate_of(document: &Document) -> Option<&str> {
    let mut predicates = PREDICATES.iter().filter_map(|key| document.annotations.get(*key));
    predicates.next().map(String::as_str)
}

/// As what a layer can be read, by its predicate type, or else by its media type.
pub fn sort_of(layer: &Descriptor, predicate: Option<&str>) -> Option<Sort> {
    let own = PREDICATES.iter().find_map(|key| layer.annotations.get(*key));
    let predicate = own.map(String::as_str).or(predicate);
    let media_type = layer.media_type.as_str();
    match predicate {
        Some(predicate) if predicate.starts_with("https://slsa.dev/provenance/") => Some(Sort::Provenance),
        Some(predicate) if predicate.contains("spdx") || predicate.contains("cyclonedx") => {
            Some(Sort::Packages)
        }
        Some(_) => None,
        None if media_type.contains("spdx") || media_type.contains("cyclonedx") => Some(Sort::Packages),
        None if media_type.contains("in-toto") || media_type.contains("dsse") => Some(Sort::Provenance),
        None => None,
    }
}

fn content<S: Serializer>(content: &Option<Arc<Content>>, to: S) -> Result<S::Ok, S::Error> {
    match content.as_deref() {
        Some(Content::Provenance(provenance)) => provenance.serialize(to),
        Some(Content::Unreadable(why)) => serde_json::json!({ "unreadable": why }).serialize(to),
        _ => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media_type: &str, predicate: Option<&str>) -> Descriptor {
        let annotations = predicate.map(|predicate| (PREDICATES[0].to_owned(), predicate.to_owned()));
        Descriptor {
            media_type: media_type.to_owned(),
            annotations: annotations.into_iter().collect(),
            ..Descriptor::default()
        }
    }

    #[test]
    fn documents_are_told_apart_by_predicate_and_type() {
        let in_toto = "application/vnd.in-toto+json";
        for (media_type, predicate, expected) in [
            (
                in_toto,
                Some("https://slsa.dev/provenance/v1"),
                Some(Sort::Provenance),
            ),
            (in_toto, Some("https://spdx.dev/Document"), Some(Sort::Packages)),
            (in_toto, Some("https://cyclonedx.org/bom"), Some(Sort::Packages)),
            (in_toto, Some("https://in-toto.io/attestation/vulns"), None),
            (in_toto, None, Some(Sort::Provenance)),
            ("application/spdx+json", None, Some(Sort::Packages)),
            ("application/vnd.oci.image.layer.v1.tar", None, None),
        ] {
            assert_eq!(
                sort_of(&layer(media_type, predicate), None),
                expected,
                "{media_type} {predicate:?}"
            );
        }
        let spdx = sort_of(&layer(in_toto, None), Some("https://spdx.dev/Document"));
        assert_eq!(spdx, Some(Sort::Packages));
    }
}
