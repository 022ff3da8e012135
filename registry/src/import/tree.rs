//! A manifest and everything that belongs to it: blobs, children to any depth, and what refers to it.

use std::cell::RefCell;
use std::collections::HashMap;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::blob::{Moved, Parcel};
use super::error::ImportError;
use super::pass::{Pass, Repository};
use super::report::{Event, Trouble};
use super::source::Fetched;
use crate::domain::manifest::opaque;
use crate::domain::{Digest, MediaType, TagName};

/// Deepest nesting of indexes and of referrers of referrers.
const DEPTH: usize = 16;
/// Blobs or children of one manifest that are looked at at the same time.
const BREADTH: usize = 4;

#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    size: Option<u64>,
    media_type: Option<String>,
}

/// What a manifest says of what it names.
struct Said {
    size: Option<u64>,
    /// Whether it is of a type that manifests have.
    is_manifest: bool,
}

impl Pass<'_> {
    /// Brings a manifest here with all that belongs to it, and sets a tag to it if one is given. The digests of all
    /// manifests that were looked at are added to `seen`.
    pub fn tree<'t>(
        &'t self,
        repository: &'t Repository,
        digest: Digest,
        tag: Option<&'t TagName>,
        depth: usize,
        seen: &'t RefCell<Vec<Digest>>,
    ) -> LocalBoxFuture<'t, Result<(), ImportError>> {
        async move {
            if depth > DEPTH {
                let why = format!("manifests are nested deeper than {DEPTH} levels");
                return Err(ImportError::Unsupported(why));
            }
            let key = (repository.number, digest);
            {
                let _taken = self.busy_trees.take(key).await;
                if self.trees.contains_key(&key) {
                    return self.set(repository, &digest, tag).await;
                }
                self.content(repository, digest, tag, depth, seen).await?;
                self.trees.insert(key, ());
            }
            seen.borrow_mut().push(digest);
            self.referrers(repository, &digest, depth, seen).await
        }
        .boxed_local()
    }

    /// Sets a tag to a manifest that is here.
    async fn set(
        &self,
        repository: &Repository,
        digest: &Digest,
        tag: Option<&TagName>,
    ) -> Result<(), ImportError> {
        if tag.is_none() || self.import.wanted.dry_run {
            return Ok(());
        }
        let to = &self.import.destination;
        let here = to.manifest(&repository.to, digest).await?;
        to.put_manifest(&repository.to, digest, tag, &here).await
    }

    /// The manifest, and before it what it names.
    async fn content(
        &self,
        repository: &Repository,
        digest: Digest,
        tag: Option<&TagName>,
        depth: usize,
        seen: &RefCell<Vec<Digest>>,
    ) -> Result<(), ImportError> {
        let (from, to) = (&self.import.source, &self.import.destination);
        let wanted = &self.import.wanted;
        let Some(is_index) = to.has_manifest(&repository.to, &digest).await? else {
            let fetched = from.manifest(&repository.from, &digest).await?;
            self.parts(repository, &fetched, depth, seen).await?;
            self.report.count(|figures| figures.manifests_copied += 1);
            let size = fetched.bytes.len() as u64;
            if wanted.dry_run {
                self.report.count(|figures| figures.bytes_missing += size);
                return Ok(());
            }
            self.report.fetched(size);
            return to.put_manifest(&repository.to, &digest, tag, &fetched).await;
        };
        self.report.count(|figures| figures.manifests_present += 1);
        // An index may be here without its children, where the tenant allows it; an image came after its blobs.
        if is_index || wanted.deep {
            let here = to.manifest(&repository.to, &digest).await?;
            self.parts(repository, &here, depth, seen).await?;
        }
        self.set(repository, &digest, tag).await
    }

    /// What a manifest names.
    async fn parts(
        &self,
        repository: &Repository,
        fetched: &Fetched,
        depth: usize,
        seen: &RefCell<Vec<Digest>>,
    ) -> Result<(), ImportError> {
        let is_opaque = fetched.manifest.is_opaque();
        let said = if is_opaque {
            named(&fetched.bytes)
        } else {
            said(&fetched.bytes)
        };
        let size = |digest: &Digest| said.get(digest).and_then(|said| said.size);
        let blobs = fetched.manifest.blobs.iter().map(Ok);
        let blobs = stream::iter(blobs).try_for_each_concurrent(BREADTH, async |blob| {
            let is_there = self.blob(repository, blob.digest, size(&blob.digest)).await?;
            // Layers that may not be distributed are seldom where their manifest is.
            if is_there || !blob.required {
                return Ok(());
            }
            let what = format!("{}@{}", repository.from, blob.digest);
            let why = "a manifest names it, and it is not there".to_owned();
            Err(self.import.source.at.wrong(&what, why))
        });
        blobs.await?;
        let children = fetched.manifest.children.iter().map(Ok);
        let children = stream::iter(children).try_for_each_concurrent(BREADTH, async |child| {
            // Build caches list layers as if they were manifests.
            let is_manifest = said.get(child).is_none_or(|said| said.is_manifest);
            let mut is_there = !is_manifest && self.blob(repository, *child, size(child)).await?;
            // What a document of an unknown format names may be anything.
            if is_manifest || (is_opaque && !is_there) {
                is_there = match self.tree(repository, *child, None, depth + 1, seen).await {
                    Err(error) if error.is_absent() => false,
                    brought => {
                        brought?;
                        true
                    }
                };
            }
            if !is_there && !is_opaque {
                // The destination decides whether it takes an index without it.
                let why = "an index names it, and the source does not have it".to_owned();
                self.trouble(repository.from.as_str(), &child.to_string(), Trouble::Sparse, why);
            }
            Ok(())
        });
        children.await
    }

    /// Brings a blob here; false if the source does not have it.
    async fn blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<bool, ImportError> {
        let key = (repository.number, digest);
        if self.blobs.contains_key(&key) {
            return Ok(true);
        }
        // Two repositories that want the same one: the second has it mounted.
        let _taken = self.busy_blobs.take(digest).await;
        let to = &self.import.destination;
        if to.has_blob(&repository.to, &digest).await? {
            if !self.blobs.contains_key(&key) {
                self.report.count(|figures| figures.blobs_present += 1);
            }
            self.blobs.insert(key, ());
            return Ok(true);
        }
        if self.import.wanted.dry_run {
            if !self.counted.contains_key(&digest) {
                self.counted.insert(digest, ());
                self.watcher.hear(&Event::Found(size.unwrap_or_default()));
                self.report.count(|figures| {
                    figures.blobs_copied += 1;
                    figures.bytes_missing += size.unwrap_or_default();
                });
            }
            return Ok(true);
        }
        self.watcher.hear(&Event::Found(size.unwrap_or_default()));
        let _carrier = self.carriers.acquire().await;
        let parcel = Parcel {
            import: self.import,
            report: self.report,
            watcher: self.watcher,
            from: &repository.from,
            to: &repository.to,
            digest,
            size,
        };
        match parcel.carry().await {
            Ok(Moved::Mounted) => {
                self.watcher.hear(&Event::Moved(size.unwrap_or_default()));
                self.report.count(|figures| figures.blobs_mounted += 1);
            }
            Ok(Moved::Copied) => self.report.count(|figures| figures.blobs_copied += 1),
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) => return Err(error),
        }
        self.blobs.insert(key, ());
        Ok(true)
    }

    /// What refers to a manifest, where the source lists it; elsewhere tags stand for it, which come as tags do.
    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        depth: usize,
        seen: &RefCell<Vec<Digest>>,
    ) -> Result<(), ImportError> {
        if self.import.wanted.selection.without_referrers || !repository.has_referrers.get() {
            return Ok(());
        }
        let found = self.import.source.referrers(&repository.from, subject).await?;
        let Some(found) = found else {
            repository.has_referrers.set(false);
            return Ok(());
        };
        stream::iter(found)
            .for_each_concurrent(BREADTH, async |referrer| {
                let Err(error) = self.tree(repository, referrer, None, depth + 1, seen).await else {
                    return;
                };
                // What it refers to is here all the same.
                let kind = match &error {
                    ImportError::Unsupported(_) => Trouble::Skipped,
                    error if error.is_absent() => Trouble::Sparse,
                    _ => Trouble::Failed,
                };
                let why = format!("it refers to {subject}: {error}");
                self.trouble(repository.from.as_str(), &referrer.to_string(), kind, why);
            })
            .await;
        Ok(())
    }
}

/// What a manifest of an unknown format says of everything that it names.
fn named(manifest: &[u8]) -> HashMap<Digest, Said> {
    let named = opaque::named(manifest).unwrap_or_default();
    let said = |named: opaque::Named| Said {
        size: None,
        is_manifest: named.is_manifest,
    };
    named
        .into_iter()
        .map(|(digest, named)| (digest, said(named)))
        .collect()
}

/// What a manifest says of everything that it names.
fn said(manifest: &[u8]) -> HashMap<Digest, Said> {
    let Ok(document) = serde_json::from_slice::<Document>(manifest) else {
        return HashMap::new();
    };
    let named = document.config.into_iter().chain(document.layers);
    let named = named.chain(document.manifests);
    let said = named.filter_map(|descriptor| {
        let said = Said {
            size: descriptor.size,
            is_manifest: descriptor
                .media_type
                .is_none_or(|text| MediaType::parse(&text).is_some()),
        };
        Some((descriptor.digest.parse().ok()?, said))
    });
    said.collect()
}
