//! The tenant's repositories, as far as the visitor may see them.

use axum::response::Response;
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
use crate::metadata::Time;
use crate::metadata::explore::{RepositoryOrder, RepositoryPlace, RepositoryRow};
use crate::rfc3339;

/// Repositories of a page.
const PAGE: usize = 50;
/// About how many names one page looks at; behind them the next page goes on.
const LOOKED: usize = 20_000;
/// Rows of one query where many are left out.
const MANY: usize = 1000;
/// Longest search.
const SEARCH_LIMIT: usize = 200;

/// A page of repositories.
#[derive(Debug, Serialize)]
pub struct Repositories {
    /// What was searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    sort: Sort,
    repositories: Vec<Row>,
    /// Where the next page begins (`after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    now: Time,
    #[serde(skip)]
    is_first: bool,
}

/// The order of repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    Name,
    Pushed,
    Size,
}

impl Sort {
    /// The store's order; by name there is another walk.
    fn order(self) -> Option<RepositoryOrder> {
        match self {
            Self::Name => None,
            Self::Pushed => Some(RepositoryOrder::Pushed),
            Self::Size => Some(RepositoryOrder::Size),
        }
    }

    /// As in the query.
    fn text(self) -> &'static str {
        match self {
            Self::Name => "",
            Self::Pushed => "pushed",
            Self::Size => "size",
        }
    }
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

    // 2. What is asked for, and the rows. Where a page stopped may be a name that its reader must not learn.
    let wanted = Wanted::of(parts)?;
    let identity = &visit.explorer.identity;
    let is_first = wanted.after.is_empty();
    let after = match wanted.after.as_str() {
        "" => None,
        sealed => Some(identity.open_place(&visit.tenant, sealed).ok_or_else(no_place)?),
    };
    let (repositories, stopped) = match wanted.sort.order() {
        None => by_name(visit, &wanted, after).await?,
        Some(order) => in_order(visit, &wanted, order, after).await?,
    };
    let no_key = || Failure::Ours("there is no key to seal a place in a list by".into());
    let next = stopped.map(|place| identity.seal_place(&visit.tenant, &place).ok_or_else(no_key));
    let page = Repositories {
        sort: wanted.sort,
        search: wanted.search,
        repositories: repositories.into_iter().map(|row| Row::new(visit, row)).collect(),
        next: next.transpose()?,
        now: Time::now(),
        is_first,
    };
    Ok(answer::view(visit, &page))
}

/// What is asked for.
struct Wanted {
    sort: Sort,
    search: Option<String>,
    after: String,
}

impl Wanted {
    fn of(parts: &Parts) -> Result<Self, Failure> {
        let mut wanted = Self {
            sort: Sort::Name,
            search: None,
            after: String::new(),
        };
        for (key, value) in visit::query(parts)? {
            match (&*key, &*value) {
                ("q", text) => {
                    wanted.search = Some(text.trim().to_lowercase()).filter(|text| !text.is_empty())
                }
                ("sort", "pushed") => wanted.sort = Sort::Pushed,
                ("sort", "size") => wanted.sort = Sort::Size,
                ("after", place) => place.clone_into(&mut wanted.after),
                _ => {}
            }
        }
        let is_long = wanted
            .search
            .as_ref()
            .is_some_and(|text| text.len() > SEARCH_LIMIT);
        if is_long || wanted.after.len() > 1000 {
            return Err(Failure::Bad("the search is too long".into()));
        }
        Ok(wanted)
    }

    fn wants(&self, visit: &Visit, name: &RepositoryName) -> bool {
        let found = |text: &str| name.as_str().contains(text);
        self.search.as_deref().is_none_or(found) && visit.actions_on(name).contains(Action::Metadata)
    }
}

/// Rows of a page, and where the next one goes on.
type Rows = (Vec<RepositoryRow>, Option<String>);

async fn by_name(visit: &Visit, wanted: &Wanted, after: Option<String>) -> Result<Rows, Failure> {
    let walk = sight::Wanted {
        tenant: &visit.tenant,
        rights: &visit.principal.rights,
        after: after.as_deref().unwrap_or_default(),
        limit: PAGE + 1,
        rows: LOOKED,
        search: wanted
            .search
            .as_deref()
            .map(|part| (&*visit.explorer.explore, part)),
    };
    let is_wanted = |name: &RepositoryName| wanted.wants(visit, name);
    let mut seen = sight::names(&*visit.explorer.metadata, walk, is_wanted).await?;
    if seen.names.len() > PAGE {
        seen.names.truncate(PAGE);
        seen.stopped = seen.names.last().map(ToString::to_string);
    }
    let rows = visit
        .explorer
        .explore
        .repository_rows(visit.tenant.id, seen.names);
    Ok((rows.await?, seen.stopped))
}

/// All of the tenant's repositories are walked in their order, and those left out that are not wanted.
async fn in_order(
    visit: &Visit,
    wanted: &Wanted,
    order: RepositoryOrder,
    after: Option<String>,
) -> Result<Rows, Failure> {
    let mut after = after.map(|text| place(&text).ok_or_else(no_place)).transpose()?;
    let mut rows = Vec::new();
    let mut looked = 0;
    loop {
        // Most see all, and need no more than a page.
        let few = if looked == 0 { PAGE + 1 } else { MANY };
        let limit = u32::try_from(few).unwrap_or(u32::MAX);
        let explore = &visit.explorer.explore;
        let found = explore
            .repositories_in(visit.tenant.id, order, after, limit)
            .await?;
        let is_last = found.len() < few;
        looked += found.len();
        for row in found {
            let is_wanted = row.name.parse().is_ok_and(|name| wanted.wants(visit, &name));
            if is_wanted && rows.len() == PAGE {
                return Ok((rows, after.map(write_place)));
            }
            after = Some(row.place(order));
            if is_wanted {
                rows.push(row);
            }
        }
        if is_last {
            return Ok((rows, None));
        }
        if looked >= LOOKED {
            return Ok((rows, after.map(write_place)));
        }
    }
}

fn write_place(place: RepositoryPlace) -> String {
    format!("{}.{}", place.value, place.id)
}

fn place(text: &str) -> Option<RepositoryPlace> {
    let (value, id) = text.split_once('.')?;
    Some(RepositoryPlace {
        value: value.parse().ok()?,
        id: id.parse().ok()?,
    })
}

fn no_place() -> Failure {
    Failure::Bad("after is no place in this list; take it from the page before".into())
}

impl Row {
    fn new(visit: &Visit, row: RepositoryRow) -> Self {
        let name = row.name.parse::<RepositoryName>().ok();
        let described = name
            .as_ref()
            .and_then(|name| visit.tenant.repositories.description(name));
        Self {
            kept: name
                .as_ref()
                .map_or(Kept::Persistent, |name| Kept::of(visit, name)),
            description: described.map(str::to_owned),
            name: row.name,
            tags: row.tags,
            bytes: row.bytes,
            last_push: row.pushed_at.map(rfc3339::write),
            last_pull: row.pulled_at.map(rfc3339::write),
            pushed: row.pushed_at,
            pulled: row.pulled_at,
        }
    }
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
                @if self.sort != Sort::Name { input type="hidden" name="sort" value=(self.sort.text()); }
                button type="submit" { "Search" }
            }
            p.more { a href="/explorer/builds" { "Find by build" } a href="/explorer/usage" { "Usage" } }
            div #results aria-live="polite" {
                @if self.repositories.is_empty() { (self.nothing(visit)) } @else { (self.table()) }
                @if let Some(next) = &self.next { (next_link(ROOT, &[("q", search), ("sort", self.sort.text()), ("after", next)])) }
            }
        }
    }
}

impl Repositories {
    fn table(&self) -> Markup {
        html! {
            div.wide tabindex="0" role="region" aria-label=("Table of repositories") {
                table {
                    caption.hidden { "Repositories" }
                    thead {
                        tr {
                            (self.heading(Sort::Name, "Name", ""))
                            th.number scope="col" { "Tags" }
                            (self.heading(Sort::Size, "Size", "number"))
                            (self.heading(Sort::Pushed, "Last push", ""))
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

    /// A column by which the list can be sorted.
    fn heading(&self, sort: Sort, title: &str, class: &str) -> Markup {
        let direction = if sort == Sort::Name {
            "ascending"
        } else {
            "descending"
        };
        let search = self.search.as_deref().unwrap_or_default();
        let place = path::with_query(ROOT, &[("q", search), ("sort", sort.text())]);
        html! {
            th scope="col" class=(class) aria-sort=[(self.sort == sort).then_some(direction)] { a href=(place) { (title) } }
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
    html! {
        nav.pages aria-label="Pages" { a rel="next" href=(path::with_query(path, parameters)) { "More" } }
    }
}
