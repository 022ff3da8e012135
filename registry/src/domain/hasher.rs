//! A running hash that can be put down and taken up again.
//!
//! The midstate is what lets any replica continue an upload without reading its bytes again. Its stored
//! form starts with a format byte, since replicas of two releases share it.

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

use super::digest::{Algorithm, Digest};

/// Format byte of sha2's serialised state, and of the algorithm in it.
const SHA256_STATE: u8 = 1;
const SHA512_STATE: u8 = 2;

/// One running hash.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

/// A stored midstate of an unknown format: written by a newer release, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored hash state is of an unknown format")]
pub struct UnknownMidstate;

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Adds bytes. About 0.6 ms a MiB for SHA-256 with hardware support.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> Digest {
        let hash: Vec<u8> = match self {
            Self::Sha256(state) => state.clone().finalize().to_vec(),
            Self::Sha512(state) => state.clone().finalize().to_vec(),
        };
        Digest::from_hash(self.algorithm(), &hash).expect("a hash has its algorithm's length")
    }

    /// The stored form of the state.
    pub fn midstate(&self) -> Vec<u8> {
        let (format, state) = match self {
            Self::Sha256(state) => (SHA256_STATE, state.serialize().to_vec()),
            Self::Sha512(state) => (SHA512_STATE, state.serialize().to_vec()),
        };
        let mut stored = Vec::with_capacity(1 + state.len());
        stored.push(format);
        stored.extend_from_slice(&state);
        stored
    }

    /// Continues from a stored state.
    pub fn from_midstate(stored: &[u8]) -> Result<Self, UnknownMidstate> {
        let (format, state) = stored.split_first().ok_or(UnknownMidstate)?;
        match *format {
            SHA256_STATE => {
                let state = state.try_into().map_err(|_| UnknownMidstate)?;
                Sha256::deserialize(&state)
                    .map(Self::Sha256)
                    .map_err(|_| UnknownMidstate)
            }
            SHA512_STATE => {
                let state = state.try_into().map_err(|_| UnknownMidstate)?;
                Sha512::deserialize(&state)
                    .map(Self::Sha512)
                    .map_err(|_| UnknownMidstate)
            }
            _ => Err(UnknownMidstate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hash_put_down_anywhere_and_taken_up_again_ends_the_same(content: Vec<u8>, cut: prop::sample::Index) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let cut = cut.index(content.len() + 1);
                let mut first = Hasher::new(algorithm);
                first.update(&content[..cut]);
                let mut second = Hasher::from_midstate(&first.midstate()).unwrap();
                second.update(&content[cut..]);
                prop_assert_eq!(second.digest(), Digest::of(algorithm, &content));
            }
        }

        #[test]
        fn a_damaged_midstate_is_an_error_and_no_panic(stored: Vec<u8>) {
            let _ = Hasher::from_midstate(&stored);
        }
    }
}
