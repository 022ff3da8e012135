//! The walk over a repository's tags, by which previews, runs and explanations judge alike.

use std::collections::BTreeMap;

use super::rules::{Tag, Verdict, Versions};
use super::version::SPANS;
use crate::domain::{Digest, TagName};
use crate::lifecycle::coverage::Coverage;
use crate::metadata::lifecycle::{DropTags, Lifecycle, TagDetail, TagPage, TagRow};
use crate::metadata::{Repository, Result, Store, Time};

/// Tags of one query.
const PAGE: u32 = 5000;
/// Tags of one transaction.
const BATCH: usize = 1000;
/// Manifests of which is asked how many bytes they free; of more, what is told is the least.
const WEIGHED: usize = 5_000;
/// Tags that are told by name.
pub const SAMPLE: usize = 32;

/// The stores that a walk reads.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    /// Names of tags.
    pub metadata: &'a dyn Store,
    /// Tags as retention sees them.
    pub lifecycle: &'a dyn Lifecycle,
}

/// What becomes of the tags that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// They are only told.
    Preview,
    /// They are deleted on behalf of this principal.
    Run(&'a str),
}

/// What a walk has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Tags that were looked at.
    pub evaluated: u64,
    /// Tags that go.
    pub going: u64,
    /// Tags that were deleted; fewer than `going` if some were pushed or renewed meanwhile.
    pub deleted: u64,
    /// Bytes that become free, at least.
    pub reclaimable: u64,
    /// Some of those that go.
    pub sample: Vec<String>,
    /// When a tag that stays may first go, if nothing is pushed or pulled.
    pub deadline: Option<Time>,
}

/// Walks through all tags of a repository. Memory is constant.
pub async fn walk(
    stores: Stores<'_>,
    repository: &Repository,
    coverage: &Coverage,
    mode: Mode<'_>,
    now: Time,
) -> Result<Found> {
    let mut found = Found::default();
    walk_into(stores, repository, coverage, mode, now, &mut found).await?;
    Ok(found)
}

/// The same; `found` says what has been found and done, also if it fails on the way.
pub async fn walk_into(
    stores: Stores<'_>,
    repository: &Repository,
    coverage: &Coverage,
    mode: Mode<'_>,
    now: Time,
    found: &mut Found,
) -> Result<()> {
    if coverage.plan.keeps_everything() {
        return Ok(());
    }
    let mut walk = coverage
        .plan
        .walk(now, versions(stores, repository, coverage).await?);
    let mut page = first_page(coverage);
    let mut going: Vec<TagRow> = Vec::new();
    let mut weighed: BTreeMap<Digest, u64> = BTreeMap::new();
    loop {
        let tags = stores.lifecycle.tags_by_push(repository, page.clone()).await?;
        let Some(last) = tags.last() else { break };
        page.after = Some((last.pushed_at, last.name.clone()));
        for tag in tags {
            found.evaluated += 1;
            // A signature stays and goes with what it signs.
            if tag.attached || !matches!(walk.judge(&seen(&tag)), Verdict::Goes(_)) {
                continue;
            }
            found.going += 1;
            if found.sample.len() < SAMPLE {
                found.sample.push(format!("{}:{}", repository.name, tag.name));
            }
            if weighed.len() < WEIGHED || weighed.contains_key(&tag.digest) {
                *weighed.entry(tag.digest).or_default() += 1;
            }
            if let Mode::Run(_) = mode {
                going.push(tag);
            }
        }
        // What goes is deleted behind the walk, which only goes on to older tags.
        while going.len() >= BATCH {
            let rest = going.split_off(BATCH);
            found.deleted += delete(stores, repository, coverage, mode, going, now).await?;
            going = rest;
        }
    }
    found.deleted += delete(stores, repository, coverage, mode, going, now).await?;
    found.deadline = walk.next_deadline();
    if let Mode::Run(_) = mode {
        // The tags are gone: whatever has one left stays.
        weighed.values_mut().for_each(|tags| *tags = 0);
    }
    if !weighed.is_empty() {
        found.reclaimable = stores.lifecycle.reclaimable(repository, weighed).await?;
    }
    Ok(())
}

/// What becomes of one tag, and why; `None` if it is not there. `attached` as in [`TagRow`].
pub async fn judge(
    stores: Stores<'_>,
    repository: &Repository,
    coverage: &Coverage,
    tag: &TagName,
    now: Time,
) -> Result<Option<(TagDetail, Verdict)>> {
    let Some(wanted) = stores.lifecycle.tag_detail(repository, tag).await? else {
        return Ok(None);
    };
    let mut walk = coverage
        .plan
        .walk(now, versions(stores, repository, coverage).await?);
    let mut page = first_page(coverage);
    loop {
        let tags = stores.lifecycle.tags_by_push(repository, page.clone()).await?;
        // It was pushed once more meanwhile: then it is among the newest.
        let Some(last) = tags.last() else {
            let verdict = coverage
                .plan
                .walk(now, coverage.plan.versions())
                .judge(&seen(&wanted.row));
            return Ok(Some((wanted, verdict)));
        };
        page.after = Some((last.pushed_at, last.name.clone()));
        for tag in tags {
            if tag.attached && tag.name != wanted.row.name {
                continue;
            }
            let verdict = walk.judge(&seen(&tag));
            if tag.name == wanted.row.name {
                return Ok(Some((wanted, verdict)));
            }
        }
    }
}

fn first_page(coverage: &Coverage) -> TagPage {
    TagPage {
        pulls: coverage.plan.needs_pulls(),
        limit: PAGE,
        ..TagPage::default()
    }
}

fn seen(tag: &TagRow) -> Tag<'_> {
    Tag {
        name: &tag.name,
        pushed_at: tag.pushed_at,
        renewed_at: tag.renewed_at,
        pulled_at: tag.pulled_at,
    }
}

/// The versions among a repository's tags, if a rule asks for them.
async fn versions(stores: Stores<'_>, repository: &Repository, coverage: &Coverage) -> Result<Versions> {
    let mut versions = coverage.plan.versions();
    if !coverage.plan.needs_versions() {
        return Ok(versions);
    }
    for (first, end) in SPANS {
        let mut after = first.to_owned();
        while after.as_str() < end {
            let names = stores.metadata.tags(repository, Some(after), PAGE).await?;
            let names = names.unwrap_or_default();
            let Some(last) = names.last() else { break };
            after = last.clone();
            names.iter().for_each(|name| versions.see(name));
        }
    }
    Ok(versions)
}

async fn delete(
    stores: Stores<'_>,
    repository: &Repository,
    coverage: &Coverage,
    mode: Mode<'_>,
    tags: Vec<TagRow>,
    now: Time,
) -> Result<u64> {
    let Mode::Run(principal) = mode else { return Ok(0) };
    if tags.is_empty() {
        return Ok(0);
    }
    let drop = DropTags {
        tags,
        principal: principal.to_owned(),
        now,
        until: now.plus(coverage.window),
        announce: coverage.announce.clone(),
    };
    stores.lifecycle.drop_tags(repository, drop).await
}
