//! What lies in blobs, read for people: off the request's thread, two at a time, within limits, and kept for a while.
//!
//! Whether somebody may see a blob is asked each time before; what is kept goes by tenant and digest, of which the
//! content can only be one.

mod piped;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use serde::Serialize;

use self::piped::piped;
use super::Explorer;
use super::archive::chart::{self, Chart};
use super::archive::{self, Limits, Tree, UnreadableArchive};
use super::content::{self, ContentError};
use super::supply::provenance::{self, Provenance};
use super::supply::sbom::{self, Sbom};
use crate::blobs::BlobError;
use crate::domain::Digest;
use crate::metadata::{BlobRow, Repository, TenantId};
use crate::shares::{Share, Shares};

/// Longest provenance and bill of materials that are read, in bytes.
const PROVENANCE_LIMIT: u64 = 2 << 20;
const PACKAGES_LIMIT: u64 = 16 << 20;
/// Most bytes of a chart's archive, compressed and not.
const CHART_LIMIT: u64 = 16 << 20;
const CHART_CONTENT_LIMIT: u64 = 128 << 20;
/// Documents and archives that are read at the same time.
const AT_ONCE: u32 = 2;
/// Longest window of zstd, which is memory: what common encoders use at their high levels.
const WINDOW: u64 = 32 << 20;
/// How long one archive may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// About how many bytes of what was read are kept.
const KEPT: u64 = 64 << 20;

/// What a blob is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sort {
    /// What says how something was built.
    Provenance,
    /// A bill of materials.
    Packages,
    /// The files of a layer.
    Files,
    /// A Helm chart.
    Chart,
}

/// What was read.
#[derive(Debug)]
pub enum Content {
    /// What says how something was built.
    Provenance(Box<Provenance>),
    /// A bill of materials.
    Packages(Sbom),
    /// The files of a layer.
    Files(Tree),
    /// A Helm chart.
    Chart(Box<Chart>),
    /// Nothing, for this reason.
    Unreadable(String),
}

type Key = (TenantId, Digest, Sort);

/// What has been read lately, and who reads.
pub struct Parsed {
    kept: Cache<Key, Arc<Content>>,
    /// Whoever works holds one until the work is done, whether anybody waits for that or not.
    turns: Shares,
    /// What reads in the background waits for itself alone.
    background: Shares,
}

/// How somebody waits for a turn to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For a while.
    ForTurn,
    /// Not at all.
    No,
    /// In the background.
    Background,
}

impl Default for Parsed {
    fn default() -> Self {
        let weigh = |_: &Key, content: &Arc<Content>| u32::try_from(content.weight()).unwrap_or(u32::MAX);
        Self {
            kept: Cache::builder().max_capacity(KEPT).weigher(weigh).build(),
            turns: Shares::new(AT_ONCE, AT_ONCE / 2),
            background: Shares::new(1, 1),
        }
    }
}

impl Content {
    /// About how many bytes of memory it takes.
    fn weight(&self) -> usize {
        match self {
            Self::Provenance(provenance) => written(provenance),
            Self::Packages(sbom) => written(sbom),
            Self::Files(tree) => 1024 + tree.weight(),
            Self::Chart(chart) => written(chart),
            Self::Unreadable(why) => 256 + why.len(),
        }
    }
}

/// About how much memory something takes that is texts: twice what it is as JSON.
fn written(what: &impl Serialize) -> usize {
    let mut count = Count(0);
    // Nothing is written, so that nothing fails.
    let _ = serde_json::to_writer(&mut count, what);
    4096 + count.0 * 2
}

/// Counts what is written.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Parsed {
    async fn turn(&self, tenant: TenantId, wait: Wait) -> Result<Share, ContentError> {
        let (turns, patience) = match wait {
            Wait::No => (&self.turns, Duration::ZERO),
            Wait::ForTurn => (&self.turns, super::WAIT),
            Wait::Background => (&self.background, Duration::MAX),
        };
        turns.take(tenant, 1, patience).await.ok_or(ContentError::Busy)
    }
}

/// What a blob of a repository holds; none if the repository does not have it.
pub async fn read(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    sort: Sort,
) -> Result<Option<Arc<Content>>, ContentError> {
    read_as(explorer, repository, digest, sort, Wait::ForTurn).await
}

/// The same for what a page shows besides: nothing where others are reading.
pub async fn read_if_free(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    sort: Sort,
) -> Result<Option<Arc<Content>>, ContentError> {
    match read_as(explorer, repository, digest, sort, Wait::No).await {
        Err(ContentError::Busy) => Ok(None),
        other => other,
    }
}

/// The same where nobody waits for it.
pub async fn read_in_background(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    sort: Sort,
) -> Result<Option<Arc<Content>>, ContentError> {
    read_as(explorer, repository, digest, sort, Wait::Background).await
}

async fn read_as(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    sort: Sort,
    wait: Wait,
) -> Result<Option<Arc<Content>>, ContentError> {
    let Some(row) = explorer.metadata.blob(repository, digest).await? else {
        return Ok(None);
    };
    let parsed = &explorer.0.parsed;
    let key = (repository.tenant, *digest, sort);
    if let Some(content) = parsed.kept.get(&key) {
        return Ok(Some(content));
    }
    let turn = parsed.turn(repository.tenant, wait).await?;
    // Somebody else may have read it while this one waited.
    if let Some(content) = parsed.kept.get(&key) {
        return Ok(Some(content));
    }
    let content = match sort {
        Sort::Provenance | Sort::Packages => document(explorer, repository, digest, &row, sort, turn).await?,
        Sort::Files | Sort::Chart => archived(explorer, &row, sort, turn).await?,
    };
    let Some((content, lasts)) = content else {
        return Ok(None);
    };
    let content = Arc::new(content);
    if lasts {
        parsed.kept.insert(key, content.clone());
    }
    Ok(Some(content))
}

/// What was read, and whether it would be the same once more.
type Outcome = Option<(Content, bool)>;

async fn document(
    explorer: &Explorer,
    repository: &Repository,
    digest: &Digest,
    row: &BlobRow,
    sort: Sort,
    turn: Share,
) -> Result<Outcome, ContentError> {
    let limit = match sort {
        Sort::Provenance => PROVENANCE_LIMIT,
        _ => PACKAGES_LIMIT,
    };
    if row.size > limit {
        let why = format!("it has {} bytes; at most {limit} are read", row.size);
        return Ok(Some((Content::Unreadable(why), true)));
    }
    let Some(bytes) = content::small(explorer, repository, digest, limit).await? else {
        return Ok(None);
    };
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let read = match sort {
            Sort::Provenance => {
                provenance::read(&bytes).map(|provenance| Content::Provenance(Box::new(provenance)))
            }
            _ => sbom::read(&bytes).map(Content::Packages),
        };
        read.unwrap_or_else(|error| Content::Unreadable(error.to_string()))
    });
    Ok(read.await.ok().map(|content| (content, true)))
}

/// Says to a thread that nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn archived(
    explorer: &Explorer,
    row: &BlobRow,
    sort: Sort,
    turn: Share,
) -> Result<Outcome, ContentError> {
    let stream = match explorer.blobs.read(&row.key, 0..row.size).await {
        Ok(stream) => stream,
        Err(BlobError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let cancel = Cancel(Arc::default());
    let cancelled = cancel.0.clone();
    let reader = piped(stream);
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let limits = Limits {
            deadline: Some(Instant::now() + PATIENCE),
            cancelled: Some(&cancelled),
            window: WINDOW,
            ..Limits::default()
        };
        match sort {
            Sort::Chart => {
                let limits = Limits {
                    compressed: CHART_LIMIT,
                    decompressed: CHART_CONTENT_LIMIT,
                    ..limits
                };
                let read = chart::read(reader, &limits);
                outcome(read.map(|chart| Content::Chart(Box::new(chart))))
            }
            _ => outcome(archive::list(reader, &limits).map(Content::Files)),
        }
    });
    // A decoder that gives up by a panic has said so in the log.
    let failed = |_| {
        (
            Content::Unreadable("its content could not be decoded".to_owned()),
            true,
        )
    };
    Ok(Some(read.await.unwrap_or_else(failed)))
}

fn outcome(read: Result<Content, UnreadableArchive>) -> (Content, bool) {
    match read {
        // How far the time went is another matter next time.
        Ok(Content::Files(tree)) => {
            let lasts = tree.cut() != Some(&archive::Cut::Time);
            (Content::Files(tree), lasts)
        }
        Ok(content) => (content, true),
        Err(error) => {
            let lasts = !matches!(
                error,
                UnreadableArchive::Late | UnreadableArchive::Cancelled | UnreadableArchive::Source(_)
            );
            (Content::Unreadable(error.to_string()), lasts)
        }
    }
}
