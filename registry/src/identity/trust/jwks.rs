//! The keys of an issuer: fetched once for all who wait, kept, followed through rotation, and used on while the
//! issuer is down.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use moka::sync::Cache;
use rand::RngExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::egress::Client;

/// Keys older than this are fetched again while they are still used.
const FRESH: Duration = Duration::from_secs(600);
/// Keys older than this are not used any more.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// A key that is not known has the set fetched again, but not more often than this.
const UNKNOWN_KEY: Duration = Duration::from_secs(30);
/// Pauses after failures grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Largest document in bytes.
const DOCUMENT: usize = 1024 * 1024;
/// Most keys of a set.
const KEYS: usize = 200;
/// Most issuers kept.
const ISSUERS: u64 = 256;
/// Longest fetch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sets of keys by issuer.
pub(super) struct KeySets {
    client: Client,
    issuers: Cache<(String, Option<String>), Arc<Issuer>>,
}

#[derive(Default)]
struct Issuer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<JwkSet>, Instant)>,
    failures: u32,
    not_before: Option<Instant>,
    asked: Option<Instant>,
}

/// Why there are no keys, for the log.
pub(super) type Failure = String;

impl KeySets {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            issuers: Cache::builder().max_capacity(ISSUERS).build(),
        }
    }

    /// The keys of an issuer, which must hold `kid` if it can be had.
    pub(super) async fn of(
        &self,
        issuer: &str,
        bundle: Option<&str>,
        kid: Option<&str>,
    ) -> Result<Arc<JwkSet>, Failure> {
        let key = (issuer.to_owned(), bundle.map(str::to_owned));
        let known = self.issuers.get_with(key, Arc::default);
        // Whoever comes while the set is fetched waits here, and finds it fetched.
        let mut state = known.state.lock().await;
        let now = Instant::now();
        let kept = state
            .keys
            .clone()
            .filter(|(_, at)| now.duration_since(*at) < USABLE);
        let has = |keys: &JwkSet| kid.is_none_or(|kid| keys.find(kid).is_some());
        let stale = match &kept {
            None => true,
            Some((_, at)) if now.duration_since(*at) >= FRESH => true,
            Some((keys, _)) => {
                let lately = state
                    .asked
                    .is_some_and(|asked| now.duration_since(asked) < UNKNOWN_KEY);
                !has(keys) && !lately
            }
        };
        let paused = state.not_before.is_some_and(|end| now < end);
        if !stale || paused {
            return kept
                .map(|(keys, _)| keys)
                .ok_or_else(|| "the issuer failed a moment ago".to_owned());
        }
        state.asked = Some(now);
        match self.fetch(issuer, bundle).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                (state.failures, state.not_before) = (0, None);
                state.keys = Some((keys.clone(), Instant::now()));
                Ok(keys)
            }
            Err(why) => {
                tracing::warn!(issuer, why, "the keys of a trusted issuer cannot be fetched");
                let (first, last) = PAUSES;
                let pause = (first * 2_u32.saturating_pow(state.failures.min(10))).min(last);
                let jitter = rand::rng().random_range(0.5..1.0);
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(Instant::now() + pause.mul_f64(jitter));
                kept.map(|(keys, _)| keys).ok_or(why)
            }
        }
    }

    async fn fetch(&self, issuer: &str, bundle: Option<&str>) -> Result<JwkSet, Failure> {
        #[derive(serde::Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        // OpenID Connect Discovery 1.0, section 4.
        let at = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let discovery: Discovery = self.document(&at, bundle).await?;
        if discovery.issuer != issuer {
            return Err(format!(
                "{at} is the document of another issuer, {:?}",
                discovery.issuer
            ));
        }
        if issuer.starts_with("https://") && !discovery.jwks_uri.starts_with("https://") {
            return Err(format!("{at} names keys that are not fetched by https"));
        }
        parse(&self.bytes(&discovery.jwks_uri, bundle).await?)
    }

    async fn document<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        bundle: Option<&str>,
    ) -> Result<T, Failure> {
        serde_json::from_slice(&self.bytes(url, bundle).await?).map_err(|error| format!("{url}: {error}"))
    }

    async fn bytes(&self, url: &str, bundle: Option<&str>) -> Result<bytes::Bytes, Failure> {
        let response = self.client.get(url, bundle, DOCUMENT, TIMEOUT).await;
        let response = response.map_err(|error| error.to_string())?;
        if !response.status.is_success() {
            return Err(format!("{url} answers {}", response.status));
        }
        Ok(response.body)
    }
}

/// Reads a set of keys.
pub(crate) fn parse(document: &[u8]) -> Result<JwkSet, Failure> {
    let keys: JwkSet =
        serde_json::from_slice(document).map_err(|error| format!("no set of keys: {error}"))?;
    if keys.keys.len() > KEYS {
        return Err(format!("the set holds more than {KEYS} keys"));
    }
    Ok(keys)
}
