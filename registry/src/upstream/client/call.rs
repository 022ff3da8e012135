//! Requests whose answers the caller judges; also such that change something.

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use url::Url;

use super::{Challenge, Upstream, UpstreamError};

/// Most redirects of one request: registries send blobs to where they are stored, and that once more elsewhere.
pub(super) const REDIRECTS: usize = 5;

/// A request to an upstream.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Its method.
    pub method: Method,
    /// Path and query below the registry's root, like `/v2/_catalog?n=100`.
    pub path: &'a str,
    /// What a token for it must say, like `repository:team/app:pull,push`, if the registry does not say.
    pub scope: &'a str,
    /// Further headers.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
}

impl Upstream {
    /// Sends a request and gives its answer, whatever its status. A token is fetched if one is wanted, at most once more
    /// than the known one was refused; redirects of GET and HEAD are followed.
    pub async fn call(&self, call: &Call<'_>) -> Result<Response<Incoming>, UpstreamError> {
        let url = self.url(call.path);
        let authorization = match self.expected(call.scope).await {
            Err(error @ UpstreamError::Limited { .. }) => return Err(error),
            // Its tokens may come from elsewhere by now: it is asked, and says so.
            Err(error) => {
                tracing::debug!(%error, "no token from where the last one came");
                self.realm.store(None);
                None
            }
            Ok(value) => value,
        };
        let answer = self.follow(call, &url, authorization.as_ref()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = Challenge::of(answer.headers())
        {
            let fresh = self
                .authorize(call.scope, challenge, authorization.as_ref())
                .await?;
            if fresh.is_some() && fresh != authorization {
                return self.follow(call, &url, fresh.as_ref()).await;
            }
        }
        Ok(answer)
    }

    /// The URL of a path and query below the root.
    pub(super) fn url(&self, path: &str) -> Url {
        let root = self.base.path().trim_end_matches('/');
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        let mut url = self.base.clone();
        url.set_path(&format!("{root}{path}"));
        url.set_query(query);
        url
    }

    /// One request and the redirects that it meets. Credentials go along only to the same host.
    pub(super) async fn follow(
        &self,
        call: &Call<'_>,
        first: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let mut request = Request::builder().method(call.method.clone()).uri(url.as_str());
            if let Some(headers) = request.headers_mut() {
                headers.extend(call.headers.clone());
                if let Some(value) = authorization.filter(|_| url.origin() == first.origin()) {
                    headers.insert(AUTHORIZATION, value.clone());
                }
            }
            let answer = self.send(request, call.body.clone()).await?;
            let is_moved = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            // What is sent is for the registry itself.
            let may_move = matches!(call.method, Method::GET | Method::HEAD);
            let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| is_moved && may_move) else {
                return Ok(answer);
            };
            let next = url
                .join(location)
                .map_err(|error| self.strange(format!("{location}: {error}")))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(self.strange("it redirects to plain HTTP; that is not followed".into()));
            }
            url = next;
        }
        Err(self.strange("it redirects again and again".into()))
    }
}
