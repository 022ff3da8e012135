//! What all requests to caches share.

use std::path::PathBuf;
use std::sync::Arc;

use moka::sync::Cache as Memory;
use tokio::sync::Semaphore;

use super::fetch::Fetches;
use super::lists::Listed;
use super::manifest::Outcome;
use super::spool::Spools;
use crate::flights::Flights;
use crate::metadata::{Reference, Repository, TenantId, Time};
use crate::upstream::Remotes;

/// Tags of which is remembered when they were last looked at.
const CHECKED: u64 = 100_000;
/// Blobs that are fetched or taken in at the same time; more wait.
const FETCHES: usize = 48;
/// Of these for one tenant.
const TENANT_FETCHES: usize = 16;
/// Tenants whose fetches are counted.
const TENANTS: u64 = 10_000;

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
    pub(super) permits: Arc<Semaphore>,
    tenant_permits: Memory<TenantId, Arc<Semaphore>>,
    pub(super) spools: Spools,
}

impl Cached {
    /// Begins with nothing.
    pub fn new(parts: CacheParts) -> Self {
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
            permits: Arc::new(Semaphore::new(FETCHES)),
            tenant_permits: Memory::new(TENANTS),
            spools: Spools::new(spool_folder, spool_size),
        }
    }

    /// The permits of a tenant.
    pub(super) fn permits_of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let fresh = || Arc::new(Semaphore::new(TENANT_FETCHES));
        self.tenant_permits.get_with(tenant, fresh)
    }
}
