//! The installation's keys: Ed25519 pairs that sign access tokens, and keys that seal stored passwords.
//!
//! They are flat files in one folder, as a mounted Secret of Kubernetes has them: `signing-<name>.pem` (PKCS#8)
//! and `sealing-<name>.key` (32 bytes in base64). Names sort by age. Several of a kind may be there while one
//! replaces another; all of them are accepted, and [`KeyRing::signing`] says which one signs.

mod sealing;
mod signing;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use sealing::{SealError, SealingKey};
pub use signing::{SigningKey, TokenRefused, typ};

/// Largest key file in bytes.
const FILE_LIMIT: u64 = 16 * 1024;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The folder or a file in it.
    #[error("--keys {}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that holds no key.
    #[error("--keys {}: {why}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        why: &'static str,
    },
    /// A kind of key is missing.
    #[error("--keys {}: there is no {kind} key; mount the installation's keys there, or copy them from another replica", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// `signing` or `sealing`.
        kind: &'static str,
    },
}

/// All keys, oldest first.
pub struct Keys {
    signing: Vec<SigningKey>,
    sealing: Vec<SealingKey>,
}

/// The keys of a folder, read again when they change.
pub struct KeyRing {
    folder: PathBuf,
    keys: ArcSwap<Keys>,
}

impl KeyRing {
    /// Reads the keys of a folder; with `make`, those that are missing are made.
    pub fn open(folder: &Path, make: bool) -> Result<Self, KeysError> {
        if make {
            make_missing(folder)?;
        }
        Ok(Self {
            keys: ArcSwap::from_pointee(read(folder)?),
            folder: folder.to_owned(),
        })
    }

    /// Reads the keys again; those in use stay if that fails.
    pub fn reload(&self) -> Result<(), KeysError> {
        let keys = read(&self.folder)?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Ids of the signing keys, oldest first.
    pub fn signing_ids(&self) -> Vec<String> {
        self.keys
            .load()
            .signing
            .iter()
            .map(|key| key.id().to_owned())
            .collect()
    }

    /// Signs with the newest key that every replica knows, or the oldest if there is none.
    pub fn sign<T: serde::Serialize>(
        &self,
        known: Option<&HashSet<String>>,
        typ: &str,
        claims: &T,
    ) -> Result<String, TokenRefused> {
        let keys = self.keys.load();
        let common = |key: &&SigningKey| known.is_none_or(|known| known.contains(key.id()));
        let newest = keys.signing.iter().rev().find(common).or(keys.signing.first());
        newest.ok_or(TokenRefused::Key)?.sign(typ, claims)
    }

    /// Checks a token that one of these keys signed.
    pub fn verify<T: serde::de::DeserializeOwned>(
        &self,
        token: &str,
        typ: &str,
        audience: &str,
        now: i64,
    ) -> Result<T, TokenRefused> {
        signing::verify(&self.keys.load().signing, token, typ, audience, now)
    }

    /// Id of the key that seals.
    pub fn sealing_id(&self) -> Option<String> {
        self.keys.load().sealing.last().map(|key| key.id().to_owned())
    }

    /// Seals a secret with the newest key. `place` is what it belongs to: it opens nowhere else.
    pub fn seal(&self, secret: &str, place: &str) -> Result<String, SealError> {
        let keys = self.keys.load();
        keys.sealing.last().ok_or(SealError::Key)?.seal(secret, place)
    }

    /// Opens a sealed secret.
    pub fn open_sealed(&self, sealed: &str, place: &str) -> Result<String, SealError> {
        sealing::open(&self.keys.load().sealing, sealed, place)
    }
}

fn read(folder: &Path) -> Result<Keys, KeysError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| KeysError::File { path, error }
    };
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let name = entry.map_err(failed(folder))?.file_name();
        names.extend(name.to_str().map(str::to_owned));
    }
    names.sort_unstable();
    let mut keys = Keys {
        signing: Vec::new(),
        sealing: Vec::new(),
    };
    for name in names {
        let path = folder.join(&name);
        let signing = name.starts_with("signing-") && name.ends_with(".pem");
        let sealing = name.starts_with("sealing-") && name.ends_with(".key");
        if !signing && !sealing {
            continue;
        }
        let size = fs::metadata(&path).map_err(failed(&path))?.len();
        let wrong = |why| KeysError::Key {
            path: path.clone(),
            why,
        };
        if size > FILE_LIMIT {
            return Err(wrong("is too large for a key"));
        }
        let bytes = fs::read(&path).map_err(failed(&path))?;
        if signing {
            let key = SigningKey::from_pem(&bytes);
            keys.signing
                .push(key.ok_or_else(|| wrong("holds no Ed25519 private key in PEM (PKCS#8)"))?);
        } else {
            let key = SealingKey::from_text(&bytes);
            keys.sealing
                .push(key.ok_or_else(|| wrong("holds no 32 bytes in base64"))?);
        }
    }
    let missing = |kind| KeysError::Missing {
        path: folder.to_owned(),
        kind,
    };
    if keys.signing.is_empty() {
        return Err(missing("signing"));
    }
    if keys.sealing.is_empty() {
        return Err(missing("sealing"));
    }
    Ok(keys)
}

fn make_missing(folder: &Path) -> Result<(), KeysError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| KeysError::File { path, error }
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(failed(folder))?;
    match read(folder) {
        Err(KeysError::Missing { kind, .. }) => {
            let (file, content) = match kind {
                "signing" => ("signing-0.pem", signing::generate()),
                _ => ("sealing-0.key", sealing::generate()),
            };
            let content = content.ok_or(KeysError::Key {
                path: folder.to_owned(),
                why: "a new key could not be made",
            })?;
            write_new(&folder.join(file), content.as_bytes()).map_err(failed(&folder.join(file)))?;
            make_missing(folder)
        }
        read => read.map(drop),
    }
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
