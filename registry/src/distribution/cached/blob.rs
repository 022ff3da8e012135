//! Blobs of caches.

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;

use super::super::blob as stored;
use super::super::error::{ApiError, Code};
use super::super::{answer, conditions};
use super::Mirrored;
use super::arriving::partial;
use super::fetch::{Wanted, named_size};
use super::growing::Phase;
use super::reading::Reading;
use super::trouble::Trouble;
use crate::domain::Digest;
use crate::domain::range::Requested;
use crate::upstream::{Kind, Question, Remote};

/// A part that begins this far behind what has arrived is asked of the upstream by itself,
const FAR: u64 = 16 << 20;
/// if it is no longer than this: containerd reads a layer as several parts, each from its place to the end.
const PART: u64 = 4 << 20;

pub(super) async fn get(at: &Mirrored<'_>, reference: &str, parts: &Parts) -> Result<Response, ApiError> {
    let digest = stored::parse(reference)?;
    let shown = &at.repository.shown;
    let unknown = || ApiError::of(Code::BlobUnknown, format!("{digest} is not in {shown}"));
    at.allowed(unknown)?;
    let registry = &at.asked.registry;
    // What is here needs no upstream, not even one that can be asked.
    let remote = at.remote();

    // Twice, should it be collected between being found and being sent.
    for _ in 0..2 {
        if let Some(row) = registry.metadata.blob(at.repository, &digest).await? {
            let sent = stored::send_found(at.asked, at.repository, &digest, &row, parts).await?;
            if let Some(sent) = sent {
                if let Ok(remote) = &remote {
                    let is_head = parts.method == Method::HEAD;
                    remote.news.hit(if is_head { 0 } else { row.size });
                }
                return Ok(sent);
            }
        }
        let remote = match &remote {
            Ok(remote) => remote,
            Err(trouble) => return Err(trouble.clone().answer(unknown)),
        };
        let answer = if parts.method == Method::HEAD {
            head(at, remote, &digest).await.map(Some)
        } else {
            along(at, remote, &digest, parts).await
        };
        if let Some(response) = answer.map_err(|trouble| trouble.answer(unknown))? {
            return Ok(response);
        }
    }
    Err(unknown())
}

/// What is known of a blob that is not here; it is not fetched for that.
async fn head(at: &Mirrored<'_>, remote: &Remote, digest: &Digest) -> Result<Response, Trouble> {
    let size = match named_size(&at.asked.registry, at.repository, digest).await? {
        Some(size) => size,
        None => {
            let path = format!("blobs/{digest}");
            let question = Question {
                method: Method::HEAD,
                repository: at.upstream,
                path: &path,
                headers: HeaderMap::new(),
            };
            let answer = remote.ask(&question, Kind::Blob).await?;
            let length = answer.headers().get(CONTENT_LENGTH);
            let size = length.and_then(|value| value.to_str().ok()?.parse().ok());
            // Without a length the answer would say that it is empty.
            size.ok_or_else(|| {
                ApiError::of(
                    Code::Unavailable,
                    format!("{} does not say how long {digest} is", remote.host()),
                )
                .status(StatusCode::BAD_GATEWAY)
            })?
        }
    };
    let mut response = Response::new(Body::empty());
    stored::whole(response.headers_mut(), digest, size);
    Ok(response)
}

/// Sends a blob while it arrives; `None` if it is stored by now.
async fn along(
    at: &Mirrored<'_>,
    remote: &std::sync::Arc<Remote>,
    digest: &Digest,
    parts: &Parts,
) -> Result<Option<Response>, Trouble> {
    let registry = &at.asked.registry;
    let (growing, begun) = registry.cached.fetches.join(Wanted {
        registry: registry.clone(),
        tenant: at.asked.tenant.clone(),
        repository: at.repository.repository.clone(),
        digest: *digest,
        remote: remote.clone(),
        upstream: at.upstream.to_owned(),
    });
    let reading = Reading {
        registry: registry.clone(),
        growing,
    };

    // 1. How long it is: answers have a length.
    let size = loop {
        match reading.growing.begun().await {
            Phase::Stored(_) => return Ok(None),
            Phase::Failed(trouble) => return Err(trouble),
            Phase::Arriving { size, .. } => break size,
            Phase::Asking => {}
            Phase::Elsewhere => {
                if let Some(size) = named_size(registry, at.repository, digest).await? {
                    break size;
                }
                reading.growing.not_elsewhere().await;
            }
        }
    };

    // 2. Which of its bytes.
    let told = |bytes| match begun {
        true => remote.news.miss(),
        false => remote.news.hit(bytes),
    };
    let mut response = match stored::requested(&parts.headers, size, digest) {
        Requested::Whole => {
            told(size);
            Response::new(reading.body(0, size))
        }
        Requested::One(range) => {
            let far =
                range.start > reading.growing.end().saturating_add(FAR) && range.end - range.start <= PART;
            let ahead = match far && conditions::range_counts(&parts.headers, digest) {
                true => ask_for_range(at, remote, digest, &range).await?,
                false => None,
            };
            let body = match ahead {
                Some(body) => {
                    remote.news.miss();
                    body
                }
                None => {
                    told(range.end - range.start);
                    reading.body(range.start, range.end)
                }
            };
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            stored::whole(response.headers_mut(), digest, range.end - range.start);
            response.headers_mut().insert(CONTENT_RANGE, answer::value(text));
            return Ok(Some(response));
        }
        // Rare enough to wait for the whole.
        Requested::Many(_) | Requested::Unsatisfiable => {
            return match reading.growing.over().await {
                Phase::Failed(trouble) => Err(trouble),
                _ => Ok(None),
            };
        }
    };
    stored::whole(response.headers_mut(), digest, size);
    Ok(Some(response))
}

/// A part of a blob that is far from here, straight from the upstream; `None` if that does not send parts.
async fn ask_for_range(
    at: &Mirrored<'_>,
    remote: &std::sync::Arc<Remote>,
    digest: &Digest,
    range: &std::ops::Range<u64>,
) -> Result<Option<Body>, Trouble> {
    let path = format!("blobs/{digest}");
    let mut headers = HeaderMap::new();
    let wanted = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
    headers.extend(wanted.ok().map(|wanted| (RANGE, wanted)));
    let question = Question {
        method: Method::GET,
        repository: at.upstream,
        path: &path,
        headers,
    };
    let answer = remote.ask(&question, Kind::Blob).await?;
    let first = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| partial(value.to_str().ok()?));
    if answer.status() != StatusCode::PARTIAL_CONTENT || first.is_none_or(|(first, _)| first != range.start) {
        return Ok(None);
    }
    let left = range.end - range.start;
    let state = (answer.into_body().into_data_stream(), left, remote.clone());
    let body = stream::try_unfold(state, async |(mut frames, left, remote)| {
        if left == 0 {
            return Ok(None);
        }
        let piece = tokio::time::timeout(remote.timeout(), frames.next()).await;
        let mut bytes = match piece {
            Ok(Some(piece)) => piece.map_err(std::io::Error::other)?,
            Ok(None) => return Err(std::io::Error::other("the upstream ended a part before its end")),
            Err(_) => return Err(std::io::Error::other("the upstream is silent")),
        };
        // At most the length of a piece in memory.
        bytes.truncate(usize::try_from(left).unwrap_or(bytes.len()).min(bytes.len()));
        remote.news.fetched(bytes.len() as u64);
        let left = left - bytes.len() as u64;
        Ok(Some((bytes, (frames, left, remote))))
    });
    Ok(Some(Body::from_stream(body)))
}
