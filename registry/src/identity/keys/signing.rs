//! Signing and checking our own tokens: EdDSA alone, keys of our own alone.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Longest token that is looked at, in bytes.
const TOKEN_LIMIT: usize = 8 * 1024;
/// Clocks of replicas may differ by this many seconds.
const LEEWAY: i64 = 5;

/// Why a token is not one of ours, or not for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Too long, or no JWT of ours.
    #[error("it is no access token of this registry")]
    Form,
    /// It was signed for another use.
    #[error("it is a token for another use")]
    Use,
    /// No key of ours has signed it.
    #[error("it was not signed by this registry")]
    Key,
    /// It is another tenant's.
    #[error("it is not for this tenant")]
    Audience,
    /// It has ended, or not begun.
    #[error("it has expired")]
    Expired,
}

/// A key that signs.
pub struct SigningKey {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// A new private key in PEM; `None` if there is no randomness.
pub(super) fn generate() -> Option<String> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let der = pair.to_pkcs8v1().ok()?;
    let text = STANDARD.encode(der.as_ref());
    Some(format!(
        "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"
    ))
}

impl SigningKey {
    /// Reads a private key in PEM.
    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()?;
        let public = pair.public_key().as_ref();
        Some(Self {
            id: hex::encode(&Sha256::digest(public)[..8]),
            encoding: EncodingKey::from_ed_der(der.secret_pkcs8_der()),
            decoding: DecodingKey::from_ed_der(public),
        })
    }

    /// First 8 bytes of the public key's SHA-256, in hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, TokenRefused> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|_| TokenRefused::Form)
    }
}

/// What use a token says it is for; nothing of it has been verified.
pub fn typ(token: &str) -> Option<String> {
    if token.len() > TOKEN_LIMIT {
        return None;
    }
    jsonwebtoken::decode_header(token).ok()?.typ
}

/// What must be looked at before the claims are.
#[derive(serde::Deserialize)]
struct Bounds {
    aud: String,
    exp: i64,
    #[serde(default)]
    nbf: i64,
}

pub(super) fn verify<T: DeserializeOwned>(
    keys: &[SigningKey],
    token: &str,
    typ: &str,
    audience: &str,
    now: i64,
) -> Result<T, TokenRefused> {
    if token.len() > TOKEN_LIMIT {
        return Err(TokenRefused::Form);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefused::Form)?;
    let key = header
        .kid
        .as_deref()
        .and_then(|id| keys.iter().find(|key| key.id == id));
    let key = key.ok_or(TokenRefused::Key)?;
    // The algorithm is this one, whatever the header says; times are checked below, by our clock.
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key.decoding, &validation)
        .map_err(|_| TokenRefused::Key)?
        .claims;
    if header.typ.as_deref() != Some(typ) {
        return Err(TokenRefused::Use);
    }
    let bounds = Bounds::deserialize(&claims)?;
    if bounds.aud != audience {
        return Err(TokenRefused::Audience);
    }
    if now >= bounds.exp.saturating_add(LEEWAY) || now < bounds.nbf.saturating_sub(LEEWAY) {
        return Err(TokenRefused::Expired);
    }
    serde_json::from_value(claims).map_err(|_| TokenRefused::Form)
}

impl Bounds {
    fn deserialize(claims: &serde_json::Value) -> Result<Self, TokenRefused> {
        serde::Deserialize::deserialize(claims).map_err(|_| TokenRefused::Form)
    }
}
