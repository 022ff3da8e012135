//! New keys and certificates.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// How long a certificate is valid: longer than anyone waits between two rotations.
const LIFE: Duration = Duration::days(3650);
/// Clocks of machines may differ.
const SKEW: Duration = Duration::hours(1);

/// There is no randomness, or a name cannot be in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("new keys cannot be made: {0}")]
pub struct FreshError(String);

/// One of each, new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// 256 random bits in hexadecimal digits.
    pub admin: String,
    /// An Ed25519 private key in PEM (PKCS#8).
    pub signing: String,
    /// 32 random bytes in base64.
    pub sealing: String,
    /// Of the admin API.
    pub certificate: Certificate,
}

/// A certificate in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Itself, then the authority's.
    pub chain: String,
    /// Its private key.
    pub key: String,
    /// The authority's, whose own private key is kept by nobody.
    pub authority: String,
}

impl Fresh {
    /// Makes new ones.
    pub fn make(names: &[String]) -> Result<Self, FreshError> {
        let pair = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let der = pair.map_err(|_| FreshError("there is no randomness".to_owned()))?;
        Ok(Self {
            admin: hex::encode(rand::random::<[u8; 32]>()),
            signing: format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                STANDARD.encode(der.as_ref())
            ),
            sealing: format!("{}\n", STANDARD.encode(rand::random::<[u8; 32]>())),
            certificate: certificate(names).map_err(|error| FreshError(error.to_string()))?,
        })
    }
}

fn certificate(names: &[String]) -> Result<Certificate, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "Berth admin API");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (now - SKEW, now + LIFE);
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names.to_vec())?;
    let common = names.first().map(String::as_str).unwrap_or_default();
    // RFC 5280 allows 64 characters; clients look at the alternative names.
    leaf.distinguished_name
        .push(DnType::CommonName, common.chars().take(64).collect::<String>());
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (now - SKEW, now + LIFE);
    let signed = leaf.signed_by(&key, &issuer)?;
    let pem = |text: String| text.replace("\r\n", "\n");
    let authority = pem(authority_certificate.pem());
    Ok(Certificate {
        chain: format!("{}{authority}", pem(signed.pem())),
        key: pem(key.serialize_pem()),
        authority,
    })
}
