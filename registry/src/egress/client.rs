//! Fetching small documents over the dialer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{Channel, Dialer, EgressError, tls_failure};

/// Most redirects followed.
const REDIRECTS: usize = 3;

/// An answer, whole.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Fetches documents; cheap to clone. Its errors name scheme and host of a URL, never its path, query or password.
#[derive(Clone)]
pub struct Client {
    dialer: Dialer,
    public: Arc<RootCertStore>,
}

impl Client {
    /// Trusts the system's certificates.
    pub fn new(dialer: Dialer) -> Self {
        let mut public = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        public.add_parsable_certificates(found.certs);
        Self {
            dialer,
            public: Arc::new(public),
        }
    }

    /// Fetches a document of at most `limit` bytes within `timeout`, redirects included. `bundle` holds further
    /// trusted certificates in PEM. Plain HTTP only to hosts that `--egress-allow` lists.
    pub async fn get(
        &self,
        url: &str,
        bundle: Option<&str>,
        limit: usize,
        timeout: Duration,
    ) -> Result<Response, EgressError> {
        let mut url = parsed(url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let fetch = async {
            for _ in 0..=REDIRECTS {
                let response = self.ask_once(&url, bundle, Asked::Document, limit).await?;
                let location = response.headers.get(LOCATION).and_then(|to| to.to_str().ok());
                let Some(location) = location.filter(|_| response.status.is_redirection()) else {
                    return Ok(response);
                };
                let next = url.join(location).map_err(|error| {
                    EgressError::Url(format!("{} redirects to no URL: {error}", shown(&url)))
                })?;
                if url.scheme() == "https" && next.scheme() != "https" {
                    return Err(EgressError::Url(format!(
                        "{} redirects to plain HTTP; that is not followed",
                        shown(&url)
                    )));
                }
                url = next;
            }
            Err(EgressError::Url(format!(
                "{} redirects again and again",
                shown(&url)
            )))
        };
        within(timeout, &host, fetch).await
    }

    /// Sends a form, and returns an answer of at most `limit` bytes within `timeout`. No redirect is followed: what a form
    /// carries is for this URL alone.
    pub async fn post(
        &self,
        url: &str,
        bundle: Option<&str>,
        form: String,
        limit: usize,
        timeout: Duration,
    ) -> Result<Response, EgressError> {
        let url = parsed(url)?;
        let host = url.host_str().unwrap_or_default();
        within(
            timeout,
            host,
            self.ask_once(&url, bundle, Asked::Form(form.into()), limit),
        )
        .await
    }

    /// Sends a body with these headers by POST, and returns the answer's status and at most `limit` bytes of its body,
    /// within `timeout`; what follows is not read. No redirect is followed.
    pub async fn send(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        limit: usize,
        timeout: Duration,
    ) -> Result<Response, EgressError> {
        let url = parsed(url)?;
        let host = url.host_str().unwrap_or_default();
        let asked = Asked::Body { headers, body };
        within(timeout, host, self.ask_once(&url, None, asked, limit)).await
    }

    /// A way to hosts that the system's certificates vouch for, or those of `bundle`.
    pub fn channel(&self, bundle: Option<&str>) -> Result<Channel, EgressError> {
        let tls = self.tls(bundle).map_err(EgressError::Url)?;
        Ok(Channel::new(self.dialer.clone(), tls))
    }

    async fn ask_once(
        &self,
        url: &Url,
        bundle: Option<&str>,
        asked: Asked,
        limit: usize,
    ) -> Result<Response, EgressError> {
        let refused = |why: &str| EgressError::Url(format!("{}: {why}", shown(url)));
        let host = url.host_str().ok_or_else(|| refused("names no host"))?;
        let port = url
            .port_or_known_default()
            .ok_or_else(|| refused("names no port"))?;
        match url.scheme() {
            "https" => {
                let stream = self.dialer.connect("https", host, port).await?;
                let unreachable = |why: String| EgressError::Unreachable {
                    host: host.to_owned(),
                    why,
                };
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|error| unreachable(error.to_string()))?;
                let connector = TlsConnector::from(Arc::new(self.tls(bundle).map_err(&unreachable)?));
                let stream = connector.connect(name, stream).await;
                exchange(
                    stream.map_err(|error| unreachable(tls_failure(&error)))?,
                    url,
                    asked,
                    limit,
                )
                .await
            }
            "http" if self.dialer.lists(host) => {
                exchange(self.dialer.connect("http", host, port).await?, url, asked, limit).await
            }
            _ => Err(refused(
                "use https; plain HTTP goes only to hosts that --egress-allow lists",
            )),
        }
    }

    fn tls(&self, bundle: Option<&str>) -> Result<ClientConfig, String> {
        let mut roots = self.public.clone();
        if let Some(bundle) = bundle {
            let store = Arc::make_mut(&mut roots);
            for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("the CA bundle: {error}"))?;
                store
                    .add(certificate)
                    .map_err(|error| format!("the CA bundle: {error}"))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// What is sent.
enum Asked {
    /// Nothing: a document is asked for.
    Document,
    /// A form.
    Form(Bytes),
    /// Whatever its headers say. Of the answer's body the beginning counts.
    Body {
        /// Its type among them.
        headers: HeaderMap,
        /// The bytes.
        body: Bytes,
    },
}

fn parsed(url: &str) -> Result<Url, EgressError> {
    Url::parse(url).map_err(|error| EgressError::Url(format!("a URL that cannot be read: {error}")))
}

/// A URL as errors name it: who may see them may not see its path and query, which may be what lets somebody in.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

async fn within(
    timeout: Duration,
    host: &str,
    answer: impl Future<Output = Result<Response, EgressError>>,
) -> Result<Response, EgressError> {
    let late = |_| EgressError::Unreachable {
        host: host.to_owned(),
        why: format!("no answer within {timeout:?}"),
    };
    tokio::time::timeout(timeout, answer).await.map_err(late)?
}

/// One request on a connection of its own.
async fn exchange<S>(stream: S, url: &Url, asked: Asked, limit: usize) -> Result<Response, EgressError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |error: &dyn std::error::Error| EgressError::Unreachable {
        host: host.clone(),
        why: error.to_string(),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let authority = url
        .port()
        .map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::builder()
        .uri(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("berth/", env!("CARGO_PKG_VERSION")));
    let cuts = matches!(asked, Asked::Body { .. });
    let (request, body) = match asked {
        Asked::Body { headers, body } => {
            if let Some(all) = request.headers_mut() {
                all.extend(headers);
            }
            (request.method(Method::POST), body)
        }
        Asked::Document => (request.method(Method::GET), Bytes::new()),
        Asked::Form(form) => {
            let kind = "application/x-www-form-urlencoded";
            (request.method(Method::POST).header(CONTENT_TYPE, kind), form)
        }
    };
    let request = request
        .body(Full::new(body))
        .map_err(|error| EgressError::Url(error.to_string()))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        if cuts {
            return Ok(Response {
                status: parts.status,
                headers: parts.headers,
                body: beginning(body, limit).await,
            });
        }
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                EgressError::TooLarge {
                    host: host.clone(),
                    limit,
                }
            } else {
                failed(&*error)
            }
        })?;
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
    .await;
    connection.abort();
    answer
}

/// The first bytes of a body, as far as they come.
async fn beginning(mut body: hyper::body::Incoming, limit: usize) -> Bytes {
    let mut read = Vec::new();
    while read.len() < limit
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(bytes) = frame.into_data() {
            read.extend_from_slice(&bytes[..bytes.len().min(limit - read.len())]);
        }
    }
    read.into()
}

#[cfg(test)]
mod tests;
