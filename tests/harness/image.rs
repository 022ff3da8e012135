//! Small images and indexes whose every byte is known.

use serde_json::{Value, json};

use crate::content::{blob, sha256, tar};
use crate::http::Repository;

/// The media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one platform: a config, layers that are real tar archives, and the manifest.
#[derive(Debug, Clone)]
pub struct Image {
    /// The platform's architecture, in Go's words.
    pub architecture: String,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The layers' bytes.
    pub layers: Vec<Vec<u8>>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

impl Image {
    /// A linux/amd64 image of two layers with about `size` bytes each, different for every seed.
    pub fn new(seed: u64, size: usize) -> Image {
        Image::of_platform("amd64", seed, size)
    }

    /// The same for another architecture.
    pub fn of_platform(architecture: &str, seed: u64, size: usize) -> Image {
        let layers: Vec<Vec<u8>> = (0..2)
            .map(|layer| {
                tar(
                    &format!("file-{layer}"),
                    &blob(size, seed.wrapping_mul(31).wrapping_add(layer)),
                )
            })
            .collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let config = bytes(&json!({
            "architecture": architecture, "os": "linux", "config": {"Labels": {"seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }));
        let manifest = bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        }));
        Image {
            architecture: architecture.to_owned(),
            config,
            layers,
            manifest,
        }
    }

    /// The manifest's sha256 digest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// The config and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.config.as_slice()).chain(self.layers.iter().map(Vec::as_slice))
    }

    /// Pushes blobs and manifest over plain HTTP; returns the manifest's digest.
    ///
    /// # Panics
    /// If the registry does not take one of them.
    pub async fn push(&self, repository: &Repository, reference: &str) -> String {
        for blob in self.blobs() {
            repository.push_blob(blob).await;
        }
        repository
            .put_manifest(reference, MANIFEST, &self.manifest)
            .await
            .expect(201);
        self.digest()
    }

    /// Pulls everything over plain HTTP and compares it byte for byte.
    ///
    /// # Panics
    /// If something is missing or differs.
    pub async fn assert_pullable(&self, repository: &Repository, reference: &str) {
        let answer = repository.get_manifest(reference).await.expect(200);
        assert_eq!(
            answer.text(),
            String::from_utf8_lossy(&self.manifest),
            "the manifest of {reference} has other bytes"
        );
        for blob in self.blobs() {
            let digest = sha256(blob);
            let answer = repository.get(&format!("blobs/{digest}")).await;
            let pulled = match answer.status.as_u16() {
                307 => {
                    let location = answer.header("location").to_owned();
                    crate::http::send(repository.at(reqwest::Method::GET, &location))
                        .await
                        .expect(200)
                        .body
                }
                _ => answer.expect(200).body,
            };
            assert!(pulled == blob, "blob {digest} has other bytes");
        }
    }
}

/// A multi-platform index over images.
#[derive(Debug, Clone)]
pub struct Index {
    /// The children.
    pub images: Vec<Image>,
    /// The index's bytes.
    pub manifest: Vec<u8>,
}

impl Index {
    /// An index over these images.
    pub fn new(images: Vec<Image>) -> Index {
        let children: Vec<Value> = images
            .iter()
            .map(|image| {
                let mut child = descriptor(MANIFEST, &image.manifest);
                child["platform"] = json!({"architecture": image.architecture, "os": "linux"});
                child
            })
            .collect();
        let manifest = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}));
        Index { images, manifest }
    }

    /// The index's sha256 digest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// Pulls the index and every child over plain HTTP and compares byte for byte.
    ///
    /// # Panics
    /// If something is missing or differs.
    pub async fn assert_pullable(&self, repository: &Repository, reference: &str) {
        let answer = repository.get_manifest(reference).await.expect(200);
        assert_eq!(
            answer.text(),
            String::from_utf8_lossy(&self.manifest),
            "the index of {reference} has other bytes"
        );
        for image in &self.images {
            image.assert_pullable(repository, &image.digest()).await;
        }
    }
}

/// The descriptor of some bytes.
pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

fn bytes(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).expect("JSON values serialise")
}
