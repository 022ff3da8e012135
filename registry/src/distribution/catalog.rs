//! `GET /v2/_catalog`: the tenant's repositories.

use axum::response::Response;
use http::StatusCode;
use http::header::LINK;
use http::request::Parts;
use serde_json::json;

use super::error::ApiError;
use super::paging::Page;
use super::query::Query;
use super::{Asked, answer};

/// One page of repository names, bytewise ascending.
pub(super) async fn list(asked: &Asked, parts: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(&Query::of(&parts.uri)?)?;
    let mut names = asked
        .registry
        .metadata
        .repositories(asked.tenant, page.after.clone(), page.limit + 1)
        .await?;
    let next = page.cut("/v2/_catalog", &mut names);
    let mut response = answer::json(StatusCode::OK, json!({ "repositories": names }).to_string());
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}
