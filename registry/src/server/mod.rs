//! The HTTP server: sockets, TLS, protocols, limits and time limits, request ids, the access log, drain.
//!
//! It serves any [`axum::Router`] on a listener ([`Server::serve`]); what the routes mean is not its
//! business. Each request carries a [`Connection`] as an extension, and a body that fails with a
//! [`BodyError`] when the client stalls. It may use the counters of `ops::metrics` and nothing else of
//! this crate.
//!
//! What must hold: whatever a client does, what it can hold without making progress is bounded in time
//! and in bytes; no request in flight is cut by a drain before its time; a panic costs one request.
//!
//! What hyper answers by itself, with an empty body, before a request reaches us: 431 beyond
//! [`HEAD_LIMIT`] bytes or 100 header lines, 414 beyond 65,534 bytes of URL, 400 for what does not parse
//! or for Content-Lengths that differ; then it closes. A request with both Content-Length and
//! Transfer-Encoding is read as chunked, its Content-Length is dropped, and the connection closes after
//! the answer, so nothing smuggled behind it is ever parsed.

mod accept;
mod access_log;
mod activity;
mod answer;
mod connection;
mod handler;
mod not_after;
mod request_body;
mod request_id;
mod response_body;
mod socket;
mod streams;
pub mod tls;

use std::net::SocketAddr;
use std::time::Duration;

pub use accept::{BindError, Server, bind};
pub use request_body::{BodyError, body_error};

/// Longest URL that a route sees, in bytes.
pub const URL_LIMIT: usize = 16 * 1024;
/// Most bytes of header lines that a route sees.
pub const HEADERS_LIMIT: usize = 64 * 1024;
/// Most bytes of a request's head that are parsed at all, and that are read at once of its body. Above the
/// other two together, so that what exceeds one of them a little is answered in words.
pub const HEAD_LIMIT: usize = 256 * 1024;

/// The connection that brought a request; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's end, or its proxy's. An IPv4 address is never written as IPv6.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Whether TLS ends here.
    pub tls: bool,
}

/// What the clients of one listener may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// For a TLS handshake, and from a request's first byte to the end of its headers.
    pub header_timeout: Duration,
    /// Without a request, or without taking a byte of an answer.
    pub idle_timeout: Duration,
    /// Without a byte of a request's body.
    pub body_timeout: Duration,
    /// Bytes a second of a request's body over a minute of waiting for it; 0: no limit.
    pub min_rate: u64,
}
