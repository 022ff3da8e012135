//! A repository: its tags, the newest push first or by name, and what is told about it.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path;
use super::repositories::{Kept, next_link, when};
use super::shown;
use super::visit::{self, Visit};
use crate::domain::grant::Action;
use crate::domain::{RepositoryName, TagName};
use crate::metadata::lifecycle::{TagPage, TagRow};
use crate::metadata::{Repository, Time};
use crate::rfc3339;

/// Tags of a page.
const PAGE: usize = 50;
/// Longest beginning of a tag that is searched for.
const SEARCH_LIMIT: usize = 128;

/// A page of a repository's tags.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryPage {
    repository: String,
    kept: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    public: bool,
    /// The custom resource that declares it by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared_by: Option<String>,
    /// Number of its tags.
    tag_count: u64,
    /// Bytes that it stores.
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    sort: Sort,
    tags: Vec<Row>,
    /// Where the next page begins (`after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    now: Time,
    #[serde(skip)]
    upstream: Option<String>,
}

/// The order of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    Pushed,
    Name,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tag: String,
    digest: String,
    pushed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled_at: Option<String>,
    /// GETs and HEADs by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pulls: Option<u64>,
    /// Whether it belongs to another manifest, as a signature does by its name.
    attached: bool,
    #[serde(skip)]
    pushed: Time,
    #[serde(skip)]
    pulled: Option<Time>,
}

impl From<TagRow> for Row {
    fn from(row: TagRow) -> Self {
        Self {
            tag: row.name,
            digest: row.digest.to_string(),
            pushed_at: rfc3339::write(row.pushed_at),
            pulled_at: row.pulled_at.map(rfc3339::write),
            pulls: Some(row.pulls),
            attached: row.attached,
            pushed: row.pushed_at,
            pulled: row.pulled_at,
        }
    }
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
            sort: Sort::Pushed,
            search: None,
            after: String::new(),
        };
        for (key, value) in visit::query(parts)? {
            match (&*key, &*value) {
                ("sort", "name") => wanted.sort = Sort::Name,
                ("q", text) => wanted.search = Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
                ("after", text) => text.clone_into(&mut wanted.after),
                _ => {}
            }
        }
        let is_long = wanted
            .search
            .as_ref()
            .is_some_and(|text| text.len() > SEARCH_LIMIT);
        if is_long || wanted.after.len() > 200 {
            return Err(Failure::Bad("a tag has at most 128 characters".into()));
        }
        // Names that begin with something stand together.
        if wanted.search.is_some() {
            wanted.sort = Sort::Name;
        }
        Ok(wanted)
    }
}

/// The page.
pub async fn get(visit: &Visit, name: RepositoryName, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    // 1. Whether it may be seen, and is there.
    let repository = visit.repository(name.clone(), Action::Metadata)?;
    let store = &visit.explorer.configuration;
    let usage = store.repository_usage(visit.tenant.id, &repository.name).await?;
    let usage = usage.ok_or_else(|| visit.unknown(&name))?;

    // 2. Its tags.
    let wanted = Wanted::of(parts)?;
    let (tags, next) = match wanted.sort {
        Sort::Pushed => by_push(visit, &repository, &wanted.after).await?,
        Sort::Name => by_name(visit, &repository, &wanted).await?,
    };
    let canonical = &repository.name;
    let cache = visit.tenant.caches.of(canonical);
    let mut tags = tags;
    if !visit.is_known() {
        for row in &mut tags {
            (row.pulled, row.pulled_at, row.pulls) = (None, None, None);
        }
    }
    if let Some((cache, _)) = cache {
        // What the cache's list leaves out is no tag of it.
        tags.retain(|row| cache.allows_tag(&row.tag));
    }
    let page = RepositoryPage {
        kept: Kept::of(visit, canonical),
        description: visit
            .tenant
            .repositories
            .description(canonical)
            .map(str::to_owned),
        declared_by: visit
            .tenant
            .repositories
            .declared_by(canonical)
            .filter(|_| visit.is_known())
            .map(str::to_owned),
        public: visit.tenant.visibility(canonical) == berth_crds::Visibility::Public,
        repository: canonical.to_string(),
        tag_count: usage.tags,
        bytes: usage.bytes,
        search: wanted.search,
        sort: wanted.sort,
        tags,
        next,
        now: Time::now(),
        upstream: cache.map(|(cache, upstream)| format!("{}/{upstream}", cache.config.upstream.url)),
    };
    Ok(answer::view(visit, &page))
}

async fn by_push(
    visit: &Visit,
    repository: &Repository,
    after: &str,
) -> Result<(Vec<Row>, Option<String>), Failure> {
    let page = TagPage {
        after: (!after.is_empty()).then(|| pushed_cursor(after)).transpose()?,
        before: None,
        pulls: true,
        limit: u32::try_from(PAGE + 1).unwrap_or(u32::MAX),
    };
    let mut tags = visit
        .explorer
        .keeper
        .store()
        .tags_by_push(repository, page)
        .await?;
    let more = tags.len() > PAGE;
    tags.truncate(PAGE);
    let last = tags.last().filter(|_| more);
    let next = last.map(|tag| format!("{}.{}", tag.pushed_at.0, tag.name));
    Ok((tags.into_iter().map(Row::from).collect(), next))
}

fn pushed_cursor(text: &str) -> Result<(Time, String), Failure> {
    let read = || {
        let (at, tag) = text.split_once('.')?;
        let tag: TagName = tag.parse().ok()?;
        Some((Time(at.parse().ok()?), tag.to_string()))
    };
    read().ok_or_else(|| Failure::Bad("after is no place in the list; take it from the page before".into()))
}

async fn by_name(
    visit: &Visit,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<(Vec<Row>, Option<String>), Failure> {
    let prefix = wanted.search.as_deref().unwrap_or_default();
    // Before the first name that begins so; a name that is the beginning itself is looked up apart.
    let (after, whole) = match wanted.after.as_str() {
        "" => (prefix, prefix.parse::<TagName>().ok()),
        after => (after, None),
    };
    let limit = u32::try_from(PAGE + 1).unwrap_or(u32::MAX);
    let names = visit
        .explorer
        .metadata
        .tags(repository, Some(after.to_owned()), limit)
        .await?;
    let begins = |name: &String| name.starts_with(prefix);
    let mut names: Vec<String> = names.unwrap_or_default().into_iter().take_while(begins).collect();
    let more = names.len() > PAGE;
    names.truncate(PAGE);
    let next = names.last().filter(|_| more).cloned();
    let listed = names.iter().filter_map(|name| name.parse::<TagName>().ok());
    // A page like others, but for the one that is looked up apart.
    let wanted: Vec<TagName> = whole.into_iter().chain(listed).collect();
    let rows = visit.explorer.explore.tag_rows(repository, wanted).await?;
    Ok((rows.into_iter().map(Row::from).collect(), next))
}

impl View for RepositoryPage {
    fn title(&self) -> String {
        self.repository.clone()
    }

    fn body(&self, visit: &Visit) -> Markup {
        html! {
            (shown::crumbs(None))
            h1 { (self.repository) " " (self.kept.badge()) }
            @if let Some(text) = &self.description { p { (text) } }
            @if let Some(upstream) = &self.upstream { p.hint { "Read through from " code { (upstream) } } }
            dl.facts {
                div { dt { "Tags" } dd { (shown::grouped(self.tag_count)) } }
                div { dt { "Size" } dd { (shown::size(self.bytes)) } }
                div { dt { "Visible to" } dd { @if self.public { "everybody" } @else { "whoever has a token for it" } } }
            }
            @if let Some(object) = &self.declared_by {
                p.hint { "Declared by the Repository " code { (object) } ", which is where its settings are changed." }
            }
            p.more {
                a href=(path::of_part(&self.repository, "deleted")) { "Deleted tags" }
                a href=(path::of_part(&self.repository, "difference")) { "Compare two tags" }
                @if visit.is_known() { a href=(path::of_part(&self.repository, "usage")) { "Usage" } }
            }
            (self.search(visit))
            div #results aria-live="polite" {
                @if self.tags.is_empty() { (self.nothing()) } @else { (self.table()) }
                @if let Some(next) = &self.next {
                    (next_link(&path::of_repository(&self.repository), &[
                        ("q", self.search.as_deref().unwrap_or_default()), ("sort", self.order()), ("after", next),
                    ]))
                }
            }
        }
    }
}

impl RepositoryPage {
    fn order(&self) -> &'static str {
        match self.sort {
            Sort::Pushed => "",
            Sort::Name => "name",
        }
    }

    fn search(&self, _: &Visit) -> Markup {
        let place = path::of_repository(&self.repository);
        html! {
            form.search role="search" action=(place) method="get" {
                label.hidden for="q" { "Search tags by how they begin" }
                input #q type="search" name="q" value=(self.search.as_deref().unwrap_or_default())
                    placeholder="Tags that begin with" autocomplete="off" spellcheck="false" data-live="results";
                button type="submit" { "Search" }
            }
        }
    }

    fn table(&self) -> Markup {
        let place = path::of_repository(&self.repository);
        let sorted = |sort: Sort| (self.sort == sort).then_some("descending");
        html! {
            div.wide tabindex="0" role="region" aria-label=("Table of tags") {
                table {
                    caption.hidden { "Tags" }
                    thead {
                        tr {
                            th scope="col" aria-sort=[(self.sort == Sort::Name).then_some("ascending")] {
                                a href=(format!("{place}?sort=name")) { "Tag" }
                            }
                            th scope="col" { "Digest" }
                            th scope="col" aria-sort=[sorted(Sort::Pushed)] { a href=(place) { "Pushed" } }
                            th scope="col" { "Pulled" }
                            th.number scope="col" { "Pulls" }
                        }
                    }
                    tbody {
                        @for row in &self.tags {
                            tr {
                                th scope="row" {
                                    a href=(path::of_tag(&self.repository, &row.tag)) { (row.tag) }
                                    @if row.attached { " " span.badge title="Stays and goes with the manifest that it is about" { "attached" } }
                                }
                                td { a href=(path::of_manifest(&self.repository, &row.digest)) { (shown::digest(&row.digest)) } }
                                td { (shown::time(row.pushed, self.now)) }
                                td { (when(row.pulled, self.now)) }
                                td.number { @if let Some(pulls) = row.pulls { (shown::grouped(pulls)) } }
                            }
                        }
                    }
                }
            }
        }
    }

    fn nothing(&self) -> Markup {
        html! {
            p.empty {
                @match &self.search {
                    Some(search) => { "No tag begins with “" (search) "”." }
                    None => "There are no tags here.",
                }
            }
        }
    }
}
