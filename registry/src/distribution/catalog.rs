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

/// Rows of one query.
const ROWS: u32 = 1000;

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
    let names = visible(asked, after, page.limit as usize + 1).await?;
    let mut names: Vec<String> = names.into_iter().map(|name| format!("{prefix}{name}")).collect();
    let next = page.cut(&asked.page_link("/v2/_catalog"), &mut names);
    let mut response = answer::json(StatusCode::OK, json!({ "repositories": names }).to_string());
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}

/// Up to `limit` names after `after` that the caller may see. The store is asked for what its grants can match
/// at all; the rest is left out here.
async fn visible(asked: &Asked, after: &str, limit: usize) -> Result<Vec<String>, ApiError> {
    let mut found = Vec::new();
    for (begin, end) in sight::spans(&asked.tenant, &asked.principal.rights) {
        if end.as_deref().is_some_and(|end| after >= end) {
            continue;
        }
        let mut after = if begin.as_str() > after {
            sight::before(&begin)
        } else {
            after.to_owned()
        };
        while found.len() < limit {
            let names = asked
                .registry
                .metadata
                .repositories(asked.tenant.id, after, end.clone(), ROWS)
                .await?;
            let Some(last) = names.last() else { break };
            after = last.clone();
            let full = names.len() == ROWS as usize;
            let seen = names.into_iter().filter(|name| {
                let name: Result<RepositoryName, _> = name.parse();
                name.is_ok_and(|name| sight::lists(&asked.tenant, &asked.principal, &name))
            });
            found.extend(seen);
            if !full {
                break;
            }
        }
    }
    found.truncate(limit);
    Ok(found)
}
