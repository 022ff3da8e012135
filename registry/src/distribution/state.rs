//! What every request shares.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use rand::RngExt as _;
use uuid::Uuid;

use crate::blobs::budget::Budget;
use crate::blobs::{BlobStore, ObjectKey};
use crate::domain::{Digest, TenantName};
use crate::metadata::{MetadataError, NewTenant, Sparse, Store, Tenant, TenantId, Time};
use crate::settings::{self, Redirect, Settings};

/// The tenant of a first run.
const FIRST_TENANT: &str = "default";

/// Bytes of manifests kept in memory.
const PAYLOAD_CACHE: u64 = 64 * 1024 * 1024;

/// What is promised to a client that was told that something exists: not collected for this long.
pub const LEASE: Duration = Duration::from_secs(24 * 3600);
/// A lease that ends sooner than this is extended before the answer.
pub const LEASE_LEAST: Duration = Duration::from_secs(12 * 3600);
/// When what has lost a reference is reviewed.
pub const REVIEW_DELAY: Duration = Duration::from_secs(3600);
/// When an object that nothing refers to may be deleted: no URL or stream that was handed out reads it then.
pub const SPARE_DELAY: Duration = Duration::from_secs(3600);

/// The stores and settings of the distribution API; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

/// What [`Registry`] shares.
pub struct Shared {
    pub(super) metadata: Arc<dyn Store>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) tenant: Tenant,
    pub(super) budget: Budget,
    pub(super) may_be_open: bool,
    pub(super) redirect: Redirect,
    pub(super) max_manifest_size: u64,
    pub(super) max_open_uploads: u64,
    pub(super) upload_expiry: Duration,
    /// Open sessions of the tenant: counted now and then, and raised by each new one in between.
    pub(super) open_uploads: AtomicU64,
    /// Manifest bytes. Immutable under their digest; whether a repository has them is asked each time.
    pub(super) payloads: Cache<(TenantId, Digest), Bytes>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Clients keep `Authorization` on redirects to subdomains, and object stores refuse two credentials.
    #[error(
        "--redirect {redirect:?} would send clients to {host}, below --domain {domain}: they would send their \
         registry credential along, which the object store refuses; give the object store a host outside of the \
         domain (public-endpoint in --blobs), or set --redirect Never"
    )]
    RedirectHost {
        /// The setting.
        redirect: Redirect,
        /// Of the object store.
        host: String,
        /// The apex.
        domain: String,
    },
    /// The blob store cannot sign.
    #[error(transparent)]
    Blobs(#[from] crate::blobs::BlobError),
    /// The first tenant's name is none.
    #[error(transparent)]
    Name(#[from] crate::domain::name::NameError),
}

impl Deref for Registry {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Counts a session out that was closed, cancelled or refused.
    pub(super) fn upload_ended(&self) {
        // Without wrapping: the count is an estimate that is renewed now and then.
        let down = |open: u64| Some(open.saturating_sub(1));
        let _ = self
            .open_uploads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, down);
    }
}

/// A random row id.
pub fn row_id() -> i64 {
    rand::rng().random_range(1..i64::MAX)
}

impl Registry {
    /// Finds the tenant, which a first run makes.
    pub async fn open(
        settings: &Settings,
        metadata: Arc<dyn Store>,
        blobs: Arc<dyn BlobStore>,
        budget: Budget,
    ) -> Result<Self, OpenError> {
        if settings.redirect != Redirect::Never {
            check_redirect_host(settings, &*blobs).await?;
        }
        let first = NewTenant {
            name: FIRST_TENANT.parse::<TenantName>()?,
            uid: Uuid::new_v4(),
            id: row_id(),
            sparse: match settings.sparse {
                settings::Sparse::Never => Sparse::Never,
                settings::Sparse::Indexes => Sparse::Indexes,
                settings::Sparse::Always => Sparse::Always,
            },
            now: Time::now(),
        };
        let tenant = metadata.ensure_tenant(first).await?;
        if settings.metadata.starts_with("sqlite:") {
            // The data folder's lock shows that no other process writes.
            metadata.end_leases().await?;
        }
        Ok(Self(Arc::new(Shared {
            metadata,
            blobs,
            tenant,
            budget,
            may_be_open: settings.may_be_open(),
            redirect: settings.redirect,
            max_manifest_size: settings.max_manifest_size,
            max_open_uploads: settings.max_open_uploads,
            upload_expiry: settings.upload_expiry,
            open_uploads: AtomicU64::new(0),
            payloads: Cache::builder()
                .max_capacity(PAYLOAD_CACHE)
                .weigher(|_, payload: &Bytes| u32::try_from(payload.len() + 256).unwrap_or(u32::MAX))
                .build(),
        })))
    }
}

/// Refuses an object store whose host lies below the registry's domain.
async fn check_redirect_host(settings: &Settings, blobs: &dyn BlobStore) -> Result<(), OpenError> {
    let nowhere = ObjectKey::of_upload(Uuid::nil());
    let Some(signed) = blobs.presign(&nowhere, Duration::from_secs(1)).await? else {
        return Ok(());
    };
    let host = url::Url::parse(&signed)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let domain = settings.domain.clone();
    if host == domain || host.ends_with(&format!(".{domain}")) {
        return Err(OpenError::RedirectHost {
            redirect: settings.redirect,
            host,
            domain,
        });
    }
    Ok(())
}
