//! Content digests: `algorithm:encoded` (image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A hash algorithm that this registry computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 32 bytes, the default everywhere.
    Sha256,
    /// SHA-512: 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The registered name, as in the digest's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a hash in bytes.
    pub const fn hash_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The byte that stands for this algorithm in stored digests. Never changes.
    const fn tag(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(name: &str) -> Result<Self, DigestError> {
        match name {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Unsupported(name.chars().take(64).collect())),
        }
    }
}

/// Why a text is not a digest that this registry can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the grammar, or the wrong number of digits, or upper-case hex.
    #[error("a digest is <algorithm>:<lower-case hex>, as in sha256: and 64 hex digits")]
    Malformed,
    /// Well formed, of an algorithm that is not computed here.
    #[error("digest algorithm {0} is not supported; use sha256 or sha512")]
    Unsupported(String),
}

/// A digest in an algorithm that this registry computes. Ordered by algorithm, then hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hash: [u8; 64],
}

impl Digest {
    /// From a hash; `None` if its length is not the algorithm's.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        if hash.len() != algorithm.hash_length() {
            return None;
        }
        let mut padded = [0; 64];
        padded[..hash.len()].copy_from_slice(hash);
        Some(Self {
            algorithm,
            hash: padded,
        })
    }

    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = super::hasher::Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.digest()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_length()]
    }

    /// The stored form: one byte for the algorithm, then the hash.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.algorithm.hash_length());
        bytes.push(self.algorithm.tag());
        bytes.extend_from_slice(self.hash());
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, hash) = bytes.split_first()?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .find(|a| a.tag() == *tag)?;
        Self::from_hash(algorithm, hash)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        f.write_str(":")?;
        let mut encoded = [0u8; 128];
        let length = self.algorithm.hash_length() * 2;
        // The buffer holds the longest hash, so encoding cannot fail.
        hex::encode_to_slice(self.hash(), &mut encoded[..length]).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&encoded[..length]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `text` has the grammar of a digest, of whatever algorithm: the grammar of image-spec
/// descriptor.md, at most 1,024 bytes.
pub fn is_well_formed(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    text.len() <= 1024
        && !encoded.is_empty()
        && encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
        && algorithm.split(['+', '.', '_', '-']).all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if !is_well_formed(text) {
            return Err(DigestError::Malformed);
        }
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if encoded.len() != algorithm.hash_length() * 2 || !encoded.bytes().all(lower_hex) {
            return Err(DigestError::Malformed);
        }
        let mut hash = [0; 64];
        hex::decode_to_slice(encoded, &mut hash[..algorithm.hash_length()])
            .map_err(|_| DigestError::Malformed)?;
        Ok(Self { algorithm, hash })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upper_case_short_and_unknown_digests_are_refused_each_for_its_reason() {
        let upper = format!("sha256:{}", "A".repeat(64));
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::Malformed));
        assert_eq!("sha256:abc".parse::<Digest>(), Err(DigestError::Malformed));
        assert_eq!("sha256:../../etc".parse::<Digest>(), Err(DigestError::Malformed));
        assert_eq!(
            "md5:abc".parse::<Digest>(),
            Err(DigestError::Unsupported("md5".into()))
        );
    }

    proptest! {
        #[test]
        fn a_digest_survives_its_text_and_its_stored_form(content: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            prop_assert_eq!(Digest::from_bytes(&digest.to_bytes()), Some(digest));
        }

        #[test]
        fn parsing_never_panics_and_what_parses_prints_the_same(text in ".{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
