//! Lists an archive.

use std::io::Read;

use super::growing::Growing;
use super::limits::Limits;
use super::members::Members;
use super::meter::Meter;
use super::tree::Tree;
use super::unreadable::{Cut, UnreadableArchive};

/// Lists the files of an archive: tar as it is, or compressed with gzip or zstd. Blocks for as long as reading takes.
///
/// What comes before a limit or before a broken part is listed, and the tree says where it ends. Bombs, a reader that
/// fails, what is cancelled and what is no archive are errors.
pub fn list(reader: impl Read, limits: &Limits<'_>) -> Result<Tree, UnreadableArchive> {
    let mut growing = Growing::new(limits);
    let cut = match read(reader, limits, &mut growing) {
        Ok(cut) => cut,
        Err(error) => Some(Cut::of(error, growing.is_empty())?),
    };
    Ok(growing.finish(cut))
}

/// Reads until the end or until there is no room, which is a cut.
fn read(
    reader: impl Read,
    limits: &Limits<'_>,
    growing: &mut Growing<'_>,
) -> Result<Option<Cut>, UnreadableArchive> {
    let meter = Meter::new(limits);
    let mut members = Members::open(reader, &meter)?;
    while let Some(member) = members.next()? {
        if let Err(cut) = growing.add(&member) {
            return Ok(Some(cut));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use tar::{EntryType, Header};

    use super::super::testing::{Archive, gzip, listed, zstd};
    use super::*;

    fn list_all(bytes: &[u8]) -> Result<Tree, UnreadableArchive> {
        list(bytes, &Limits::default())
    }

    fn densest(bytes: &[u8]) -> Vec<u8> {
        let mut dense = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
        encoder.read_to_end(&mut dense).unwrap();
        dense
    }

    fn two() -> Vec<u8> {
        Archive::new().file("a", b"one").file("b/c", &[7; 5000]).bytes()
    }

    fn broken(tree: &Tree) -> bool {
        matches!(tree.cut(), Some(Cut::Broken(_)))
    }

    #[test]
    fn an_archive_is_read_plain_and_with_either_compression() {
        for bytes in [two(), gzip(&two()), zstd(&two())] {
            let tree = list_all(&bytes).unwrap();
            assert_eq!((tree.count(), tree.cut()), (3, None));
            assert_eq!(tree.entry("b/c").unwrap().bytes, 5000);
        }
    }

    #[test]
    fn an_archive_may_be_made_of_many_members_and_frames() {
        let bytes = two();
        let (start, end) = bytes.split_at(700);
        let skipped = [0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let gzips = [gzip(start), gzip(b""), gzip(end), gzip(b"")].concat();
        let frames = [
            &skipped[..],
            &zstd(start),
            &skipped,
            &zstd(b""),
            &zstd(end),
            &skipped,
        ]
        .concat();
        for bytes in [gzips, frames] {
            let tree = list_all(&bytes).unwrap();
            assert_eq!((tree.count(), tree.cut()), (3, None));
        }
    }

    #[test]
    fn a_reader_that_gives_one_byte_at_a_time_is_read() {
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let end = into.len().min(1);
                self.0.read(&mut into[..end])
            }
        }
        for bytes in [two(), gzip(&two()), zstd(&two())] {
            assert_eq!(list(Slow(&bytes), &Limits::default()).unwrap().count(), 3);
        }
    }

    #[test]
    fn an_archive_without_entries_is_an_empty_tree() {
        let tree = list_all(&gzip(&[0; 1024])).unwrap();
        assert!(tree.count() == 0 && tree.cut().is_none());
        assert_eq!(tree.folder("").unwrap().children().len(), 0);
    }

    #[test]
    fn paths_that_are_too_long_are_left_out_and_counted() {
        let tree = listed(Archive::new().long_file(&"a".repeat(4097), b"1").file("b", b"1"));
        assert_eq!((tree.count(), tree.left_out()), (1, 1));
    }

    #[test]
    fn a_pax_header_that_claims_gigabytes_is_broken() {
        for (of_type, size) in [
            (EntryType::XHeader, 8 << 30),
            (EntryType::GNULongName, (1 << 20) + 1),
        ] {
            let mut header = Header::new_gnu();
            header.set_entry_type(of_type);
            header.set_size(size);
            header.set_cksum();
            let bytes = Archive::new().file("a", b"").header(&header).unfinished();
            let tree = list_all(&bytes).unwrap();
            assert!(tree.count() == 1 && broken(&tree), "{:?}", tree.cut());
        }
    }

    #[test]
    fn sparse_headers_without_end_end_with_the_bytes() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.as_gnu_mut().unwrap().set_is_extended(true);
        header.set_size(0);
        header.set_cksum();
        let mut bytes = Archive::new().file("a", b"").header(&header).unfinished();
        bytes.extend(vec![1; 512 * 1000]);
        assert!(broken(&list_all(&bytes).unwrap()));
    }

    #[test]
    fn a_gigabyte_of_zeros_is_refused_early() {
        let mut header = Header::new_gnu();
        header.set_path("zeros").unwrap();
        header.set_size(1 << 30);
        header.set_cksum();
        let head = Archive::new().header(&header).unfinished();
        let zeros = densest(&vec![0; 16 << 20]);
        let bytes = [gzip(&head), zeros.repeat(64)].concat();
        let bomb = list_all(&bytes).unwrap_err();
        let UnreadableArchive::Bomb { decompressed, .. } = bomb else {
            panic!("{bomb}");
        };
        assert!(decompressed < 90 << 20, "{decompressed}");
    }

    #[test]
    fn a_cut_archive_is_listed_to_where_it_ends() {
        // Bytes that do not compress, so that the cut is in the second file.
        let mut noise: u32 = 1;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        })
        .take(400_000)
        .collect();
        let whole = Archive::new().file("a", b"1").file("b", &content).bytes();
        for whole in [gzip(&whole), zstd(&whole), whole] {
            let tree = list_all(&whole[..300_000]).unwrap();
            assert!(tree.count() == 2 && broken(&tree), "{:?}", tree.cut());
        }
        // The end itself may be missing.
        let unfinished = Archive::new().file("a", b"1").unfinished();
        assert_eq!(list_all(&unfinished).unwrap().cut(), None);
    }

    #[test]
    fn a_broken_tail_leaves_what_comes_before_it() {
        let mut bytes = Archive::new().file("a", b"1").unfinished();
        bytes.extend([b'x'; 512]);
        let tree = list_all(&bytes).unwrap();
        assert!(tree.count() == 1 && broken(&tree));
    }

    #[test]
    fn a_size_larger_than_anything_is_broken() {
        let bytes = Archive::new()
            .file("a", b"")
            .pax(&[("size", b"18446744073709551615")])
            .file("b", b"")
            .bytes();
        assert!(broken(&list_all(&bytes).unwrap()));
    }

    #[test]
    fn what_is_no_archive_is_unknown() {
        let text = b"a text that is no archive".repeat(100);
        for bytes in [&b""[..], b"x", &text, &gzip(b""), &gzip(&text), &zstd(&text)] {
            assert!(matches!(list_all(bytes), Err(UnreadableArchive::Unknown)));
        }
        let garbage = [&[0x1f, 0x8b][..], &[9; 100]].concat();
        assert!(matches!(list_all(&garbage), Err(UnreadableArchive::Broken(_))));
    }

    #[test]
    fn a_zstd_frame_with_a_large_window_is_refused() {
        // Magic, a descriptor without content size, and a window of 16 MiB: 2^(10 + 14).
        let bytes = [0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3, 1, 0, 0];
        let refused = list_all(&bytes).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a zstd frame has a window of 16777216 bytes; at most 8388608 are allowed"
        );
    }

    #[test]
    fn a_zstd_frame_with_another_checksum_is_broken() {
        let mut bytes = zstd(&two());
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let cut = list_all(&[bytes, zstd(&[0; 9])].concat()).map(|tree| tree.cut().cloned());
        // The archive's end comes before the checksum is looked at, unless there is more to read.
        assert!(cut.is_ok());
        let tail = Archive::new().file("a", b"1").unfinished();
        let mut bytes = zstd(&tail);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(broken(&list_all(&bytes).unwrap()));
    }

    #[test]
    fn more_entries_than_allowed_are_a_part_of_the_tree() {
        let mut bytes = Vec::new();
        let mut header = Header::new_gnu();
        for number in 0..=100_000 {
            header.set_path(format!("f{number}")).unwrap();
            header.set_size(0);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
        }
        let tree = list_all(&bytes).unwrap();
        assert_eq!(
            (tree.count(), tree.cut()),
            (100_000, Some(&Cut::Entries(100_000)))
        );
        assert_eq!(tree.folder("").unwrap().children().len(), 100_000);
    }

    #[test]
    fn folders_without_entries_count_as_entries() {
        let limits = Limits {
            entries: 5,
            ..Limits::default()
        };
        let bytes = Archive::new().file("a/b/c", b"").file("d/e/f", b"").bytes();
        let tree = list(&bytes[..], &limits).unwrap();
        assert_eq!((tree.count(), tree.cut()), (5, Some(&Cut::Entries(5))));
    }

    #[test]
    fn limits_of_bytes_and_names_give_a_part_of_the_tree() {
        let of = |limits: &Limits<'_>| list(&two()[..], limits).unwrap().cut().cloned();
        let plain = Limits::default;
        assert_eq!(
            of(&Limits {
                compressed: 2000,
                ..plain()
            }),
            Some(Cut::Bytes(2000))
        );
        assert_eq!(
            of(&Limits {
                decompressed: 2000,
                ..plain()
            }),
            Some(Cut::Bytes(2000))
        );
        assert_eq!(of(&Limits { names: 2, ..plain() }), Some(Cut::Names(2)));
        // Three names of a byte, and a place for each.
        assert_eq!(
            of(&Limits {
                names: 195,
                ..plain()
            }),
            None
        );
    }

    #[test]
    fn the_deadline_gives_a_part_of_the_tree() {
        let limits = Limits {
            deadline: Some(Instant::now()),
            ..Limits::default()
        };
        assert_eq!(list(&two()[..], &limits).unwrap().cut(), Some(&Cut::Time));
        let later = Limits {
            deadline: Some(Instant::now() + Duration::from_hours(1)),
            ..Limits::default()
        };
        assert_eq!(list(&two()[..], &later).unwrap().cut(), None);
    }

    #[test]
    fn what_is_cancelled_is_an_error() {
        let flag = AtomicBool::new(true);
        let limits = Limits {
            cancelled: Some(&flag),
            ..Limits::default()
        };
        for bytes in [two(), gzip(&two()), zstd(&two())] {
            let cancelled = list(&bytes[..], &limits);
            assert!(matches!(cancelled, Err(UnreadableArchive::Cancelled)));
        }
    }

    #[test]
    fn a_reader_that_fails_is_no_broken_archive() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        for bytes in [two(), gzip(&two()), zstd(&two())] {
            let reader = bytes[..60].chain(Failing);
            let failed = list(reader, &Limits::default());
            assert!(matches!(failed, Err(UnreadableArchive::Source(_))));
        }
    }
}
