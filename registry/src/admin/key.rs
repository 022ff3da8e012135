//! The keys that open the admin API: a file, made on a first start.
//!
//! The file holds one key a line. Each of them admits, and the first is the one that clients use, so that a new key
//! can be added before the old one goes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// Fewest bytes of a key that is taken from a file.
const SHORTEST_KEY: usize = 16;

/// The admin key cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--admin-key-file {path}: {reason}", path = path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// The admin API's bearer keys, kept only as their hashes.
#[derive(Clone)]
pub struct AdminKeys {
    path: PathBuf,
    hashes: Arc<ArcSwap<Vec<[u8; 32]>>>,
}

impl AdminKeys {
    /// Reads the file. With `make`, an absent one is made, readable by its owner only, with 256 random bits.
    pub fn open(path: &Path, make: bool) -> Result<Self, KeyError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                make_key(path).map_err(|error| {
                    let reason = format!("cannot be made: {error}");
                    KeyError {
                        path: path.to_owned(),
                        reason,
                    }
                })?
            }
            read => readable(path, read)?,
        };
        let hashes = hashes(path, &text)?;
        Ok(Self {
            path: path.to_owned(),
            hashes: Arc::new(ArcSwap::from_pointee(hashes)),
        })
    }

    /// Reads the file again; the keys in use stay if that fails.
    pub fn reload(&self) -> Result<(), KeyError> {
        let text = readable(&self.path, fs::read_to_string(&self.path))?;
        self.hashes.store(Arc::new(hashes(&self.path, &text)?));
        Ok(())
    }

    /// Whether the request bears one of the keys. Hashes are compared, whole, so that time tells nothing of them.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let Some((scheme, key)) = given else { return false };
        let given: [u8; 32] = Sha256::digest(key.trim()).into();
        let same = |hash: &[u8; 32]| {
            let different = hash.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
            std::hint::black_box(different) == 0
        };
        let admitted = self
            .hashes
            .load()
            .iter()
            .fold(false, |admitted, hash| admitted | same(hash));
        scheme.eq_ignore_ascii_case("bearer") & admitted
    }
}

fn readable(path: &Path, read: io::Result<String>) -> Result<String, KeyError> {
    read.map_err(|error| KeyError {
        path: path.to_owned(),
        reason: format!("cannot be read ({error}); write a key into that file"),
    })
}

fn hashes(path: &Path, text: &str) -> Result<Vec<[u8; 32]>, KeyError> {
    let fail = |reason: String| KeyError {
        path: path.to_owned(),
        reason,
    };
    let keys = text.lines().map(str::trim).filter(|key| !key.is_empty());
    let hash = |key: &str| {
        if key.len() < SHORTEST_KEY {
            return Err(fail(format!(
                "holds a key of fewer than {SHORTEST_KEY} characters; write a longer one into it"
            )));
        }
        Ok(Sha256::digest(key).into())
    };
    let hashes = keys.map(hash).collect::<Result<Vec<_>, _>>()?;
    if hashes.is_empty() {
        return Err(fail("holds no key; write one into it".to_owned()));
    }
    Ok(hashes)
}

/// Writes a new key beside its place and moves it there, so that a crash never leaves half a key. If
/// another process was faster, its key is the key.
fn make_key(path: &Path) -> io::Result<String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let key = hex::encode(rand::random::<[u8; 32]>());
    let draft = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(format!("{key}\n").as_bytes())
        .and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => fs::File::open(folder)?.sync_all().map(|()| key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use berth_crds::admin::current_key;

    use super::*;

    #[test]
    fn only_the_whole_key_admits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let key = AdminKeys::open(&file, false).unwrap();
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            key.admit(&headers)
        };
        assert!(admits("Bearer 0123456789abcdef") && admits("bearer 0123456789abcdef"));
        for value in [
            "Bearer wrong",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcde",
        ] {
            assert!(!admits(value), "{value}");
        }
        assert!(!key.admit(&HeaderMap::new()));
    }

    #[test]
    fn each_line_is_a_key_and_the_first_is_the_one_to_use() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        fs::write(&file, "old-0123456789abcdef\n").unwrap();
        let keys = AdminKeys::open(&file, false).unwrap();
        let admits = |key: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
            keys.admit(&headers)
        };
        let text = "\n new-0123456789abcdef \nold-0123456789abcdef\n";
        fs::write(&file, text).unwrap();
        assert!(!admits("new-0123456789abcdef"));
        keys.reload().unwrap();
        assert!(admits("new-0123456789abcdef") && admits("old-0123456789abcdef"));
        assert!(!admits("new-0123456789abcdef old-0123456789abcdef") && !admits(""));
        assert_eq!(current_key(text), "new-0123456789abcdef");
        fs::write(&file, "new-0123456789abcdef\nshort").unwrap();
        assert!(keys.reload().is_err());
        assert!(admits("old-0123456789abcdef"), "those in use stay");
        fs::write(&file, "new-0123456789abcdef").unwrap();
        keys.reload().unwrap();
        assert!(!admits("old-0123456789abcdef"));
    }

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys/admin");
        let first = AdminKeys::open(&file, true).unwrap();
        let again = AdminKeys::open(&file, true).unwrap();
        assert_eq!(**first.hashes.load(), **again.hashes.load());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn an_absent_or_short_key_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        assert!(AdminKeys::open(&file, false).is_err());
        fs::write(&file, "short").unwrap();
        assert!(AdminKeys::open(&file, true).is_err_and(|error| error.to_string().contains("16")));
    }
}
