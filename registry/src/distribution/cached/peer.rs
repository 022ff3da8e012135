//! What one replica fetches, read by another while it arrives.
//!
//! A replica that holds the claim on a blob tells with it where it is reached. The others ask it for the bytes, with a
//! token that the keys of all replicas vouch for and that names the one blob; whoever is asked sends what arrives, and
//! begins nothing. If it cannot, the blob is waited for.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};

use super::super::answer;
use super::super::error::{ApiError, Code};
use super::super::state::Registry;
use super::growing::Phase;
use super::reading::Reading;
use crate::blobs::{BlobError, BlobStream};
use crate::domain::Digest;
use crate::metadata::{Repository, TenantId, Time};

/// Where replicas ask each other. No repository's path begins so.
pub(in crate::distribution) const PATH: &str = "/peer/blob";
/// `typ` of the tokens.
const TYP: &str = "berth-peer+jwt";
/// Their audience.
const AUDIENCE: &str = "berth-peer";
/// Their life in seconds: a token is used at once.
const LIFE: i64 = 60;
/// How long a replica may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may be silent in between: as long as an upstream, and some.
const SILENCE: Duration = Duration::from_secs(120);

/// Connections to other replicas, kept for the next time.
static REPLICAS: LazyLock<Client<HttpConnector, Empty<Bytes>>> = LazyLock::new(|| {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_secs(2)));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector)
});

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    exp: i64,
    nbf: i64,
    tenant: i64,
    repository: String,
    digest: String,
}

/// Another replica's answer.
pub(super) struct Peer {
    /// Bytes of the whole blob.
    pub size: u64,
    /// Those from the place on that was asked for.
    pub bytes: BlobStream,
}

/// Asks the replica at `address` for what it fetches, from a byte on; `None` if it does not, or cannot be reached.
pub(super) async fn ask(
    registry: &Registry,
    (repository, digest): (&Repository, &Digest),
    address: &str,
    at: u64,
) -> Option<Peer> {
    let keys = registry.cached.keys();
    let now = Time::now().0 / 1_000_000;
    let claims = Claims {
        aud: AUDIENCE.to_owned(),
        exp: now + LIFE,
        nbf: now - LIFE,
        tenant: repository.tenant.0,
        repository: repository.name.to_string(),
        digest: digest.to_string(),
    };
    // The oldest key, which every replica has.
    let token = keys.sign(Some(&HashSet::new()), TYP, &claims).ok()?;
    let request = Request::get(format!("{}{PATH}", address.trim_end_matches('/')))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(RANGE, format!("bytes={at}-"))
        .body(Empty::new())
        .ok()?;
    let answer = match tokio::time::timeout(PATIENCE, REPLICAS.request(request)).await {
        Ok(Ok(answer)) if answer.status() == StatusCode::PARTIAL_CONTENT => answer,
        Ok(Ok(answer)) => {
            tracing::debug!(
                address,
                status = answer.status().as_u16(),
                "another replica has nothing to send"
            );
            return None;
        }
        Ok(Err(error)) => {
            tracing::debug!(address, %error, "another replica is not reached");
            return None;
        }
        Err(_) => {
            tracing::debug!(address, "another replica does not answer in time");
            return None;
        }
    };
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, size) = super::arriving::partial(range)?;
    if first != at {
        return None;
    }
    let bytes = stream::try_unfold(answer.into_body().into_data_stream(), async |mut frames| {
        match tokio::time::timeout(SILENCE, frames.next()).await {
            Ok(Some(Ok(bytes))) => Ok(Some((bytes, frames))),
            Ok(Some(Err(error))) => Err(broken(error.to_string())),
            Ok(None) => Ok(None),
            Err(_) => Err(broken("it is silent".to_owned())),
        }
    });
    Some(Peer {
        size,
        bytes: bytes.boxed(),
    })
}

fn broken(why: String) -> BlobError {
    BlobError::Unavailable(format!("another replica: {why}"))
}

/// Answers another replica.
pub(in crate::distribution) async fn serve(registry: &Registry, parts: &Parts) -> Result<Response, ApiError> {
    let unknown = || ApiError::of(Code::BlobUnknown, "it is not being fetched here");
    let (repository, digest) = asked(registry, &parts.headers)
        .ok_or_else(|| ApiError::of(Code::Unauthorized, "this is for other replicas of this registry"))?;
    let growing = registry
        .cached
        .fetches
        .find(&(repository, digest))
        .ok_or_else(unknown)?;
    let Phase::Arriving { size, .. } = growing.begun().await else {
        return Err(unknown());
    };
    let range = parts.headers.get(RANGE).and_then(|value| value.to_str().ok());
    let at = range
        .and_then(|text| {
            text.strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<u64>()
                .ok()
        })
        .filter(|at| *at < size)
        .ok_or_else(unknown)?;
    let reading = Reading {
        registry: registry.clone(),
        growing,
    };
    let mut response: Response<Body> = Response::new(reading.body(at, size));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size - at));
    headers.insert(
        CONTENT_RANGE,
        answer::value(format!("bytes {at}-{}/{size}", size - 1)),
    );
    Ok(response)
}

/// Which blob a replica asks for, if it is one.
fn asked(registry: &Registry, headers: &HeaderMap) -> Option<(Repository, Digest)> {
    let token = headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")?;
    let keys = registry.cached.keys();
    let now = Time::now().0 / 1_000_000;
    let claims: Claims = keys.verify(token, TYP, AUDIENCE, now).ok()?;
    let repository = Repository {
        tenant: TenantId(claims.tenant),
        name: claims.repository.parse().ok()?,
    };
    Some((repository, claims.digest.parse().ok()?))
}
