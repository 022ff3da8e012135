//! What came of an import: figures, what both sides have, and what went wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::metadata::Time;

/// Problems that are kept; all are counted.
const KEPT: usize = 1000;

/// How a tag at the destination compares with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It stands for the same manifest.
    Equal,
    /// It is not there.
    Missing,
    /// It stands for another manifest.
    Different,
    /// One of the two could not be asked.
    Unknown,
}

/// What is told while it happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'e> {
    /// So many repositories are meant.
    Repositories(usize),
    /// A repository has so many tags that may be meant.
    Tags(usize),
    /// One of these is done with.
    TagDone,
    /// A tag was set, or would be.
    Set {
        /// At the source.
        repository: &'e str,
        /// Its name.
        tag: &'e str,
        /// What it stands for.
        digest: &'e str,
    },
    /// So many bytes are to be copied.
    Found(u64),
    /// So many of them were.
    Moved(u64),
    /// Something went wrong.
    Trouble(&'e Problem),
    /// A registry has asked to be left alone, and is: told once of each pause of some length.
    Waiting {
        /// Which.
        host: &'e str,
        /// Until when.
        until: Time,
    },
}

/// Who is told.
pub trait Watcher {
    /// Tells.
    fn hear(&self, event: &Event<'_>);
}

/// Why something is not as it is at the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The repository at the source.
    pub repository: String,
    /// A tag or digest; empty for the repository itself.
    pub reference: String,
    /// What it is.
    pub kind: Trouble,
    /// Why.
    pub why: String,
}

/// What a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// It was not copied, and should have been.
    Failed,
    /// It cannot be stored here, and was left out.
    Skipped,
    /// The source names it and does not have it.
    Sparse,
}

/// Counts of one repository or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagFigures {
    /// Tags of the source that are meant, without those that were skipped.
    pub tags: u64,
    /// Of these: the same here.
    pub equal: u64,
    /// Not here.
    pub missing: u64,
    /// Another manifest here.
    pub different: u64,
    /// It could not be found out.
    pub unknown: u64,
    /// Tags that were set now; with a dry run, that would be.
    pub set: u64,
    /// Tags of the source that cannot be stored here.
    pub skipped: u64,
    /// Tags that are older than what is meant.
    pub older: u64,
}

/// One repository on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryReport {
    /// Its name at the source.
    pub source: String,
    /// Its name at the destination.
    pub destination: String,
    /// Its tags.
    #[serde(flatten)]
    pub figures: TagFigures,
}

/// Counts of content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Manifests that were copied; with a dry run, that would be.
    pub manifests_copied: u64,
    /// Manifests that were there.
    pub manifests_present: u64,
    /// Blobs that were copied; with a dry run, that would be.
    pub blobs_copied: u64,
    /// Blobs that the tenant had in another repository.
    pub blobs_mounted: u64,
    /// Blobs that were there.
    pub blobs_present: u64,
    /// Bytes of manifests and blobs that were fetched from the source to be copied.
    pub bytes: u64,
    /// Bytes that a run before this one had copied of blobs that were finished now.
    pub bytes_resumed: u64,
    /// Bytes that a dry run has found to be missing.
    pub bytes_missing: u64,
    /// Everything that failed.
    pub failed: u64,
    /// Everything that cannot be stored here.
    pub skipped: u64,
    /// Everything that the source names and does not have.
    pub sparse: u64,
}

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    repositories: BTreeMap<String, RepositoryReport>,
    problems: Vec<Problem>,
}

/// What a pass has found so far.
#[derive(Debug, Default)]
pub struct Report(RefCell<State>);

impl Report {
    /// Counts of content.
    pub fn figures(&self) -> Figures {
        self.0.borrow().figures
    }

    /// The tags of all repositories together.
    pub fn tags(&self) -> TagFigures {
        let state = self.0.borrow();
        let mut sum = TagFigures::default();
        for TagFigures {
            tags,
            equal,
            missing,
            different,
            unknown,
            set,
            skipped,
            older,
        } in state.repositories.values().map(|repository| repository.figures)
        {
            sum.tags += tags;
            sum.equal += equal;
            sum.missing += missing;
            sum.different += different;
            sum.unknown += unknown;
            sum.set += set;
            sum.skipped += skipped;
            sum.older += older;
        }
        sum
    }

    /// Both sides, by repository.
    pub fn repositories(&self) -> Vec<RepositoryReport> {
        self.0.borrow().repositories.values().cloned().collect()
    }

    /// The first thousand problems.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.borrow().problems.clone()
    }

    /// Whether everything that is meant and can be stored here is here.
    pub fn is_equal(&self) -> bool {
        let tags = self.tags();
        self.figures().failed == 0 && tags.equal == tags.tags
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut self.0.borrow_mut().figures);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.count(|figures| figures.bytes += bytes);
    }

    pub(super) fn resumed(&self, bytes: u64) {
        self.count(|figures| figures.bytes_resumed += bytes);
    }

    pub(super) fn repository(&self, source: &str, destination: &str) {
        let report = RepositoryReport {
            source: source.to_owned(),
            destination: destination.to_owned(),
            figures: TagFigures::default(),
        };
        self.0.borrow_mut().repositories.insert(source.to_owned(), report);
    }

    pub(super) fn tag(&self, source: &str, count: impl FnOnce(&mut TagFigures)) {
        if let Some(repository) = self.0.borrow_mut().repositories.get_mut(source) {
            count(&mut repository.figures);
        }
    }

    pub(super) fn problem(&self, problem: Problem) {
        let mut state = self.0.borrow_mut();
        match problem.kind {
            Trouble::Failed => state.figures.failed += 1,
            Trouble::Skipped => state.figures.skipped += 1,
            Trouble::Sparse => state.figures.sparse += 1,
        }
        if state.problems.len() < KEPT {
            state.problems.push(problem);
        }
    }
}
