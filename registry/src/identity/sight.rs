//! What somebody may see and do at a tenant, visibility included: one rule for every door.

use berth_crds::Visibility;

use super::{Principal, Rights};
use crate::domain::RepositoryName;
use crate::domain::grant::{Action, Actions};
use crate::metadata::explore::{Explore, FoundNames};
use crate::metadata::{MetadataError, Store};
use crate::tenancy::Tenant;

/// A span of names: from the first on, up to but without the second.
type Span = (String, Option<String>);

/// What may be done with a repository, visibility included.
pub fn actions_on(tenant: &Tenant, principal: &Principal, name: &RepositoryName) -> Actions {
    let own = principal.rights.on(name);
    if tenant.visibility(name) == Visibility::Public {
        own.union([Action::Pull, Action::Metadata].into_iter().collect())
    } else {
        own
    }
}

/// Whether a repository is in somebody's list: an access token for the list shows what its credential may see.
pub fn lists(tenant: &Tenant, principal: &Principal, name: &RepositoryName) -> bool {
    let granted = principal.rights.grants();
    granted.is_none_or(|grants| grants.actions_on(name).contains(Action::Metadata))
        || actions_on(tenant, principal, name).contains(Action::Metadata)
}

/// Spans of names, ascending and apart, outside of which somebody sees nothing.
fn spans(tenant: &Tenant, rights: &Rights) -> Vec<Span> {
    let everything = vec![(String::new(), None)];
    let Some(grants) = rights.grants().filter(|_| !tenant.has_public()) else {
        return everything;
    };
    let mut prefixes: Vec<&str> = grants.visible().map(|glob| glob.literal_prefix()).collect();
    prefixes.sort_unstable();
    let mut spans: Vec<Span> = Vec::new();
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

/// Rows of one query.
const ROWS: u32 = 1000;
/// What a query costs, in rows, however few it finds.
const QUERY: usize = 100;

/// Which names to look for.
pub struct Wanted<'a> {
    /// Whose.
    pub tenant: &'a Tenant,
    /// Who looks.
    pub rights: &'a Rights,
    /// Behind this name, or any text.
    pub after: &'a str,
    /// At most so many.
    pub limit: usize,
    /// About so many rows are looked at, at most.
    pub rows: usize,
    /// Only names that contain this.
    pub search: Option<(&'a dyn Explore, &'a str)>,
}

/// Names that were found.
pub struct Seen {
    /// Bytewise ascending.
    pub names: Vec<RepositoryName>,
    /// Where looking stopped since it had looked at enough. A name that nobody must be told.
    pub stopped: Option<String>,
}

/// Names of a tenant's repositories that are wanted. The store is asked for what the grants can match at all; the rest is
/// left out by `is_wanted`.
pub async fn names(
    store: &dyn Store,
    wanted: Wanted<'_>,
    is_wanted: impl Fn(&RepositoryName) -> bool,
) -> Result<Seen, MetadataError> {
    let Wanted {
        tenant,
        rights,
        after,
        limit,
        rows,
        search,
    } = wanted;
    let (mut names, mut cost) = (Vec::new(), 0_usize);
    for (begin, end) in spans(tenant, rights) {
        if end.as_deref().is_some_and(|end| after >= end) {
            continue;
        }
        let mut at = match begin.as_str() > after {
            true => before(&begin),
            false => after.to_owned(),
        };
        loop {
            if names.len() >= limit {
                names.truncate(limit);
                return Ok(Seen { names, stopped: None });
            }
            if cost >= rows {
                return Ok(Seen {
                    names,
                    stopped: Some(at),
                });
            }
            let (asked, found) = match search {
                None => {
                    let names = store.repositories(tenant.id, at, end.clone(), ROWS).await?;
                    (ROWS, FoundNames::all(names))
                }
                Some((explore, part)) => {
                    let left = u32::try_from(rows - cost).unwrap_or(u32::MAX);
                    let part = part.to_owned();
                    (
                        left,
                        explore
                            .names_with(tenant.id, part, (at, end.clone()), left)
                            .await?,
                    )
                }
            };
            cost += found.looked.max(QUERY);
            let Some(last) = found.last else { break };
            at = last;
            let is_last = found.looked < asked as usize;
            let read = found
                .names
                .iter()
                .filter_map(|name| name.parse::<RepositoryName>().ok());
            names.extend(read.filter(&is_wanted));
            if is_last {
                break;
            }
        }
    }
    names.truncate(limit);
    Ok(Seen { names, stopped: None })
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
