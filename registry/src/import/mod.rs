//! Copying what another registry holds into a tenant of Berth, by the distribution API of both.
//!
//! [`selection`] says which repositories and tags are meant and what they are called here, [`source`] and [`destination`]
//! speak with the two registries through an [`endpoint`], which has the patience; [`pass`] goes over the tags, [`tree`]
//! over what a tag stands for, [`blob`] copies bytes; [`report`] is what came of it. It may use `upstream`, `egress` and
//! `domain`; nothing of the stores: it is a client, and quotas, rights, immutable tags and the audit hold for it as for any.
//!
//! What must hold: nothing is pushed under a digest that its bytes do not have; what a manifest names is there before the
//! manifest, and the manifest before its tag; what is there already is not fetched; memory does not depend on the size of
//! a blob; a run that was cut at any point is taken up by the next.

mod address;
mod blob;
mod created;
mod destination;
mod docker;
mod endpoint;
mod error;
mod helper;
mod locks;
mod pass;
mod reader;
mod report;
mod resume;
mod selection;
mod source;
mod tree;

pub use address::Address;
pub use docker::{Found, login};
pub use endpoint::{Endpoint, Patience};
pub use error::ImportError;
pub use helper::{HelperError, ask_helper};
pub use report::{Event, Figures, Problem, Report, RepositoryReport, Standing, TagFigures, Trouble, Watcher};
pub use resume::Notes;
pub use selection::{Renaming, Selection};

use std::convert::Infallible;
use std::num::NonZeroUsize;

use self::destination::Destination;
use self::pass::Pass;
use self::source::Source;

/// How something is imported.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What.
    pub selection: Selection,
    /// Blobs on their way at the same time.
    pub concurrency: NonZeroUsize,
    /// Only look.
    pub dry_run: bool,
    /// Tags that are there with another manifest stay as they are.
    pub keep_existing: bool,
    /// Look at every blob of what is there already, too.
    pub deep: bool,
}

/// An import.
pub struct Import {
    source: Source,
    destination: Destination,
    wanted: Wanted,
    notes: Notes,
}

impl Import {
    /// From one registry to the other; `notes` is where uploads that were cut are remembered.
    pub fn new(from: Endpoint, to: Endpoint, wanted: Wanted, notes: Notes) -> Self {
        Self {
            source: Source::new(from),
            destination: Destination::new(to),
            wanted,
            notes,
        }
    }

    /// Asks both whether they are there: an address that is wrong is told at once.
    pub async fn greet(&self, watcher: &dyn Watcher) -> Result<(), ImportError> {
        let greeted = async {
            self.source.greet().await?;
            self.destination.greet().await
        };
        self.told(watcher, greeted).await
    }

    /// Goes over everything once. What has been found so far stands in `report` at any time, also if this is dropped.
    pub async fn pass(&self, report: &Report, watcher: &dyn Watcher) -> Result<(), ImportError> {
        self.told(watcher, Pass::new(self, report, watcher).run()).await
    }

    /// Works, and tells meanwhile how long it stands still.
    async fn told<T>(&self, watcher: &dyn Watcher, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.tell(watcher) => match never {},
        }
    }

    async fn tell(&self, watcher: &dyn Watcher) -> Infallible {
        loop {
            let (host, until) = tokio::select! {
                paused = self.source.paused() => paused,
                paused = self.destination.paused() => paused,
            };
            watcher.hear(&Event::Waiting { host: &host, until });
        }
    }
}
