//! The running hashes of an upload: always SHA-256, and SHA-512 when the client announced it.

use crate::domain::hasher::{Hasher, UnknownMidstate};
use crate::domain::{Algorithm, Digest};

/// One or two running hashes.
#[derive(Clone)]
pub struct Hashes(Vec<Hasher>);

impl Hashes {
    /// Hashes for a blob whose digest will be of `hint`, or of SHA-256 if nothing is known.
    pub fn new(hint: Option<Algorithm>) -> Self {
        let mut hashes = vec![Hasher::new(Algorithm::Sha256)];
        hashes.extend(hint.filter(|hint| *hint != Algorithm::Sha256).map(Hasher::new));
        Self(hashes)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for hash in &mut self.0 {
            hash.update(bytes);
        }
    }

    /// The digest in this algorithm, if it was computed.
    pub fn digest(&self, algorithm: Algorithm) -> Option<Digest> {
        self.0
            .iter()
            .find(|hash| hash.algorithm() == algorithm)
            .map(Hasher::digest)
    }

    /// The stored form: each midstate after its length in one byte.
    pub fn to_stored(&self) -> Vec<u8> {
        let mut stored = Vec::new();
        for hash in &self.0 {
            let midstate = hash.midstate();
            // A midstate has 105 or 209 bytes with its format byte.
            stored.push(u8::try_from(midstate.len()).unwrap_or(u8::MAX));
            stored.extend_from_slice(&midstate);
        }
        stored
    }

    /// Reads the stored form.
    pub fn from_stored(mut stored: &[u8]) -> Result<Self, UnknownMidstate> {
        let mut hashes = Vec::new();
        while let Some((length, rest)) = stored.split_first() {
            let (midstate, rest) = rest
                .split_at_checked(usize::from(*length))
                .ok_or(UnknownMidstate)?;
            hashes.push(Hasher::from_midstate(midstate)?);
            stored = rest;
        }
        if hashes.is_empty() {
            Err(UnknownMidstate)
        } else {
            Ok(Self(hashes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hashes_survive_being_stored() {
        let mut hashes = Hashes::new(Some(Algorithm::Sha512));
        hashes.update(b"first ");
        let mut hashes = Hashes::from_stored(&hashes.to_stored()).unwrap();
        hashes.update(b"second");
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            assert_eq!(
                hashes.digest(algorithm),
                Some(Digest::of(algorithm, b"first second"))
            );
        }
        assert!(Hashes::from_stored(&[]).is_err());
        assert!(Hashes::from_stored(&[9, 1]).is_err());
    }
}
