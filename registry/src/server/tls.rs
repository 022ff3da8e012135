//! The TLS side of a listener, with a certificate that follows its files.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::not_after::not_after;
use crate::settings::TlsFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("--{setting} {path} cannot be read ({error}); name a readable PEM file")]
    Unreadable {
        /// The setting's name.
        setting: String,
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file holds no certificate or no key in PEM.
    #[error("--{setting} {path}: {reason}")]
    NotPem {
        /// The setting's name.
        setting: String,
        /// The file.
        path: String,
        /// What is missing.
        reason: String,
    },
    /// The pair does not work.
    #[error(
        "--{certificate} and --{key} cannot be used together ({error}); give a certificate and its own key"
    )]
    Unusable {
        /// The certificate's setting.
        certificate: String,
        /// The key's setting.
        key: String,
        /// What rustls said.
        error: rustls::Error,
    },
}

/// A certificate and key that are read again when their files change.
///
/// A pair that cannot be used (half written, or the two files replaced one after the other) leaves the
/// one before in place.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    /// What the settings are called: `""` or `"admin-"`.
    prefix: &'static str,
    current: ArcSwap<CertifiedKey>,
    /// The texts last read, used or not, so that each new pair is tried and complained about once.
    read: Mutex<(Vec<u8>, Vec<u8>)>,
    asked: Notify,
}

impl Certificate {
    /// Reads the pair for the first time. `prefix` goes before `tls-cert` and `tls-key` in errors.
    pub fn load(files: TlsFiles, prefix: &'static str) -> Result<Arc<Self>, TlsError> {
        let texts = read(&files, prefix)?;
        let pair = parse(&files, prefix, &texts)?;
        let current = ArcSwap::from_pointee(pair);
        Ok(Arc::new(Self {
            files,
            prefix,
            current,
            read: Mutex::new(texts),
            asked: Notify::new(),
        }))
    }

    /// Makes [`Certificate::follow`] look at once.
    pub fn look_now(&self) {
        self.asked.notify_one();
    }

    /// Follows the files for ever.
    pub async fn follow(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, self.asked.notified()).await;
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.reload()).await;
            let certificate = self.files.certificate.display();
            match looked {
                Ok(Ok(true)) => tracing::info!(%certificate, "a new TLS certificate is in use"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::error!(%certificate, %error, "the new TLS certificate cannot be used; the one before stays");
                }
                Err(error) => tracing::error!(%error, "looking at the TLS certificate failed"),
            }
        }
    }

    /// Uses the files if they changed since they were last read; whether they did.
    fn reload(&self) -> Result<bool, TlsError> {
        let texts = read(&self.files, self.prefix);
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = match texts {
            Ok(texts) => texts,
            // A file that is away for a moment is not worth a line every two seconds.
            Err(_) if last.0.is_empty() => return Ok(false),
            Err(error) => {
                *last = Default::default();
                return Err(error);
            }
        };
        if *last == texts {
            return Ok(false);
        }
        let pair = parse(&self.files, self.prefix, &texts);
        *last = texts;
        self.current.store(Arc::new(pair?));
        Ok(true)
    }

    /// The server's side of TLS: 1.2 and 1.3, h2 and http/1.1.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Shows until when the certificates in use are valid, by the name of their listener.
#[derive(Debug)]
pub struct Expiries(Vec<(&'static str, Arc<Certificate>)>);

impl Expiries {
    /// Of the listeners that have one.
    pub fn of(listeners: impl IntoIterator<Item = (&'static str, Option<Arc<Certificate>>)>) -> Self {
        let with_one = |(name, certificate)| Option::map(certificate, |certificate| (name, certificate));
        Self(listeners.into_iter().filter_map(with_one).collect())
    }
}

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "berth_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that a listener shows ends, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        for (listener, certificate) in &self.0 {
            let shown = certificate.current.load();
            let Some(end) = shown.cert.first().and_then(|leaf| not_after(leaf)) else {
                continue;
            };
            ConstGauge::new(end).encode(family.encode_family(&[("listener", *listener)])?)?;
        }
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &TlsFiles, prefix: &str) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let one = |path: &Path, name: &str| {
        let unreadable = |error| TlsError::Unreadable {
            setting: format!("{prefix}{name}"),
            path: path.display().to_string(),
            error,
        };
        fs::read(path).map_err(unreadable)
    };
    Ok((one(&files.certificate, "tls-cert")?, one(&files.key, "tls-key")?))
}

fn parse(
    files: &TlsFiles,
    prefix: &str,
    (chain, key): &(Vec<u8>, Vec<u8>),
) -> Result<CertifiedKey, TlsError> {
    let not_pem = |path: &Path, name: &str, reason: String| TlsError::NotPem {
        setting: format!("{prefix}{name}"),
        path: path.display().to_string(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(&files.certificate, "tls-cert", format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(not_pem(
            &files.certificate,
            "tls-cert",
            "holds no certificate in PEM".to_owned(),
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        not_pem(
            &files.key,
            "tls-key",
            format!("holds no private key in PEM: {error}"),
        )
    })?;
    let provider: CryptoProvider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| TlsError::Unusable {
        certificate: format!("{prefix}tls-cert"),
        key: format!("{prefix}tls-key"),
        error,
    })
}
