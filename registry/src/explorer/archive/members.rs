//! Walks the entries of a tar archive.
//!
//! The blocks are walked here and only their fields are read by the `tar` crate: its own walk reads long names and pax
//! headers of any length into memory. The format is POSIX.1-2024 `pax`, "ustar Interchange Format", with GNU's types.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::compressed::Decompressed;
use super::extended::{Extended, LONGEST, gnu_name};
use super::meter::Meter;
use super::tree::Kind;
use super::unreadable::UnreadableArchive;

/// Bytes of a block. Everything in an archive begins at a multiple of them.
const BLOCK: u64 = 512;

/// An entry of an archive, with names that are safe to show as text and unsafe to open.
pub(super) struct Member {
    /// Normalised by [`normal`]; empty for the top of the archive.
    pub path: String,
    pub kind: Kind,
    /// Bytes of the file, with holes.
    pub size: u64,
    /// Permissions, with the bits for set-user-id, set-group-id and sticky.
    pub mode: Option<u16>,
    /// What a link leads to, as it is written.
    pub target: Option<String>,
    /// Whether the bytes stored are not those of the file.
    pub is_sparse: bool,
}

/// The entries, in their order.
pub(super) struct Members<'m, R> {
    input: Decompressed<'m, R>,
    meter: &'m Meter<'m>,
    /// Bytes of content before the next header.
    content: u64,
    /// Bytes after that until the block is full.
    padding: u64,
    is_tar: bool,
}

impl<'m, R: Read> Members<'m, R> {
    pub fn open(reader: R, meter: &'m Meter<'m>) -> Result<Self, UnreadableArchive> {
        Ok(Self {
            input: Decompressed::open(reader, meter)?,
            meter,
            content: 0,
            padding: 0,
            is_tar: false,
        })
    }

    /// The next entry; none at the end.
    pub fn next(&mut self) -> Result<Option<Member>, UnreadableArchive> {
        let mut extended = Extended::default();
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                if extended.is_empty() {
                    return Ok(None);
                }
                return Err(broken("it ends after a header that announces an entry"));
            };
            let of_type = header.entry_type();
            if of_type.is_gnu_longname() {
                extended.path = Some(gnu_name(self.extension(&header)?));
            } else if of_type.is_gnu_longlink() {
                extended.target = Some(gnu_name(self.extension(&header)?));
            } else if of_type.is_pax_local_extensions() {
                let records = self.extension(&header)?;
                extended.records(&records)?;
            } else if of_type.is_pax_global_extensions() {
                self.expect(size(&header)?)?;
            } else {
                return self.member(&header, extended).map(Some);
            }
        }
    }

    /// The first bytes of the content of the entry that came last, `limit` at most.
    pub fn content(&mut self, limit: u64) -> Result<Vec<u8>, UnreadableArchive> {
        let wanted = self.content.min(limit);
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(wanted).read_to_end(&mut bytes);
        let read = read.map_err(|error| self.meter.explain(&error))?;
        let read = u64::try_from(read).unwrap_or(wanted);
        self.content = self.content.saturating_sub(read);
        if read < wanted {
            return Err(ends_early());
        }
        Ok(bytes)
    }

    fn member(&mut self, header: &Header, extended: Extended) -> Result<Member, UnreadableArchive> {
        let of_type = header.entry_type();
        let path_bytes = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = normal(&path_bytes);
        // Archives from before POSIX tell a folder by the end of its path.
        let is_folder = of_type.is_dir() || (of_type.is_file() && path_bytes.ends_with(b"/"));
        let kind = Kind::of(of_type, is_folder, &path);
        let has_content = !is_folder && !is_header_only(of_type);
        let stored = match (has_content, extended.size) {
            (false, _) => 0,
            (true, Some(size)) => size,
            (true, None) => size(header)?,
        };
        self.expect(stored)?;
        let mut is_sparse = extended.real_size.is_some();
        let mut size = extended.real_size.unwrap_or(stored);
        if of_type.is_gnu_sparse() {
            is_sparse = true;
            size = self.sparse(header)?;
        }
        let target = match kind {
            Kind::Symlink | Kind::HardLink => extended
                .target
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)),
            Kind::Folder | Kind::File | Kind::Device | Kind::Fifo | Kind::Whiteout | Kind::OpaqueWhiteout => {
                None
            }
        };
        Ok(Member {
            path,
            kind,
            size: if has_content { size } else { 0 },
            mode: header
                .mode()
                .ok()
                .and_then(|mode| u16::try_from(mode & 0o7777).ok()),
            target: target.map(|target| String::from_utf8_lossy(&target).into_owned()),
            is_sparse,
        })
    }

    /// The size of a file by GNU's older way to store holes, and its further headers read past.
    fn sparse(&mut self, header: &Header) -> Result<u64, UnreadableArchive> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| broken("a sparse file has no GNU header"))?;
        let mut has_more = gnu.is_extended();
        while has_more {
            let mut more = GnuExtSparseHeader::new();
            if self.block(more.as_mut_bytes())? < more.as_bytes().len() {
                return Err(ends_early());
            }
            has_more = more.is_extended();
        }
        gnu.real_size()
            .map_err(|_| broken("the size of a sparse file is no number"))
    }

    /// The content of a header that says more about the next entry.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, UnreadableArchive> {
        let size = size(header)?;
        if size > LONGEST {
            return Err(UnreadableArchive::Broken(format!(
                "a header for long names has {size} bytes; at most {LONGEST} are read"
            )));
        }
        self.expect(size)?;
        self.content(size)
    }

    /// The next header; none at the end, which is a block of zeros or the end of the bytes.
    fn header(&mut self) -> Result<Option<Header>, UnreadableArchive> {
        let mut header = Header::new_old();
        match self.block(header.as_mut_bytes())? {
            0 if self.is_tar => return Ok(None),
            filled if filled < header.as_bytes().len() => {
                return Err(self.failed(ends_early()));
            }
            _ => {}
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if header.cksum().ok() != Some(checksum(&header)) {
            return Err(self.failed(broken("the checksum of a header does not match")));
        }
        self.is_tar = true;
        Ok(Some(header))
    }

    /// What is wrong with a header: without any good one before it, this is no archive.
    fn failed(&self, how: UnreadableArchive) -> UnreadableArchive {
        if self.is_tar {
            how
        } else {
            UnreadableArchive::Unknown
        }
    }

    /// Fills a block, and says how far: less than all of it is the end of the archive.
    fn block(&mut self, block: &mut [u8; 512]) -> Result<usize, UnreadableArchive> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.meter.explain(&error)),
            }
        }
        Ok(filled)
    }

    /// Says that content of this size comes next.
    fn expect(&mut self, size: u64) -> Result<(), UnreadableArchive> {
        let padded = size.checked_next_multiple_of(BLOCK);
        let padded = padded.ok_or_else(|| broken("the size of an entry is larger than anything"))?;
        self.content = size;
        self.padding = padded - size;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), UnreadableArchive> {
        let wanted = self.content.saturating_add(self.padding);
        self.content = 0;
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.input).take(wanted), &mut io::sink());
        match skipped.map_err(|error| self.meter.explain(&error))? {
            skipped if skipped < wanted => Err(ends_early()),
            _ => Ok(()),
        }
    }
}

/// A path without what means nothing: leading and doubled slashes, and `.`. What could lead out of a folder stays as
/// the text that it is. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn normal(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut normal = String::with_capacity(text.len());
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if !normal.is_empty() {
            normal.push('/');
        }
        normal.push_str(part);
    }
    normal
}

/// Whether an entry has no content whatever its size says: container runtimes read archives so.
fn is_header_only(of_type: EntryType) -> bool {
    of_type.is_hard_link()
        || of_type.is_symlink()
        || of_type.is_character_special()
        || of_type.is_block_special()
        || of_type.is_dir()
        || of_type.is_fifo()
}

/// The sum of a header's bytes, those of the sum itself taken as spaces.
fn checksum(header: &Header) -> u32 {
    let bytes = header.as_bytes().iter().enumerate();
    bytes
        .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum()
}

fn size(header: &Header) -> Result<u64, UnreadableArchive> {
    let size = header.entry_size();
    size.map_err(|_| broken("the size of an entry is no number"))
}

fn broken(how: &str) -> UnreadableArchive {
    UnreadableArchive::Broken(how.to_owned())
}

fn ends_early() -> UnreadableArchive {
    broken("it ends before an entry does")
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::super::listing::list;
    use super::super::testing::{Archive, listed};
    use super::*;

    #[test]
    fn each_type_of_entry_has_its_kind() {
        let archive = Archive::new()
            .file("f", b"1")
            .entry(EntryType::Link, "h", "f", b"")
            .symlink("s", "../../etc/passwd")
            .entry(EntryType::Char, "c", "", b"")
            .entry(EntryType::Block, "b", "", b"")
            .entry(EntryType::Fifo, "p", "", b"")
            .folder("d")
            .file("old/", b"")
            .file("x/.wh.gone", b"")
            .file("x/.wh..wh..opq", b"")
            .file("x/.wh.", b"");
        let tree = listed(archive);
        for (path, kind) in [
            ("f", Kind::File),
            ("h", Kind::HardLink),
            ("s", Kind::Symlink),
            ("c", Kind::Device),
            ("b", Kind::Device),
            ("p", Kind::Fifo),
            ("d", Kind::Folder),
            ("old", Kind::Folder),
            ("x/.wh.gone", Kind::Whiteout),
            ("x/.wh..wh..opq", Kind::OpaqueWhiteout),
            ("x/.wh.", Kind::File),
        ] {
            assert_eq!(tree.entry(path).unwrap().kind, kind, "{path}");
        }
        assert_eq!(tree.entry("h").unwrap().target, Some("f"));
        assert_eq!(tree.entry("s").unwrap().target, Some("../../etc/passwd"));
        assert_eq!(tree.entry("f").unwrap().mode, Some(0o4644));
    }

    #[test]
    fn the_size_of_a_link_is_no_content() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Link);
        header.set_size(4096);
        header.set_path("h").unwrap();
        header.set_cksum();
        let tree = listed(Archive::new().header(&header).file("a", b"1"));
        assert_eq!((tree.count(), tree.entry("h").unwrap().bytes), (2, 0));
    }

    #[test]
    fn paths_are_normalised_and_what_could_lead_out_stays_text() {
        let tree = listed(
            Archive::new()
                .folder("./")
                .file("//a/./b", b"")
                .file("../e\\v\x1bil", b""),
        );
        assert!(tree.entry("a/b").is_some());
        let up = tree.folder("..").unwrap();
        assert_eq!(up.children().next().unwrap().name, "e\\v\x1bil");
        assert_eq!(tree.folder("").unwrap().entry.mode, Some(0o755));
    }

    #[test]
    fn long_names_are_read_in_either_way() {
        let long = "n".repeat(300);
        let records: [(&str, &[u8]); 2] = [("path", long.as_bytes()), ("linkpath", long.as_bytes())];
        let archive = Archive::new()
            .long_file(&format!("gnu/{long}"), b"12")
            .pax(&records)
            .symlink("short", "short");
        let tree = listed(archive);
        assert_eq!(tree.entry(&format!("gnu/{long}")).unwrap().bytes, 2);
        assert_eq!(tree.entry(&long).unwrap().target, Some(&*long));
    }

    #[test]
    fn a_size_by_pax_counts() {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_path("a").unwrap();
        header.set_cksum();
        let archive = Archive::new().pax(&[("size", b"512")]).header(&header);
        let mut bytes = archive.unfinished();
        bytes.extend([1; 512]);
        bytes.extend(Archive::new().file("b", b"1").bytes());
        let tree = list(&bytes[..], &Limits::default()).unwrap();
        assert_eq!((tree.count(), tree.cut()), (2, None));
        assert_eq!(tree.entry("a").unwrap().bytes, 512);
    }

    #[test]
    fn sparse_files_have_their_whole_size_in_either_way() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_path("gnu").unwrap();
        header.set_size(512);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 40);
        gnu.set_is_extended(true);
        header.set_cksum();
        let mut more = Header::new_old();
        more.as_mut_bytes()[504] = 1;
        let mut bytes = Archive::new().header(&header).header(&more).unfinished();
        bytes.extend([0; 512]);
        bytes.extend([1; 512]);
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.name", b"pax"), ("GNU.sparse.realsize", b"99")];
        bytes.extend(
            Archive::new()
                .pax(&records)
                .file("GNUSparseFile.0/pax", b"1")
                .bytes(),
        );
        let tree = list(&bytes[..], &Limits::default()).unwrap();
        assert_eq!((tree.count(), tree.cut()), (2, None));
        assert_eq!(tree.entry("gnu").unwrap().bytes, 1 << 40);
        assert_eq!(tree.entry("pax").unwrap().bytes, 99);
    }
}
