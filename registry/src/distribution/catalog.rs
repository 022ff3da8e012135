//! `GET /v2/_catalog`: the tenant's repositories, as far as the caller may see them.

use axum::response::Response;
use http::StatusCode;
use http::header::LINK;
use http::request::Parts;
use serde_json::json;

use super::error::ApiError;
use super::paging::Page;
use super::query::Query;
use super::{Asked, answer};
use crate::domain::RepositoryName;
use crate::identity::sight;
use crate::tenancy::Place;

/// One page of repository names, bytewise ascending.
pub(super) async fn list(asked: &Asked, parts: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(&Query::of(&parts.uri)?)?;
    // On the apex a name begins with its tenant, and so does what the client has read last.
    let prefix = match &asked.place {
        Place::Tenant(_) => String::new(),
        Place::Apex => format!("{}/", asked.tenant.name),
    };
    let after = page.after.as_deref().unwrap_or_default();
    let after = match after.strip_prefix(&prefix) {
        Some(name) => name,
        // A name before all of the tenant's, or behind them.
        None if after < prefix.as_str() => "",
        None => "\u{10ffff}",
    };
    let wanted = sight::Wanted {
        tenant: &asked.tenant,
        rights: &asked.principal.rights,
        after,
        limit: page.limit as usize + 1,
        // A page that is not full is the last one to clients.
        rows: usize::MAX,
        search: None,
    };
    let lists = |name: &RepositoryName| sight::lists(&asked.tenant, &asked.principal, name);
    let seen = sight::names(&*asked.registry.metadata, wanted, lists).await?;
    let mut names: Vec<String> = seen.names.iter().map(|name| format!("{prefix}{name}")).collect();
    let next = page.cut(&asked.page_link("/v2/_catalog"), &mut names);
    let mut response = answer::json(StatusCode::OK, json!({ "repositories": names }).to_string());
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}
