//! What an upstream lists: its tags, page by page as it cuts them, and the referrers of a manifest.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::sync::Cache as Memory;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::documents::{Held, Unread};
use super::super::error::{ApiError, Code};
use super::super::paging::Page;
use super::super::query::Query;
use super::super::{answer, referrers as stored_referrers, tags as stored_tags};
use super::trouble::Trouble;
use super::{Mirrored, warn};
use crate::domain::Digest;
use crate::domain::digest::DigestError;
use crate::domain::media_type::OCI_INDEX;
use crate::metadata::Repository;
use crate::upstream::{Kind, Question, Remote, UpstreamError, next_query};

/// Most bytes of a page, and of all pages of referrers: clients read no more of a list.
const PAGE_LIMIT: u64 = 4 << 20;
/// How many bytes of memory each byte of a list takes until it is read and written.
const WEIGHT: u64 = 4;
/// Most memory that one list takes.
pub(super) const MEMORY: u64 = WEIGHT * PAGE_LIMIT;
/// Longest wait for a turn to ask.
const TURN: Duration = Duration::from_secs(5);
/// Most pages of referrers that are read.
const PAGES: usize = 16;
/// For how long the referrers of a manifest are remembered, and how many bytes of them.
const REFERRERS_FOR: Duration = Duration::from_secs(30);
const REFERRERS_LIMIT: u64 = 8 << 20;

/// What came of asking for a list: its entries, and the query of its next page.
pub(in crate::distribution) type Listed = Result<(Arc<Vec<Value>>, Option<String>), Trouble>;

/// Remembers referrers for a while.
pub(super) fn memory() -> Memory<(Repository, String), Arc<Vec<Value>>> {
    Memory::builder()
        .max_capacity(REFERRERS_LIMIT)
        .weigher(|_, descriptors: &Arc<Vec<Value>>| {
            let bytes: usize = descriptors.iter().map(|one| one.to_string().len()).sum();
            u32::try_from(bytes + 256).unwrap_or(u32::MAX)
        })
        .time_to_live(REFERRERS_FOR)
        .build()
}

#[derive(Deserialize)]
struct TagsPage {
    #[serde(default)]
    tags: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Value>>,
}

/// `GET /v2/<name>/tags/list`: the upstream's page, or, while it fails, the tags that are here.
pub(in crate::distribution) async fn tags(at: &Mirrored<'_>, parts: &Parts) -> Result<Response, ApiError> {
    let shown = &at.repository.shown;
    let unknown = || ApiError::of(Code::NameUnknown, format!("there is no repository {shown}"));
    at.allowed(unknown)?;
    Page::of(&Query::of(&parts.uri)?)?;
    // The next page is the upstream's to name; whatever it has named comes back.
    let query = forwarded(parts.uri.query().unwrap_or_default());
    let path = match query.is_empty() {
        true => "tags/list".to_owned(),
        false => format!("tags/list?{query}"),
    };
    let listed = match at.remote() {
        Ok(remote) => {
            let upstream = at.upstream.to_owned();
            share(at, path.clone(), |mut memory: Held| async move {
                let (body, next) = page(&remote, &upstream, &path, "application/json", &mut memory).await?;
                let read: TagsPage = read(&remote, &body)?;
                Ok((Arc::new(read.tags.unwrap_or_default()), next))
            })
            .await
        }
        Err(trouble) => Err(trouble),
    };
    match listed {
        Ok((tags, next)) => {
            let tags: Vec<&str> = tags
                .iter()
                .filter_map(Value::as_str)
                .filter(|tag| at.cache.allows_tag(tag))
                .collect();
            let body = json!({ "name": shown.as_str(), "tags": tags }).to_string();
            let mut response = answer::json(StatusCode::OK, body);
            if let Some(next) = next {
                let link = at.asked.page_link(&format!("/v2/{shown}/tags/list"));
                let link = HeaderValue::try_from(format!("<{link}{next}>; rel=\"next\""));
                response.headers_mut().extend(link.ok().map(|link| (LINK, link)));
            }
            Ok(response)
        }
        Err(trouble) if trouble.is_absence() => Err(unknown()),
        Err(trouble) => {
            let Ok(mut response) = stored_tags::list(at.asked, at.repository, parts).await else {
                return Err(trouble.answer(unknown));
            };
            if let Some(error) = trouble.upstream() {
                warn(&mut response, &error.to_string());
            }
            Ok(response)
        }
    }
}

/// `GET /v2/<name>/referrers/<digest>`: the upstream's, by its API or by the tag that stands for it, or, while it fails,
/// those that are here.
pub(in crate::distribution) async fn referrers(
    at: &Mirrored<'_>,
    subject: &str,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let shown = &at.repository.shown;
    let unknown = || ApiError::of(Code::NameUnknown, format!("there is no repository {shown}"));
    at.allowed(unknown)?;
    if let Err(error @ DigestError::Malformed) = subject.parse::<Digest>() {
        return Err(error.into());
    }
    let query = Query::of(&parts.uri)?;
    let types: Vec<&str> = query
        .all("artifactType")
        .filter(|text| !text.is_empty())
        .collect();
    let memory = &at.asked.registry.cached.referrers;
    let key = (at.repository.repository.clone(), subject.to_owned());
    let listed = match memory.get(&key) {
        Some(known) => Ok((known, None)),
        None => {
            let what = format!("referrers/{subject}");
            let (upstream, subject) = (at.upstream.to_owned(), subject.to_owned());
            match at.remote() {
                Ok(remote) => {
                    let work = |mut memory: Held| async move {
                        let found = ask_for_referrers(&remote, &upstream, &subject, &mut memory).await?;
                        Ok((Arc::new(found), None))
                    };
                    share(at, what, work).await
                }
                Err(trouble) => Err(trouble),
            }
        }
    };
    let descriptors = match listed {
        Ok((descriptors, _)) => {
            memory.insert(key, descriptors.clone());
            descriptors
        }
        Err(trouble) => {
            let mut response = stored_referrers::list(at.asked, at.repository, subject, parts).await?;
            let is_empty = stored_referrers::none(at.asked, at.repository, subject).await?;
            let Some(error) = trouble.upstream().filter(|_| !is_empty) else {
                // That there are none is not known.
                return Err(trouble.answer(unknown));
            };
            warn(&mut response, &error.to_string());
            return Ok(response);
        }
    };
    let fits = |descriptor: &&Value| {
        types.is_empty()
            || descriptor["artifactType"]
                .as_str()
                .is_some_and(|own| types.contains(&own))
    };
    let manifests: Vec<&Value> = descriptors.iter().filter(fits).collect();
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string();
    let mut response = answer::json(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if !types.is_empty() {
        headers.insert(
            stored_referrers::FILTERS_APPLIED,
            HeaderValue::from_static("artifactType"),
        );
    }
    Ok(response)
}

/// What comes of a question that others may be asking as well.
async fn share<F>(at: &Mirrored<'_>, what: String, work: impl FnOnce(Held) -> F + Send + 'static) -> Listed
where
    F: Future<Output = Listed> + Send + 'static,
{
    let lists = &at.asked.registry.cached.lists;
    let key = (at.repository.repository.clone(), what);
    let registry = at.asked.registry.clone();
    let tenant = at.asked.tenant.id;
    let bounded = async move {
        let cached = &registry.cached;
        let turn = cached.list_turns.take(tenant, 1, TURN).await;
        let _turn = turn.ok_or_else(Trouble::busy)?;
        work(cached.documents.hold(tenant)).await
    };
    let (listed, _) = lists.share(key, || bounded).await;
    listed.unwrap_or_else(|| Err(Trouble::ended()))
}

async fn ask_for_referrers(
    remote: &Remote,
    upstream: &str,
    subject: &str,
    memory: &mut Held,
) -> Result<Vec<Value>, Trouble> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut path = format!("referrers/{subject}");
    for pages in 0..PAGES {
        let (body, next) = match page(remote, upstream, &path, OCI_INDEX, memory).await {
            Ok(page) => page,
            Err(Trouble::Upstream(error)) if pages == 0 && has_no_api(&error) => {
                return by_tag(remote, upstream, subject, memory).await;
            }
            Err(trouble) => return Err(trouble),
        };
        bytes += body.len() as u64;
        if bytes > PAGE_LIMIT {
            let why = format!("it lists more than {PAGE_LIMIT} bytes of referrers of {subject}");
            let host = remote.host().to_owned();
            return Err(UpstreamError::Strange { host, why }.into());
        }
        let index: Index = read(remote, &body)?;
        found.extend(index.manifests.unwrap_or_default());
        match next {
            Some(query) => path = format!("referrers/{subject}?{query}"),
            None => break,
        }
    }
    Ok(found)
}

/// Whether a registry says that it knows no such endpoint.
fn has_no_api(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Absent { .. } => true,
        UpstreamError::Failing { status, .. } => status.is_client_error(),
        _ => false,
    }
}

/// The index that clients of registries without the API keep by a tag (distribution-spec, "Referrers Tag Schema").
async fn by_tag(
    remote: &Remote,
    upstream: &str,
    subject: &str,
    memory: &mut Held,
) -> Result<Vec<Value>, Trouble> {
    let path = format!("manifests/{}", subject.replace(':', "-"));
    match page(remote, upstream, &path, OCI_INDEX, memory).await {
        Ok((body, _)) => {
            let index: Index = read(remote, &body)?;
            Ok(index.manifests.unwrap_or_default())
        }
        Err(Trouble::Upstream(UpstreamError::Absent { .. })) => Ok(Vec::new()),
        Err(trouble) => Err(trouble),
    }
}

/// One page, and the query of the next.
async fn page(
    remote: &Remote,
    upstream: &str,
    path: &str,
    accept: &'static str,
    memory: &mut Held,
) -> Result<(bytes::Bytes, Option<String>), Trouble> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    let question = Question {
        method: Method::GET,
        repository: upstream,
        path,
        headers,
    };
    let answer = remote.ask(&question, Kind::Manifest).await?;
    let next = answer
        .headers()
        .get(LINK)
        .and_then(|value| value.to_str().ok())
        .and_then(next_query)
        .map(forwarded);
    let read = memory.read(answer.into_body(), PAGE_LIMIT, WEIGHT);
    let read = tokio::time::timeout(remote.timeout(), read).await;
    let host = || remote.host().to_owned();
    let late = |_| UpstreamError::Late {
        host: host(),
        timeout: remote.timeout(),
    };
    let unreadable = |why: String| UpstreamError::Strange {
        host: host(),
        why: format!("a list cannot be read: {why}"),
    };
    let body = read.map_err(late)?.map_err(|unread| match unread {
        Unread::Busy(busy) => ApiError::from(busy).into(),
        Unread::TooLarge => Trouble::from(unreadable(format!("it has more than {PAGE_LIMIT} bytes"))),
        Unread::Broken(error) => unreadable(error.to_string()).into(),
    })?;
    remote.news.fetched(body.len() as u64);
    Ok((body, next))
}

fn read<'b, T: Deserialize<'b>>(remote: &Remote, body: &'b [u8]) -> Result<T, Trouble> {
    let read = serde_json::from_slice(body);
    Ok(read.map_err(|error| UpstreamError::Strange {
        host: remote.host().to_owned(),
        why: format!("a list cannot be read: {error}"),
    })?)
}

/// A query without what is for this registry alone.
fn forwarded(query: &str) -> String {
    let own = |pair: &&str| !(pair.is_empty() || *pair == "ns" || pair.starts_with("ns="));
    query.split('&').filter(own).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_this_registry_is_not_passed_on() {
        assert_eq!(forwarded("n=2&ns=docker.io"), "n=2");
        assert_eq!(forwarded("ns=docker.io&n=5&&last=x"), "n=5&last=x");
    }
}
