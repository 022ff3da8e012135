//! `GET /v2/_catalog`: the tenant's repositories, as far as the caller may see them.

use axum::response::Response;
use http::StatusCode;
use http::header::LINK;
use http::request::Parts;
use serde_json::json;

use super::error::{ApiError, Code};
use super::paging::Page;
use super::query::Query;
use super::{Asked, answer};
use crate::domain::RepositoryName;
use crate::identity::sight;
use crate::tenancy::Place;

/// Names that are looked at for one page, about. One that is short for it goes on where `Link` says.
const LOOKED: usize = 20_000;

/// One page of repository names, bytewise ascending.
pub(super) async fn list(asked: &Asked, parts: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(&Query::of(&parts.uri)?)?;
    // On the apex a name begins with its tenant, and so does what the client has read last.
    let prefix = match &asked.place {
        Place::Tenant(_) => String::new(),
        Place::Apex => format!("{}/", asked.tenant.name),
    };
    let identity = &asked.registry.identity;
    let last = page.after.as_deref().unwrap_or_default();
    // Where the page before has stopped at a name that its reader may not be told.
    let place = identity.open_place(&asked.tenant, last);
    let after = match (&place, last.strip_prefix(&prefix)) {
        (Some(place), _) => place,
        (None, Some(name)) => name,
        // A name before all of the tenant's, or behind them.
        (None, None) if last < prefix.as_str() => "",
        (None, None) => "\u{10ffff}",
    };
    let wanted = sight::Wanted {
        tenant: &asked.tenant,
        rights: &asked.principal.rights,
        after,
        limit: page.limit as usize + 1,
        rows: LOOKED,
        search: None,
    };
    let lists = |name: &RepositoryName| sight::lists(&asked.tenant, &asked.principal, name);
    let seen = sight::names(&*asked.registry.metadata, wanted, lists).await?;
    let mut names: Vec<String> = seen.names.iter().map(|name| format!("{prefix}{name}")).collect();
    let link = asked.page_link("/v2/_catalog");
    let next = match (page.cut(&link, &mut names), seen.stopped) {
        (None, Some(stopped)) if page.limit > 0 => {
            let no_key = || ApiError::of(Code::Unknown, "there is no key to seal a place in a list by");
            let place = identity.seal_place(&asked.tenant, &stopped).ok_or_else(no_key)?;
            Some(page.next(&link, &place))
        }
        (next, _) => next,
    };
    let mut response = answer::json(StatusCode::OK, json!({ "repositories": names }).to_string());
    if let Some(next) = next {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}
