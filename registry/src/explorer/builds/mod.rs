//! Images by the build that made them: by its id, its commit or ref as annotations, labels and provenance say it, and by
//! tags that are named after it, as `<build>` and `<build>-<target>`.

pub mod reader;

use std::collections::BTreeMap;

use axum::response::Response;
use http::request::Parts;
use maud::{Markup, html};
use serde::Serialize;

use super::answer::{self, Failure, View};
use super::path;
use super::shown::{self, Column};
use super::visit::{self, Visit};
use crate::domain::build::{BuildKind, VALUE_LIMIT};
use crate::domain::grant::Action;
use crate::domain::{Digest, RepositoryName, TagName};
use crate::metadata::Repository;

/// Rows of each kind that are looked at.
const LOOKED: u32 = 200;
/// The same for whoever sees only some repositories.
const LOOKED_AMONG: u32 = 5000;
/// Images that are shown.
const SHOWN: usize = 50;
/// Tags that are shown of each.
const TAGS: u32 = 5;
/// Indexes that an image is looked for in.
const INDEXES: u32 = 3;

/// The images of a build.
#[derive(Debug, Serialize)]
struct Builds {
    /// What was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    images: Vec<Image>,
    /// Whether there may be more.
    more: bool,
}

/// An image, or what belongs to one.
#[derive(Debug, Serialize)]
struct Image {
    repository: String,
    digest: String,
    /// By what it was found: build, commit, ref or tag.
    by: Vec<&'static str>,
    /// The target, where a tag is named after build and target.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Tags that point to it, or to an index of it.
    tags: Vec<String>,
}

/// The page.
pub async fn get(visit: &Visit, id: Option<String>, parts: &Parts) -> Result<Response, Failure> {
    visit.reads(&parts.method)?;
    if !visit.principal.rights.catalog() {
        return Err(match visit.principal.is_known() {
            true => Failure::Denied("this token is for what it names, and finds nothing else".into()),
            false => Failure::SignIn,
        });
    }
    visit.not_suspended("builds")?;
    let asked = || -> Result<Option<String>, Failure> {
        let found = visit::query(parts)?.into_iter().find(|(key, _)| key == "q");
        Ok(found.map(|(_, value)| value))
    };
    let id = match id {
        Some(id) => Some(id),
        None => asked()?,
    };
    let id = id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
    let page = match id {
        Some(id) => find(visit, id).await?,
        None => Builds {
            id: None,
            images: Vec::new(),
            more: false,
        },
    };
    Ok(answer::view(visit, &page))
}

/// A manifest of a repository.
type Key = (RepositoryName, Digest);

/// By what it was found, and the target that a tag names.
type Found = (Vec<&'static str>, Option<String>);

async fn find(visit: &Visit, id: String) -> Result<Builds, Failure> {
    if id.len() > VALUE_LIMIT || id.chars().any(char::is_control) {
        return Err(Failure::Bad(format!(
            "a build, commit or ref has at most {VALUE_LIMIT} bytes and no control characters"
        )));
    }
    // 1. What says so itself, and what is named so; as far as the visitor may pull it.
    let (explore, tenant) = (&visit.explorer.explore, visit.tenant.id);
    let is_tag = id.parse::<TagName>().is_ok();
    // Of what one may not see there may be much before what one may.
    let looked = if visit.sees_all() { LOOKED } else { LOOKED_AMONG };
    let rows = explore.builds(tenant, id.clone(), looked).await?;
    let named = match is_tag {
        true => explore.tags_named(tenant, id.clone(), looked).await?,
        false => Vec::new(),
    };
    // Whether the store had enough of it tells of what one may not see.
    let is_cut = rows.len().max(named.len()) >= LOOKED as usize;
    let mut more = is_cut && visit.sees_all();
    let mut found: BTreeMap<Key, Found> = BTreeMap::new();
    let mut add = |repository: &str, digest: Digest, by: &'static str, target: Option<String>| {
        let Ok(name) = repository.parse::<RepositoryName>() else {
            return;
        };
        if !may_see(visit, &name) {
            return;
        }
        let (reasons, known) = found.entry((name, digest)).or_default();
        if !reasons.contains(&by) {
            reasons.push(by);
        }
        *known = known.take().or(target);
    };
    for row in rows {
        let by = match row.kind {
            BuildKind::Build => "build",
            BuildKind::Commit => "commit",
            BuildKind::Ref => "ref",
        };
        add(&row.repository, row.digest, by, None);
    }
    for tag in named {
        let name = tag.repository.parse::<RepositoryName>().ok();
        let cache = name.as_ref().and_then(|name| visit.tenant.caches.of(name));
        if cache.is_some_and(|(cache, _)| !cache.allows_tag(&tag.tag)) {
            continue;
        }
        let target = tag.tag.strip_prefix(&*id).and_then(|rest| rest.strip_prefix('-'));
        add(&tag.repository, tag.digest, "tag", target.map(str::to_owned));
    }

    // 2. How each is called.
    more |= found.len() > SHOWN;
    let mut images = Vec::with_capacity(found.len().min(SHOWN));
    for ((name, digest), (by, target)) in found.into_iter().take(SHOWN) {
        let repository = Repository { tenant, name };
        images.push(Image {
            tags: tags(visit, &repository, &digest).await?,
            repository: repository.name.to_string(),
            digest: digest.to_string(),
            by,
            target,
        });
    }
    Ok(Builds {
        id: Some(id),
        images,
        more,
    })
}

fn may_see(visit: &Visit, name: &RepositoryName) -> bool {
    let hidden =
        |(cache, upstream): (&std::sync::Arc<crate::tenancy::caches::Cache>, &str)| !cache.allows(upstream);
    visit.actions_on(name).contains(Action::Pull) && !visit.tenant.caches.of(name).is_some_and(hidden)
}

/// Tags of a manifest, or else of the indexes that name it.
async fn tags(visit: &Visit, repository: &Repository, digest: &Digest) -> Result<Vec<String>, Failure> {
    let explore = &visit.explorer.explore;
    let mut tags = explore.tags_of(repository, digest, TAGS).await?;
    if tags.is_empty() {
        for index in explore.indexes_of(repository, digest, INDEXES).await? {
            tags.extend(explore.tags_of(repository, &index, TAGS).await?);
        }
    }
    if let Some((cache, _)) = visit.tenant.caches.of(&repository.name) {
        tags.retain(|tag| cache.allows_tag(tag));
    }
    tags.truncate(TAGS as usize);
    Ok(tags)
}

impl View for Builds {
    fn title(&self) -> String {
        match &self.id {
            Some(id) => format!("Images of {id}"),
            None => "Images by build".to_owned(),
        }
    }

    fn body(&self, _: &Visit) -> Markup {
        html! {
            (shown::crumbs(None))
            h1 { (self.title()) }
            form.search role="search" action="/explorer/builds" method="get" {
                label.hidden for="q" { "Build id, commit or ref" }
                input #q type="search" name="q" value=(self.id.as_deref().unwrap_or_default())
                    placeholder="Build id, commit or ref" autocomplete="off" spellcheck="false";
                button type="submit" { "Find" }
            }
            @match (&self.id, self.images.is_empty()) {
                (None, _) => p.hint {
                    "As the annotations, labels and provenance of images say it, in full, or as tags are named: "
                    code { "<build>" } " and " code { "<build>-<target>" } "."
                },
                (Some(_), true) => p.empty { "No image that you may see says so." },
                (Some(_), false) => (self.table()),
            }
            @if self.more { p.hint { "There may be more." } }
        }
    }
}

impl Builds {
    fn table(&self) -> Markup {
        html! {
            (shown::table("Images of the build", &[Column::Text("Repository"), Column::Text("Tags"), Column::Text("Target"), Column::Text("Manifest"), Column::Text("Known by")], &html! {
                        @for image in &self.images {
                            tr {
                                th scope="row" { a href=(path::of_repository(&image.repository)) { (image.repository) } }
                                td {
                                    @for (at, tag) in image.tags.iter().enumerate() {
                                        @if at > 0 { ", " }
                                        a href=(path::of_tag(&image.repository, tag)) { (tag) }
                                    }
                                }
                                td { @if let Some(target) = &image.target { (target) } }
                                td { a href=(path::of_manifest(&image.repository, &image.digest)) { (shown::digest(&image.digest)) } }
                                td { (image.by.join(", ")) }
                            }
                        }
                    }))
        }
    }
}
