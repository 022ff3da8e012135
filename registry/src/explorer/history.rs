//! What became of a tag: who set and deleted it, and to what it pointed.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;
use uuid::Uuid;

use super::answer::{self, Failure, View};
use super::path;
use super::repositories::next_link;
use super::shown::{self, Column};
use super::visit::{self, Visit};
use crate::domain::grant::Action;
use crate::domain::{RepositoryName, TagName};
use crate::metadata::Time;
use crate::rfc3339;

/// Entries of a page.
const PAGE: u32 = 50;

/// A page of a tag's history.
#[derive(Debug, Serialize)]
struct History {
    repository: String,
    tag: String,
    /// Newest first.
    events: Vec<Event>,
    /// Where the next, older page begins (`after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    now: Time,
}

#[derive(Debug, Serialize)]
struct Event {
    /// RFC 3339.
    at: String,
    /// Whether it was deleted; else it was set.
    deleted: bool,
    /// What it pointed to from then on, or until then.
    digest: String,
    by: String,
    #[serde(skip)]
    time: Time,
}

/// The page.
pub async fn get(
    visit: &Visit,
    name: RepositoryName,
    tag: TagName,
    parts: &Parts,
) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    let repository = visit.repository(name, Action::Metadata)?;
    visit.known()?;
    visit.listed_tag(&repository, &tag)?;
    let mut before = None;
    for (key, value) in visit::query(parts)? {
        if key == "after" && !value.is_empty() {
            before = Some(place(&value)?);
        }
    }
    let store = visit.explorer.keeper.store();
    let events = store.tag_history(&repository, &tag, before, PAGE).await?;
    if events.is_empty() && before.is_none() {
        return Err(Failure::absent(format!(
            "nothing is known of a tag {tag} in {}",
            repository.name
        )));
    }
    let last = events.last().filter(|_| events.len() == PAGE as usize);
    let next = last.map(|event| format!("{}.{}", event.at.0, event.id.simple()));
    let events = events.into_iter().map(|event| Event {
        at: rfc3339::write(event.at),
        deleted: event.deleted,
        digest: event.digest.to_string(),
        by: event.by,
        time: event.at,
    });
    let page = History {
        repository: repository.name.to_string(),
        tag: tag.to_string(),
        events: events.collect(),
        next,
        now: Time::now(),
    };
    Ok(answer::view(visit, &page))
}

fn place(text: &str) -> Result<(Time, Uuid), Failure> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((Time(at.parse().ok()?), id.parse().ok()?))
    };
    read()
        .ok_or_else(|| Failure::Bad("after is no place in the history; take it from the page before".into()))
}

impl View for History {
    fn title(&self) -> String {
        format!("History of {}:{}", self.repository, self.tag)
    }

    fn body(&self, _: &Visit) -> Markup {
        let (repository, tag) = (&self.repository, &self.tag);
        let here = path::of_part(repository, &format!("history/{tag}"));
        html! {
            (shown::crumbs(Some(repository)))
            h1 { (self.title()) }
            p { a href=(path::of_tag(repository, tag)) { "The tag" } " · " a href=(path::of_part(repository, "deleted")) { "Deleted tags" } }
            (shown::table("What became of the tag, newest first", &[Column::Text("When"), Column::Text("What"), Column::Text("By"), Column::Text("Manifest")], &html! {
                        @for event in &self.events {
                            tr {
                                th scope="row" { (shown::time(event.time, self.now)) }
                                td { @if event.deleted { "deleted" } @else { "pushed" } }
                                td { (event.by) }
                                td { a href=(path::of_manifest(repository, &event.digest)) { (shown::digest(&event.digest)) } }
                            }
                        }
                    }))
            @if let Some(next) = &self.next { (next_link(&here, &[("after", next)])) }
        }
    }
}
