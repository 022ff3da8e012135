//! Appending to one upload: parts are collected in memory, sent two at a time while the next one is
//! collected, and counted as stored in their order.
//!
//! Memory comes out of the budget as bytes arrive and goes back when a part is stored. A writer never waits
//! for memory while it holds some: it waits for its own parts first, then stores its partial part as a
//! segment. So writers cannot block each other for ever, however small the budget is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::bucket::Bucket;
use super::content::Content;
use super::state::{Part, Segment, SegmentName, State};
use super::{MAX_OBJECT, MAX_PARTS, leftovers, next_number, publish};
use crate::blobs::budget::{Budget, Grant};
use crate::blobs::{BlobError, BlobWriter, UploadState};

/// Parts on their way at a time.
const FLYING: usize = 2;
/// Memory grows in steps from the first of these to the second.
const FIRST_STEP: u64 = 64 << 10;
const LARGEST_STEP: u64 = 1 << 20;
/// A tail of at most this many bytes lies in the session row.
const INLINE: u64 = 32 << 10;

/// Numbers that are left free for a successor by a writer that writes on after it sealed a state.
const WRITE_ON_GAP: i32 = 8;

/// One writer.
pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    budget: Budget,
    id: Uuid,
    epoch: i64,
    part_size: u64,
    multipart: Option<String>,
    /// Parts that are stored, without a hole.
    parts: Vec<Part>,
    /// Parts that are stored behind one that is not, by their index.
    landed: BTreeMap<usize, Part>,
    /// Parts sent or being sent, the stored ones included.
    started: usize,
    next_number: i32,
    flying: JoinSet<(usize, Result<Part, BlobError>)>,
    /// The bytes after the last part that was started.
    partial: Content,
    /// The end of `partial`, being filled.
    filling: BytesMut,
    grant: Option<Grant>,
    next_segment: u32,
    /// Segments that a state handed out may name.
    reported_segments: Vec<SegmentName>,
    /// Those of them that the next state does not need.
    retired: Vec<SegmentName>,
    /// Unneeded by the state that this writer resumed from, which is persisted: they may go.
    obsolete: Vec<SegmentName>,
    reported_parts: usize,
    failed: Option<String>,
}

impl S3Writer {
    /// Continues after `state`. Touches nothing.
    pub(super) fn new(
        bucket: &Arc<Bucket>,
        budget: &Budget,
        id: Uuid,
        epoch: i64,
        state: State,
        part_size: u64,
    ) -> Self {
        let names = state.segments();
        let used = names
            .iter()
            .filter(|name| name.0 == epoch)
            .map(|name| name.1 + 1)
            .max();
        let partial = Content::of_tail(&state.tail);
        Self {
            bucket: bucket.clone(),
            budget: budget.clone(),
            id,
            epoch,
            part_size,
            // A number beyond the limit is refused when a part would carry it.
            next_number: next_number(&state, epoch).unwrap_or(i32::MAX),
            multipart: state.multipart,
            started: state.parts.len(),
            reported_parts: state.parts.len(),
            parts: state.parts,
            landed: BTreeMap::new(),
            flying: JoinSet::new(),
            reported_segments: partial.objects().collect(),
            partial,
            filling: BytesMut::new(),
            grant: None,
            next_segment: used.unwrap_or(0),
            retired: Vec::new(),
            obsolete: state.retired,
            failed: None,
        }
    }

    /// Bytes after the last part that was started.
    fn partial_size(&self) -> u64 {
        self.partial.size + self.filling.len() as u64
    }

    fn accepted(&self) -> u64 {
        self.started as u64 * self.part_size + self.partial_size()
    }

    fn usable(&self) -> Result<(), BlobError> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => Err(BlobError::Unavailable(format!(
                "resume from the last state after: {cause}"
            ))),
        }
    }

    /// Makes room in `filling`.
    async fn grow(&mut self) -> Result<(), BlobError> {
        self.freeze();
        let held = self.partial_size();
        let step = held.clamp(FIRST_STEP, LARGEST_STEP).min(self.part_size - held);
        let more = loop {
            if let Some(grant) = self.budget.try_take(step) {
                break grant;
            }
            if !self.flying.is_empty() {
                self.settle_one().await?;
                continue;
            }
            self.spill().await?;
            break self.budget.take(step).await;
        };
        match &mut self.grant {
            Some(grant) => grant.merge(more),
            none => *none = Some(more),
        }
        self.filling = BytesMut::with_capacity(usize::try_from(step).unwrap_or(0));
        Ok(())
    }

    /// Moves what was filled to the partial part.
    fn freeze(&mut self) {
        if !self.filling.is_empty() {
            self.partial.push(std::mem::take(&mut self.filling).freeze());
        }
    }

    /// Stores the partial part's bytes in memory as a segment, and gives the memory back.
    async fn spill(&mut self) -> Result<(), BlobError> {
        self.freeze();
        let memory = self.partial.take_memory();
        if memory.size > 0 {
            let name = SegmentName(self.epoch, self.next_segment);
            self.next_segment += 1;
            // Until the segment is stored the bytes are nowhere else, should the caller drop this call.
            self.failed = Some("a segment was not stored".into());
            publish::segment(&self.bucket, self.id, name, &memory).await?;
            self.failed = None;
            self.partial.push_object(name, memory.size);
        }
        self.filling = BytesMut::new();
        self.grant = None;
        Ok(())
    }

    /// Sends the partial part.
    async fn send(&mut self) -> Result<(), BlobError> {
        while self.flying.len() >= FLYING {
            self.settle_one().await?;
        }
        let multipart = match &self.multipart {
            Some(multipart) => multipart.clone(),
            None => self
                .multipart
                .insert(publish::start(&self.bucket, self.id).await?)
                .clone(),
        };
        let number = self.next_number;
        if i64::from(number) > MAX_PARTS {
            let what = format!("it takes more than {MAX_PARTS} parts of {} bytes", self.part_size);
            return Err(BlobError::TooLarge(what));
        }
        self.next_number += 1;
        self.freeze();
        let content = std::mem::take(&mut self.partial);
        let (known, own): (Vec<_>, Vec<_>) = content
            .objects()
            .partition(|name| self.reported_segments.contains(name));
        self.retired.extend(known);
        let (bucket, id, index, grant) = (self.bucket.clone(), self.id, self.started, self.grant.take());
        self.filling = BytesMut::new();
        self.started += 1;
        self.flying.spawn(async move {
            let sent = publish::part(&bucket, id, &multipart, number, &content).await;
            drop((content, grant));
            if sent.is_ok() && !own.is_empty() {
                // No state names them: they were made and folded in between two states.
                leftovers::drop_segments(&bucket, id, own).await;
            }
            (index, sent)
        });
        Ok(())
    }

    /// Waits for one part under way.
    async fn settle_one(&mut self) -> Result<(), BlobError> {
        match self.flying.join_next().await {
            None => Ok(()),
            Some(joined) => self.land(joined),
        }
    }

    fn land(
        &mut self,
        joined: Result<(usize, Result<Part, BlobError>), tokio::task::JoinError>,
    ) -> Result<(), BlobError> {
        let landed = match joined {
            Ok((index, Ok(part))) => Ok((index, part)),
            Ok((_, Err(error))) => Err(error),
            Err(error) => Err(BlobError::Unavailable(format!(
                "sending a part did not end: {error}"
            ))),
        };
        let (index, part) = landed.inspect_err(|error| self.failed = Some(error.to_string()))?;
        self.landed.insert(index, part);
        while let Some(part) = self.landed.remove(&self.parts.len()) {
            self.parts.push(part);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), BlobError> {
        while !self.flying.is_empty() {
            self.settle_one().await?;
        }
        self.usable()
    }

    fn state(&mut self, tail: Vec<Segment>, sealed: bool) -> UploadState {
        self.reported_parts = self.parts.len();
        let tail_objects = tail.iter().filter_map(|segment| match segment {
            Segment::Object { name, .. } => Some(*name),
            Segment::Bytes(_) => None,
        });
        self.reported_segments = tail_objects.collect();
        UploadState::S3(State {
            multipart: self.multipart.clone(),
            part_size: self.part_size,
            parts: self.parts.clone(),
            tail,
            retired: self.obsolete.iter().chain(&self.retired).copied().collect(),
            epoch: self.epoch,
            sealed,
        })
    }
}

#[async_trait]
impl BlobWriter for S3Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        self.usable()?;
        if self.accepted() + bytes.len() as u64 > MAX_OBJECT {
            return Err(BlobError::TooLarge(format!(
                "an object holds at most {MAX_OBJECT} bytes"
            )));
        }
        while !bytes.is_empty() {
            if self.partial_size() >= self.part_size {
                self.send().await?;
            }
            if self.filling.len() == self.filling.capacity() {
                self.grow().await?;
            }
            let room = self.filling.capacity() - self.filling.len();
            self.filling
                .extend_from_slice(&bytes.split_to(room.min(bytes.len())));
        }
        // A first part that is full waits: the object may end here, and then takes one request.
        if self.partial_size() >= self.part_size && self.multipart.is_some() {
            self.send().await?;
        }
        Ok(())
    }

    fn durable(&mut self) -> Option<UploadState> {
        while let Some(joined) = self.flying.try_join_next() {
            // The next call on this writer reports the failure.
            let _ = self.land(joined);
        }
        if self.parts.len() == self.reported_parts {
            return None;
        }
        // The tail that this writer resumed from lies in the first of these parts.
        Some(self.state(Vec::new(), false))
    }

    fn at_boundary(&self) -> bool {
        self.accepted() > 0 && self.partial_size().is_multiple_of(self.part_size)
    }

    fn until_boundary(&self) -> u64 {
        self.part_size - self.partial_size() % self.part_size
    }

    async fn flush(&mut self) -> Result<UploadState, BlobError> {
        self.usable()?;
        if self.partial_size() >= self.part_size {
            self.send().await?;
        }
        self.freeze();
        let in_memory = self.partial.memory_size();
        if in_memory > INLINE {
            self.spill().await?;
        } else if in_memory > 0 {
            // A copy of its own size, so that the memory can go back.
            let bytes = self.partial.take_memory().memory();
            self.partial.push(bytes);
        }
        self.grant = None;
        self.settle().await?;
        let obsolete = std::mem::take(&mut self.obsolete);
        if !obsolete.is_empty() {
            leftovers::drop_segments(&self.bucket, self.id, obsolete).await;
        }
        let tail = self.partial.pieces.clone();
        let state = self.state(tail, true);
        // Should the caller write on, its parts keep clear of those of a successor.
        if self.multipart.is_some() && i64::from(self.next_number) < MAX_PARTS / 2 {
            self.next_number += WRITE_ON_GAP;
        }
        Ok(state)
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, BlobError> {
        self.usable()?;
        let size = self.accepted();
        self.freeze();
        let mut done = std::mem::take(&mut self.obsolete);
        if self.multipart.is_none() {
            done.extend(self.partial.objects());
            publish::whole(&self.bucket, self.id, &self.partial, Some(self.epoch)).await?;
        } else {
            if self.partial_size() > 0 {
                self.send().await?;
            }
            self.settle().await?;
            let multipart = self.multipart.take().unwrap_or_default();
            publish::of_parts(&self.bucket, self.id, &multipart, &self.parts, size).await?;
        }
        done.append(&mut self.retired);
        leftovers::drop_segments(&self.bucket, self.id, done).await;
        Ok(size)
    }
}
