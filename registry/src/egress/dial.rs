//! Dialling: resolve, check, connect, in this order and to the checked address; or through a proxy, if the process has one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service as _, service_fn};

use super::EgressError;
use super::address::Allow;

/// Longest wait for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a proxy to have connected.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(15);
/// Most addresses of a host that are tried.
const TRIES: usize = 4;

/// Opens connections to what is allowed.
#[derive(Clone)]
pub struct Dialer {
    allow: Arc<Allow>,
    proxies: Option<Arc<Matcher>>,
}

impl Dialer {
    /// Dials public addresses and those that are listed.
    pub fn new(allow: Allow) -> Self {
        Self {
            allow: Arc::new(allow),
            proxies: None,
        }
    }

    /// The same by the proxies of the process's environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`). The
    /// proxy resolves names then, and is what keeps them from leading inside; addresses are checked here all the same.
    pub fn with_proxies_of_environment(self) -> Self {
        self.through(Matcher::from_env())
    }

    fn through(mut self, proxies: Matcher) -> Self {
        self.proxies = Some(Arc::new(proxies));
        self
    }

    /// Whether a host is listed by its name or as a literal address.
    pub fn lists(&self, host: &str) -> bool {
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.allow
            .lists(host, literal.unwrap_or(IpAddr::from([0, 0, 0, 0])))
    }

    /// Connects to a host, for a URL of this scheme. No address is dialled that was not checked, and none is looked up
    /// again in between.
    pub async fn connect(&self, scheme: &str, host: &str, port: u16) -> Result<TcpStream, EgressError> {
        let bare = host.trim_matches(['[', ']']);
        let target = format!("{scheme}://{host}:{port}").parse::<Uri>();
        let proxy = target
            .as_ref()
            .ok()
            .and_then(|target| self.proxies.as_ref()?.intercept(target));
        match (proxy, target) {
            (Some(proxy), Ok(target)) => {
                if let Ok(address) = bare.parse::<IpAddr>()
                    && !self.allow.permits(bare, address)
                {
                    let host = host.to_owned();
                    return Err(EgressError::Refused { host, address });
                }
                tunnel(&proxy, target, host).await
            }
            _ => reach(host, port, |address| self.allow.permits(bare, address)).await,
        }
    }
}

/// Connects to the first address of a host that is permitted and answers.
async fn reach(host: &str, port: u16, permits: impl Fn(IpAddr) -> bool) -> Result<TcpStream, EgressError> {
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
        if !permits(address.ip()) {
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

/// A connection that a proxy has opened (`CONNECT`, RFC 9110, section 9.3.6). The proxy is the installation's own word:
/// its address is not filtered.
async fn tunnel(proxy: &Intercept, target: Uri, host: &str) -> Result<TcpStream, EgressError> {
    let at = proxy.uri();
    let unreachable = |why: String| EgressError::Unreachable {
        host: host.to_owned(),
        why: format!(
            "by the proxy {}: {why}",
            at.authority().map_or("", |at| at.as_str())
        ),
    };
    if at.scheme_str() != Some("http") {
        return Err(unreachable("only proxies at http:// are supported".to_owned()));
    }
    let dial = service_fn(|proxy: Uri| async move {
        let host = proxy.host().unwrap_or_default().to_owned();
        let stream = reach(&host, proxy.port_u16().unwrap_or(80), |_| true).await;
        stream.map(TokioIo::new)
    });
    let mut tunnel = Tunnel::new(at.clone(), dial);
    if let Some(auth) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    let opened = tokio::time::timeout(TUNNEL_TIMEOUT, tunnel.call(target)).await;
    let opened = opened.map_err(|_| unreachable("it did not connect in time".to_owned()))?;
    opened
        .map(TokioIo::into_inner)
        .map_err(|error| unreachable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that notes whom it was asked to connect to, and speaks for them itself.
    async fn proxy(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Whatever comes through is sent back.
            if let Ok(byte) = stream.read_u8().await {
                stream.write_u8(byte).await.unwrap();
            }
            String::from_utf8(head).unwrap()
        });
        (at, asked)
    }

    fn dialer(at: &str) -> Dialer {
        let proxies = Matcher::builder().all(at.to_owned()).no("inside.example").build();
        Dialer::new(Allow(Vec::new())).through(proxies)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_to_connect_and_is_shown_its_own_credentials() {
        let (at, asked) = proxy("HTTP/1.1 200 OK\r\n\r\n").await;
        let mut stream = dialer(&at)
            .connect("https", "registry.example", 443)
            .await
            .unwrap();
        stream.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
        let head = asked.await.unwrap();
        assert!(
            head.starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.to_ascii_lowercase().contains("proxy-authorization: basic "),
            "{head}"
        );
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told_without_its_credentials() {
        let (at, _asked) = proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await;
        let refused = dialer(&at)
            .connect("https", "registry.example", 443)
            .await
            .unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("registry.example") && !text.contains("secret"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_private_address_is_refused_before_a_proxy_is_asked() {
        let refused = dialer("http://127.0.0.1:1")
            .connect("https", "169.254.169.254", 443)
            .await;
        assert!(matches!(refused, Err(EgressError::Refused { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn hosts_that_no_proxy_names_are_dialled_directly() {
        let direct = dialer("http://127.0.0.1:1")
            .connect("https", "inside.example", 443)
            .await;
        let text = direct.unwrap_err().to_string();
        assert!(!text.contains("proxy"), "{text}");
    }
}
