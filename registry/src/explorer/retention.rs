//! Why a tag stays or goes. Asked for by a link: the answer walks the repository's tags as a run does.

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path;
use super::shown;
use super::visit::Visit;
use crate::domain::grant::Action;
use crate::domain::{RepositoryName, TagName};
use crate::metadata::Time;
use crate::rfc3339;

/// What becomes of a tag, and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Retention {
    repository: String,
    tag: String,
    /// Whether it would survive a run now.
    keeps: bool,
    reason: String,
    /// When it ends whatever the rules say (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// The policies that cover the repository.
    policies: Vec<String>,
    /// For how long it could be brought back, in seconds.
    restore_window: u64,
    #[serde(skip)]
    ends: Option<Time>,
    #[serde(skip)]
    now: Time,
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
    // A walk is work that may be large: only so many at once, each as long as its reader waits.
    let _permit = visit.explorer.walks(visit.tenant.id).await?;
    let found = visit
        .explorer
        .keeper
        .explain(&visit.tenant, &repository, &tag)
        .await?;
    let found =
        found.ok_or_else(|| Failure::absent(format!("there is no tag {tag} in {}", repository.name)))?;
    let page = Retention {
        repository: repository.name.to_string(),
        tag: tag.to_string(),
        keeps: found.keeps,
        reason: found.reason,
        expires_at: found.ends.map(rfc3339::write),
        policies: found.policies.iter().map(ToString::to_string).collect(),
        restore_window: found.window.as_secs(),
        ends: found.ends,
        now: Time::now(),
    };
    Ok(answer::view(visit, &page))
}

impl View for Retention {
    fn title(&self) -> String {
        format!("Retention of {}:{}", self.repository, self.tag)
    }

    fn body(&self, _: &Visit) -> Markup {
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            p { a href=(path::of_tag(&self.repository, &self.tag)) { "The tag" } }
            p.lead { @if self.keeps { "It stays." } @else { "It goes with the next run." } }
            dl.facts {
                div.long { dt { "Why" } dd { (self.reason) } }
                div { dt { "Ends" } dd { @match self.ends {
                    Some(at) => (shown::time(at, self.now)),
                    None => "by rules alone",
                } } }
                div { dt { "Policies" } dd { @if self.policies.is_empty() { "none" } @else { (self.policies.join(", ")) } } }
                div { dt { "Could come back" } dd { @if self.restore_window == 0 { "not once it is gone" } @else {
                    "for " (shown::span(self.restore_window)) " after its deletion"
                } } }
            }
        }
    }
}
