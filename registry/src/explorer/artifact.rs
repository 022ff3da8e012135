//! What a manifest says, read for people: leniently, since it is stored already, and bounded by what may be stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// A manifest or index as it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Document {
    /// Type of the artifact, if it has one of its own.
    pub artifact_type: Option<String>,
    /// Of images and artifacts.
    pub config: Option<Descriptor>,
    /// Of images and artifacts.
    #[serde(deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    /// Of indexes.
    #[serde(deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// What it is about.
    pub subject: Option<Descriptor>,
    /// By key.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What points to content (image-spec, "Descriptors").
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Type of the content.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Type of the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// For which machine.
    #[serde(deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// By key.
    #[serde(deserialize_with = "if_readable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Platform {
    /// Like `linux`.
    pub os: String,
    /// Like `arm64`.
    pub architecture: String,
    /// Like `v8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of the system, where that matters.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// The configuration of an image (image-spec, "Image Configuration").
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When it was made, as it says.
    pub created: Option<String>,
    /// Who made it, as it says.
    pub author: Option<String>,
    /// For which machine.
    pub architecture: Option<String>,
    /// For which system.
    pub os: Option<String>,
    /// Of the architecture.
    pub variant: Option<String>,
    /// How it is run.
    #[serde(deserialize_with = "or_default")]
    pub config: RunConfig,
    /// How it was made.
    #[serde(deserialize_with = "or_default")]
    pub history: Vec<Step>,
}

/// How an image is run.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all(deserialize = "PascalCase", serialize = "camelCase"))]
pub struct RunConfig {
    /// Like `1000:1000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What is started.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// With these arguments, unless others are given.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Where it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `port/protocol`.
    #[serde(deserialize_with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Folders that are kept apart.
    #[serde(deserialize_with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// By key.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// A step by which an image was made.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all(serialize = "camelCase"))]
pub struct Step {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// Absent and null are the same: Go clients write empty lists as null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What is of another shape than is read here is as good as absent, and hides nothing beside it: pushes accept it.
fn if_readable<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned + Default>(
    from: D,
) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The keys of an object whose values say nothing.
fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let map: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(from)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

/// What kind of artifact something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Runs in a container.
    Image,
    /// Images for several kinds of machine.
    ImageIndex,
    /// A list of something else.
    Index,
    /// Installs into Kubernetes by Helm.
    HelmChart,
    /// A model with its weights.
    Model,
    /// Says that something is somebody's.
    Signature,
    /// Says what something is made of.
    Sbom,
    /// Says how something was made or checked.
    Attestation,
    /// Says which known faults do not matter in it.
    Vex,
    /// Says what a scanner has found.
    Scan,
    /// What a build keeps for the next one.
    BuildCache,
    /// A machine or a folder as a CI job has left it.
    Snapshot,
    /// A module of WebAssembly.
    Wasm,
    /// Sources that Flux applies.
    FluxArtifact,
    /// Something else.
    Artifact,
}

impl Kind {
    /// Of a manifest.
    pub fn of(document: &Document, is_index: bool) -> Self {
        if is_index {
            let runs = |child: &Descriptor| {
                child
                    .platform
                    .as_ref()
                    .is_some_and(|platform| platform.os != "unknown")
            };
            let own = document.artifact_type.as_deref().map(Self::of_type);
            return match own {
                Some(kind) if kind != Self::Artifact => kind,
                _ if document.manifests.iter().any(runs) => Self::ImageIndex,
                _ if has_layers_of_build_cache(&document.manifests) => Self::BuildCache,
                _ => Self::Index,
            };
        }
        let config = document.config.as_ref().map_or("", |config| &config.media_type);
        let own = document.artifact_type.as_deref().unwrap_or(config);
        match Self::of_type(own) {
            // Signatures and attestations of cosign look like images, but for their layers.
            Self::Image => match document.layers.first() {
                Some(first) if is_attached(&first.media_type) => Self::of_type(&first.media_type),
                _ => Self::Image,
            },
            Self::Artifact => match document.layers.first() {
                Some(first) if document.layers.len() == 1 => Self::of_type(&first.media_type).or_artifact(),
                _ => Self::Artifact,
            },
            kind => kind,
        }
    }

    /// Of what has this artifact type, or a config or only layer of this type.
    pub fn of_type(media_type: &str) -> Self {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let is = |part: &str| media_type.contains(part);
        match media_type {
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
                Self::Image
            }
            _ if is("helm.config") || is("helm.chart") => Self::HelmChart,
            _ if is("buildkit.cacheconfig") => Self::BuildCache,
            _ if is("cosign.artifact.sig") || is("simplesigning") || is("notary.signature") => {
                Self::Signature
            }
            _ if is("sigstore.bundle") => Self::Attestation,
            _ if is("spdx") || is("cyclonedx") => Self::Sbom,
            _ if is("openvex") || is("csaf") => Self::Vex,
            _ if is("sarif") || is("trivy") || is("grype") => Self::Scan,
            _ if is("in-toto") || is("dsse") => Self::Attestation,
            _ if is("cncf.model") || is("docker.ai") || is("ollama") || is("kitops") => Self::Model,
            _ if is("wasm") => Self::Wasm,
            _ if is("snapshot") => Self::Snapshot,
            _ if is("cncf.flux") => Self::FluxArtifact,
            _ => Self::Artifact,
        }
    }

    fn or_artifact(self) -> Self {
        if self == Self::Image { Self::Artifact } else { self }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Image => "container image",
            Self::ImageIndex => "image for several platforms",
            Self::Index => "index of artifacts",
            Self::HelmChart => "Helm chart",
            Self::Model => "model",
            Self::Signature => "signature",
            Self::Sbom => "software bill of materials",
            Self::Attestation => "attestation",
            Self::Vex => "exploitability statement (VEX)",
            Self::Scan => "scan result",
            Self::BuildCache => "BuildKit cache",
            Self::Snapshot => "CI snapshot",
            Self::Wasm => "WebAssembly module",
            Self::FluxArtifact => "Flux artifact",
            Self::Artifact => "artifact",
        }
    }
}

fn is_attached(media_type: &str) -> bool {
    matches!(
        Kind::of_type(media_type),
        Kind::Signature | Kind::Attestation | Kind::Sbom | Kind::Vex | Kind::Scan
    )
}

/// BuildKit exports a cache as an index of layers, with its own config among them.
fn has_layers_of_build_cache(manifests: &[Descriptor]) -> bool {
    manifests
        .iter()
        .any(|child| Kind::of_type(&child.media_type) == Kind::BuildCache)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(document: &str, is_index: bool) -> Kind {
        Kind::of(&serde_json::from_str(document).unwrap(), is_index)
    }

    #[test]
    fn an_artifact_is_told_by_its_types() {
        let of = |config: &str, layer: &str| {
            let text =
                format!(r#"{{"config":{{"mediaType":"{config}"}},"layers":[{{"mediaType":"{layer}"}}]}}"#);
            kind(&text, false)
        };
        let (image, tar) = (
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        );
        let empty = "application/vnd.oci.empty.v1+json";
        assert_eq!(of(image, tar), Kind::Image);
        assert_eq!(
            of(image, "application/vnd.dev.cosign.simplesigning.v1+json"),
            Kind::Signature
        );
        assert_eq!(of(image, "application/vnd.in-toto+json"), Kind::Attestation);
        assert_eq!(
            of("application/vnd.cncf.helm.config.v1+json", tar),
            Kind::HelmChart
        );
        assert_eq!(
            of("application/vnd.buildkit.cacheconfig.v0", tar),
            Kind::BuildCache
        );
        assert_eq!(of(empty, "application/spdx+json"), Kind::Sbom);
        assert_eq!(of(empty, "text/plain"), Kind::Artifact);
        let model = r#"{"artifactType":"application/vnd.cncf.model.manifest.v1+json","layers":null}"#;
        assert_eq!(kind(model, false), Kind::Model);
    }

    #[test]
    fn an_index_is_told_by_what_it_lists() {
        let of = |child: &str| kind(&format!(r#"{{"manifests":[{child}]}}"#), true);
        assert_eq!(
            of(r#"{"platform":{"os":"linux","architecture":"arm64"}}"#),
            Kind::ImageIndex
        );
        assert_eq!(
            of(r#"{"platform":{"os":"unknown","architecture":"unknown"}}"#),
            Kind::Index
        );
        assert_eq!(
            of(r#"{"mediaType":"application/vnd.buildkit.cacheconfig.v0"}"#),
            Kind::BuildCache
        );
    }

    #[test]
    fn what_is_of_another_shape_hides_nothing_beside_it() {
        let child = r#"{"digest":"x","size":7,"platform":{"architecture":null},"annotations":{"a":1}}"#;
        let document: Document = serde_json::from_str(&format!(r#"{{"manifests":[{child}]}}"#)).unwrap();
        assert_eq!(document.manifests[0].size, 7);
        assert!(document.manifests[0].platform.is_none() && document.manifests[0].annotations.is_empty());
    }

    #[test]
    fn a_config_is_read_whatever_it_leaves_out() {
        let read = |text: &str| serde_json::from_str::<ImageConfig>(text).unwrap();
        let config = read(
            r#"{"config":{"ExposedPorts":{"80/tcp":{}},"Env":null,"Entrypoint":["/a"]},"history":null}"#,
        );
        assert_eq!(config.config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.config.entrypoint, ["/a"]);
        assert!(read(r#"{"config":null}"#).config.env.is_empty());
    }
}
