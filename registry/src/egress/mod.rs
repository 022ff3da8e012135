//! The one way out: every connection that the registry opens on somebody's word goes through [`Dialer`].
//!
//! Keys of trusted issuers today; upstream registries and webhooks use the same door. What must hold: every
//! address is checked at the moment it is dialled, for each attempt and each redirect, so that no name, redirect
//! or DNS answer leads to an address that the installation has not allowed; whatever is fetched is bounded in
//! bytes and time.

mod address;
mod channel;
mod client;
mod dial;

pub use address::{Allow, AllowEntry};
pub use channel::Channel;
pub use client::{Client, Response};
pub use dial::Dialer;

use rustls::CertificateError;

/// Why nothing could be fetched. The messages name the host and what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EgressError {
    /// The URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// The address is not to be reached.
    #[error(
        "{host} is at {address}, a private address; add it to --egress-allow if the registry is to reach it"
    )]
    Refused {
        /// As named.
        host: String,
        /// What it resolved to.
        address: std::net::IpAddr,
    },
    /// It does not answer.
    #[error("{host} cannot be reached: {why}")]
    Unreachable {
        /// As named.
        host: String,
        /// Why.
        why: String,
    },
    /// It answers with too much.
    #[error("{host} sent more than {limit} bytes")]
    TooLarge {
        /// As named.
        host: String,
        /// The limit.
        limit: usize,
    },
}

/// Why TLS was not agreed on, and what to change where that is known.
fn tls_failure(error: &std::io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "no authority that is trusted here has signed its certificate; add that authority to the CA bundle".into()
        }
        // A server's certificate that may itself sign others, as `openssl req -x509` makes them.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
            if why.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is an authority's; give it one that an authority has signed, or sign its own anew with \
             -addext basicConstraints=critical,CA:FALSE"
                .into()
        }
        _ => error.to_string(),
    }
}
