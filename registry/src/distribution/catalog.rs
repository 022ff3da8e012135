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
use crate::domain::grant::Action;
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
    for (begin, end) in spans(asked) {
        if end.as_deref().is_some_and(|end| after >= end) {
            continue;
        }
        let mut after = if begin.as_str() > after {
            before(&begin)
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
                name.is_ok_and(|name| sees(asked, &name))
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

/// Whether a repository is in the caller's list: an access token for the list shows what its credential may see.
fn sees(asked: &Asked, name: &RepositoryName) -> bool {
    let granted = asked.principal.rights.grants();
    granted.is_none_or(|grants| grants.actions_on(name).contains(Action::Metadata))
        || asked.actions_on(name).contains(Action::Metadata)
}

/// Spans of names, ascending and apart, outside of which the caller sees nothing.
fn spans(asked: &Asked) -> Vec<(String, Option<String>)> {
    let everything = vec![(String::new(), None)];
    let Some(grants) = asked
        .principal
        .rights
        .grants()
        .filter(|_| !asked.tenant.has_public())
    else {
        return everything;
    };
    let mut prefixes: Vec<&str> = grants.visible().map(|glob| glob.literal_prefix()).collect();
    prefixes.sort_unstable();
    let mut spans: Vec<(String, Option<String>)> = Vec::new();
    for prefix in prefixes {
        if prefix.is_empty() {
            return everything;
        }
        // Sorted, so that what has a prefix of an earlier one follows it.
        if !spans
            .last()
            .is_some_and(|(earlier, _)| prefix.starts_with(earlier.as_str()))
        {
            spans.push((prefix.to_owned(), Some(format!("{prefix}\u{10ffff}"))));
        }
    }
    spans
}

/// A text that sorts directly before `name` among names: nothing of their characters lies between.
fn before(name: &str) -> String {
    let mut bytes = name.as_bytes().to_vec();
    match bytes.pop() {
        // Names are ASCII, so the byte below is one too; '~' sorts behind every character of names.
        Some(last) if last > 0 => {
            bytes.push(last - 1);
            let mut text = String::from_utf8(bytes).unwrap_or_default();
            text.push('~');
            text
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_between_a_name_and_the_text_before_it() {
        for name in ["a", "team-a/", "0", "b/c"] {
            let before = before(name);
            assert!(before.as_str() < name, "{name}");
            for other in ["z", "a", "team-a/x", "team-a.", "0", "b/b", "b/c/d", "b.c"] {
                assert!(
                    other >= name || other < before.as_str() || other == before,
                    "{other} before {name}"
                );
            }
        }
    }
}
