//! The tenant's repositories, as far as the visitor may see them.

use axum::response::Response;
use futures_util::future::try_join_all;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path::{self, ROOT};
use super::shown;
use super::visit::{self, Visit};
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::identity::sight;
use crate::metadata::{Repository, Time};
use crate::rfc3339;

/// Repositories of a page.
const PAGE: usize = 50;
/// About how many names one page looks at; behind them the next page goes on.
const LOOKED: usize = 20_000;
/// Rows that are asked for at the same time.
pub const AT_ONCE: usize = 4;
/// Longest search.
const SEARCH_LIMIT: usize = 200;

/// A page of repositories.
#[derive(Debug, Serialize)]
pub struct Repositories {
    /// What was searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    repositories: Vec<Row>,
    /// Where the next page begins (`after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    now: Time,
    #[serde(skip)]
    is_first: bool,
}

/// What becomes of a repository's tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kept {
    /// They stay until a policy says otherwise.
    Persistent,
    /// They go by their age.
    Ephemeral,
    /// They are another registry's.
    Cached,
}

/// A repository.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    kept: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    tags: u64,
    bytes: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_push: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_pull: Option<String>,
    #[serde(skip)]
    pushed: Option<Time>,
    #[serde(skip)]
    pulled: Option<Time>,
}

impl Kept {
    /// What a repository is.
    pub fn of(visit: &Visit, name: &RepositoryName) -> Self {
        match () {
            () if visit.tenant.caches.of(name).is_some() => Self::Cached,
            () if visit.tenant.repositories.ephemeral(name).is_some() => Self::Ephemeral,
            () => Self::Persistent,
        }
    }

    /// A word beside a name, where it is not the usual.
    pub fn badge(self) -> Markup {
        match self {
            Self::Persistent => html! {},
            Self::Ephemeral => html! { span.badge.ephemeral title="Tags go by their age" { "ephemeral" } },
            Self::Cached => {
                html! { span.badge.cached title="Read through from another registry" { "cached" } }
            }
        }
    }
}

/// The list.
pub async fn get(visit: &Visit, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    // 1. Who may see a list at all, as at `/v2/_catalog`: nobody unknown, and no token that names what it is for.
    if !visit.principal.rights.catalog() {
        return Err(match visit.principal.is_known() {
            true => Failure::Denied("this token is for what it names, and lists no repositories".into()),
            false => Failure::SignIn,
        });
    }
    visit.not_suspended("repositories")?;

    // 2. What is asked for.
    let mut search = None;
    let mut after = String::new();
    for (key, value) in visit::query(parts)? {
        match &*key {
            "q" => search = Some(value.trim().to_lowercase()).filter(|text| !text.is_empty()),
            "after" => after = value,
            _ => {}
        }
    }
    if search.as_ref().is_some_and(|text| text.len() > SEARCH_LIMIT) || after.len() > 1000 {
        return Err(Failure::Bad("the search is too long".into()));
    }

    // 3. The rows. Where a page stopped may be a name that its reader must not learn.
    let is_first = after.is_empty();
    let identity = &visit.explorer.identity;
    let after = match after.as_str() {
        "" => String::new(),
        sealed => identity.open_place(&visit.tenant, sealed).ok_or_else(no_place)?,
    };
    let wanted = sight::Wanted {
        tenant: &visit.tenant,
        rights: &visit.principal.rights,
        after: &after,
        limit: PAGE + 1,
        rows: LOOKED,
    };
    let is_wanted = |name: &RepositoryName| {
        search.as_deref().is_none_or(|text| name.as_str().contains(text))
            && visit.actions_on(name).contains(Action::Metadata)
    };
    let mut seen = sight::names(&*visit.explorer.metadata, wanted, is_wanted).await?;
    if seen.names.len() > PAGE {
        seen.names.truncate(PAGE);
        seen.stopped = seen.names.last().map(ToString::to_string);
    }
    let no_key = || Failure::Ours("there is no key to seal a place in a list by".into());
    let next = seen
        .stopped
        .map(|place| identity.seal_place(&visit.tenant, &place).ok_or_else(no_key));
    let next = next.transpose()?;
    let mut repositories = Vec::with_capacity(seen.names.len());
    for few in seen.names.chunks(AT_ONCE) {
        let rows = try_join_all(few.iter().map(|name| row(visit, name))).await?;
        repositories.extend(rows.into_iter().flatten());
    }
    let page = Repositories {
        search,
        repositories,
        next,
        now: Time::now(),
        is_first,
    };
    Ok(answer::view(visit, &page))
}

fn no_place() -> Failure {
    Failure::Bad("after is no place in this list; take it from the page before".into())
}

/// A repository's row, unless it is gone by now.
async fn row(visit: &Visit, name: &RepositoryName) -> Result<Option<Row>, Failure> {
    let repository = Repository {
        tenant: visit.tenant.id,
        name: name.clone(),
    };
    let (usage, times) = tokio::try_join!(
        visit
            .explorer
            .configuration
            .repository_usage(visit.tenant.id, name),
        visit.explorer.lifecycle.last_times(&repository),
    )?;
    let (pushed, pulled) = times;
    Ok(usage.map(|usage| Row {
        kept: Kept::of(visit, name),
        description: visit.tenant.repositories.description(name).map(str::to_owned),
        name: name.to_string(),
        tags: usage.tags,
        bytes: usage.bytes,
        last_push: pushed.map(rfc3339::write),
        last_pull: pulled.map(rfc3339::write),
        pushed,
        pulled,
    }))
}

impl View for Repositories {
    fn title(&self) -> String {
        "Repositories".to_owned()
    }

    fn body(&self, visit: &Visit) -> Markup {
        let search = self.search.as_deref().unwrap_or_default();
        html! {
            h1 { "Repositories" }
            form.search role="search" action=(ROOT) method="get" {
                label.hidden for="q" { "Search by name" }
                input #q type="search" name="q" value=(search) placeholder="Search by name" autocomplete="off"
                    spellcheck="false" data-live="results";
                button type="submit" { "Search" }
            }
            div #results aria-live="polite" {
                @if self.repositories.is_empty() { (self.nothing(visit)) } @else { (self.table()) }
                @if let Some(next) = &self.next { (next_link(ROOT, &[("q", search), ("after", next)])) }
            }
        }
    }
}

impl Repositories {
    fn table(&self) -> Markup {
        html! {
            div.wide tabindex="0" role="region" aria-label=("Table of repositories") {
                table {
                    caption.hidden { "Repositories by name" }
                    thead {
                        tr {
                            th scope="col" { "Name" }
                            th.number scope="col" { "Tags" }
                            th.number scope="col" { "Size" }
                            th scope="col" { "Last push" }
                            th scope="col" { "Last pull" }
                        }
                    }
                    tbody {
                        @for row in &self.repositories {
                            tr {
                                th scope="row" {
                                    a href=(path::of_repository(&row.name)) { (row.name) }
                                    " " (row.kept.badge())
                                    @if let Some(text) = &row.description { p.hint { (text) } }
                                }
                                td.number { (shown::grouped(row.tags)) }
                                td.number { (shown::size(row.bytes)) }
                                td { (when(row.pushed, self.now)) }
                                td { (when(row.pulled, self.now)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn nothing(&self, visit: &Visit) -> Markup {
        let host = &visit.origin.authority;
        html! {
            @match &self.search {
                Some(search) => p.empty { "No repository has “" (search) "” in its name." },
                None if self.is_first => {
                    div.empty {
                        p { "Nothing has been pushed yet that you may see. The first push makes the repository:" }
                        pre { code { "docker push " (host) "/app:v1" } }
                    }
                }
                None => p.empty { "There are no more." },
            }
        }
    }
}

/// A time, if there is one.
pub fn when(at: Option<Time>, now: Time) -> Markup {
    match at {
        Some(at) => shown::time(at, now),
        None => html! { span.hint { "never" } },
    }
}

/// The link to the next page, with its parameters; those that are empty are left out.
pub fn next_link(path: &str, parameters: &[(&str, &str)]) -> Markup {
    let set = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(set)
        .finish();
    html! {
        nav.pages aria-label="Pages" { a rel="next" href=(format!("{path}?{query}")) { "More" } }
    }
}
