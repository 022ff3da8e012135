//! A blob that another replica fetches, or has stored by now.

use futures_util::TryStreamExt as _;

use super::super::claim::LOOK;
use super::super::growing::{Phase, Source};
use super::super::peer;
use super::super::trouble::Trouble;
use super::{Fetch, Wanted};
use crate::blobs::BlobStream;
use crate::metadata::BlobRow;

impl Fetch<'_> {
    /// Takes in what another replica fetches, as far as that can be had from it; or waits a little.
    pub(super) async fn along(&self, address: Option<String>) -> Result<(), Trouble> {
        let Wanted {
            registry,
            repository,
            digest,
            ..
        } = &self.wanted;
        if !matches!(self.growing.phase(), Phase::Arriving { .. }) {
            self.growing.set(Phase::Elsewhere);
        }
        let peer = match &address {
            Some(address) => peer::ask(registry, (repository, digest), address, self.growing.end()).await,
            None => None,
        };
        match peer {
            // All of it, or another replica goes on; whoever holds the claim next is asked next.
            Some(peer) => self.take_in(peer.size, peer.bytes).await.map(drop),
            None => {
                tokio::time::sleep(LOOK).await;
                Ok(())
            }
        }
    }

    /// Shows what was fetched elsewhere, and whether all of it came. What was shown before may be from another replica,
    /// which may have failed since: the last byte is shown when all of them make up the digest.
    async fn take_in(&self, size: u64, mut pieces: BlobStream) -> Result<bool, Trouble> {
        let digest = &self.wanted.digest;
        let mut at = self.growing.end();
        let spool = self.wanted.registry.cached.spools.open(size).await;
        self.growing.begin(size, at, Source::Replica, spool);
        loop {
            let mut bytes = match pieces.try_next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(false),
                Err(error) => {
                    tracing::info!(%error, %digest, "another replica broke off");
                    return Ok(false);
                }
            };
            let left = size.saturating_sub(at);
            if (bytes.len() as u64) < left {
                self.growing.room(bytes.len()).await;
                let length = bytes.len() as u64;
                self.growing.push(at, bytes);
                at += length;
                continue;
            }
            // At most the length of a piece in memory.
            bytes.truncate(usize::try_from(left).unwrap_or(bytes.len()));
            let last = bytes.split_off(bytes.len().saturating_sub(1));
            self.growing.push(at, bytes);
            if self.growing.confirms(&last) != Some(true) {
                return Err(self
                    .strange(format!("what two replicas were sent for {digest} differs"))
                    .into());
            }
            self.growing.push(size - last.len() as u64, last);
            return Ok(true);
        }
    }

    /// What is stored by now ends what has been shown so far, if anything has.
    pub(super) async fn conclude(&self, row: BlobRow) -> Result<BlobRow, Trouble> {
        let end = self.growing.end();
        if matches!(self.growing.phase(), Phase::Arriving { .. }) && end < row.size {
            let rest = self.wanted.registry.blobs.read(&row.key, end..row.size).await?;
            if !self.take_in(row.size, rest).await? {
                return Err(Trouble::ended());
            }
        }
        Ok(row)
    }
}
