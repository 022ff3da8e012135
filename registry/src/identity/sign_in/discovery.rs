//! Where an issuer's endpoints are (OpenID Connect Discovery 1.0, section 4): fetched once for all who wait, kept, and
//! used on while the issuer is down.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use url::Url;

use super::offer::Found;
use crate::egress::Client;

/// A document older than this is fetched again while it is still used.
const FRESH: Duration = Duration::from_secs(600);
/// One older than this is not used any more.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// After a failure nothing is asked for this long.
const PAUSE: Duration = Duration::from_secs(5);
/// Largest document in bytes.
const DOCUMENT: usize = 256 * 1024;
/// Longest fetch.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Most issuers kept.
const ISSUERS: u64 = 256;
/// Codes that are exchanged with one issuer at the same time.
const EXCHANGES: usize = 16;

/// Issuers by which people sign in.
pub struct Providers {
    pub(super) client: Client,
    known: Cache<(String, Option<String>), Arc<Provider>>,
}

struct Provider {
    state: Mutex<State>,
    exchanges: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    kept: Option<(Endpoints, Instant)>,
    failed: Option<Instant>,
}

/// What is used of an issuer's document.
#[derive(Clone)]
pub(super) struct Endpoints {
    /// Where people go.
    pub authorization: Url,
    /// Where codes are exchanged.
    pub token: Url,
    /// Whether its answers always say that they are its own (RFC 9207).
    pub names_itself: bool,
    /// A place for each exchange.
    pub exchanges: Arc<Semaphore>,
}

impl Providers {
    /// None is known yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Cache::builder().max_capacity(ISSUERS).build(),
        }
    }

    /// The endpoints of an offer's issuer, or why they cannot be had, for the log.
    pub(super) async fn endpoints(&self, offer: &Found<'_>) -> Result<Endpoints, String> {
        let key = (offer.issuer.to_owned(), offer.ca_bundle.map(str::to_owned));
        let provider = self.known.get_with(key, || {
            Arc::new(Provider {
                state: Mutex::default(),
                exchanges: Arc::new(Semaphore::new(EXCHANGES)),
            })
        });
        // Whoever comes while the document is fetched waits here, and finds it fetched.
        let mut state = provider.state.lock().await;
        let now = Instant::now();
        let age = |at: Instant| now.duration_since(at);
        let kept = state.kept.clone().filter(|(_, at)| age(*at) < USABLE);
        let is_fresh = kept.as_ref().is_some_and(|(_, at)| age(*at) < FRESH);
        let is_paused = state.failed.is_some_and(|at| age(at) < PAUSE);
        if is_fresh || is_paused {
            let kept = kept.map(|(endpoints, _)| endpoints);
            return kept.ok_or_else(|| "the issuer failed a moment ago".to_owned());
        }
        match self.fetch(offer, &provider.exchanges).await {
            Ok(endpoints) => {
                state.kept = Some((endpoints.clone(), Instant::now()));
                state.failed = None;
                Ok(endpoints)
            }
            Err(why) => {
                tracing::warn!(
                    issuer = offer.issuer,
                    why,
                    "an issuer's endpoints cannot be found"
                );
                state.failed = Some(Instant::now());
                kept.map(|(endpoints, _)| endpoints).ok_or(why)
            }
        }
    }

    async fn fetch(&self, offer: &Found<'_>, exchanges: &Arc<Semaphore>) -> Result<Endpoints, String> {
        let issuer = offer.issuer.trim_end_matches('/');
        let at = format!("{issuer}/.well-known/openid-configuration");
        let response = self
            .client
            .get(&at, offer.ca_bundle, DOCUMENT, TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        if !response.status.is_success() {
            return Err(format!("{at} answers {}", response.status));
        }
        let document = serde_json::from_slice(&response.body).map_err(|error| format!("{at}: {error}"))?;
        endpoints(offer.issuer, document, exchanges.clone()).map_err(|why| format!("{at} {why}"))
    }
}

#[derive(serde::Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

fn endpoints(issuer: &str, document: Document, exchanges: Arc<Semaphore>) -> Result<Endpoints, String> {
    if document.issuer != issuer {
        return Err(format!(
            "is the document of another issuer, {:?}",
            document.issuer
        ));
    }
    // Those that say nothing may do it all the same; those that say so do not keep codes from whoever sees them.
    let methods = document.code_challenge_methods_supported;
    if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
        return Err("says that the issuer does not do PKCE by S256".to_owned());
    }
    let endpoint = |name: &str, text: Option<String>| {
        let text = text.ok_or_else(|| format!("names no {name}"))?;
        let url = Url::parse(&text).ok().filter(|url| is_endpoint(url, issuer));
        url.ok_or_else(|| format!("names a {name} that is no https URL: {text:?}"))
    };
    Ok(Endpoints {
        authorization: endpoint("authorization_endpoint", document.authorization_endpoint)?,
        token: endpoint("token_endpoint", document.token_endpoint)?,
        names_itself: document.authorization_response_iss_parameter_supported,
        exchanges,
    })
}

/// HTTPS; plain HTTP only beside an issuer that is reached so itself, which `--egress-allow` must list. No fragment
/// (RFC 6749, section 3.1), no password.
fn is_endpoint(url: &Url, issuer: &str) -> bool {
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && issuer.starts_with("http://"));
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    is_safe && is_bare && url.has_host()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://id.test";

    fn read(issuer: &str, change: Value) -> Result<Endpoints, String> {
        let mut document = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize?tenant=a"),
            "token_endpoint": format!("{issuer}/token"), "code_challenge_methods_supported": ["plain", "S256"],
        });
        for (name, value) in change.as_object().unwrap() {
            document[name] = value.clone();
        }
        let document = serde_json::from_value(document).unwrap();
        endpoints(issuer, document, Arc::new(Semaphore::new(1)))
    }

    #[test]
    fn a_document_names_endpoints() {
        let read_one = read(ISSUER, json!({})).unwrap();
        assert_eq!(
            read_one.authorization.as_str(),
            "https://id.test/authorize?tenant=a"
        );
        assert!(!read_one.names_itself);
        assert!(read("http://127.0.0.1:1", json!({})).is_ok());
        assert!(read(ISSUER, json!({ "code_challenge_methods_supported": null })).is_ok());
        let names = json!({ "authorization_response_iss_parameter_supported": true });
        assert!(read(ISSUER, names).unwrap().names_itself);
    }

    #[test]
    fn endpoints_that_are_not_safe_are_refused() {
        for change in [
            json!({ "issuer": "https://id.test/" }),
            json!({ "token_endpoint": "http://id.test/token" }),
            json!({ "authorization_endpoint": "http://id.test/authorize" }),
            json!({ "authorization_endpoint": "javascript:alert(1)" }),
            json!({ "authorization_endpoint": "data:text/html,x" }),
            json!({ "authorization_endpoint": "https://u:p@id.test/" }),
            json!({ "authorization_endpoint": "https://id.test/#x" }),
            json!({ "authorization_endpoint": "/authorize" }),
            json!({ "authorization_endpoint": null }),
            json!({ "token_endpoint": null }),
            json!({ "code_challenge_methods_supported": ["plain"] }),
        ] {
            assert!(read(ISSUER, change.clone()).is_err(), "{change}");
        }
    }
}
