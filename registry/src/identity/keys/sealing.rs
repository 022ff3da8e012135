//! Sealing of secrets that must be stored and read again, such as passwords of upstream registries.

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

const NONCE: usize = 12;
const KEY: usize = 32;
const FORM: &str = "v1";

/// Why a secret cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key.
    #[error("there is no sealing key")]
    Key,
    /// The key that sealed it is not there any more.
    #[error("the sealing key {0} is missing from --keys: mount it, or store the secret again")]
    KeyGone(String),
    /// Changed, or from another place.
    #[error("the sealed secret is damaged: store it again")]
    Damaged,
}

/// A key that seals.
pub struct SealingKey {
    id: String,
    key: RandomizedNonceKey,
}

/// A new key as text; `None` if there is no randomness.
pub(super) fn generate() -> Option<String> {
    let mut bytes = [0; KEY];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(format!("{}\n", STANDARD.encode(bytes)))
}

impl SealingKey {
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(std::str::from_utf8(text).ok()?.trim()).ok()?;
        let key = (bytes.len() == KEY).then(|| RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok())??;
        let mut id = Sha256::new();
        id.update(b"berth sealing key\0");
        id.update(&bytes);
        Some(Self {
            id: hex::encode(&id.finalize()[..8]),
            key,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn seal(&self, secret: &str, place: &str) -> Result<String, SealError> {
        let mut bytes = secret.as_bytes().to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut bytes);
        let nonce = nonce.map_err(|_| SealError::Key)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut bytes);
        Ok(format!("{FORM}.{}.{}", self.id, URL_SAFE_NO_PAD.encode(sealed)))
    }
}

pub(super) fn open(keys: &[SealingKey], sealed: &str, place: &str) -> Result<String, SealError> {
    let mut parts = sealed.splitn(3, '.');
    let (Some(FORM), Some(id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SealError::Damaged);
    };
    let key = keys
        .iter()
        .find(|key| key.id == id)
        .ok_or_else(|| SealError::KeyGone(id.to_owned()))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Damaged)?;
    let (nonce, secret) = bytes.split_at_checked(NONCE).ok_or(SealError::Damaged)?;
    let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
    let mut secret = secret.to_vec();
    let plain = key
        .key
        .open_in_place(nonce, Aad::from(place.as_bytes()), &mut secret);
    let plain = plain.map_err(|_| SealError::Damaged)?;
    String::from_utf8(plain.to_vec()).map_err(|_| SealError::Damaged)
}
