//! Once over everything: repositories, their tags, and how both sides compare after it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::stream::{self, StreamExt as _};
use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::Import;
use super::created::created;
use super::error::ImportError;
use super::locks::Locks;
use super::report::{Event, Problem, Report, Standing, Trouble, Watcher};
use crate::domain::{Digest, RepositoryName, TagName, attachment};

/// Tags and manifests that are looked at at the same time, for each blob on its way.
const LOOKS: usize = 2;
/// Blobs and manifests that a pass remembers to be there.
const REMEMBERED: u64 = 200_000;

/// Once over everything.
pub(super) struct Pass<'i> {
    pub import: &'i Import,
    pub report: &'i Report,
    pub watcher: &'i dyn Watcher,
    /// Blobs on their way.
    pub carriers: Semaphore,
    looks: Semaphore,
    /// How many looks that are.
    breadth: usize,
    /// Blobs that are there, by repository.
    pub blobs: Cache<(usize, Digest), ()>,
    /// Manifests that are there with everything that they name.
    pub trees: Cache<(usize, Digest), ()>,
    /// Blobs that a dry run has counted.
    pub counted: Cache<Digest, ()>,
    pub busy_blobs: Rc<Locks<Digest>>,
    pub busy_trees: Rc<Locks<(usize, Digest)>>,
}

/// A repository on both sides.
pub(super) struct Repository {
    /// For this pass.
    pub number: usize,
    pub from: RepositoryName,
    pub to: RepositoryName,
    /// Whether the source lists referrers; until it has been asked, it may.
    pub has_referrers: Cell<bool>,
    /// The tags that stand for manifests by their names and are not meant for themselves.
    attached: RefCell<BTreeSet<TagName>>,
}

/// What came of a tag.
enum Ended {
    Compared(Standing),
    /// It would be set.
    WouldSet(Standing),
    Older,
}

impl<'i> Pass<'i> {
    pub fn new(import: &'i Import, report: &'i Report, watcher: &'i dyn Watcher) -> Self {
        let concurrency = import.wanted.concurrency.get();
        let breadth = concurrency.saturating_mul(LOOKS);
        Self {
            import,
            report,
            watcher,
            carriers: Semaphore::new(concurrency),
            looks: Semaphore::new(breadth),
            breadth,
            blobs: Cache::new(REMEMBERED),
            trees: Cache::new(REMEMBERED),
            counted: Cache::new(REMEMBERED),
            busy_blobs: Rc::default(),
            busy_trees: Rc::default(),
        }
    }

    pub async fn run(&self) -> Result<(), ImportError> {
        let selection = &self.import.wanted.selection;
        let listed = self.import.source.repositories(selection).await?;
        for name in listed.strange {
            let why = "it is no name of a repository here".to_owned();
            self.trouble(&name, "", Trouble::Skipped, why);
        }
        if listed.names.is_empty() {
            return Err(ImportError::NothingMeant(self.import.source.at.address().host()));
        }
        let mut names: BTreeMap<RepositoryName, RepositoryName> = BTreeMap::new();
        for from in listed.names {
            let to = selection.renaming.of(&from)?;
            if let Some(other) = names.insert(to.clone(), from.clone()) {
                return Err(ImportError::SameName {
                    one: other.to_string(),
                    other: from.to_string(),
                    name: to.to_string(),
                });
            }
        }
        self.watcher.hear(&Event::Repositories(names.len()));
        let is_named = selection.named().is_some();
        let concurrency = self.import.wanted.concurrency.get();
        stream::iter(names.into_iter().enumerate())
            .for_each_concurrent(concurrency, async |(number, (to, from))| {
                let repository = Repository {
                    number,
                    from,
                    to,
                    has_referrers: Cell::new(true),
                    attached: RefCell::default(),
                };
                self.repository(&repository, is_named).await;
            })
            .await;
        Ok(())
    }

    async fn repository(&self, repository: &Repository, is_named: bool) {
        let from = repository.from.as_str();
        self.report.repository(from, repository.to.as_str());
        let tags = match self.import.source.tags(&repository.from).await {
            Ok(tags) => tags,
            // Some registries list repositories that have no tags, and know none of theirs.
            Err(error) if error.is_absent() && !is_named => Vec::new(),
            Err(error) => return self.trouble(from, "", Trouble::Failed, error.to_string()),
        };
        let tags = self.meant(repository, tags);
        self.watcher.hear(&Event::Tags(tags.len()));
        stream::iter(tags)
            .for_each_concurrent(self.breadth, async |tag| {
                let _look = self.looks.acquire().await;
                self.tag(repository, &tag).await;
                self.watcher.hear(&Event::TagDone);
            })
            .await;
    }

    /// The tags that are meant for themselves; the others that belong to manifests are kept for when these come.
    fn meant(&self, repository: &Repository, tags: Vec<String>) -> Vec<TagName> {
        let selection = &self.import.wanted.selection;
        let mut meant = Vec::new();
        for text in tags {
            let Ok(tag) = text.parse::<TagName>() else {
                let why = "it is no name of a tag here".to_owned();
                self.report
                    .tag(repository.from.as_str(), |figures| figures.skipped += 1);
                self.trouble(repository.from.as_str(), &text, Trouble::Skipped, why);
                continue;
            };
            let belongs = selection.is_partial() && attachment::subject(&text).is_some();
            if belongs && !selection.names(&text) {
                if !selection.without_referrers {
                    repository.attached.borrow_mut().insert(tag);
                }
            } else if selection.takes(&text) {
                meant.push(tag);
            }
        }
        meant
    }

    /// One tag, and what belongs to its manifests by name.
    async fn tag(&self, repository: &Repository, tag: &TagName) {
        let mut waiting = vec![(tag.clone(), false)];
        while let Some((tag, is_attached)) = waiting.pop() {
            let seen = RefCell::default();
            self.one(repository, &tag, is_attached, &seen).await;
            let mut attached = repository.attached.borrow_mut();
            if attached.is_empty() {
                continue;
            }
            for digest in seen.into_inner() {
                let [name, ..] = attachment::tags(&digest);
                let Ok(first) = name.parse::<TagName>() else {
                    continue;
                };
                let near = attached.range(first..);
                let near = near.take_while(|tag| tag.as_str().starts_with(&name));
                let belonging = near.filter(|tag| attachment::subject(tag.as_str()) == Some(digest));
                let belonging: Vec<TagName> = belonging.cloned().collect();
                for tag in belonging {
                    attached.remove(&tag);
                    waiting.push((tag, true));
                }
            }
        }
    }

    async fn one(
        &self,
        repository: &Repository,
        tag: &TagName,
        is_attached: bool,
        seen: &RefCell<Vec<Digest>>,
    ) {
        let from = repository.from.as_str();
        // What is known of it when it fails.
        let standing = Cell::new(Standing::Unknown);
        let ended = self.compare(repository, tag, is_attached, seen, &standing).await;
        let (standing, would_set) = match ended {
            Ok(Ended::Compared(standing)) => (standing, false),
            Ok(Ended::WouldSet(standing)) => (standing, true),
            Ok(Ended::Older) => return self.report.tag(from, |figures| figures.older += 1),
            Err(ImportError::Unsupported(why)) => {
                self.report.tag(from, |figures| figures.skipped += 1);
                return self.trouble(from, tag.as_str(), Trouble::Skipped, why);
            }
            Err(error) => {
                self.trouble(from, tag.as_str(), Trouble::Failed, error.to_string());
                (standing.get(), false)
            }
        };
        self.report.tag(from, |figures| {
            figures.tags += 1;
            figures.set += u64::from(would_set);
            match standing {
                Standing::Equal => figures.equal += 1,
                Standing::Missing => figures.missing += 1,
                Standing::Different => figures.different += 1,
                Standing::Unknown => figures.unknown += 1,
            }
        });
    }

    /// Brings a tag here, and says how it stands then.
    async fn compare(
        &self,
        repository: &Repository,
        tag: &TagName,
        is_attached: bool,
        seen: &RefCell<Vec<Digest>>,
        known: &Cell<Standing>,
    ) -> Result<Ended, ImportError> {
        let Import {
            source,
            destination,
            wanted,
            ..
        } = self.import;
        let there = source.resolve(&repository.from, tag).await?;
        let before = standing(&there, destination.resolve(&repository.to, tag).await?);
        known.set(before);
        if before != Standing::Equal
            && !is_attached
            && let Some(since) = wanted.selection.since
            && created(self.import, repository, &there)
                .await?
                .is_some_and(|time| time < since)
        {
            return Ok(Ended::Older);
        }
        if before == Standing::Different && wanted.keep_existing {
            return Ok(Ended::Compared(before));
        }
        let is_set = before == Standing::Equal;
        self.tree(repository, there, (!is_set).then_some(tag), 0, seen)
            .await?;
        if is_set {
            return Ok(Ended::Compared(before));
        }
        self.watcher.hear(&Event::Set {
            repository: repository.from.as_str(),
            tag: tag.as_str(),
            digest: &there.to_string(),
        });
        if wanted.dry_run {
            return Ok(Ended::WouldSet(before));
        }
        // What the destination says counts, not what was sent.
        known.set(Standing::Unknown);
        let after = standing(&there, destination.resolve(&repository.to, tag).await?);
        self.report
            .tag(repository.from.as_str(), |figures| figures.set += 1);
        Ok(Ended::Compared(after))
    }

    pub fn trouble(&self, repository: &str, reference: &str, kind: Trouble, why: String) {
        let problem = Problem {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            kind,
            why,
        };
        self.watcher.hear(&Event::Trouble(&problem));
        self.report.problem(problem);
    }
}

fn standing(there: &Digest, here: Option<Digest>) -> Standing {
    match here {
        None => Standing::Missing,
        Some(here) if here == *there => Standing::Equal,
        Some(_) => Standing::Different,
    }
}
