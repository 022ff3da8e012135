//! Deletes, restores and tags, for whoever may. A deletion is shown before it is done.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use http::Method;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path::{self, Form};
use super::session;
use super::shown;
use super::visit::Visit;
use crate::audit::Outcome;
use crate::domain::grant::Action;
use crate::domain::{Digest, RepositoryName, TagName};
use crate::lifecycle::changes::{Changes, Refusal};
use crate::lifecycle::coverage::restore_window;
use crate::metadata::{Deleted, Reference, Repository, Time};
use crate::rfc3339;

/// Tags and indexes that a preview names.
const TOLD: u32 = 100;

/// What would go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    repository: String,
    /// The tag that would be deleted; absent where the manifest would be, with all its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    digest: String,
    /// Tags that point to the manifest, at most 100.
    tags: Vec<String>,
    /// Indexes that name it, at most 100.
    indexes: Vec<String>,
    /// Whether the manifest goes too, now or when the time to restore the tag is over.
    manifest_goes: bool,
    /// Bytes that become free then, at least.
    frees: u64,
    /// Until when it could be brought back (RFC 3339); absent if not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    restorable_until: Option<String>,
    /// A tag that may not be deleted, and with it all of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    immutable: Option<String>,
    #[serde(skip)]
    until: Option<Time>,
    #[serde(skip)]
    now: Time,
}

/// The preview, or the deletion.
pub async fn delete(
    visit: &Visit,
    name: RepositoryName,
    reference: Reference,
    parts: &Parts,
    body: Body,
) -> Result<Response, Failure> {
    let repository = visit.repository(name, Action::Delete)?;
    // Tags of a cache are its upstream's, and come again with the next pull: its pages change nothing.
    owned(visit, &repository)?;
    match parts.method {
        Method::GET | Method::HEAD => {
            // It tells what else there is.
            visit.repository(repository.name.clone(), Action::Metadata)?;
            let page = preview(visit, &repository, &reference).await?;
            Ok(answer::view(visit, &page))
        }
        Method::POST if visit.form == Form::Html => {
            session::fields(visit, &parts.headers, body).await?;
            perform(visit, &repository, &reference).await
        }
        _ => Err(Failure::Method("GET, HEAD, POST")),
    }
}

fn owned(visit: &Visit, repository: &Repository) -> Result<(), Failure> {
    match visit.tenant.caches.of(&repository.name) {
        Some((cache, _)) => Err(Failure::Conflict(format!(
            "{} belongs to the cache {}: what it holds follows the upstream",
            repository.name, cache.name
        ))),
        None => Ok(()),
    }
}

async fn preview(visit: &Visit, repository: &Repository, reference: &Reference) -> Result<Preview, Failure> {
    let explorer = &visit.explorer;
    let found = explorer.metadata.manifest(repository, reference).await?;
    let row = found.ok_or_else(|| super::manifest::absent(visit, repository, reference))?;
    let tags = explorer.explore.tags_of(repository, &row.digest, TOLD).await?;
    let indexes = explorer.explore.indexes_of(repository, &row.digest, TOLD).await?;
    let manifest_goes = match reference {
        Reference::Tag(_) => tags.len() <= 1 && indexes.is_empty(),
        Reference::Digest(_) => true,
    };
    let lost = u64::try_from(tags.len()).unwrap_or(u64::MAX).max(1);
    let frees = match manifest_goes {
        true => {
            let going = BTreeMap::from([(row.digest, lost)]);
            let _permit = explorer.walks(visit.tenant.id).await?;
            explorer.keeper.store().reclaimable(repository, going).await?
        }
        false => 0,
    };
    let window = restore_window(&visit.tenant, &repository.name, explorer.keeper.delays().restore);
    let now = Time::now();
    let until = (!window.is_zero()).then(|| now.plus(window));
    let lost: Vec<&str> = match reference {
        Reference::Tag(tag) => vec![tag.as_str()],
        Reference::Digest(_) => tags.iter().map(String::as_str).collect(),
    };
    let is_immutable = |tag: &&str| {
        let mut globs = visit.tenant.repositories.immutable(&repository.name);
        globs.any(|glob| glob.matches(tag))
    };
    Ok(Preview {
        repository: repository.name.to_string(),
        tag: match reference {
            Reference::Tag(tag) => Some(tag.to_string()),
            Reference::Digest(_) => None,
        },
        digest: row.digest.to_string(),
        immutable: lost.into_iter().find(is_immutable).map(str::to_owned),
        tags,
        indexes: indexes.iter().map(ToString::to_string).collect(),
        manifest_goes,
        frees,
        restorable_until: until.map(rfc3339::write),
        until,
        now,
    })
}

async fn perform(visit: &Visit, repository: &Repository, reference: &Reference) -> Result<Response, Failure> {
    let object = match reference {
        Reference::Tag(tag) => format!("{}:{tag}", repository.name),
        Reference::Digest(digest) => format!("{}:{digest}", repository.name),
    };
    match changes(visit).delete(repository, reference).await? {
        Deleted::Done => {}
        Deleted::Absent => return Err(super::manifest::absent(visit, repository, reference)),
        Deleted::Immutable(tag) => {
            let why = format!("tag {tag} of {} is immutable and stays", repository.name);
            visit.note("delete", &object, Outcome::Denied, &why);
            return Err(Failure::Conflict(why));
        }
    }
    visit.note("delete", &object, Outcome::Done, "");
    let name = repository.name.as_str();
    if !visit.actions_on(&repository.name).contains(Action::Metadata) {
        return Ok(answer::to(path::ROOT));
    }
    Ok(answer::to(&match reference {
        Reference::Tag(tag) => path::of_part(name, &format!("history/{tag}")),
        Reference::Digest(_) => path::of_part(name, "deleted"),
    }))
}

/// Brings a deleted tag back.
pub async fn restore(
    visit: &Visit,
    name: RepositoryName,
    parts: &Parts,
    body: Body,
) -> Result<Response, Failure> {
    let (repository, fields) = sent(visit, name, parts, body).await?;
    let tag = tag(&fields)?;
    let object = format!("{}:{tag}", repository.name);
    match changes(visit).restore(&repository, tag.clone()).await? {
        Ok(digest) => visit.note("tag.restore", &object, Outcome::Done, &digest.to_string()),
        Err(refusal) => return Err(refused(visit, "tag.restore", &object, &refusal)),
    }
    Ok(answer::to(&path::of_tag(repository.name.as_str(), tag.as_str())))
}

/// Puts a tag to a manifest that is there.
pub async fn retag(
    visit: &Visit,
    name: RepositoryName,
    parts: &Parts,
    body: Body,
) -> Result<Response, Failure> {
    let (repository, fields) = sent(visit, name, parts, body).await?;
    let tag = tag(&fields)?;
    let digest = session::field(&fields, "digest").and_then(|text| text.parse::<Digest>().ok());
    let digest = digest.ok_or_else(|| Failure::Bad("the form names no digest".into()))?;
    let object = format!("{}:{tag}", repository.name);
    // The manifest is in memory meanwhile, which has a few MiB at most.
    let _permit = visit.explorer.large(visit.tenant.id).await?;
    match changes(visit).retag(&repository, &digest, tag.clone()).await? {
        Ok(()) => visit.note("push", &object, Outcome::Done, &digest.to_string()),
        Err(refusal) => return Err(refused(visit, "push", &object, &refusal)),
    }
    Ok(answer::to(&path::of_tag(repository.name.as_str(), tag.as_str())))
}

/// The repository and what a form has sent about it, from whoever may push.
async fn sent(
    visit: &Visit,
    name: RepositoryName,
    parts: &Parts,
    body: Body,
) -> Result<(Repository, Vec<(String, String)>), Failure> {
    if parts.method != Method::POST {
        return Err(Failure::Method("POST"));
    }
    let repository = visit.repository(name, Action::Push)?;
    owned(visit, &repository)?;
    let fields = session::fields(visit, &parts.headers, body).await?;
    Ok((repository, fields))
}

fn tag(fields: &[(String, String)]) -> Result<TagName, Failure> {
    let text = session::field(fields, "tag").unwrap_or_default().trim();
    text.parse()
        .map_err(|error| Failure::Bad(format!("{text:?} is no tag: {error}")))
}

fn refused(visit: &Visit, action: &'static str, object: &str, refusal: &Refusal) -> Failure {
    let why = refusal.to_string();
    visit.note(action, object, Outcome::Denied, &why);
    match refusal {
        Refusal::Absent(_) => Failure::Absent(why),
        _ => Failure::Conflict(why),
    }
}

fn changes(visit: &Visit) -> Changes<'_> {
    visit
        .explorer
        .keeper
        .changes(&visit.tenant, &visit.principal.label)
}

impl View for Preview {
    fn title(&self) -> String {
        match &self.tag {
            Some(tag) => format!("Delete {}:{tag}?", self.repository),
            None => format!("Delete a manifest of {}?", self.repository),
        }
    }

    fn body(&self, visit: &Visit) -> Markup {
        let (here, back) = match &self.tag {
            Some(tag) => (format!("delete/tags/{tag}"), path::of_tag(&self.repository, tag)),
            None => (
                format!("delete/manifests/{}", self.digest),
                path::of_manifest(&self.repository, &self.digest),
            ),
        };
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            (self.facts())
            @if let Some(tag) = &self.immutable {
                p.alert role="alert" { "Tag " (tag) " is immutable, and is not deleted." }
                p { a href=(back) { "Back" } }
            } @else {
                form.row method="post" action=(path::of_part(&self.repository, &here)) {
                    (visit.form_field())
                    button.danger type="submit" { "Delete" }
                    a href=(back) { "Keep it" }
                }
            }
        }
    }
}

impl Preview {
    fn facts(&self) -> Markup {
        let others: Vec<&String> = self
            .tags
            .iter()
            .filter(|tag| Some(*tag) != self.tag.as_ref())
            .collect();
        html! {
            dl.facts {
                div.long { dt { "Manifest" } dd { code { (self.digest) } } }
                div { dt { @if self.tag.is_some() { "Other tags on it" } @else { "Tags that go" } } dd {
                    @if others.is_empty() { "none" }
                    @for (at, tag) in others.iter().enumerate() { @if at > 0 { ", " } (tag) }
                    @if self.tags.len() >= TOLD as usize { " and perhaps more" }
                } }
                div { dt { "Named by" } dd { @match self.indexes.len() {
                    0 => "no index",
                    1 => "an index",
                    count => { (count) " indexes" }
                } } }
                div { dt { "Frees" } dd { @if self.manifest_goes { "at least " (shown::size(self.frees)) } @else {
                    "nothing: the manifest stays"
                } } }
                div { dt { "Could come back" } dd { @match self.until {
                    Some(until) => { "until " (shown::time(until, self.now)) },
                    None => "not at all",
                } } }
            }
        }
    }
}
