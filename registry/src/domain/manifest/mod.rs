//! Manifests: what a pushed document refers to, read strictly.
//!
//! Two readers of one document must never see two different manifests (CVE-2021-41190): a document that
//! is both image and index, repeats a known key or spells one in another case is refused. Everything
//! unknown is accepted and kept, since the stored bytes are exactly the pushed ones. Where a tenant takes formats that are
//! not known, what a document of such a format names is kept for it, and may be missing.

mod json;
pub mod opaque;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_crds::Span;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::digest::{self, Digest};
use super::media_type::{self, Format, MediaType};

/// Most descriptors in one manifest.
pub const DESCRIPTOR_LIMIT: usize = 10_000;

/// Why a document is not a manifest that can be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the shape of its type.
    #[error("the manifest is not valid: {0}")]
    Invalid(String),
    /// Neither the request nor the document says what it is.
    #[error("send the manifest's media type as Content-Type, or set mediaType in it")]
    NoMediaType,
    /// Request and document disagree.
    #[error("Content-Type {header} and the manifest's mediaType {document} differ")]
    MediaTypeMismatch {
        /// Of the request.
        header: String,
        /// Of the document.
        document: String,
    },
    /// Docker schema 1.
    #[error("Docker schema 1 manifests are not supported; push schema 2 or OCI")]
    Schema1,
    /// A type that this registry does not read.
    #[error(
        "manifests of type {0} are not supported; use an OCI or Docker schema 2 manifest or index, or have the tenant's \
         policy.opaqueMediaTypes set for types application/...+json"
    )]
    Unsupported(String),
}

/// What the media types of Docker's first schema begin with.
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// How long the tags of a manifest live, from each push on: a length of time like `168h`.
const EXPIRES_AFTER: &str = "berth.dev/expires-after";

/// Why the annotation that says how long tags live cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation berth.dev/expires-after: {0}")]
pub struct LifetimeError(String);

/// A blob that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobReference {
    /// Its digest.
    pub digest: Digest,
    /// Whether the manifest is refused without it; false for non-distributable layers.
    pub required: bool,
}

/// What the registry must know of a manifest besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its format.
    pub media_type: Format,
    /// Type of the artifact: `artifactType`, else the config's type for images (distribution-spec,
    /// "Listing Referrers").
    pub artifact_type: Option<String>,
    /// Config and layers, each digest once.
    pub blobs: Vec<BlobReference>,
    /// Children of an index, each digest once; a child may be a manifest or a blob. Of an opaque manifest, all that it names.
    pub children: Vec<Digest>,
    /// Digest of the subject as text: it may be of any algorithm and need not exist.
    pub subject: Option<String>,
    /// The annotations as JSON, if any.
    pub annotations: Option<String>,
}

/// A descriptor in the list of a subject's referrers.
#[derive(Serialize)]
struct Referrer<'a> {
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    digest: Digest,
    size: usize,
    #[serde(rename = "artifactType", skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

/// What a manifest says of its blobs' sizes.
#[derive(Deserialize)]
struct Sized {
    config: Option<SizedBlob>,
    #[serde(default)]
    layers: Vec<SizedBlob>,
}

#[derive(Deserialize)]
struct SizedBlob {
    digest: String,
    size: Option<u64>,
}

impl Manifest {
    /// How long its tags are to live, as its annotation says.
    pub fn lifetime(&self) -> Result<Option<Duration>, LifetimeError> {
        let Some(annotations) = self.annotations.as_deref() else {
            return Ok(None);
        };
        // They have been read before: text by text (image-spec, "Annotations").
        let annotations: BTreeMap<String, String> = serde_json::from_str(annotations).unwrap_or_default();
        let Some(text) = annotations.get(EXPIRES_AFTER) else {
            return Ok(None);
        };
        let span: Span = text.parse().map_err(LifetimeError)?;
        if span.duration().is_zero() {
            return Err(LifetimeError("it must be longer than 0".to_owned()));
        }
        Ok(Some(span.duration()))
    }

    /// Reads a document of at most a few MiB, of a known format. `content_type` is the request's, if it had one.
    pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        Self::read_of(bytes, content_type, false)
    }

    /// The same of any format: of a document that is stored already, or for a tenant that takes opaque ones.
    pub fn read_any(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        Self::read_of(bytes, content_type, true)
    }

    fn read_of(bytes: &[u8], content_type: Option<&str>, takes_opaque: bool) -> Result<Self, ManifestError> {
        let header = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        let header = header.filter(|text| !text.is_empty());
        // The type is judged before the document, so that a foreign type gets an answer about its type.
        let claimed = header.map(|text| format_of(text, takes_opaque)).transpose()?;
        let claimed = match claimed {
            Some(Format::Known(known)) => Some(known),
            Some(format @ Format::Opaque(_)) => return opaque::read(bytes)?.into_manifest(format),
            // The document alone says what it is.
            None if takes_opaque => {
                let document = opaque::read(bytes)?;
                let format = document
                    .media_type
                    .as_deref()
                    .and_then(|text| format_of(text, true).ok());
                if let Some(format @ Format::Opaque(_)) = format {
                    return document.into_manifest(format);
                }
                None
            }
            None => None,
        };
        let document = json::read(bytes)?;
        let media_type = match (claimed, document.media_type.as_deref()) {
            (None, None) => return Err(ManifestError::NoMediaType),
            (Some(claimed), None) => claimed,
            (None, Some(text)) => MediaType::parse(text).ok_or_else(|| foreign(text))?,
            (Some(claimed), Some(text)) if MediaType::parse(text) == Some(claimed) => claimed,
            (Some(claimed), Some(text)) => return Err(differ(&claimed.to_string(), text)),
        };
        document.into_manifest(media_type)
    }

    /// Whether it is of a format that is not known. What it names may be missing.
    pub fn is_opaque(&self) -> bool {
        matches!(self.media_type, Format::Opaque(_))
    }

    /// The size in bytes that a stored manifest gives to a blob, if it names it.
    pub fn size_of_blob(bytes: &[u8], blob: &Digest) -> Option<u64> {
        let sized: Sized = serde_json::from_slice(bytes).ok()?;
        let blob = blob.to_string();
        let mut named = sized.config.iter().chain(&sized.layers);
        named.find(|named| named.digest == blob)?.size
    }

    /// The descriptor under which this manifest, of `size` bytes, is listed with its subject.
    pub fn referrer_descriptor(&self, digest: Digest, size: usize) -> String {
        let annotations = self
            .annotations
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        let descriptor = Referrer {
            media_type: self.media_type.as_str(),
            digest,
            size,
            artifact_type: self.artifact_type.as_deref(),
            annotations,
        };
        serde_json::to_string(&descriptor).expect("plain strings and numbers always serialise")
    }
}

/// What a text says a manifest is, if such manifests are taken.
fn format_of(text: &str, takes_opaque: bool) -> Result<Format, ManifestError> {
    match Format::parse(text) {
        Some(known @ Format::Known(_)) => Ok(known),
        Some(opaque) if takes_opaque && !is_schema1(text) => Ok(opaque),
        _ => Err(foreign(text)),
    }
}

/// Why a manifest of this type is not taken.
fn foreign(text: &str) -> ManifestError {
    if is_schema1(text) {
        return ManifestError::Schema1;
    }
    ManifestError::Unsupported(text.chars().take(200).collect())
}

fn is_schema1(text: &str) -> bool {
    let begins = text.trim_start().get(..SCHEMA1.len());
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(SCHEMA1))
}

fn differ(header: &str, document: &str) -> ManifestError {
    ManifestError::MediaTypeMismatch {
        header: header.to_owned(),
        document: document.chars().take(200).collect(),
    }
}

/// What no column or header can hold, since the list of referrers stores and compares both as text, and answers name the
/// subject in a header.
fn check_referrer(artifact_type: Option<&str>, subject: Option<&str>) -> Result<(), ManifestError> {
    if let Some(text) = artifact_type.filter(|text| text.contains(char::is_control)) {
        let why = format!("the artifact type {text:?} holds control characters");
        return Err(ManifestError::Invalid(why));
    }
    if let Some(text) = subject
        && let Err(error @ digest::DigestError::Malformed) = text.parse::<Digest>()
    {
        return Err(ManifestError::Invalid(format!("subject: {text:?}: {error}")));
    }
    Ok(())
}

impl json::Document<'_> {
    fn into_manifest(self, media_type: MediaType) -> Result<Manifest, ManifestError> {
        let invalid = |why: String| Err(ManifestError::Invalid(why));
        if self.schema1 {
            return Err(ManifestError::Schema1);
        }
        if self.schema_version != Some(2) {
            return invalid("schemaVersion must be 2".into());
        }
        let image = self.config.is_some() || self.layers.is_some();
        if image && self.manifests.is_some() {
            return invalid("it has both manifests and config or layers".into());
        }
        if media_type.is_index() && image {
            return invalid(format!("{media_type} has no config or layers"));
        }
        if !media_type.is_index() && self.manifests.is_some() {
            return invalid(format!("{media_type} has no manifests"));
        }
        let mut artifact_type = self.artifact_type;
        let (mut blobs, mut children) = (BTreeMap::new(), Vec::new());
        if media_type.is_index() {
            let Some(manifests) = self.manifests else {
                return invalid("manifests is missing".into());
            };
            for child in &manifests {
                children.push(supported(child)?);
            }
            children.sort_unstable();
            children.dedup();
        } else {
            let Some(config) = self.config else {
                return invalid("config is missing".into());
            };
            let Some(layers) = self.layers else {
                return invalid("layers is missing".into());
            };
            for descriptor in std::iter::once(&config).chain(&layers) {
                let optional = descriptor.has_urls || media_type::is_nondistributable(&descriptor.media_type);
                match supported(descriptor) {
                    Ok(digest) => *blobs.entry(digest).or_insert(false) |= !optional,
                    Err(_) if optional => {}
                    Err(error) => return Err(error),
                }
            }
            artifact_type = artifact_type.or(Some(config.media_type));
        }
        let subject = self.subject.as_ref().map(|subject| subject.digest.as_str());
        check_referrer(artifact_type.as_deref(), subject)?;
        Ok(Manifest {
            media_type: Format::Known(media_type),
            artifact_type: artifact_type.filter(|text| !text.is_empty()),
            blobs: blobs
                .into_iter()
                .map(|(digest, required)| BlobReference { digest, required })
                .collect(),
            children,
            subject: self.subject.map(|subject| subject.digest),
            annotations: self.annotations.map(|raw| raw.get().to_owned()),
        })
    }
}

fn supported(descriptor: &json::Descriptor) -> Result<Digest, ManifestError> {
    descriptor.digest.parse().map_err(|error: digest::DigestError| {
        ManifestError::Invalid(format!("{}: {error}", descriptor.digest))
    })
}

#[cfg(test)]
mod tests;
