//! Requests whose answers are streams, over connections that are kept for the next one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Dialer, EgressError, tls_failure};

/// How long a connection without a request is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Most of them to one host.
const IDLE_PER_HOST: usize = 16;

/// Sends requests to one kind of hosts: those that the same certificates vouch for. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    pool: Pool<Connector, Full<Bytes>>,
}

impl Channel {
    pub(super) fn new(dialer: Dialer, tls: ClientConfig) -> Self {
        let mut tls = tls;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connector = Connector {
            dialer,
            tls: Arc::new(tls),
        };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .timer(TokioTimer::new())
            .build(connector);
        Self { pool }
    }

    /// Sends one request, whose URI is absolute, and returns as soon as the head of its answer is there. Nothing is
    /// followed and nothing is tried again, but a request that a kept connection did not take.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, EgressError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        self.pool
            .request(request)
            .await
            .map_err(|error| failed(host, &error))
    }
}

/// What the connector said, if it was the connector.
fn failed(host: String, error: &PoolError) -> EgressError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<EgressError>() {
            return own.clone();
        }
        source = cause.source();
    }
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    EgressError::Unreachable { host, why }
}

/// Opens connections through the dialer.
#[derive(Clone)]
struct Connector {
    dialer: Dialer,
    tls: Arc<ClientConfig>,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, EgressError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, EgressError> {
        let host = uri
            .host()
            .ok_or_else(|| EgressError::Url(format!("{uri} names no host")))?;
        match uri.scheme_str() {
            Some("https") => {
                let unreachable = |why: String| EgressError::Unreachable {
                    host: host.to_owned(),
                    why,
                };
                let stream = self
                    .dialer
                    .connect("https", host, uri.port_u16().unwrap_or(443))
                    .await?;
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|error| unreachable(error.to_string()))?;
                let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
                let stream = stream.map_err(|error| unreachable(tls_failure(&error)))?;
                Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
            }
            Some("http") if self.dialer.lists(host) => {
                let stream = self
                    .dialer
                    .connect("http", host, uri.port_u16().unwrap_or(80))
                    .await?;
                Ok(Stream::Plain(TokioIo::new(stream)))
            }
            _ => Err(EgressError::Url(format!(
                "{uri}: use https; plain HTTP goes only to hosts that --egress-allow lists"
            ))),
        }
    }
}

/// A connection, encrypted or not.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(_) => Connected::new(),
            Self::Tls(stream) => {
                let (_, session) = stream.inner().get_ref();
                match session.alpn_protocol() {
                    Some(b"h2") => Connected::new().negotiated_h2(),
                    _ => Connected::new(),
                }
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
