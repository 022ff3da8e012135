//! Reads, a while after the push, what lies behind manifests of their builds: labels of images, and provenance.
//!
//! Every replica does it; the store hands the manifests out. What cannot be read says nothing: a reading that fails for
//! the stores' sake is tried again when its time comes.

use std::time::Duration;

use crate::domain::Digest;
use crate::domain::build::{BuildKey, BuildKind};
use crate::explorer::artifact::{Document, ImageConfig, Kind};
use crate::explorer::manifest::documents::sort_of;
use crate::explorer::parsed::{self, Content, Sort};
use crate::explorer::supply::provenance::Provenance;
use crate::explorer::{Explorer, content};
use crate::metadata::explore::DueBuild;
use crate::metadata::{MetadataError, Reference, Time};

/// Between two looks, where the last has found nothing.
const EVERY: Duration = Duration::from_secs(3);
/// When a reading that has come to no end is tried again.
const RETRY: Duration = Duration::from_secs(600);
/// Manifests of one look.
const BATCH: u32 = 16;
/// Layers that are looked at for provenance.
const LAYERS: usize = 16;
/// Longest manifest and configuration that are read, in bytes.
const LIMIT: u64 = 256 << 10;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Content(#[from] content::ContentError),
}

/// Reads for ever.
pub async fn follow(explorer: Explorer) {
    loop {
        let found = match round(&explorer).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "images could not be read for their builds; it is tried again");
                0
            }
        };
        if found < BATCH as usize {
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn round(explorer: &Explorer) -> Result<usize, MetadataError> {
    let now = Time::now();
    let due = explorer.explore.due_builds(now, now.plus(RETRY), BATCH).await?;
    for due in &due.builds {
        match read(explorer, due).await {
            Ok(keys) => explorer.explore.note_build(due, keys).await?,
            Err(error) => {
                let repository = due.repository.name.as_str();
                tracing::debug!(%error, repository, digest = %due.digest, "not read for its build");
            }
        }
    }
    Ok(due.seen)
}

/// What lies behind a manifest. Of what another registry has made only what its own annotations say is known: its
/// content comes when it is asked for.
async fn read(explorer: &Explorer, due: &DueBuild) -> Result<Vec<BuildKey>, ReadError> {
    let DueBuild { repository, digest } = due;
    let snapshot = explorer.directory.now();
    let is_cached = snapshot
        .tenant(repository.tenant)
        .is_none_or(|tenant| tenant.caches.of(&repository.name).is_some());
    let store = &explorer.metadata;
    let row = store.manifest(repository, &Reference::Digest(*digest)).await?;
    if is_cached || row.is_none_or(|row| row.size > LIMIT) {
        return Ok(Vec::new());
    }
    let Some(payload) = store.manifest_payload(repository, digest).await? else {
        return Ok(Vec::new());
    };
    let document: Document = serde_json::from_slice(&payload).unwrap_or_default();
    let mut keys = Vec::new();
    if Kind::of(&document, false) == Kind::Image
        && let Some(config) = &document.config
        && let Ok(config) = config.digest.parse::<Digest>()
        && let Some(bytes) = content::small(explorer, repository, &config, LIMIT).await?
    {
        keys.extend(labels(&bytes));
    }
    for layer in document.layers.iter().take(LAYERS) {
        if sort_of(layer, None) != Some(Sort::Provenance) {
            continue;
        }
        let Ok(digest) = layer.digest.parse::<Digest>() else {
            continue;
        };
        let content = parsed::read_in_background(explorer, repository, &digest, Sort::Provenance).await?;
        if let Some(Content::Provenance(provenance)) = content.as_deref() {
            keys.extend(built(provenance));
        }
    }
    Ok(keys)
}

/// What provenance says.
fn built(provenance: &Provenance) -> impl Iterator<Item = BuildKey> {
    let told = [
        (BuildKind::Build, &provenance.build_id),
        (BuildKind::Commit, &provenance.commit),
        (BuildKind::Ref, &provenance.git_ref),
    ];
    told.into_iter()
        .filter_map(|(kind, value)| BuildKey::new(kind, value.as_deref()?))
}

/// What the labels of an image's configuration say.
fn labels(config: &[u8]) -> Vec<BuildKey> {
    let config: ImageConfig = serde_json::from_slice(config).unwrap_or_default();
    BuildKey::of_annotations(&config.config.labels)
}
