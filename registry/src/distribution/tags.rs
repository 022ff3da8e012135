//! `GET /v2/<name>/tags/list` (end-8).

use axum::response::Response;
use http::StatusCode;
use http::header::LINK;
use http::request::Parts;
use serde::Serialize;

use super::error::{ApiError, Code};
use super::paging::Page;
use super::query::Query;
use super::{Asked, Named, answer};

#[derive(Serialize)]
struct Tags<'t> {
    name: &'t str,
    tags: &'t [String],
}

/// One page of tags, bytewise ascending; 404 for a repository that does not exist.
pub(super) async fn list(asked: &Asked, repository: &Named, parts: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(&Query::of(&parts.uri)?)?;
    let found = asked
        .registry
        .metadata
        .tags(repository, page.after.clone(), page.limit + 1)
        .await?;
    let Some(mut tags) = found else {
        return Err(ApiError::of(
            Code::NameUnknown,
            format!("there is no repository {}", repository.shown),
        ));
    };
    let link = asked.page_link(&format!("/v2/{}/tags/list", repository.shown));
    let next = page.cut(&link, &mut tags);
    let body = serde_json::to_vec(&Tags {
        name: repository.shown.as_str(),
        tags: &tags,
    })
    .map_err(|error| ApiError::of(Code::Unknown, error.to_string()))?;
    let mut response = answer::json(StatusCode::OK, body);
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}
