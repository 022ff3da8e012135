//! The files in a layer, a folder at a time. Asked for by a link: the first look reads the whole layer.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::archive::{Entry, Kind};
use super::parsed::{self, Content, Sort};
use super::path;
use super::repositories::next_link;
use super::shown::{self, Column};
use super::visit::{self, Visit};
use crate::domain::grant::Action;
use crate::domain::{Digest, RepositoryName};

/// Rows of a page.
const PAGE: usize = 500;
/// What a search finds at most.
const FOUND: usize = 500;
/// Longest path and search, in bytes.
const LIMIT: usize = 4096;

/// A folder of a layer, or what was found in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Files {
    repository: String,
    digest: String,
    /// The folder, without slashes around it; empty for the top.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    /// Bytes of all files below the folder.
    bytes: u64,
    /// Number of files below the folder.
    files: u32,
    entries: Vec<Row>,
    /// Where the next page begins (`from`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
    /// Entries that are not listed since their paths are too long.
    left_out: usize,
    /// Why not all of the layer is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// Its name in the folder, or its whole path where it was searched for.
    name: String,
    kind: Kind,
    bytes: u64,
    files: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Row {
    fn new(name: String, entry: Entry<'_>) -> Self {
        Self {
            name,
            kind: entry.kind,
            bytes: entry.bytes,
            files: entry.files,
            mode: entry.mode,
            target: entry.target.map(str::to_owned),
        }
    }
}

/// The page.
pub async fn get(
    visit: &Visit,
    name: RepositoryName,
    digest: Digest,
    parts: &Parts,
) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    let repository = visit.repository(name, Action::Pull)?;
    // It costs more than it costs to ask, so that it is for nobody whom nobody knows.
    visit.known()?;
    let (mut place, mut search, mut from) = (String::new(), None, 0_usize);
    for (key, value) in visit::query_of_content(parts) {
        match &*key {
            "path" => value.trim_matches('/').clone_into(&mut place),
            "q" => search = Some(value.trim().to_owned()).filter(|text| !text.is_empty()),
            "from" => from = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    if place.len() > LIMIT || search.as_ref().is_some_and(|text| text.len() > LIMIT) {
        return Err(Failure::Bad("the path is too long".into()));
    }
    let absent = || Failure::absent(format!("{} has no layer {digest}, or not yet", repository.name));
    let content = parsed::read(&visit.explorer, &repository, &digest, Sort::Files).await?;
    let content: Arc<Content> = content.ok_or_else(absent)?;
    let tree = match &*content {
        Content::Files(tree) => tree,
        Content::Unreadable(why) => {
            return Err(Failure::Conflict(format!(
                "the files of {digest} cannot be listed: {why}"
            )));
        }
        _ => return Err(absent()),
    };
    let missing = || Failure::absent(format!("there is no folder {place:?} in the layer"));
    let folder = tree.folder(&place).ok_or_else(missing)?;
    let (entries, next) = match &search {
        Some(text) => (found(visit, content.clone(), text.clone()).await?, None),
        None => {
            let children = folder.children();
            let next = (children.len() > from.saturating_add(PAGE)).then(|| from + PAGE);
            let rows = children.skip(from).take(PAGE);
            (
                rows.map(|entry| Row::new(entry.name.to_owned(), entry)).collect(),
                next,
            )
        }
    };
    let page = Files {
        repository: repository.name.to_string(),
        digest: digest.to_string(),
        bytes: folder.entry.bytes,
        files: folder.entry.files,
        left_out: tree.left_out(),
        cut: tree.cut().map(ToString::to_string),
        path: place,
        search,
        entries,
        next,
    };
    Ok(answer::view(visit, &page))
}

/// A walk through all paths, which may be long: not on a thread that serves others.
async fn found(visit: &Visit, content: Arc<Content>, text: String) -> Result<Vec<Row>, Failure> {
    let turn = visit.explorer.walks(visit.tenant.id).await?;
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let Content::Files(tree) = &*content else {
            return Vec::new();
        };
        let found = tree.search(&text, FOUND).into_iter();
        found.map(|found| Row::new(found.path, found.entry)).collect()
    });
    found.await.map_err(|error| Failure::Ours(error.to_string()))
}

impl View for Files {
    fn title(&self) -> String {
        match self.path.as_str() {
            "" => "Files of a layer".to_owned(),
            path => format!("Files of a layer: {}", shown::cut(path)),
        }
    }

    fn body(&self, _: &Visit) -> Markup {
        let here = self.here();
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { "Files of a layer" }
            dl.facts {
                div.long { dt { "Layer" } dd { code { (self.digest) } } }
                div { dt { "Files" } dd { (shown::grouped(self.files.into())) } }
                div { dt { "Size" } dd { (shown::size(self.bytes)) } }
            }
            @if self.left_out > 0 { p.hint { (shown::grouped(self.left_out as u64)) " entries have too long a path to be listed." } }
            @if let Some(cut) = &self.cut { p.alert { "This is not all: " (cut) "." } }
            form.search role="search" action=(here) method="get" {
                label.hidden for="q" { "Search by a part of the path" }
                input #q type="search" name="q" value=(self.search.as_deref().unwrap_or_default())
                    placeholder="Search by a part of the path" autocomplete="off" spellcheck="false" data-live="results";
                button type="submit" { "Search" }
            }
            (self.way())
            div #results aria-live="polite" {
                @if self.entries.is_empty() { p.empty { "There is nothing." } } @else { (self.table()) }
                @if self.search.is_some() && self.entries.len() >= FOUND { p.hint { "There may be more." } }
                @if let Some(next) = self.next {
                    (next_link(&here, &[("path", &self.path), ("from", &next.to_string())]))
                }
            }
        }
    }
}

impl Files {
    fn here(&self) -> String {
        path::of_part(&self.repository, &format!("files/{}", self.digest))
    }

    fn at(&self, place: &str) -> String {
        path::with_query(&self.here(), &[("path", place)])
    }

    /// The folders above, each a link.
    fn way(&self) -> Markup {
        let mut ends: Vec<usize> = self.path.match_indices('/').map(|(at, _)| at).collect();
        // Of very deep ones the nearest.
        let skipped = ends.len().saturating_sub(20);
        ends.drain(..skipped);
        let name = |end: usize| self.path.get(..end).unwrap_or_default();
        let last = |text: &str| shown::cut(text.rsplit('/').next().unwrap_or_default());
        html! {
            nav.crumbs aria-label="Folder" {
                a href=(self.at("")) { "/" }
                @if skipped > 0 { " … " }
                @for end in ends { " " a href=(self.at(name(end))) { (last(name(end))) } " /" }
                @if !self.path.is_empty() { " " (last(&self.path)) }
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            (shown::table("Files", &[Column::Text("Name"), Column::Text("Kind"), Column::Text("Mode"), Column::Number("Size")], &html! {
                        @for row in &self.entries { (self.row(row)) }
                    }))
        }
    }

    fn row(&self, row: &Row) -> Markup {
        let whole = match (self.search.is_some(), self.path.as_str()) {
            (true, _) | (_, "") => row.name.clone(),
            (_, path) => format!("{path}/{}", row.name),
        };
        html! {
            tr {
                th scope="row" {
                    @match row.kind {
                        Kind::Folder => a href=(self.at(&whole)) { (shown::cut(&row.name)) "/" },
                        Kind::Whiteout | Kind::OpaqueWhiteout => del { (shown::cut(&row.name)) },
                        _ => (shown::cut(&row.name)),
                    }
                    @if let Some(target) = &row.target { " → " code { (shown::cut(target)) } }
                }
                td { (words(row.kind)) }
                td { @if let Some(mode) = row.mode { code { (format!("{mode:04o}")) } } }
                td.number { (shown::size(row.bytes)) }
            }
        }
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Symlink => "symbolic link",
        Kind::HardLink => "hard link",
        Kind::Device => "device",
        Kind::Fifo => "pipe",
        Kind::Whiteout => "removes it",
        Kind::OpaqueWhiteout => "hides what was in the folder",
    }
}
