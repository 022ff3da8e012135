//! `/admin/v1/tenants/{tenant}/tags`: what became of tags, and how deleted ones come back.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Asked, Failure};
use super::reports::{PAGE, cursor, find, find_repository};
use crate::audit::Outcome;
use crate::domain::TagName;
use crate::lifecycle::changes::Refusal;
use crate::metadata::Time;
use crate::metadata::lifecycle::{DeletedTag, TagEvent};
use crate::rfc3339;

/// Entries of a page unless the request says otherwise.
const DEFAULT_PAGE: u32 = 100;

/// Which deleted tags.
#[derive(Debug, Deserialize)]
pub struct OfRepository {
    repository: String,
    after: Option<String>,
    limit: Option<u32>,
}

/// Deleted tags that can be brought back, the last deleted first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeletedTags {
    /// The tags.
    tags: Vec<Deleted>,
    /// Where the next page begins (`after`), if there is one.
    next: Option<String>,
}

/// A deleted tag that can be brought back.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Its name.
    tag: String,
    /// What it pointed to.
    digest: String,
    /// When it was deleted (RFC 3339).
    deleted_at: String,
    /// By whom.
    deleted_by: String,
    /// Until when it can be brought back (RFC 3339).
    restorable_until: String,
}

/// Which part of a tag's history.
#[derive(Debug, Deserialize)]
pub struct OfHistory {
    repository: String,
    tag: String,
    before: Option<String>,
    limit: Option<u32>,
}

/// What became of a tag, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TagHistory {
    /// What happened.
    events: Vec<Happened>,
    /// Where the next, older page begins (`before`), if there is one.
    next: Option<String>,
}

/// What happened to a tag.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was set.
    Pushed,
    /// It was deleted.
    Deleted,
}

/// One thing that happened to a tag.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Happened {
    /// When (RFC 3339).
    at: String,
    /// pushed or deleted.
    action: Action,
    /// What it pointed to from then on, or until then.
    digest: String,
    /// By whom.
    by: String,
}

/// Which tag.
#[derive(Debug, Deserialize)]
pub struct OfTag {
    repository: String,
    tag: String,
}

/// A tag that is back.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Back {
    /// Its repository.
    repository: String,
    /// Its name.
    tag: String,
    /// What it points to again.
    digest: String,
}

/// The deleted tags of a repository that can be brought back.
pub async fn deleted(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(of): Asked<OfRepository>,
) -> Answer<DeletedTags> {
    let tenant = find(&admin, &tenant)?;
    let (repository, _) = find_repository(&admin, &tenant, &of.repository).await?;
    let after = of.after.as_deref().map(deleted_cursor).transpose()?;
    let limit = of.limit.unwrap_or(DEFAULT_PAGE).clamp(1, PAGE);
    let store = admin.keeper.store();
    let tags = store.deleted_tags(&repository, after, Time::now(), limit).await?;
    let last = tags.last().filter(|_| tags.len() == limit as usize);
    let next = last.map(|tag| format!("{}.{}", tag.at.0, tag.name));
    let shown = |tag: DeletedTag| Deleted {
        tag: tag.name,
        digest: tag.digest.to_string(),
        deleted_at: rfc3339::write(tag.at),
        deleted_by: tag.by,
        restorable_until: rfc3339::write(tag.until),
    };
    Ok(Json(DeletedTags {
        tags: tags.into_iter().map(shown).collect(),
        next,
    }))
}

fn deleted_cursor(text: &str) -> Result<(Time, String), Failure> {
    let read = || {
        let (at, tag) = text.split_once('.')?;
        Some((Time(at.parse().ok()?), tag.to_owned()))
    };
    read().ok_or_else(|| Failure::invalid("after is no cursor; pass the next of the page before"))
}

/// What became of a tag.
pub async fn history(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(of): Asked<OfHistory>,
) -> Answer<TagHistory> {
    let tenant = find(&admin, &tenant)?;
    let (repository, _) = find_repository(&admin, &tenant, &of.repository).await?;
    let tag = tag_name(&of.tag)?;
    let before = of.before.as_deref().map(cursor).transpose()?;
    let limit = of.limit.unwrap_or(DEFAULT_PAGE).clamp(1, PAGE);
    let store = admin.keeper.store();
    let events = store.tag_history(&repository, &tag, before, limit).await?;
    let last = events.last().filter(|_| events.len() == limit as usize);
    let next = last.map(|event| format!("{}.{}", event.at.0, event.id.simple()));
    let shown = |event: TagEvent| Happened {
        at: rfc3339::write(event.at),
        action: if event.deleted {
            Action::Deleted
        } else {
            Action::Pushed
        },
        digest: event.digest.to_string(),
        by: event.by,
    };
    Ok(Json(TagHistory {
        events: events.into_iter().map(shown).collect(),
        next,
    }))
}

/// Brings a deleted tag back, with what it pointed to.
pub async fn restore(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    Asked(of): Asked<OfTag>,
) -> Result<(StatusCode, Json<Back>), Failure> {
    // 1. Where, and which.
    let tenant = find(&admin, &tenant)?;
    let (repository, _) = find_repository(&admin, &tenant, &of.repository).await?;
    let tag = tag_name(&of.tag)?;
    let object = format!("{}:{tag}", repository.name);

    // 2. It is set as by a push: within the quotas, and only if all that it needs is still there.
    let changes = admin.keeper.changes(&tenant, "admin");
    let digest = match changes.restore(&repository, tag).await? {
        Ok(digest) => digest,
        Err(refusal) => {
            let ((status, reason), why) = (status(&refusal), refusal.to_string());
            admin
                .note(Some(&tenant), "tag.restore", &object, Outcome::Denied, &why)
                .await;
            return Err(Failure::new(status, reason, why));
        }
    };
    admin
        .note(
            Some(&tenant),
            "tag.restore",
            &object,
            Outcome::Done,
            &digest.to_string(),
        )
        .await;
    let back = Back {
        repository: repository.name.to_string(),
        tag: of.tag,
        digest: digest.to_string(),
    };
    Ok((StatusCode::CREATED, Json(back)))
}

/// Status and reason of a refusal.
fn status(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::Exists(_) | Refusal::Immutable(_) => (StatusCode::CONFLICT, "Exists"),
        Refusal::Missing(_) => (StatusCode::CONFLICT, "Missing"),
        Refusal::OverQuota(_) => (StatusCode::CONFLICT, "OverQuota"),
        Refusal::Absent(_) => (StatusCode::NOT_FOUND, "NotFound"),
    }
}

fn tag_name(text: &str) -> Result<TagName, Failure> {
    text.parse()
        .map_err(|error| Failure::invalid(format!("tag: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_a_tag_with_dots() {
        assert_eq!(
            deleted_cursor("7.v1.2.3").ok(),
            Some((Time(7), "v1.2.3".to_owned()))
        );
        assert!(deleted_cursor("v1").is_err());
        assert!(deleted_cursor("x.v1").is_err());
    }
}
