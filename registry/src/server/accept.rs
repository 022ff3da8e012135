//! Listening sockets, and the loop that takes connections from them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::{Handler, Shared};
use super::request_id::RequestIds;
use super::socket::Socket;
use super::streams::Streams;
use super::{Connection, Limits, connection};
use crate::ops::metrics::Metrics;

/// Connections that the kernel may hold for us; a thousand nodes may come at once.
const BACKLOG: u32 = 4096;
/// The pause after an error that will last, such as having no file descriptor left.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("--{setting} {address}: {error}; {advice}")]
pub struct BindError {
    setting: &'static str,
    address: SocketAddr,
    error: io::Error,
    advice: &'static str,
}

/// Opens the listening socket that a setting names. Port 0 takes any free port.
pub fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there or choose another port",
            io::ErrorKind::PermissionDenied => "choose a port above 1023 or allow this user the lower ones",
            io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
            _ => "choose another address",
        };
        BindError {
            setting,
            address,
            error,
            advice,
        }
    })
}

/// Serves one listener.
pub struct Server {
    limits: Limits,
    metrics: Option<Arc<Metrics>>,
    drain: CancellationToken,
}

impl Server {
    /// A server whose clients are bounded by `limits`; it stops when `drain` is cancelled. With `metrics`
    /// its connections and requests are counted and logged; without, they are neither (probes come every
    /// few seconds and say nothing).
    pub fn new(limits: Limits, metrics: Option<Arc<Metrics>>, drain: CancellationToken) -> Self {
        Self {
            limits,
            metrics,
            drain,
        }
    }

    /// Accepts connections until the drain, then waits for the requests in flight, however long they
    /// take: whoever calls sets the limit.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router) {
        let shared = Arc::new(Shared {
            router,
            ids: RequestIds::new(),
            limits: self.limits,
            metrics: self.metrics.clone(),
        });
        let builder = Arc::new(connection::builder(self.limits));
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let connections = TaskTracker::new();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let accepted = async {
                // The semaphore is never closed, so there is always a permit to wait for.
                let slot = slots.clone().acquire_owned().await.ok();
                (listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                biased;
                () = self.drain.cancelled() => break,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted at the moment");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = SHORTEST_PAUSE;
            let one = One {
                shared: shared.clone(),
                builder: builder.clone(),
                tls: tls.clone(),
                drain: self.drain.clone(),
            };
            connections.spawn(async move {
                one.serve(stream, peer).await;
                drop(slot);
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

/// What one connection's task holds.
struct One {
    shared: Arc<Shared>,
    builder: Arc<Builder<Streams>>,
    tls: Option<Arc<ServerConfig>>,
    drain: CancellationToken,
}

impl One {
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let _counted = self.shared.metrics.as_ref().map(|metrics| metrics.connection());
        // Answers are written whole; waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { return };
        let connection = Connection {
            peer: canonical(peer),
            local: canonical(local),
            tls: self.tls.is_some(),
        };
        let handler = Handler {
            shared: self.shared.clone(),
            connection,
            activity: Arc::default(),
        };
        let socket = Socket::new(stream, handler.activity.clone());
        let limits = self.shared.limits;
        let Some(tls) = self.tls else {
            return connection::serve(&self.builder, socket, handler, limits, &self.drain).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(socket);
        match tokio::time::timeout(limits.header_timeout, handshake).await {
            Ok(Ok(stream)) => connection::serve(&self.builder, stream, handler, limits, &self.drain).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }
}

/// The address as one of IPv4 if it is one, also on a socket for both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether the error is about a connection that is gone, as against about accepting at all.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
