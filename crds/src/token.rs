//! API tokens: `berth_<id>_<secret><checksum>`.
//!
//! The prefix and the CRC-32 let secret scanners find leaked tokens without asking anyone. The secret has 256
//! random bits, so that its plain SHA-256 is safe to keep.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every token begins with.
pub const PREFIX: &str = "berth_";
/// Characters of an id.
pub const ID_LENGTH: usize = 12;
/// Characters that hold 256 bits.
const SECRET_LENGTH: usize = 43;
/// Characters that hold 32 bits.
const CHECKSUM_LENGTH: usize = 6;
const LENGTH: usize = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another shape.
    #[error("this is not a token: tokens look like berth_<id>_<secret>")]
    Shape,
    /// Mistyped or cut.
    #[error("the token's checksum does not fit: it was cut or mistyped")]
    Checksum,
}

/// The public part of a token: 12 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let valid = text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        valid.then(|| Self(text.to_owned())).ok_or(TokenError::Shape)
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole token. It is secret: it is shown only where it is handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: TokenId,
    text: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

impl Token {
    /// A new token.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        let id: String = (0..ID_LENGTH)
            .map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())]))
            .collect();
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        let mut text = format!("{PREFIX}{id}_{}", digits(&secret, SECRET_LENGTH));
        text.push_str(&checksum(&text));
        Self {
            id: TokenId(id),
            text,
        }
    }

    /// The token that a text is.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let shaped = text.len() == LENGTH && text.is_ascii();
        let rest = text
            .strip_prefix(PREFIX)
            .filter(|_| shaped)
            .ok_or(TokenError::Shape)?;
        let (id, secret) = rest.split_at(ID_LENGTH);
        let id: TokenId = id.parse()?;
        let secret = secret.strip_prefix('_').ok_or(TokenError::Shape)?;
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TokenError::Shape);
        }
        let (body, given) = text.split_at(LENGTH - CHECKSUM_LENGTH);
        if checksum(body) != given {
            return Err(TokenError::Checksum);
        }
        Ok(Self {
            id,
            text: text.to_owned(),
        })
    }

    /// Its public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The secret itself, for whom it is handed to.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.text.as_bytes()).into())
    }
}

/// SHA-256 of a token's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Reads a stored hash.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok().and_then(|bytes| Self::from_bytes(&bytes))
    }

    /// To be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is this token's, in constant time.
    pub fn matches(&self, token: &Token) -> bool {
        self.0.ct_eq(&token.hash().0).into()
    }
}

/// Whether a text claims to be a token.
pub fn looks_like(text: &str) -> bool {
    text.starts_with(PREFIX)
}

fn checksum(body: &str) -> String {
    digits(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH)
}

/// A big-endian number in base 62, filled up with zeros on the left.
fn digits(bytes: &[u8], length: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![DIGITS[0]; length];
    for place in text.iter_mut().rev() {
        let mut rest: u32 = 0;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            // The quotient of a number below 62 * 256 by 62 is a byte.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *place = DIGITS[rest as usize];
    }
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_read_again_and_matches_its_hash_alone() {
        let (one, other) = (Token::generate(), Token::generate());
        assert_eq!(Token::parse(one.reveal()).as_ref(), Ok(&one));
        assert!(one.hash().matches(&one) && !one.hash().matches(&other));
        assert_eq!(
            TokenHash::from_hex(&hex::encode(one.hash().as_bytes())),
            Some(one.hash())
        );
        assert!(!format!("{one:?}").contains(&one.reveal()[20..]));
        assert_eq!(one.reveal().len(), LENGTH);
    }

    #[test]
    fn digits_are_those_of_the_number() {
        assert_eq!(digits(&[0, 0], 3), "000");
        assert_eq!(digits(&[61], 2), "0z");
        assert_eq!(digits(&[62], 2), "10");
        assert_eq!(digits(&[255; 32], SECRET_LENGTH).len(), SECRET_LENGTH);
        // 62^43 exceeds 2^256, so nothing is cut: the largest number's first digit is not the largest.
        assert!(digits(&[255; 32], SECRET_LENGTH).as_bytes()[0] < b'z');
    }

    proptest! {
        #[test]
        fn a_changed_character_is_refused_or_another_token(at in 0..LENGTH, new in "[0-9A-Za-z_-]") {
            let token = Token::generate();
            let mut text = token.reveal().to_owned();
            text.replace_range(at..=at, &new);
            prop_assume!(text != token.reveal());
            // A CRC finds every error of one character.
            prop_assert!(Token::parse(&text).is_err());
        }

        #[test]
        fn no_text_panics(text in ".{0,90}", tail in "[0-9A-Za-z_é]{0,80}") {
            prop_assert!(Token::parse(&text).is_err());
            let _ = Token::parse(&format!("berth_{tail}"));
        }
    }
}
