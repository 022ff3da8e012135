//! One GET, as any client of the registry would send it: for commands that look at the registry, or at what it depends
//! on, from outside.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::{HOST, HeaderMap};
use http::response::Parts;
use http_body_util::Full;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::client::exchange;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebError {
    /// The URL cannot be asked.
    #[error("{0}")]
    Address(String),
    /// The name stands for nothing.
    #[error("the name has no address: {0}")]
    Name(String),
    /// Nobody listens.
    #[error("{at}: {why}")]
    Connect {
        /// Where.
        at: SocketAddr,
        /// Why.
        why: String,
    },
    /// TLS was not agreed on.
    #[error("TLS: {0}")]
    Tls(String),
    /// No answer came.
    #[error("{0}")]
    Exchange(String),
}

/// What came.
pub(super) struct Answered {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    /// Who answered.
    pub(super) peer: SocketAddr,
    /// The peer's certificates, its own first; none without TLS.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// The authorities of this machine, and those of a PEM file.
pub(super) fn roots(more: Option<&Path>) -> Result<Arc<RootCertStore>, WebError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = more {
        let failed = |why: String| WebError::Address(format!("{}: {why}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(Arc::new(roots))
}

/// Asks a URL; at another address than that of its host if there is one.
pub(super) async fn get(
    url: &Url,
    headers: HeaderMap,
    at: Option<SocketAddr>,
    roots: &Arc<RootCertStore>,
) -> Result<Answered, WebError> {
    let wrong = |why: &str| WebError::Address(format!("{url}: {why}"));
    let host = url.host_str().ok_or_else(|| wrong("no host"))?;
    let port = url.port_or_known_default().ok_or_else(|| wrong("no port"))?;
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::get(target)
        .header(HOST, authority)
        .body(Full::new(Bytes::new()))
        .map_err(|error| wrong(&error.to_string()))?;
    request.headers_mut().extend(headers);

    // 1. Each of its addresses, until one answers.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match at {
        Some(at) => vec![at],
        None => {
            let found = tokio::net::lookup_host((bare, port)).await;
            found
                .map_err(|error| WebError::Name(error.to_string()))?
                .collect()
        }
    };
    let mut failure = WebError::Name("there is none".to_owned());
    for peer in addresses {
        let stream = match TcpStream::connect(peer).await {
            Ok(stream) => stream,
            Err(error) => {
                failure = WebError::Connect {
                    at: peer,
                    why: error.to_string(),
                };
                continue;
            }
        };

        // 2. The exchange.
        let (answer, chain) = match url.scheme() {
            "http" => (exchange(stream, request).await, Vec::new()),
            "https" => {
                let config = ClientConfig::builder()
                    .with_root_certificates(roots.clone())
                    .with_no_client_auth();
                let name =
                    ServerName::try_from(bare.to_owned()).map_err(|error| wrong(&error.to_string()))?;
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                let stream = stream.map_err(|error| WebError::Tls(error.to_string()))?;
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
                (exchange(stream, request).await, chain)
            }
            _ => return Err(wrong("neither http nor https")),
        };
        let (parts, body) = answer.map_err(WebError::Exchange)?;
        return Ok(Answered {
            parts,
            body,
            peer,
            chain,
        });
    }
    Err(failure)
}
