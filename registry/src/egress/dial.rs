//! Dialling: resolve, check, connect, in this order and to the checked address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::EgressError;
use super::address::Allow;

/// Longest wait for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of a host that are tried.
const TRIES: usize = 4;

/// Opens connections to what is allowed.
#[derive(Debug, Clone)]
pub struct Dialer {
    allow: Arc<Allow>,
}

impl Dialer {
    /// Dials public addresses and those that are listed.
    pub fn new(allow: Allow) -> Self {
        Self {
            allow: Arc::new(allow),
        }
    }

    /// Whether a host is listed by its name or as a literal address.
    pub fn lists(&self, host: &str) -> bool {
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.allow
            .lists(host, literal.unwrap_or(IpAddr::from([0, 0, 0, 0])))
    }

    /// Connects to a host. No address is dialled that was not checked, and none is looked up again in between.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, EgressError> {
        let bare = host.trim_matches(['[', ']']);
        let unreachable = |why: String| EgressError::Unreachable {
            host: host.to_owned(),
            why,
        };
        let resolved = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((bare, port))).await;
        let resolved = resolved.map_err(|_| unreachable("its name was not resolved in time".to_owned()))?;
        let addresses = resolved.map_err(|error| unreachable(error.to_string()))?;
        let mut last = unreachable("it has no address".to_owned());
        for address in addresses.take(TRIES) {
            if !self.allow.permits(bare, address.ip()) {
                last = EgressError::Refused {
                    host: host.to_owned(),
                    address: address.ip(),
                };
                continue;
            }
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small requests are not to wait for each other.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = unreachable(error.to_string()),
                Err(_) => last = unreachable("it did not accept a connection in time".to_owned()),
            }
        }
        Err(last)
    }
}
