//! Memory for documents that are read whole: manifests that clients push, and what upstreams send of theirs.
//!
//! It is taken as bytes arrive, so that whoever announces much and sends little holds little; none of it is the uploads',
//! and a tenant has at most half of it, so that no other waits for its slow clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::RETRY_AFTER;
use http_body::Body;
use http_body_util::BodyExt as _;

use super::error::{ApiError, Code};
use crate::metadata::TenantId;
use crate::shares::{Share, Shares};

/// Bytes are taken in steps of this size.
const STEP: u64 = 64 * 1024;
/// Least memory for one sort of documents.
const LEAST: u64 = 32 << 20;
/// Longest wait for a step. Those who wait may hold what the others wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The memory for one sort of documents.
#[derive(Clone)]
pub(super) struct Documents(Arc<Shares>);

/// Memory that one request holds for what it reads.
pub(super) struct Held {
    documents: Documents,
    tenant: TenantId,
    share: Option<Share>,
    steps: u64,
    used: u64,
}

/// The tenant has all its memory for documents in use.
#[derive(Debug, thiserror::Error)]
#[error("too many large documents are being read for this tenant; try again")]
pub(super) struct Busy;

/// Why a document was not read.
#[derive(Debug)]
pub(super) enum Unread<E> {
    /// It is longer than it may be.
    TooLarge,
    /// There is no memory for it.
    Busy(Busy),
    /// Its sender broke off.
    Broken(E),
}

impl Documents {
    /// Memory enough for two documents that take `largest` bytes each.
    pub fn new(largest: u64) -> Self {
        let steps = LEAST.max(largest.saturating_add(STEP).saturating_mul(2)) / STEP;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        Self(Arc::new(Shares::new(steps, steps / 2)))
    }

    /// For a request that has read nothing yet.
    pub fn hold(&self, tenant: TenantId) -> Held {
        Held {
            documents: self.clone(),
            tenant,
            share: None,
            steps: 0,
            used: 0,
        }
    }
}

impl Held {
    /// Takes memory for `bytes` more.
    async fn more(&mut self, bytes: u64) -> Result<(), Busy> {
        self.used += bytes;
        let missing = self.used.div_ceil(STEP).saturating_sub(self.steps);
        if missing == 0 {
            return Ok(());
        }
        let units = u32::try_from(missing).map_err(|_| Busy)?;
        let more = self
            .documents
            .0
            .take(self.tenant, units, PATIENCE)
            .await
            .ok_or(Busy)?;
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
        self.steps += missing;
        Ok(())
    }

    /// Reads a body of at most `limit` bytes, each of which takes `weight` bytes of memory.
    pub async fn read<B>(&mut self, mut body: B, limit: u64, weight: u64) -> Result<Bytes, Unread<B::Error>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(Unread::Broken)?.into_data() else {
                continue;
            };
            let length = bytes.len() as u64;
            if read.len() as u64 + length > limit {
                return Err(Unread::TooLarge);
            }
            self.more(length.saturating_mul(weight))
                .await
                .map_err(Unread::Busy)?;
            read.extend_from_slice(&bytes);
        }
        Ok(read.freeze())
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> Self {
        Self::of(Code::Unavailable, busy.to_string()).header(RETRY_AFTER, HeaderValue::from_static("2"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;

    use super::*;

    type Frame = http_body::Frame<Bytes>;

    fn sent(bytes: usize) -> Result<Frame, std::convert::Infallible> {
        Ok(Frame::data(vec![0; bytes].into()))
    }

    /// A body that sends so much and then no more.
    fn stalled(bytes: usize) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
        StreamBody::new(stream::iter([sent(bytes)]).chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_send_little_of_large_documents_leave_room_for_others() {
        let documents = Documents::new(4 << 20);
        let mut slow: Vec<_> = (0..200).map(|_| documents.hold(TenantId(1))).collect();
        let mut waiting: Vec<_> = slow
            .iter_mut()
            .map(|held| Box::pin(held.read(stalled(100), 4 << 20, 1)))
            .collect();
        for read in &mut waiting {
            assert!(futures_util::poll!(read).is_pending());
        }
        for tenant in [1, 2] {
            let body = StreamBody::new(stream::iter([sent(1 << 20), sent(1 << 20)]));
            let read = documents.hold(TenantId(tenant)).read(body, 4 << 20, 1).await;
            assert_eq!(read.unwrap().len(), 2 << 20, "tenant {tenant}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_holds_its_share_is_refused_after_a_while_and_no_other_is() {
        let documents = Documents::new(4 << 20);
        let mut held: Vec<_> = (0..4).map(|_| documents.hold(TenantId(1))).collect();
        let mut waiting: Vec<_> = held
            .iter_mut()
            .map(|held| Box::pin(held.read(stalled(4 << 20), 4 << 20, 1)))
            .collect();
        for read in &mut waiting {
            assert!(futures_util::poll!(read).is_pending());
        }
        let read = documents.hold(TenantId(1)).read(stalled(100), 4 << 20, 1).await;
        assert!(matches!(read, Err(Unread::Busy(_))), "{read:?}");
        let body = StreamBody::new(stream::iter([sent(4 << 20)]));
        let read = documents.hold(TenantId(2)).read(body, 4 << 20, 1).await;
        assert_eq!(read.unwrap().len(), 4 << 20);
        drop(waiting);
        drop(held);
        let body = StreamBody::new(stream::iter([sent(100)]));
        assert!(documents.hold(TenantId(1)).read(body, 4 << 20, 1).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_longer_than_it_may_be_is_not_read() {
        let documents = Documents::new(4 << 20);
        let body = StreamBody::new(stream::iter([sent(60), sent(41)]));
        let read = documents.hold(TenantId(1)).read(body, 100, 1).await;
        assert!(matches!(read, Err(Unread::TooLarge)), "{read:?}");
    }
}
