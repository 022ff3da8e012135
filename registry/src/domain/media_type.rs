//! Media types of manifests (image-spec media-types.md; Docker's image manifest v2 schema 2).

use std::fmt;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The manifest formats that this registry reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// [`OCI_MANIFEST`].
    OciManifest,
    /// [`OCI_INDEX`].
    OciIndex,
    /// [`DOCKER_MANIFEST`].
    DockerManifest,
    /// [`DOCKER_LIST`].
    DockerList,
}

impl MediaType {
    /// All formats.
    pub const ALL: [Self; 4] = [
        Self::OciManifest,
        Self::OciIndex,
        Self::DockerManifest,
        Self::DockerList,
    ];

    /// The text without parameters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OciManifest => OCI_MANIFEST,
            Self::OciIndex => OCI_INDEX,
            Self::DockerManifest => DOCKER_MANIFEST,
            Self::DockerList => DOCKER_LIST,
        }
    }

    /// The format that `text` names; parameters (`; charset=…`) and case are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(essence))
    }

    /// Whether this is a list of manifests.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

/// What a manifest says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A format that this registry reads.
    Known(MediaType),
    /// Another one, of which it only knows that it is JSON: its media type without parameters.
    Opaque(String),
}

impl Format {
    /// Longest media type (RFC 6838 §4.2: 127 characters on each side of the slash).
    const LONGEST: usize = 255;

    /// The format that `text` names, if it is one of those read or `application/<name>+json`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(known) = MediaType::parse(text) {
            return Some(Self::Known(known));
        }
        let essence = text.split(';').next().unwrap_or_default().trim();
        let (top, name) = essence.split_once('/')?;
        let stem = name.len().checked_sub("+json".len())?;
        let is_json = stem > 0
            && top.eq_ignore_ascii_case("application")
            && name.get(stem..)?.eq_ignore_ascii_case("+json");
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
        (is_json && is_name && essence.len() <= Self::LONGEST).then(|| Self::Opaque(essence.to_owned()))
    }

    /// The text without parameters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Opaque(text) => text,
        }
    }

    /// Whether this is a list of manifests.
    pub fn is_index(&self) -> bool {
        matches!(self, Self::Known(known) if known.is_index())
    }

    /// Whether `text` names this format; parameters and case are ignored.
    pub fn is(&self, text: &str) -> bool {
        Self::parse(text).is_some_and(|other| other.as_str().eq_ignore_ascii_case(self.as_str()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether something of this artifact type may say in its configuration or in a layer which build made it: images, and
/// statements about them (in-toto's, by themselves or in a Sigstore bundle).
pub fn tells_of_builds(artifact_type: &str) -> bool {
    matches!(
        artifact_type,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
            | "application/vnd.in-toto+json"
    ) || artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// Layer types whose bytes need not be in the registry (image-spec layer.md, "Non-distributable layers").
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_change_a_media_type() {
        let text = "Application/vnd.oci.image.index.v1+JSON; charset=utf-8";
        assert_eq!(MediaType::parse(text), Some(MediaType::OciIndex));
        assert_eq!(MediaType::parse("application/json"), None);
    }

    #[test]
    fn what_is_json_by_its_name_is_a_format_that_may_be_opaque() {
        assert_eq!(Format::parse(OCI_INDEX), Some(Format::Known(MediaType::OciIndex)));
        for text in [
            "application/vnd.acme.bundle.v1+json",
            "application/vnd.acme.bundle.v1+json; charset=utf-8",
        ] {
            let format = Format::parse(text).unwrap();
            assert_eq!(
                format,
                Format::Opaque("application/vnd.acme.bundle.v1+json".into())
            );
            assert!(!format.is_index() && format.is("Application/vnd.acme.bundle.v1+JSON"));
        }
        let long = format!("application/{}+json", "a".repeat(250));
        for text in [
            "",
            "json",
            "text/plain",
            "image/svg+json",
            "application/json",
            "application/+json",
            "application/a b+json",
            "application/a\r\nb+json",
            "application/a/b+json",
            "application/vnd.acme.bundle.v1+jsoñ",
            &long,
        ] {
            assert_eq!(Format::parse(text), None, "{text}");
        }
    }
}
