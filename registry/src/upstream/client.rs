//! One request to another registry: tokens, redirects, and what its answer means.

mod call;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use url::Url;

use super::challenge::Challenge;
use super::error::UpstreamError;
use super::realm;
use super::tokens::Tokens;
use crate::egress::Channel;
use crate::telemetry::span;
pub use call::Call;

/// Longest answer of a realm.
const TOKEN_LIMIT: usize = 64 * 1024;
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

/// Who asks.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password, or a token in its place.
    pub password: String,
}

impl Login {
    fn basic(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let text = STANDARD.encode(format!("{}:{}", self.username, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {text}"))?;
        value.set_sensitive(true);
        Ok(value)
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
    channel: Channel,
    timeout: Duration,
    tokens: Tokens,
    /// How it last asked for tokens: for another repository it will do so again.
    realm: ArcSwapOption<(String, Option<String>)>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
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
            channel,
            timeout,
            tokens: Tokens::default(),
            realm: ArcSwapOption::empty(),
        })
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
        if let Some(value) = self.tokens.known(scope).await {
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

    async fn authorize(
        &self,
        scope: &str,
        challenge: Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        match challenge {
            Challenge::Basic => {
                let Some(login) = &self.login else { return Ok(None) };
                let basic = login.basic().map_err(|error| self.strange(error.to_string()))?;
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
                let value = self.tokens.get(scope, refused, fetch).await?;
                self.realm.store(Some(Arc::new((realm, service))));
                Ok(Some(value))
            }
        }
    }

    /// A token and for how long it is good.
    async fn fetch_token(
        &self,
        mut url: Url,
        service: Option<&str>,
        scope: &str,
    ) -> Result<(HeaderValue, Option<Duration>), UpstreamError> {
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service.map(|service| ("service", service)));
            query.append_pair("scope", scope);
        }
        let mut request = Request::get(url.as_str()).header(ACCEPT, "application/json");
        if let Some(login) = &self.login
            && realm::is_trusted(&self.base, &url)
        {
            let basic = login.basic().map_err(|error| self.strange(error.to_string()))?;
            request = request.header(AUTHORIZATION, basic);
        }
        let answer = self.send(request, Bytes::new()).await?;
        let host = url.host_str().unwrap_or_default().to_owned();
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let path = url.path().to_owned();
                return Err(UpstreamError::Denied { host, path, status });
            }
            _ => return Err(self.refusal(&answer, host, url.path())),
        }
        let strange = |why: String| UpstreamError::Strange {
            host: host.clone(),
            why: format!("what it gave in place of a token cannot be read: {why}"),
        };
        let body = tokio::time::timeout(
            self.timeout,
            Limited::new(answer.into_body(), TOKEN_LIMIT).collect(),
        );
        let body = body.await.map_err(|_| UpstreamError::Late {
            host: host.clone(),
            timeout: self.timeout,
        })?;
        let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
        let token: Token = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
        let text = token
            .token
            .or(token.access_token)
            .ok_or_else(|| strange("there is none".into()))?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {text}")).map_err(|error| strange(error.to_string()))?;
        value.set_sensitive(true);
        Ok((value, token.expires_in.map(Duration::from_secs)))
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
