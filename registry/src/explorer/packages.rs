//! The packages that a bill of materials lists, searched and page by page.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::parsed::{self, Content, Sort};
use super::path;
use super::repositories::next_link;
use super::shown::{self, Column};
use super::supply::sbom::{Package, Sbom};
use super::visit::{self, Visit};
use crate::domain::grant::Action;
use crate::domain::{Digest, RepositoryName};

/// Packages of a page.
const PAGE: usize = 200;
/// Longest search, in bytes.
const LIMIT: usize = 500;

/// A page of packages.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Packages {
    repository: String,
    digest: String,
    format: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    tools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<String>,
    /// Packages that were found.
    found: usize,
    packages: Vec<Package>,
    /// Where the next page begins (`from`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
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
    let (mut search, mut from) = (None, 0_usize);
    for (key, value) in visit::query_of_content(parts) {
        match &*key {
            "q" => search = Some(value.trim().to_owned()).filter(|text| !text.is_empty()),
            "from" => from = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    if search.as_ref().is_some_and(|text| text.len() > LIMIT) {
        return Err(Failure::Bad("the search is too long".into()));
    }
    let absent = || Failure::absent(format!("{} has no document {digest}", repository.name));
    let content = parsed::read(&visit.explorer, &repository, &digest, Sort::Packages).await?;
    let content = content.ok_or_else(absent)?;
    let sbom = match &*content {
        Content::Packages(sbom) => sbom,
        Content::Unreadable(why) => return Err(Failure::Conflict(format!("{digest}: {why}"))),
        _ => return Err(absent()),
    };
    let (packages, found) = {
        let (content, search) = (content.clone(), search.clone());
        let turn = visit.explorer.walks(visit.tenant.id).await?;
        // Through all packages, which may be many: not on a thread that serves others.
        let found = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match &*content {
                Content::Packages(sbom) => found(sbom, search.as_deref(), from),
                _ => (Vec::new(), 0),
            }
        });
        found.await.map_err(|error| Failure::Ours(error.to_string()))?
    };
    let page = Packages {
        repository: repository.name.to_string(),
        digest: digest.to_string(),
        format: sbom.format.clone(),
        name: sbom.name.clone(),
        created: sbom.created.clone(),
        tools: sbom.tools.clone(),
        next: (found > from.saturating_add(PAGE)).then(|| from + PAGE),
        search,
        found,
        packages,
    };
    Ok(answer::view(visit, &page))
}

/// A page of what holds a text, and how much does.
fn found(sbom: &Sbom, search: Option<&str>, from: usize) -> (Vec<Package>, usize) {
    let wanted = search.map(str::to_lowercase);
    let holds = |package: &&Package| wanted.as_deref().is_none_or(|wanted| package.holds(wanted));
    let mut count = 0;
    let mut page = Vec::new();
    for package in sbom.packages.iter().filter(holds) {
        if count >= from && page.len() < PAGE {
            page.push(package.clone());
        }
        count += 1;
    }
    (page, count)
}

impl View for Packages {
    fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("Packages of {}", shown::cut(name)),
            None => "Packages".to_owned(),
        }
    }

    fn body(&self, _: &Visit) -> Markup {
        let here = path::of_part(&self.repository, &format!("packages/{}", self.digest));
        let search = self.search.as_deref().unwrap_or_default();
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            dl.facts {
                div { dt { "Format" } dd { (self.format) } }
                @if let Some(created) = &self.created { div { dt { "Made" } dd { (created) } } }
                @if !self.tools.is_empty() { div { dt { "By" } dd { (self.tools.join(", ")) } } }
                div.long { dt { "Document" } dd { code { (self.digest) } } }
            }
            form.search role="search" action=(here) method="get" {
                label.hidden for="q" { "Search packages" }
                input #q type="search" name="q" value=(search) placeholder="Name, version or licence"
                    autocomplete="off" spellcheck="false" data-live="results";
                button type="submit" { "Search" }
            }
            div #results aria-live="polite" {
                p.hint { (shown::grouped(self.found as u64)) " packages" }
                @if !self.packages.is_empty() { (self.table()) }
                @if let Some(next) = self.next { (next_link(&here, &[("q", search), ("from", &next.to_string())])) }
            }
        }
    }
}

impl Packages {
    fn table(&self) -> Markup {
        html! {
            (shown::table("Packages", &[Column::Text("Package"), Column::Text("Version"), Column::Text("Kind"), Column::Text("Licences")], &html! {
                        @for package in &self.packages {
                            tr {
                                th scope="row" title=[package.purl.as_deref()] { (package.name) }
                                td { (package.version.as_deref().unwrap_or_default()) }
                                td { (package.kind.as_deref().unwrap_or_default()) }
                                td.text { (package.licenses.as_deref().unwrap_or_default()) }
                            }
                        }
                    }))
        }
    }
}
