//! What every request shares.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use uuid::Uuid;

use super::cached::{CacheParts, Cached};
use super::documents::Documents;
use super::uploads::opened::Opened;
use crate::blobs::{BlobStore, ObjectKey};
use crate::domain::Digest;
use crate::identity::Identity;
use crate::lifecycle::pulls::Pulls;
use crate::lifecycle::traffic::Traffic;
use crate::metadata::lifecycle::Lifecycle;
use crate::metadata::position::Position;
use crate::metadata::{MetadataError, Store, TenantId};
use crate::regions::Regions;
use crate::regions::presence::Presence;
use crate::settings::{Delays, Redirect, Settings};
use crate::standby::Standby;
use crate::tenancy::origin::Rules;
use crate::tenancy::{Directory, Names, Origin, Snapshot};
use crate::webhooks::Teller;

/// Bytes of manifests kept in memory.
const PAYLOAD_CACHE: u64 = 64 * 1024 * 1024;

/// The stores and settings of the distribution API; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

/// What [`Registry`] shares.
pub struct Shared {
    pub(super) metadata: Arc<dyn Store>,
    pub(super) blobs: Arc<dyn BlobStore>,
    /// Buckets that are nearer to some clients.
    pub(super) regions: Option<Arc<Regions>>,
    /// Where the store stands.
    pub(super) position: Arc<dyn Position>,
    /// What a registry that only reads has besides.
    pub(super) reading: Option<Reading>,
    /// What has been replicated to `blobs`, where something else writes there.
    pub(super) arrived: Option<Presence>,
    pub(super) directory: Arc<Directory>,
    pub(super) identity: Arc<Identity>,
    pub(super) names: Names,
    pub(super) origins: Rules,
    /// Memory for manifests that are being pushed.
    pub(super) pushed: Documents,
    may_be_open: bool,
    pub(super) redirect: Redirect,
    pub(super) max_manifest_size: u64,
    pub(super) max_open_uploads: u64,
    pub(super) upload_expiry: Duration,
    /// How long things are kept.
    pub(super) delays: Delays,
    /// Pulls that have been served and not been noted yet.
    pub(super) pulls: Arc<Pulls>,
    pub(super) traffic: Arc<Traffic>,
    /// What is kept, and what goes.
    pub(super) lifecycle: Arc<dyn Lifecycle>,
    /// What tells webhooks of quotas.
    pub(super) teller: Arc<Teller>,
    /// Open uploads of each tenant.
    pub(super) opened: Opened,
    /// What caches share.
    pub(super) cached: Cached,
    /// Manifest bytes. Immutable under their digest; whether a repository has them is asked each time.
    pub(super) payloads: Cache<(TenantId, Digest), Bytes>,
}

/// A registry that only reads.
pub struct Reading {
    /// How far the database is behind.
    pub(super) standby: Arc<Standby>,
    /// Where pushes are taken instead.
    pub(super) primary: Option<String>,
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
         domain (public-endpoint in its URL), or set --redirect Never"
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
}

impl Deref for Registry {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Whether a request needs no credential: nothing is configured, everything is on loopback, and so is it.
    pub(super) fn is_open(&self, snapshot: &Snapshot, origin: &Origin) -> bool {
        self.may_be_open && origin.local && !snapshot.is_configured()
    }

    /// Whether nothing is written, so that no answer promises what a push could rely on.
    pub(super) fn only_reads(&self) -> bool {
        self.reading.is_some()
    }
}

/// What the API is made of.
pub struct Parts {
    /// What is stored.
    pub metadata: Arc<dyn Store>,
    /// Where it stands.
    pub position: Arc<dyn Position>,
    /// How far it is behind, if it is only read.
    pub reading: Option<Arc<Standby>>,
    /// Its bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Buckets that are nearer to some clients.
    pub regions: Option<Arc<Regions>>,
    /// Who lives here.
    pub directory: Arc<Directory>,
    /// Who may do what.
    pub identity: Arc<Identity>,
    /// Where pulls are noted.
    pub pulls: Arc<Pulls>,
    /// Where requests are counted.
    pub traffic: Arc<Traffic>,
    /// What is kept, and what goes.
    pub lifecycle: Arc<dyn Lifecycle>,
    /// What tells webhooks of quotas.
    pub teller: Arc<Teller>,
    /// Other registries.
    pub caches: CacheParts,
}

impl Registry {
    /// Puts the parts together.
    pub async fn open(settings: &Settings, parts: Parts) -> Result<Self, OpenError> {
        let Parts {
            metadata,
            position,
            reading,
            blobs,
            regions,
            directory,
            identity,
            pulls,
            traffic,
            lifecycle,
            teller,
            caches,
        } = parts;
        if settings.redirect != Redirect::Never {
            check_redirect_host(settings, &*blobs).await?;
            for region in regions.iter().flat_map(|regions| regions.all()) {
                check_redirect_host(settings, &**region.bucket()).await?;
            }
        }
        if settings.metadata.starts_with("sqlite:") {
            // The data folder's lock shows that no other process writes.
            metadata.end_leases().await?;
        }
        Ok(Self(Arc::new(Shared {
            metadata,
            blobs,
            regions,
            arrived: settings.read_only.then(Presence::default),
            reading: reading.map(|standby| Reading {
                standby,
                primary: settings.primary.clone(),
            }),
            position,
            directory,
            identity,
            names: settings.names(),
            origins: Rules {
                trusted: settings.trusted_proxies.clone(),
                headers: settings.proxy_headers,
                scheme: settings.external_scheme,
            },
            pushed: Documents::new(settings.max_manifest_size),
            may_be_open: settings.may_be_open(),
            redirect: settings.redirect,
            max_manifest_size: settings.max_manifest_size,
            max_open_uploads: settings.max_open_uploads,
            upload_expiry: settings.upload_expiry,
            delays: settings.delays,
            pulls,
            traffic,
            lifecycle,
            teller,
            cached: Cached::new(caches, settings.max_manifest_size),
            opened: Opened::default(),
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
