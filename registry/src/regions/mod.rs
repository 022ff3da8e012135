//! Regions: buckets with the same objects as `--blobs`, of which the one nearest to a client sends it a blob's bytes.
//!
//! ```text
//!   header of a trusted proxy ─> network of the client ─> zone of this replica ─> home
//!                 the first that names a region decides
//! ```
//!
//! [`file`] reads the file that names them, [`Regions::of`] chooses one for a request, [`region`] is one of them with
//! what is known of it, [`presence`] remembers which objects are where, [`relay`] goes on at home when a region's bytes
//! break off. It uses the blob store and a request's origin.
//!
//! What must hold: only reads of blobs go to a region, everything else goes home; an object that a region does not show
//! in its full size, and a region that does not answer, mean home and cost a request a second at most; which object a
//! digest stands for is what the tenant's own rows say, whatever region is read.

mod figures;
mod file;
pub mod presence;
pub mod region;
mod relay;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::blobs::BlobStore;
use crate::blobs::budget::Budget;
use crate::blobs::open::OpenError;
use crate::tenancy::Origin;

pub use figures::Figures;
use region::{Region, Tally};

/// Why regions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegionsError {
    /// The file cannot be read.
    #[error("--regions {path}: it cannot be read ({error})", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something that cannot be meant.
    #[error("--regions {path}: {problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A bucket's URL is not understood.
    #[error("--regions {path}: region {region}: {error}", path = path.display())]
    Bucket {
        /// The file.
        path: PathBuf,
        /// Whose bucket.
        region: String,
        /// What is wrong.
        error: OpenError,
    },
}

/// The regions of an installation.
pub struct Regions {
    header: HeaderName,
    home: String,
    home_tally: Tally,
    regions: Vec<Arc<Region>>,
    /// Longest prefix first; without a region it is home's.
    networks: Vec<(IpNet, Option<usize>)>,
    /// Where this replica runs.
    own: Option<usize>,
}

impl Regions {
    /// Reads the file, and begins to look whether the regions answer. `zone` is where this replica runs.
    pub async fn open(path: &Path, zone: Option<&str>, budget: Budget) -> Result<Arc<Self>, RegionsError> {
        let text = std::fs::read_to_string(path).map_err(|error| RegionsError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        let plan = file::read(&text).map_err(|problem| RegionsError::Invalid {
            path: path.to_owned(),
            problem,
        })?;
        let mut regions = Vec::new();
        for (name, bucket) in &plan.buckets {
            let opened = Region::open(name, bucket, budget.clone()).await;
            regions.push(Arc::new(opened.map_err(|error| RegionsError::Bucket {
                path: path.to_owned(),
                region: name.clone(),
                error,
            })?));
        }
        let own = zone.and_then(|zone| plan.zone(zone));
        match (zone, own) {
            (Some(zone), None) => tracing::info!(zone, "no region has this replica's zone; it reads at home"),
            (Some(zone), Some(own)) => {
                tracing::info!(zone, region = own.map(|i| regions[i].name()), "near by zone")
            }
            (None, _) => {}
        }
        for region in &regions {
            tokio::spawn(region.clone().watch());
        }
        Ok(Arc::new(Self {
            header: plan.header,
            home: plan.home,
            home_tally: Tally::default(),
            regions,
            networks: plan.networks,
            own: own.flatten(),
        }))
    }

    /// The region whose bucket is the nearest to whoever sends a request; `None`: home.
    pub fn of(&self, headers: &HeaderMap, origin: &Origin) -> Option<&Arc<Region>> {
        let place = self
            .named(headers, origin)
            .or_else(|| self.around(origin.address))
            .unwrap_or(self.own);
        place.and_then(|index| self.regions.get(index))
    }

    /// What a trusted proxy says. A name that no region has is home's, so that a mistake costs a way and no pull.
    fn named(&self, headers: &HeaderMap, origin: &Origin) -> Option<Option<usize>> {
        if !origin.by_proxy {
            return None;
        }
        let mut lines = headers.get_all(&self.header).iter();
        let name = lines.next().filter(|name| !name.is_empty())?;
        // Of several, some may be the client's own.
        let single = lines.next().is_none();
        let is_it = |region: &Arc<Region>| single && region.name().as_bytes() == name.as_bytes();
        Some(self.regions.iter().position(is_it))
    }

    /// Whose network an address lies in.
    fn around(&self, address: IpAddr) -> Option<Option<usize>> {
        let address = address.to_canonical();
        let found = self
            .networks
            .iter()
            .find(|(network, _)| network.contains(&address));
        found.map(|(_, place)| *place)
    }

    /// What home is called.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// All but home.
    pub fn all(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// Counts what home has sent, or has sent a client to.
    pub fn home_read(&self, redirected: bool) {
        let tally = &self.home_tally;
        let counter = if redirected {
            &tally.redirected
        } else {
            &tally.streamed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Regions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regions")
    }
}

/// A bucket of a region as a store.
type Bucket = Arc<dyn BlobStore>;

#[cfg(test)]
mod tests;
