//! Asking the admin API: of the server that runs, or, where none answers, of the stores directly through the same
//! handlers.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use berth_crds::admin::current_key;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::response::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use super::data_folder::DataFolder;
use super::serve;
use crate::settings::Settings;

/// Largest answer in bytes.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// The server says no.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It refuses.
    #[error("{0}")]
    Refused(String),
    /// The key's file.
    #[error("--admin-key-file {}: {error}; name the file with the server's admin key", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It does not answer as it should.
    #[error("the server at {address} does not answer: {why}")]
    Unreachable {
        /// Of its admin listener.
        address: SocketAddr,
        /// Why.
        why: String,
    },
}

/// The admin API.
pub(super) struct Client {
    key: String,
    at: At,
}

enum At {
    Server {
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
    },
    Stores {
        router: Router,
        _held: Option<DataFolder>,
    },
}

impl Client {
    /// Finds the server of these settings, or opens its stores.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        if let Some(server) = Self::of_server(settings).await? {
            return Ok(server);
        }
        let held = if settings.holds_data_folder() {
            Some(DataFolder::hold(&settings.data)?)
        } else {
            None
        };
        let (router, key) = serve::admin_alone(settings).await?;
        Ok(Self {
            key,
            at: At::Stores { router, _held: held },
        })
    }

    /// The server of these settings, if one answers.
    pub(super) async fn of_server(settings: &Settings) -> Result<Option<Self>, Box<dyn Error>> {
        let address = reachable(settings.admin_listen);
        match TcpStream::connect(address).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => {
                let why = error.to_string();
                return Err(AskError::Unreachable { address, why }.into());
            }
        }
        let path = settings.admin_key_file.clone();
        let key = fs::read_to_string(&path).map_err(|error| AskError::Key { path, error })?;
        let tls = settings
            .admin_tls
            .as_ref()
            .map(|files| trusting(&files.certificate))
            .transpose()?;
        Ok(Some(Self {
            key: current_key(&key).to_owned(),
            at: At::Server { address, tls },
        }))
    }

    /// Whether a server answers, and not this process.
    pub(super) fn is_server(&self) -> bool {
        matches!(self.at, At::Server { .. })
    }

    /// One request; the answer's JSON, or its error.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Box<dyn Error>> {
        let answer = self.fetch(method, path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// One request; the answer as it is, or its error.
    pub(super) async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Box<dyn Error>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {}", self.key))
            .header(CONTENT_TYPE, "application/json");
        let (status, body) = match &self.at {
            At::Stores { router, .. } => {
                let answer = router.clone().oneshot(request.body(Body::from(body))?).await?;
                (answer.status(), answer.into_body().collect().await?.to_bytes())
            }
            At::Server { address, tls } => {
                let request = request
                    .header(HOST, address.to_string())
                    .body(Full::new(Bytes::from(body)))?;
                let unreachable = |why: String| AskError::Unreachable {
                    address: *address,
                    why,
                };
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|error| unreachable(error.to_string()))?;
                let answer = match tls {
                    None => exchange(stream, request).await,
                    Some(tls) => {
                        let name = ServerName::IpAddress(address.ip().into());
                        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
                        exchange(stream.map_err(|error| unreachable(error.to_string()))?, request).await
                    }
                };
                let (head, body) = answer.map_err(unreachable)?;
                (head.status, body)
            }
        };
        if status.is_success() {
            return Ok(body);
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Err(AskError::Refused(refusal(status, &value)).into())
    }
}

/// Everything that an error says.
fn refusal(status: StatusCode, value: &Value) -> String {
    let problems = value
        .get("problems")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if problems.len() > 1 {
        let text = |problem: &Value, field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        let lines = problems
            .iter()
            .map(|problem| format!("\n  {}: {}", text(problem, "path"), text(problem, "why")));
        return format!(
            "{} fields are wrong:{}",
            problems.len(),
            lines.collect::<String>()
        );
    }
    match value.get("error").and_then(Value::as_str) {
        Some(error) => error.to_owned(),
        None => format!("the server answers {status}"),
    }
}

/// Where a listener on this address is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Trusts the certificates of the server's own file, and whoever they were signed by if that stands there too.
fn trusting(file: &std::path::Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// One request on a connection of its own, and the whole answer, up to [`ANSWER_LIMIT`]; else why there is none.
pub(super) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await;
    connection.abort();
    Ok((head, body.map_err(|error| error.to_string())?.to_bytes()))
}
