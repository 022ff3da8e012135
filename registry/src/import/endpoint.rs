//! One of the two registries, asked with patience: again after failures that pass, not before a limit allows it.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use rand::RngExt as _;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::address::Address;
use super::error::{Again, ImportError, is_passing};
use crate::egress::{Allow, Client, Dialer};
use crate::metadata::Time;
use crate::upstream::{Call, Login, Upstream, UpstreamError, retry_after};

/// The first pause after a failure; each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// What is limited for longer than this, all pauses together, fails.
const LIMITED: Duration = Duration::from_secs(6 * 3600);
/// Pauses that are shorter are over before anybody wonders, and a pause that grows by less is the same: all that wait
/// together are spread over as much.
const TELLING: Duration = LONGEST;
/// A 429 without a time.
const LIMIT_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of a refusal that are read.
const REFUSAL: usize = 16 * 1024;
/// Characters of it that are shown.
const SHOWN: usize = 300;

/// How long somebody waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a registry may be silent.
    pub timeout: Duration,
    /// Failures in a row after which something is given up.
    pub retries: u32,
}

/// A registry and who asks it.
pub struct Endpoint {
    upstream: Upstream,
    address: Address,
    patience: Patience,
    /// Nothing is asked before.
    until: Cell<Option<Instant>>,
    /// The end of the longest pause that was worth telling.
    told: Cell<Option<Instant>>,
    /// Wakes who tells of it.
    pause: Notify,
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Refusals {
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Endpoint {
    /// The registry at an address; `bundle` holds further trusted certificates in PEM.
    ///
    /// Private addresses and plain HTTP are reached: whoever runs the command says where to. A proxy of the environment is
    /// used for everything but this machine.
    pub fn new(
        address: Address,
        login: Option<Login>,
        bundle: Option<&str>,
        patience: Patience,
    ) -> Result<Self, ImportError> {
        let anywhere = ["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse().ok());
        let mut dialer = Dialer::new(Allow(anywhere.collect()));
        if !address.is_loopback() {
            dialer = dialer.with_proxies_of_environment();
        }
        let channel = Client::new(dialer).channel(bundle).map_err(UpstreamError::from)?;
        let upstream = Upstream::new(address.url().as_str(), login, channel, patience.timeout)?;
        Ok(Self {
            upstream,
            address,
            patience,
            until: Cell::new(None),
            told: Cell::new(None),
            pause: Notify::new(),
        })
    }

    /// Its tokens may come from this host of somebody else's, with its port if that is not the scheme's, which is told the
    /// login.
    pub fn with_realm_host(mut self, host: String) -> Self {
        self.upstream = self.upstream.with_realm_host(host);
        self
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn timeout(&self) -> Duration {
        self.patience.timeout
    }

    /// Whether it is there.
    pub(super) async fn greet(&self) -> Result<(), ImportError> {
        self.patiently(async || match self.upstream.ping().await {
            // An address where nobody is would be asked again and again in vain.
            Err(UpstreamError::Egress(error)) => Err(UpstreamError::Strange {
                host: self.address.host(),
                why: error.to_string(),
            }
            .into()),
            other => Ok(other?),
        })
        .await
    }

    /// The head of an answer, whatever it says, but for failures that did not pass.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response<Incoming>, ImportError> {
        self.patiently(async || self.once(call).await).await
    }

    /// A whole answer of at most `limit` bytes.
    pub(super) async fn fetch(&self, call: &Call<'_>, limit: usize) -> Result<Answer, ImportError> {
        self.patiently(async || {
            let (parts, body) = self.once(call).await?.into_parts();
            let body = tokio::time::timeout(self.patience.timeout, Limited::new(body, limit).collect());
            let body = body.await.map_err(|_| UpstreamError::Late {
                host: self.address.host(),
                timeout: self.patience.timeout,
            })?;
            let body = body.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    self.wrong(call.path, format!("it has more than {limit} bytes"))
                } else {
                    self.broken(error.to_string())
                }
            })?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        })
        .await
    }

    /// Asks once; failures that pass are errors.
    pub(super) async fn once(&self, call: &Call<'_>) -> Result<Response<Incoming>, ImportError> {
        let answer = self.upstream.call(call).await?;
        let (host, status) = (self.address.host(), answer.status());
        let after = retry_after(answer.headers(), SystemTime::now());
        if status == StatusCode::TOO_MANY_REQUESTS {
            // A time that is over, or none, is no leave to ask again and again.
            let after = after.unwrap_or(LIMIT_PAUSE).max(FIRST);
            return Err(UpstreamError::Limited { host, after }.into());
        }
        if is_passing(status) {
            let path = call.path.to_owned();
            return Err(UpstreamError::Failing {
                host,
                path,
                status,
                after,
            }
            .into());
        }
        Ok(answer)
    }

    /// Tries until it succeeds, fails for good, or has failed too often.
    pub(super) async fn patiently<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        let mut trouble = Trouble::default();
        loop {
            self.may_ask().await;
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => self.bear(&mut trouble, error).await?,
            }
        }
    }

    /// Waits after a failure, or gives it back if waiting has no sense any more.
    pub(super) async fn bear(&self, trouble: &mut Trouble, error: ImportError) -> Result<(), ImportError> {
        match error.again() {
            Again::Never => Err(error),
            Again::Limited(after) => {
                trouble.limited += after;
                if trouble.limited > LIMITED {
                    return Err(error);
                }
                tracing::debug!(host = self.address.host(), ?after, "limited");
                // Not all at the same moment again.
                let spread = rand::rng().random_range(0.0..0.2);
                let end = Instant::now() + after + after.mul_f64(spread).min(LONGEST);
                self.until.set(self.until.get().max(Some(end)));
                self.tell(end);
                Ok(())
            }
            Again::Later(after) => {
                trouble.failures += 1;
                if trouble.failures > self.patience.retries {
                    return Err(error);
                }
                tracing::debug!(%error, failures = trouble.failures, "tried again");
                let doubled = FIRST
                    .saturating_mul(1 << (trouble.failures - 1).min(10))
                    .min(LONGEST);
                let pause = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
                let end = Instant::now() + pause.max(after.unwrap_or_default().min(LIMITED));
                self.tell(end);
                tokio::time::sleep_until(end).await;
                Ok(())
            }
        }
    }

    /// Has it told that nothing comes before `end`, if that is not soon, nor known already but for what spreads waits.
    fn tell(&self, end: Instant) {
        let known = self.told.get().max(Some(Instant::now()));
        if known.is_some_and(|known| end > known + TELLING) {
            self.told.set(Some(end));
            self.pause.notify_one();
        }
    }

    /// Returns when a pause of some length begins; until when it lasts.
    pub(super) async fn paused(&self) -> Time {
        loop {
            self.pause.notified().await;
            let now = Instant::now();
            if let Some(end) = self.told.get().filter(|end| *end > now) {
                return Time::now().plus(end - now);
            }
        }
    }

    /// Waits until the registry's limit lets it be asked.
    pub(super) async fn may_ask(&self) {
        while let Some(until) = self.until.get().filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// What an answer says that is no success.
    pub(super) async fn refusal(&self, what: &str, answer: Response<Incoming>) -> ImportError {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL).collect();
        let body = tokio::time::timeout(self.patience.timeout, body).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
        self.refused(what, status, &body.unwrap_or_default())
    }

    /// The same of one that was read.
    pub(super) fn refused(&self, what: &str, status: StatusCode, body: &[u8]) -> ImportError {
        let host = self.address.host();
        let what = what.to_owned();
        if status == StatusCode::NOT_FOUND {
            return ImportError::Absent { host, what };
        }
        let told: Option<Refusals> = serde_json::from_slice(body).ok();
        let why = told.and_then(|told| told.errors.into_iter().next()).map(|first| {
            let text = if first.message.is_empty() {
                first.code
            } else {
                first.message
            };
            // It goes to a terminal.
            text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
        });
        let why = why.unwrap_or_default();
        ImportError::Refused {
            host,
            what,
            status,
            why,
        }
    }

    /// Path and query of a location that the registry gave. Its host is left aside: what is sent goes to the registry.
    pub(super) fn path_of(&self, location: &str) -> Result<String, ImportError> {
        let url = self.address.url().join(location);
        let url = url.map_err(|error| self.wrong("Location", error.to_string()))?;
        Ok(match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        })
    }

    pub(super) fn wrong(&self, what: &str, why: String) -> ImportError {
        ImportError::Wrong {
            host: self.address.host(),
            what: what.to_owned(),
            why,
        }
    }

    /// It has not done yet what it was asked to do.
    pub(super) fn late(&self) -> ImportError {
        let (host, timeout) = (self.address.host(), self.patience.timeout);
        UpstreamError::Late { host, timeout }.into()
    }

    pub(super) fn broken(&self, why: String) -> ImportError {
        let host = self.address.host();
        UpstreamError::Broken { host, why }.into()
    }
}

/// How often something has failed.
#[derive(Default)]
pub(super) struct Trouble {
    failures: u32,
    limited: Duration,
}

/// A question without a body.
pub(super) fn question<'a>(method: Method, path: &'a str, scope: &'a str) -> Call<'a> {
    Call {
        method,
        path,
        scope,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(seconds: u64) -> ImportError {
        let after = Duration::from_secs(seconds);
        let host = "registry.example".to_owned();
        UpstreamError::Limited { host, after }.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_told_once_and_again_when_it_grows() {
        let patience = Patience {
            timeout: Duration::from_secs(1),
            retries: 1,
        };
        let address = "http://127.0.0.1:1".parse().unwrap();
        let endpoint = Endpoint::new(address, None, None, patience).unwrap();
        let told = async || {
            let paused = tokio::time::timeout(Duration::from_millis(1), endpoint.paused());
            let until = paused.await.ok()?;
            Some((until.0 - Time::now().0) / 1_000_000)
        };
        // What others meet at the same moment is the same pause.
        for seconds in [3600, 3600, 3590] {
            let mut trouble = Trouble::default();
            endpoint.bear(&mut trouble, limited(seconds)).await.unwrap();
        }
        let told_first = told().await.unwrap();
        assert!((3599..=3630).contains(&told_first), "{told_first}");
        assert_eq!(told().await, None);
        endpoint
            .bear(&mut Trouble::default(), limited(7200))
            .await
            .unwrap();
        let told_again = told().await.unwrap();
        assert!((7199..=7230).contains(&told_again), "{told_again}");
        // A short one is not told.
        endpoint.may_ask().await;
        endpoint.bear(&mut Trouble::default(), limited(5)).await.unwrap();
        assert_eq!(told().await, None);
    }
}
