//! OCI image layouts on disk: what real clients push from and pull into.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::content::sha256;
use crate::image::{INDEX, Image, Index, MANIFEST, descriptor};

/// A folder in the OCI image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Writes a layout that holds this image under a tag.
    pub fn of_image(folder: &Path, image: &Image, tag: &str) -> Layout {
        let layout = Layout::empty(folder);
        layout.add_image(image);
        layout.name(MANIFEST, &image.manifest, tag);
        layout
    }

    /// Writes a layout that holds this index and its images under a tag.
    pub fn of_index(folder: &Path, index: &Index, tag: &str) -> Layout {
        let layout = Layout::empty(folder);
        index.images.iter().for_each(|image| layout.add_image(image));
        layout.add(&index.manifest);
        layout.name(INDEX, &index.manifest, tag);
        layout
    }

    /// Writes a layout whose `index.json` is this index itself: crane pushes that file as it is.
    pub fn being_index(folder: &Path, index: &Index) -> Layout {
        let layout = Layout::empty(folder);
        index.images.iter().for_each(|image| layout.add_image(image));
        write(&folder.join("index.json"), &index.manifest);
        layout
    }

    /// A layout that a client wrote.
    pub fn at(folder: &Path) -> Layout {
        Layout {
            folder: folder.to_owned(),
        }
    }

    /// The folder as text, for command lines.
    pub fn path(&self) -> &str {
        self.folder.to_str().expect("temporary folders have plain names")
    }

    /// Compares an image's manifest and blobs with the layout, byte for byte.
    ///
    /// # Panics
    /// If something is missing or differs.
    pub fn assert_holds(&self, image: &Image) {
        self.assert_holds_bytes(&image.manifest);
        image.blobs().for_each(|blob| self.assert_holds_bytes(blob));
    }

    /// Compares some content with the layout, byte for byte.
    ///
    /// # Panics
    /// If it is missing or differs.
    pub fn assert_holds_bytes(&self, content: &[u8]) {
        let path = self.blob_path(&sha256(content));
        let stored = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(stored == content, "{} has other bytes", path.display());
    }

    fn empty(folder: &Path) -> Layout {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("a folder for the layout");
        write(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        Layout::at(folder)
    }

    fn add_image(&self, image: &Image) {
        self.add(&image.manifest);
        image.blobs().for_each(|blob| self.add(blob));
    }

    fn add(&self, content: &[u8]) {
        write(&self.blob_path(&sha256(content)), content);
    }

    fn name(&self, media_type: &str, content: &[u8], tag: &str) {
        let mut root = descriptor(media_type, content);
        root["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]});
        write(&self.folder.join("index.json"), index.to_string().as_bytes());
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.replacen(':', "/", 1))
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
