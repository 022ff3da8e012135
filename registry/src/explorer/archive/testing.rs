//! Makes archives for the tests.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{Builder, EntryType, Header};

use super::limits::Limits;
use super::listing::list;
use super::tree::Tree;

/// A tar archive that grows.
pub(super) struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry with a path and target of 100 bytes at most, which may be anything.
    pub fn entry(mut self, of_type: EntryType, path: &str, target: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(of_type);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_mode(if of_type.is_dir() { 0o755 } else { 0o4644 });
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    /// A file with a long name as GNU tar writes it.
    pub fn long_file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    /// Records of pax about the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// A header as it is, and nothing after it.
    pub fn header(mut self, header: &Header) -> Self {
        self.0.get_mut().extend_from_slice(header.as_bytes());
        self
    }

    /// The archive without its end.
    pub fn unfinished(mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut())
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

pub(super) fn listed(archive: Archive) -> Tree {
    let tree = list(&archive.bytes()[..], &Limits::default()).unwrap();
    assert_eq!(tree.cut(), None);
    tree
}
