//! Streaming a body into a session: hash, write, store progress.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use uuid::Uuid;

use super::super::error::{ApiError, Code};
use super::super::state::Registry;
use super::hashes::Hashes;
use super::lease::{LEASE, Renewal};
use super::opened::Open;
use super::pace::Pace;
use super::start::Room;
use super::{body_failed, unknown};
use crate::blobs::{BlobWriter, UploadState};
use crate::metadata::{Checkpoint, TenantId, Time, UploadRow};

/// Why a body was not appended to its end.
pub enum Cut {
    /// It is not as long as it was declared to be, and counts for nothing.
    Contradicts(ApiError),
    /// There is no room for it, nor is there for what came before.
    NoRoom(ApiError),
    /// Anything else: what has arrived of it is kept.
    Ended(ApiError),
}

impl From<ApiError> for Cut {
    fn from(error: ApiError) -> Self {
        Self::Ended(error)
    }
}

/// Most bytes hashed at once on the reactor: about 0.15 ms.
const STEP: u64 = 256 * 1024;

/// A writer at work in one session.
pub struct Writing {
    registry: Registry,
    tenant: TenantId,
    id: Uuid,
    epoch: i64,
    pub hashes: Hashes,
    pub offset: u64,
    writer: Box<dyn BlobWriter>,
    /// Hash states at boundaries that are not yet known to be durable.
    marks: VecDeque<(u64, Vec<u8>)>,
    renewal: Renewal,
    /// Everything before it is stored.
    settled: u64,
    /// Where the quotas end it.
    pub(super) room: Room,
    /// All open uploads of the tenant.
    open: Arc<Open>,
}

impl Writing {
    /// Opens the session of `row`, whose lease the caller holds, for appending. `expected` is the size of
    /// the whole blob if it is known.
    pub async fn open(
        registry: &Registry,
        tenant: TenantId,
        row: &UploadRow,
        hashes: Hashes,
        expected: Option<u64>,
    ) -> Result<Self, ApiError> {
        let renewal = Renewal::start(registry, tenant, row.id, row.epoch);
        let writer = registry
            .blobs
            .resume(row.id, row.epoch, row.state.clone(), expected)
            .await?;
        Ok(Self {
            registry: registry.clone(),
            tenant,
            id: row.id,
            epoch: row.epoch,
            hashes,
            offset: row.offset,
            writer,
            marks: VecDeque::new(),
            renewal,
            settled: row.offset,
            room: Room::default(),
            open: registry.opened.of(tenant),
        })
    }

    /// Appends a body. `limit` is where it must end, if the client said so. On an error of the client's, what
    /// has arrived is kept, which is what resuming is for.
    pub async fn append(&mut self, mut body: Body, limit: Option<u64>) -> Result<(), Cut> {
        let mut pace = Pace::new(self.offset);
        loop {
            let asked_at = Instant::now();
            let came = tokio::time::timeout(pace.patience(), body.frame()).await;
            if pace.waited(asked_at.elapsed(), self.offset, self.settled) {
                // What a slow client has sent goes to the store, and its buffers back to the others.
                self.settle().await?;
            }
            let frame = match came {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(_) => continue,
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.flush().await?;
                    return Err(body_failed(&error).into());
                }
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if limit.is_some_and(|limit| self.offset + bytes.len() as u64 > limit) {
                let message = "the body is longer than it was declared to be";
                return Err(Cut::Contradicts(ApiError::of(Code::SizeInvalid, message)));
            }
            if !self.room.fits(self.offset, self.open.bytes(), bytes.len() as u64) {
                let message = "the quota leaves no room for more of this upload; delete what is not needed, or have \
                               the quota raised";
                return Err(Cut::NoRoom(ApiError::of(Code::Denied, message)));
            }
            self.add(bytes).await?;
        }
    }

    /// Appends bytes.
    pub async fn add(&mut self, mut bytes: Bytes) -> Result<(), ApiError> {
        while !bytes.is_empty() {
            let step = STEP.min(self.writer.until_boundary()).min(bytes.len() as u64);
            // At most the length of a buffer in memory.
            let piece = bytes.split_to(usize::try_from(step).unwrap_or(bytes.len()));
            self.hashes.update(&piece);
            self.offset += piece.len() as u64;
            self.open.received(piece.len() as u64);
            self.writer.write(piece).await?;
            if self.writer.at_boundary() {
                self.marks.push_back((self.offset, self.hashes.to_stored()));
            }
        }
        if let Some(state) = self.writer.durable() {
            self.store_mark(state).await?;
        }
        if self.renewal.lost() {
            return Err(unknown(self.id));
        }
        Ok(())
    }

    /// Stores progress up to a boundary that has become durable.
    async fn store_mark(&mut self, state: UploadState) -> Result<(), ApiError> {
        let offset = state.offset();
        while let Some((marked, hashes)) = self.marks.pop_front() {
            if marked == offset {
                let until = Time::now().plus(LEASE);
                return self.checkpoint(offset, hashes, state, until).await;
            }
        }
        // Every boundary was marked when it was passed.
        tracing::error!(offset, upload = %self.id, "the blob store reported a state that is at no boundary");
        Ok(())
    }

    async fn checkpoint(
        &mut self,
        offset: u64,
        hash_states: Vec<u8>,
        state: UploadState,
        until: Time,
    ) -> Result<(), ApiError> {
        let checkpoint = Checkpoint {
            epoch: self.epoch,
            offset,
            hash_states,
            state,
            now: Time::now(),
            until,
        };
        let mine = self
            .registry
            .metadata
            .checkpoint_upload(self.tenant, self.id, checkpoint)
            .await?;
        if !mine {
            return Err(unknown(self.id));
        }
        self.settled = offset;
        Ok(())
    }

    /// Makes everything so far durable, stores it, and ends the lease.
    pub async fn flush(&mut self) -> Result<UploadState, ApiError> {
        let state = self.writer.flush().await?;
        // Over by every clock: the next writer's may be behind this one's.
        let over = Time(0);
        self.checkpoint(self.offset, self.hashes.to_stored(), state.clone(), over)
            .await?;
        Ok(state)
    }

    /// Makes everything so far durable and stores it; the lease goes on.
    pub async fn settle(&mut self) -> Result<UploadState, ApiError> {
        let state = self.writer.flush().await?;
        let until = Time::now().plus(LEASE);
        self.checkpoint(self.offset, self.hashes.to_stored(), state.clone(), until)
            .await?;
        Ok(state)
    }

    /// Fails if the session is another's by now.
    pub async fn confirm(&mut self) -> Result<(), ApiError> {
        self.renewal.confirm().await
    }

    /// Publishes the object and returns its size. The lease is renewed until the answer is dropped.
    pub async fn finish(self) -> Result<(u64, Renewal), ApiError> {
        self.renewal.confirm().await?;
        Ok((self.writer.finish().await?, self.renewal))
    }
}
