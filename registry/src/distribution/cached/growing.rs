//! A blob while it arrives: the newest bytes in memory, for everybody who reads along.
//!
//! The window is bounded. What leaves it goes to a [`Spool`], if there is one. Who falls behind reads from there, or, where
//! the store can show it, from the unfinished object, or else what is stored once all is there. As long as somebody reads along and nobody waits behind the window, the fetch does not
//! run away from the fastest reader; otherwise it is as fast as the upstream and the store are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

pub(super) use self::reader::{Next, Reader};
use super::spool::Spool;
use super::trouble::Trouble;
use crate::domain::Digest;
use crate::domain::hasher::Hasher;
use crate::metadata::BlobRow;

mod reader;

/// Most bytes of one blob's window.
pub(super) const WINDOW: u64 = 8 << 20;
/// Bytes that go to a spool at once, at least.
const BATCH: u64 = 1 << 20;
/// How long the fetch waits for readers that do not move, or move too slowly.
const STALL: Duration = Duration::from_secs(10);
/// Bytes that the fastest reader must let in while it is waited for so long. Who is slower falls behind: a fetch keeps
/// others from theirs.
const LEAST: u64 = 4 << 20;

/// How far it is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The upstream has not answered yet.
    Asking,
    /// Another replica fetches it, and does not send it on.
    Elsewhere,
    /// Bytes arrive.
    Arriving {
        /// All of them.
        size: u64,
        /// Where they are from.
        source: Source,
    },
    /// It is in the store.
    Stored(BlobRow),
    /// It does not come.
    Failed(Trouble),
}

/// Where bytes that arrive are from, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From the upstream; the session that they will go into is being made.
    Upstream,
    /// From the upstream, into this session.
    Session(Uuid),
    /// From another replica, into memory only.
    Replica,
}

/// A blob that arrives.
pub(super) struct Growing {
    phase: watch::Sender<Phase>,
    /// Raised by each piece.
    end: watch::Sender<u64>,
    ring: Mutex<Ring>,
    digest: Digest,
    /// A reader has moved, come or gone.
    moved: Notify,
}

#[derive(Default)]
struct Ring {
    start: u64,
    end: u64,
    pieces: VecDeque<Bytes>,
    /// Where to go with what leaves the window, from the first byte on.
    spool: Option<Spool>,
    /// The running hash of all that was shown, if other replicas sent it.
    shown: Option<Hasher>,
    /// Where each reader is that reads along.
    along: HashMap<u64, u64>,
    next_reader: u64,
    /// Readers that wait behind the window.
    behind: usize,
    /// How long readers were waited for since the end was here.
    waited: (Duration, u64),
    /// Nobody is waited for before the end is here.
    alone_until: u64,
}

/// What a reader finds at its place.
enum Look {
    Bytes(Bytes),
    NotYet,
    Spooled(Spool, u64),
    Behind,
}

impl Growing {
    pub fn new(digest: Digest) -> Arc<Self> {
        Arc::new(Self {
            digest,
            phase: watch::Sender::new(Phase::Asking),
            end: watch::Sender::new(0),
            ring: Mutex::default(),
            moved: Notify::new(),
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far it is.
    pub fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.moved.notify_waiters();
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Whether it is over, one way or the other.
    pub fn is_over(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Stored(_) | Phase::Failed(_))
    }

    /// Bytes that can be read, or have been.
    pub fn end(&self) -> u64 {
        *self.end.borrow()
    }

    /// Waits until more is known than that the upstream was asked.
    pub async fn begun(&self) -> Phase {
        let mut phases = self.phase.subscribe();
        let begun = phases.wait_for(|phase| !matches!(phase, Phase::Asking)).await;
        begun.map_or(Phase::Failed(Trouble::ended()), |phase| phase.clone())
    }

    /// Waits until it is over.
    pub async fn over(&self) -> Phase {
        let mut phases = self.phase.subscribe();
        let over = phases
            .wait_for(|phase| matches!(phase, Phase::Stored(_) | Phase::Failed(_)))
            .await;
        over.map_or(Phase::Failed(Trouble::ended()), |phase| phase.clone())
    }

    /// Waits until it is over, or elsewhere.
    pub async fn settled(&self) -> Phase {
        let mut phases = self.phase.subscribe();
        let settled = phases
            .wait_for(|phase| !matches!(phase, Phase::Asking | Phase::Arriving { .. }))
            .await;
        settled.map_or(Phase::Failed(Trouble::ended()), |phase| phase.clone())
    }

    /// Waits until no other replica has it, for a second at most: that one may be reached then.
    pub async fn not_elsewhere(&self) {
        let mut phases = self.phase.subscribe();
        let back = phases.wait_for(|phase| !matches!(phase, Phase::Elsewhere));
        let _ = tokio::time::timeout(Duration::from_secs(1), back).await;
    }

    /// Where the window begins.
    pub fn start(&self) -> u64 {
        self.ring().start
    }

    /// Bytes arrive from `offset` on; earlier ones are in the session. If they go on where they have come to before, from
    /// wherever that was, nothing is lost.
    pub fn begin(&self, size: u64, offset: u64, source: Source, spool: Option<Spool>) {
        let goes_on = matches!(self.phase(), Phase::Arriving { size: before, .. } if before == size);
        if !goes_on || offset > self.end() {
            let mut ring = self.ring();
            ring.pieces.clear();
            (ring.start, ring.end) = (offset, offset);
            ring.spool = spool.filter(|_| offset == 0);
            ring.shown =
                (offset == 0 && source == Source::Replica).then(|| Hasher::new(self.digest.algorithm()));
            drop(ring);
            self.end.send_replace(offset);
        }
        self.set(Phase::Arriving { size, source });
    }

    /// Adds the bytes at a place; those before the end are here already.
    pub fn push(&self, at: u64, mut bytes: Bytes) {
        let end = {
            let mut ring = self.ring();
            let known = ring.end.saturating_sub(at).min(bytes.len() as u64);
            // At most the length of a piece in memory.
            let bytes = bytes.split_off(usize::try_from(known).unwrap_or_default());
            if bytes.is_empty() {
                return;
            }
            ring.end += bytes.len() as u64;
            if let Some(shown) = &mut ring.shown {
                shown.update(&bytes);
            }
            ring.pieces.push_back(bytes);
            ring.end
        };
        self.end.send_replace(end);
    }

    /// Gives back memory and disk when it is over: what is stored is read from the store from now on. Who reads along what
    /// does not come to be stored has a little time to take the rest.
    pub async fn let_go(&self) {
        if matches!(self.phase(), Phase::Failed(_)) {
            let left = async {
                loop {
                    let mut moved = std::pin::pin!(self.moved.notified());
                    moved.as_mut().enable();
                    if self.ring().along.is_empty() {
                        return;
                    }
                    moved.await;
                }
            };
            let _ = tokio::time::timeout(STALL, left).await;
        }
        let mut ring = self.ring();
        ring.pieces = VecDeque::new();
        ring.start = ring.end;
        ring.spool = None;
    }

    /// Whether all that was shown and these bytes make up the digest; nothing if it was never sent by another replica.
    pub fn confirms(&self, last: &[u8]) -> Option<bool> {
        let mut shown = self.ring().shown.clone()?;
        shown.update(last);
        Some(shown.digest() == self.digest)
    }

    /// Makes room for bytes: what leaves the window is spooled, and if it cannot be, readers are waited for, as far as
    /// waiting is due.
    pub async fn room(&self, bytes: usize) {
        let (spool, at, pieces) = self.ring().leaving(bytes as u64);
        if pieces.is_empty() {
            return;
        }
        let count = pieces.len();
        if let Some(spool) = spool {
            match spool.write(at, pieces).await {
                Ok(()) => return self.ring().forget(count),
                Err(error) => {
                    tracing::warn!(%error, "what is fetched cannot be spooled; who falls behind waits for its end");
                    self.ring().spool = None;
                }
            }
        }
        self.waited_for(bytes).await;
        let count = self.ring().leaving(bytes as u64).2.len();
        self.ring().forget(count);
    }

    async fn waited_for(&self, bytes: usize) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            let patience = {
                let ring = self.ring();
                if ring.has_room(bytes as u64) {
                    return;
                }
                STALL.saturating_sub(ring.waited.0)
            };
            let begun = Instant::now();
            let _ = tokio::time::timeout(patience, moved).await;
            self.ring().has_waited(begun.elapsed());
        }
    }

    /// A reader that begins at this byte.
    pub fn reader(self: &Arc<Self>, at: u64) -> Reader {
        let id = {
            let mut ring = self.ring();
            ring.next_reader += 1;
            let id = ring.next_reader;
            ring.along.insert(id, at);
            id
        };
        Reader {
            growing: self.clone(),
            id,
            at,
            is_behind: false,
        }
    }
}

impl Ring {
    /// Whether the fastest reader is still in the window after these bytes, if there is one to wait for.
    fn has_room(&self, bytes: u64) -> bool {
        let Some(fastest) = self.along.values().max() else {
            return true;
        };
        self.behind > 0 || self.end < self.alone_until || self.end + bytes <= fastest + WINDOW
    }

    /// Readers were waited for. Those that are too slow are left behind, and count again when they have caught up.
    fn has_waited(&mut self, wait: Duration) {
        let (waited, since) = (self.waited.0 + wait, self.waited.1);
        if waited < STALL {
            self.waited.0 = waited;
            return;
        }
        if self.end - since < LEAST {
            self.along.clear();
            self.alone_until = self.end + WINDOW;
        }
        self.waited = (Duration::ZERO, self.end);
    }

    /// What leaves the window when so many bytes come: where it goes, from which place on, and the pieces. To a spool in
    /// batches only.
    fn leaving(&self, bytes: u64) -> (Option<Spool>, u64, Vec<Bytes>) {
        let over = (self.end - self.start + bytes).saturating_sub(WINDOW);
        if over == 0 || (self.spool.is_some() && over < BATCH) {
            return (None, self.start, Vec::new());
        }
        let mut left = over;
        let pieces = self.pieces.iter().take_while(|piece| {
            let leaves = left > 0;
            left = left.saturating_sub(piece.len() as u64);
            leaves
        });
        (self.spool.clone(), self.start, pieces.cloned().collect())
    }

    fn forget(&mut self, count: usize) {
        for _ in 0..count {
            let Some(first) = self.pieces.pop_front() else {
                return;
            };
            self.start += first.len() as u64;
        }
    }

    fn look(&self, at: u64) -> Look {
        if at >= self.end {
            return Look::NotYet;
        }
        if at < self.start {
            return match &self.spool {
                Some(spool) => Look::Spooled(spool.clone(), self.start),
                None => Look::Behind,
            };
        }
        let mut begins = self.start;
        for piece in &self.pieces {
            let ends = begins + piece.len() as u64;
            if at < ends {
                // At most the length of a piece in memory.
                let skip = usize::try_from(at - begins).unwrap_or_default();
                return Look::Bytes(piece.slice(skip..));
            }
            begins = ends;
        }
        Look::NotYet
    }
}

#[cfg(test)]
mod tests;
