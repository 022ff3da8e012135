//! When an image was made: what its manifest says, else its configuration.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;

use super::Import;
use super::error::ImportError;
use super::pass::Repository;
use super::source::Fetched;
use crate::domain::Digest;
use crate::metadata::Time;
use crate::rfc3339;

/// The annotation that says when.
const CREATED: &str = "org.opencontainers.image.created";
/// Longest configuration that is read.
const LIMIT: usize = 8 * 1024 * 1024;
/// Deepest nesting of indexes that is followed, and most children of one.
const DEPTH: usize = 4;
const CHILDREN: usize = 64;

#[derive(Deserialize)]
struct Document {
    config: Option<Config>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Config {
    digest: String,
}

#[derive(Deserialize)]
struct Configuration {
    created: Option<String>,
}

/// When an image was made, or the newest of an index; `None` if nothing says so. Manifests that are here already
/// are read here.
pub(super) async fn created(
    import: &Import,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<Time>, ImportError> {
    look(import, repository, *digest, 0).await
}

fn look<'c>(
    import: &'c Import,
    repository: &'c Repository,
    digest: Digest,
    depth: usize,
) -> LocalBoxFuture<'c, Result<Option<Time>, ImportError>> {
    async move {
        let (from, to) = (&import.source, &import.destination);
        let fetched = match to.has_manifest(&repository.to, &digest).await? {
            Some(_) => to.manifest(&repository.to, &digest).await?,
            None => match from.manifest(&repository.from, &digest).await {
                Err(error) if error.is_absent() && depth > 0 => return Ok(None),
                fetched => fetched?,
            },
        };
        let Ok(document) = serde_json::from_slice::<Document>(&fetched.bytes) else {
            return Ok(None);
        };
        let said = document
            .annotations
            .as_ref()
            .and_then(|all| all.get(CREATED)?.as_str());
        if let Some(time) = said.and_then(|text| rfc3339::read(text).ok()) {
            return Ok(Some(time));
        }
        if fetched.manifest.media_type.is_index() {
            return newest(import, repository, &fetched, depth).await;
        }
        let config = document
            .config
            .and_then(|config| config.digest.parse::<Digest>().ok());
        let Some(config) = config else { return Ok(None) };
        let bytes = configuration(import, repository, &config).await?;
        let configuration = serde_json::from_slice::<Configuration>(&bytes).ok();
        let text = configuration.and_then(|configuration| configuration.created);
        Ok(text.and_then(|text| rfc3339::read(&text).ok()))
    }
    .boxed_local()
}

async fn newest(
    import: &Import,
    repository: &Repository,
    index: &Fetched,
    depth: usize,
) -> Result<Option<Time>, ImportError> {
    let mut newest = None;
    if depth < DEPTH {
        for child in index.manifest.children.iter().take(CHILDREN) {
            newest = newest.max(look(import, repository, *child, depth + 1).await?);
        }
    }
    Ok(newest)
}

/// A configuration's bytes; nothing if it is longer than any is, or absent.
async fn configuration(
    import: &Import,
    repository: &Repository,
    digest: &Digest,
) -> Result<Vec<u8>, ImportError> {
    let mut reader = import.source.blob(&repository.from, digest, None, 0);
    let mut bytes = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(more)) if bytes.len() + more.len() <= LIMIT => bytes.extend_from_slice(&more),
            Ok(Some(_)) => return Ok(Vec::new()),
            Ok(None) => break,
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    let is_right = Digest::of(digest.algorithm(), &bytes) == *digest;
    Ok(if is_right { bytes } else { Vec::new() })
}
