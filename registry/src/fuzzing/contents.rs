//! Content: manifests, layers, documents about them, custom resources, and what our own stores give back.

use std::path::Path;

use super::{chosen, text};
use crate::admin::manifests;
use crate::distribution::uploads::hashes::Hashes;
use crate::domain::hasher::Hasher;
use crate::domain::manifest::{DESCRIPTOR_LIMIT, Manifest};
use crate::domain::{Algorithm, Digest};
use crate::explorer::archive::{self, Limits};
use crate::explorer::supply::{provenance, sbom, statement};

/// What a push says of its manifest.
const TYPES: [Option<&str>; 7] = [
    None,
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json; charset=utf-8"),
    Some("text/plain"),
    Some("application/vnd.acme.bundle.v1+json"),
];

/// The first byte chooses the content type of the push.
pub(super) fn manifest(bytes: &[u8]) {
    let (choice, bytes) = chosen(bytes);
    let Ok(manifest) = Manifest::read_any(bytes, TYPES[choice % TYPES.len()]) else {
        return;
    };
    assert!(manifest.blobs.len() + manifest.children.len() <= DESCRIPTOR_LIMIT);
    let _ = manifest.lifetime();
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let descriptor = manifest.referrer_descriptor(digest, bytes.len());
    let read: Result<serde_json::Value, _> = serde_json::from_str(&descriptor);
    assert!(read.is_ok_and(|read| read["size"] == bytes.len()), "{descriptor}");
    for blob in manifest.blobs.iter().take(16) {
        let _ = Manifest::size_of_blob(bytes, &blob.digest);
    }
    // Its type is part of what is stored: by it, it reads the same again.
    let again = Manifest::read_any(bytes, Some(manifest.media_type.as_str()));
    let again = again.map(|again| (again.blobs.len(), again.children));
    assert_eq!(again.ok(), Some((manifest.blobs.len(), manifest.children)));
}

/// Small limits, so that a bomb shows by what it takes.
fn limits() -> Limits<'static> {
    Limits {
        decompressed: 8 << 20,
        free: 1 << 20,
        entries: 1000,
        names: 1 << 20,
        ..Limits::default()
    }
}

/// A layer, or a chart.
pub(super) fn archive(bytes: &[u8]) {
    let _ = archive::list(bytes, &limits());
    let _ = archive::chart::read(bytes, &limits());
}

/// What is said of an image: statements in their wrappings, provenance, lists of packages.
pub(super) fn documents(bytes: &[u8]) {
    let Ok(opened) = statement::open(bytes) else {
        return;
    };
    let _ = sbom::read(&opened.document);
    let _ = provenance::read(&opened.document);
}

/// Hashes in the middle of an upload, as rows hold them. Only we write them: what is well-formed is gone on with, so that
/// here it is read and written alone.
pub(super) fn midstates(bytes: &[u8]) {
    if let Ok(hasher) = Hasher::from_midstate(bytes) {
        assert_eq!(hasher.midstate(), bytes);
    }
    if let Ok(hashes) = Hashes::from_stored(bytes) {
        assert_eq!(hashes.to_stored(), bytes);
    }
}

/// A file of `--manifests`, the same as `kubectl apply` takes.
pub(super) fn resources(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let _ = manifests::read_text(Path::new("/nonexistent/file.yaml"), text);
    }
}
