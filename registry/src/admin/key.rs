//! The key that opens the admin API: a file, made on a first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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

/// The admin API's bearer key, kept only as its hash.
#[derive(Clone)]
pub struct AdminKey {
    hash: [u8; 32],
}

impl AdminKey {
    /// Reads the key's file, of which white space at the ends does not count. With `make`, an absent file
    /// is made, readable by its owner only, with 256 random bits.
    pub fn open(path: &Path, make: bool) -> Result<Self, KeyError> {
        let fail = |reason: String| KeyError {
            path: path.to_owned(),
            reason,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                make_key(path).map_err(|error| fail(format!("cannot be made: {error}")))?
            }
            Err(error) => {
                return Err(fail(format!(
                    "cannot be read ({error}); write a key into that file"
                )));
            }
        };
        let key = text.trim();
        if key.len() < SHORTEST_KEY {
            return Err(fail(format!(
                "holds fewer than {SHORTEST_KEY} characters; write a longer key into it"
            )));
        }
        Ok(Self {
            hash: Sha256::digest(key).into(),
        })
    }

    /// Whether the request bears the key. Hashes are compared, whole, so that time tells nothing of it.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let Some((scheme, key)) = given else { return false };
        let hash: [u8; 32] = Sha256::digest(key.trim()).into();
        let different = self.hash.iter().zip(hash).fold(0, |all, (a, b)| all | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") & (std::hint::black_box(different) == 0)
    }
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

    use super::*;

    #[test]
    fn only_the_whole_key_admits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let key = AdminKey::open(&file, false).unwrap();
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            key.admits(&headers)
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
        assert!(!key.admits(&HeaderMap::new()));
    }

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys/admin");
        let first = AdminKey::open(&file, true).unwrap();
        let again = AdminKey::open(&file, true).unwrap();
        assert_eq!(first.hash, again.hash);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn an_absent_or_short_key_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        assert!(AdminKey::open(&file, false).is_err());
        fs::write(&file, "short").unwrap();
        assert!(AdminKey::open(&file, true).is_err_and(|error| error.to_string().contains("16")));
    }
}
