//! What all requests to caches share.

use std::path::PathBuf;
use std::sync::Arc;

use moka::sync::Cache as Memory;

use super::super::documents::Documents;
use super::fetch::Fetches;
use super::lists::Listed;
use super::manifest::Outcome;
use super::spool::Spools;
use crate::flights::Flights;
use crate::identity::keys::KeyRing;
use crate::metadata::{Reference, Repository, Time};
use crate::shares::Shares;
use crate::upstream::Remotes;

/// Tags of which is remembered when they were last looked at.
const CHECKED: u64 = 100_000;
/// Blobs that are fetched or taken in at the same time; more wait.
const FETCHES: u32 = 48;
/// Of these for one tenant.
const TENANT_FETCHES: u32 = 16;
/// Lists that are asked for at the same time.
const LISTS: u32 = 32;
/// Of these for one tenant.
const TENANT_LISTS: u32 = 8;

/// What caches need of the process.
pub struct CacheParts {
    /// The upstreams.
    pub remotes: Arc<Remotes>,
    /// Whether other replicas use the same store.
    pub shared: bool,
    /// Where they reach this one, as a base URL, if they do.
    pub address: Option<String>,
    /// Where blobs that arrive are spooled.
    pub spool_folder: PathBuf,
    /// Most bytes of them.
    pub spool_size: u64,
}

/// What is under way and what is remembered.
pub(in crate::distribution) struct Cached {
    pub(super) remotes: Arc<Remotes>,
    pub(super) shared: bool,
    pub(super) address: Option<String>,
    /// Manifests and tags that are being asked for.
    pub(super) manifests: Flights<(Repository, Reference), Outcome>,
    /// When tags were last found to be as the upstream has them.
    pub(super) checked: Memory<(Repository, String), Time>,
    /// Lists that are being asked for.
    pub(super) lists: Flights<(Repository, String), Listed>,
    /// Referrers of late.
    pub(super) referrers: Memory<(Repository, String), Arc<Vec<serde_json::Value>>>,
    /// Blobs that are being fetched.
    pub(super) fetches: Fetches,
    pub(super) fetch_turns: Shares,
    pub(super) list_turns: Shares,
    /// Memory for manifests and lists of upstreams.
    pub(super) documents: Documents,
    pub(super) spools: Spools,
}

impl Cached {
    /// The keys of all replicas.
    pub fn keys(&self) -> &KeyRing {
        self.remotes.keys()
    }

    /// Begins with nothing.
    pub fn new(parts: CacheParts, max_manifest_size: u64) -> Self {
        let CacheParts {
            remotes,
            shared,
            address,
            spool_folder,
            spool_size,
        } = parts;
        Self {
            remotes,
            shared,
            address,
            manifests: Flights::default(),
            checked: Memory::new(CHECKED),
            lists: Flights::default(),
            referrers: super::lists::memory(),
            fetches: Fetches::default(),
            fetch_turns: Shares::new(FETCHES, TENANT_FETCHES),
            list_turns: Shares::new(LISTS, TENANT_LISTS),
            documents: Documents::new(max_manifest_size.max(super::lists::MEMORY)),
            spools: Spools::new(spool_folder, spool_size),
        }
    }
}
