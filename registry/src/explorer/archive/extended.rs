//! What headers before an entry say about it: long names, and sizes that its own header has no room for.
//!
//! There are two ways to say it: the records of pax (POSIX.1-2024, `pax`, "pax Extended Header") and two types of entry
//! by GNU tar. Records for all entries that follow ('g') are left aside, as container runtimes do.

use super::unreadable::UnreadableArchive;

/// Bytes of one such header. They hold extended attributes too, which are 64 KiB each at most on Linux.
pub(super) const LONGEST: u64 = 1024 * 1024;

/// What is said about the next entry.
#[derive(Default)]
pub(super) struct Extended {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub target: Option<Vec<u8>>,
    /// Bytes stored.
    pub size: Option<u64>,
    /// Bytes of a sparse file, holes included.
    pub real_size: Option<u64>,
}

impl Extended {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.path.is_none() && self.target.is_none() && self.size.is_none() && self.real_size.is_none()
    }

    /// Takes over the records of pax. Later ones count.
    pub fn records(&mut self, mut bytes: &[u8]) -> Result<(), UnreadableArchive> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)
                .ok_or_else(|| UnreadableArchive::Broken("a pax header is malformed".to_owned()))?;
            bytes = rest;
            match key {
                // Sparse files have a made-up path, and then their real one.
                b"path" | b"GNU.sparse.name" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real_size = Some(number(value)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A name by GNU tar, which ends at a zero byte.
pub(super) fn gnu_name(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

/// Splits off `length key=value\n`, whose length counts all of it. Values are not text: they may hold line ends.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?, rest))
}

fn number(value: &[u8]) -> Result<u64, UnreadableArchive> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| UnreadableArchive::Broken("a pax header has a size that is no number".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Extended, UnreadableArchive> {
        let mut extended = Extended::default();
        extended.records(bytes)?;
        Ok(extended)
    }

    #[test]
    fn a_value_with_line_ends_hides_nothing_after_it() {
        let read = read(b"20 SCHILY.xattr=\n\n\n\n13 path=a\nb\n\n").unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"a\nb\n"[..]));
    }

    #[test]
    fn the_last_record_of_a_key_counts() {
        let read = read(b"9 path=a\n9 path=b\n").unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"b"[..]));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"9 path=ab\n",
            b"0 path=a\n",
            b"1 \n",
            b"99999999999999999999999 path=a\n",
            b"18446744073709551615 path=a\n",
            b"9 pathXa\n",
            b"9 size=x\n",
            b"10 size=-1\n",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
