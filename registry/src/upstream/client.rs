//! One request to another registry: tokens, redirects, and what its answer means.

mod call;
mod login;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use url::Url;

use super::challenge::Challenge;
use super::error::UpstreamError;
use super::tokens::Tokens;
use crate::egress::Channel;
use crate::telemetry::span;
pub use call::Call;
pub use login::Login;

/// Longest pause that an upstream can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// What an upstream says about its limit on pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Pulls in its window.
    pub limit: u64,
    /// Pulls left in it.
    pub remaining: u64,
}

impl Allowance {
    /// From `ratelimit-limit: 100;w=21600` and `ratelimit-remaining`, as Docker Hub sends them.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let number = |name: &'static str| {
            let text = headers.get(HeaderName::from_static(name))?.to_str().ok()?;
            text.split(';').next()?.trim().parse().ok()
        };
        Some(Self {
            limit: number("ratelimit-limit")?,
            remaining: number("ratelimit-remaining")?,
        })
    }
}

/// A question to an upstream.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// GET or HEAD.
    pub method: Method,
    /// The repository there.
    pub repository: &'a str,
    /// Below the repository, like `manifests/latest`.
    pub path: &'a str,
    /// Further headers.
    pub headers: HeaderMap,
}

/// Another registry.
pub struct Upstream {
    base: Url,
    host: String,
    login: Option<Login>,
    /// A host, with its port if that is not the scheme's, that is told the login besides those of the same owner.
    realm_host: Option<String>,
    channel: Channel,
    timeout: Duration,
    tokens: Tokens,
    /// How it last asked for tokens: for another repository it will do so again.
    realm: ArcSwapOption<(String, Option<String>)>,
}

impl Upstream {
    /// A registry at a URL; `timeout` is how long it may take to begin an answer.
    pub fn new(
        url: &str,
        login: Option<Login>,
        channel: Channel,
        timeout: Duration,
    ) -> Result<Self, UpstreamError> {
        let strange = |why: String| UpstreamError::Strange {
            host: url.to_owned(),
            why,
        };
        let base = Url::parse(url).map_err(|error| strange(error.to_string()))?;
        let host = base
            .host_str()
            .ok_or_else(|| strange("the URL names no host".into()))?;
        Ok(Self {
            host: host.to_owned(),
            base: base.clone(),
            login,
            realm_host: None,
            channel,
            timeout,
            tokens: Tokens::default(),
            realm: ArcSwapOption::empty(),
        })
    }

    /// Tokens may come from this host too, with its port if that is not the scheme's, and it is told the login.
    pub fn with_realm_host(mut self, host: String) -> Self {
        self.realm_host = Some(host);
        self
    }

    /// Asks; the answer's status is one of 200, 206 and 304. Redirects are followed, a token is fetched if one is
    /// wanted, and both at most so often.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Response<Incoming>, UpstreamError> {
        let call = Call {
            method: question.method.clone(),
            path: &format!("/v2/{}/{}", question.repository, question.path),
            scope: &format!("repository:{}:pull", question.repository),
            headers: question.headers.clone(),
            body: Bytes::new(),
        };
        let answer = self.call(&call).await?;
        self.judge(answer, question)
    }

    /// Asks whether it is there and speaks; whether it lets anybody in makes no difference.
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        let call = Call {
            method: Method::GET,
            path: "/v2/",
            scope: "",
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let answer = self.follow(&call, &self.url(call.path), None).await?;
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.refusal(&answer, self.host.clone(), "v2/"));
        }
        Ok(())
    }

    /// Its host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How long it may be silent.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What a scope is probably asked with: what is known, or a token from where the last one came.
    async fn expected(&self, scope: &str) -> Result<Option<HeaderValue>, UpstreamError> {
        let known = async { Ok(self.tokens.known(scope).await) };
        if let Some(value) = self.in_time(known).await? {
            return Ok(Some(value));
        }
        let Some(known) = self.realm.load_full() else {
            return Ok(None);
        };
        let (realm, service) = (known.0.clone(), known.1.clone());
        let challenge = Challenge::Bearer {
            realm,
            service,
            scope: None,
        };
        self.authorize(scope, challenge, None).await
    }

    /// Ends what takes longer than the upstream may be silent: those who wait for a token that another fetches wait side by
    /// side, not one after the other.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let done = tokio::time::timeout(self.timeout, work).await;
        done.unwrap_or_else(|_| {
            Err(UpstreamError::Late {
                host: self.host.clone(),
                timeout: self.timeout,
            })
        })
    }

    async fn authorize(
        &self,
        scope: &str,
        challenge: Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        match challenge {
            Challenge::Basic => {
                let Some(basic) = self.basic()? else {
                    return Ok(None);
                };
                let forever = async { Ok((basic.clone(), Some(Duration::MAX))) };
                // The same again would be refused again.
                if refused == Some(&basic) {
                    return Ok(None);
                }
                self.tokens.get(scope, refused, forever).await.map(Some)
            }
            Challenge::Bearer {
                realm,
                service,
                scope: wanted,
            } => {
                let url = self
                    .base
                    .join(&realm)
                    .map_err(|error| self.strange(format!("{realm}: {error}")))?;
                let wanted = wanted.unwrap_or_else(|| scope.to_owned());
                let fetch = self.fetch_token(url, service.as_deref(), &wanted);
                let value = self.in_time(self.tokens.get(scope, refused, fetch)).await?;
                self.realm.store(Some(Arc::new((realm, service))));
                Ok(Some(value))
            }
        }
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = request
            .header(USER_AGENT, concat!("berth/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| self.strange(error.to_string()))?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let late = |_| UpstreamError::Late {
            host: host.clone(),
            timeout: self.timeout,
        };
        let (method, asked) = (request.method().clone(), host.clone());
        let sent = async {
            Ok(tokio::time::timeout(self.timeout, self.channel.send(request))
                .await
                .map_err(late)??)
        };
        span::upstream(&method, &asked, sent).await
    }

    fn judge(
        &self,
        answer: Response<Incoming>,
        question: &Question<'_>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let (host, path) = (
            self.host.clone(),
            format!("{}/{}", question.repository, question.path),
        );
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => Ok(answer),
            StatusCode::NOT_FOUND => Err(UpstreamError::Absent { host, path }),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(UpstreamError::Denied { host, path, status })
            }
            _ => Err(self.refusal(&answer, host, &path)),
        }
    }

    fn refusal(&self, answer: &Response<Incoming>, host: String, path: &str) -> UpstreamError {
        let after = retry_after(answer.headers(), SystemTime::now());
        match answer.status() {
            StatusCode::TOO_MANY_REQUESTS => UpstreamError::Limited {
                host,
                after: after.unwrap_or(Duration::from_secs(60)),
            },
            status => UpstreamError::Failing {
                host,
                path: path.to_owned(),
                status,
                after,
            },
        }
    }

    fn strange(&self, why: String) -> UpstreamError {
        UpstreamError::Strange {
            host: self.host.clone(),
            why,
        }
    }
}

/// How long an upstream wants not to be asked, in seconds or as a date (RFC 9110, section 10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests;
