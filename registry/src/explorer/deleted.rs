//! Tags that were deleted and can come back.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path;
use super::repositories::next_link;
use super::shown;
use super::visit::{self, Visit};
use crate::domain::RepositoryName;
use crate::domain::grant::Action;
use crate::metadata::Time;
use crate::rfc3339;

/// Tags of a page.
const PAGE: u32 = 50;

/// A page of deleted tags, the last deleted first.
#[derive(Debug, Serialize)]
struct Deleted {
    repository: String,
    tags: Vec<Row>,
    /// Where the next page begins (`after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    now: Time,
    /// Whether the visitor may bring them back.
    #[serde(skip)]
    restores: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tag: String,
    digest: String,
    deleted_at: String,
    deleted_by: String,
    restorable_until: String,
    #[serde(skip)]
    at: Time,
    #[serde(skip)]
    until: Time,
}

/// The page.
pub async fn get(visit: &Visit, name: RepositoryName, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    let repository = visit.repository(name.clone(), Action::Metadata)?;
    visit.known()?;
    let usage = &visit.explorer.configuration;
    let usage = usage.repository_usage(visit.tenant.id, &repository.name).await?;
    usage.ok_or_else(|| visit.unknown(&name))?;
    let mut before = None;
    for (key, value) in visit::query(parts)? {
        if key == "after" && !value.is_empty() {
            before = Some(place(&value)?);
        }
    }
    let now = Time::now();
    let store = visit.explorer.keeper.store();
    let mut tags = store.deleted_tags(&repository, before, now, PAGE).await?;
    let last = tags.last().filter(|_| tags.len() == PAGE as usize);
    let next = last.map(|tag| format!("{}.{}", tag.at.0, tag.name));
    if let Some((cache, _)) = visit.tenant.caches.of(&repository.name) {
        tags.retain(|tag| cache.allows_tag(&tag.name));
    }
    let tags = tags.into_iter().map(|tag| Row {
        tag: tag.name,
        digest: tag.digest.to_string(),
        deleted_at: rfc3339::write(tag.at),
        deleted_by: tag.by,
        restorable_until: rfc3339::write(tag.until),
        at: tag.at,
        until: tag.until,
    });
    let page = Deleted {
        tags: tags.collect(),
        next,
        now,
        restores: visit.may(Action::Push, &repository.name),
        repository: repository.name.to_string(),
    };
    Ok(answer::view(visit, &page))
}

fn place(text: &str) -> Result<(Time, String), Failure> {
    let read = || {
        let (at, tag) = text.split_once('.')?;
        Some((Time(at.parse().ok()?), tag.to_owned()))
    };
    read().ok_or_else(|| Failure::Bad("after is no place in the list; take it from the page before".into()))
}

impl View for Deleted {
    fn title(&self) -> String {
        format!("Deleted tags of {}", self.repository)
    }

    fn body(&self, visit: &Visit) -> Markup {
        let here = path::of_part(&self.repository, "deleted");
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            @if self.tags.is_empty() { p.empty { "No deleted tag can come back." } } @else { (self.table(visit)) }
            @if let Some(next) = &self.next { (next_link(&here, &[("after", next)])) }
        }
    }
}

impl Deleted {
    fn table(&self, visit: &Visit) -> Markup {
        let repository = &self.repository;
        html! {
            div.wide tabindex="0" role="region" aria-label="Table of deleted tags" {
                table {
                    caption.hidden { "Deleted tags, the last deleted first" }
                    thead { tr {
                        th scope="col" { "Tag" } th scope="col" { "Manifest" } th scope="col" { "Deleted" }
                        th scope="col" { "By" } th scope="col" { "Can come back until" }
                        @if self.restores { th scope="col" { span.hidden { "Action" } } }
                    } }
                    tbody {
                        @for row in &self.tags {
                            tr {
                                th scope="row" { a href=(path::of_part(repository, &format!("history/{}", row.tag))) { (row.tag) } }
                                td { (shown::digest(&row.digest)) }
                                td { (shown::time(row.at, self.now)) }
                                td { (row.deleted_by) }
                                td { (shown::time(row.until, self.now)) }
                                @if self.restores {
                                    td {
                                        form method="post" action=(path::of_part(repository, "restore")) {
                                            (visit.form_field())
                                            input type="hidden" name="tag" value=(row.tag);
                                            button type="submit" { "Restore" span.hidden { " " (row.tag) } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
