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
use uuid::Uuid;

use super::spool::Spool;
use super::trouble::Trouble;
use crate::domain::Digest;
use crate::domain::hasher::Hasher;
use crate::metadata::BlobRow;

/// Most bytes of one blob's window.
pub(super) const WINDOW: u64 = 8 << 20;
/// Bytes that go to a spool at once, at least.
const BATCH: u64 = 1 << 20;
/// How long the fetch waits for a reader that does not move.
const STALL: Duration = Duration::from_secs(10);

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
        /// The session that they go into; none if they come from another replica.
        upload: Option<Uuid>,
    },
    /// It is in the store.
    Stored(BlobRow),
    /// It does not come.
    Failed(Trouble),
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
    pub fn begin(&self, size: u64, offset: u64, upload: Option<Uuid>, spool: Option<Spool>) {
        let goes_on = matches!(self.phase(), Phase::Arriving { size: before, .. } if before == size);
        if !goes_on || offset > self.end() {
            let mut ring = self.ring();
            ring.pieces.clear();
            (ring.start, ring.end) = (offset, offset);
            ring.spool = spool.filter(|_| offset == 0);
            ring.shown = (offset == 0 && upload.is_none()).then(|| Hasher::new(self.digest.algorithm()));
            drop(ring);
            self.end.send_replace(offset);
        }
        self.set(Phase::Arriving { size, upload });
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
            if self.ring().has_room(bytes as u64) {
                return;
            }
            if tokio::time::timeout(STALL, moved).await.is_err() {
                // Nobody moves. They count again when they do.
                self.ring().along.clear();
            }
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
        self.behind > 0 || self.end + bytes <= fastest + WINDOW
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

/// One who reads along.
pub(super) struct Reader {
    growing: Arc<Growing>,
    id: u64,
    at: u64,
    is_behind: bool,
}

/// What comes next for a reader.
pub(super) enum Next {
    /// Bytes at its place.
    Bytes(Bytes),
    /// Its place is behind the window.
    Behind,
    /// Nothing arrives here, or nothing any more.
    Otherwise(Phase),
}

impl Reader {
    /// Moves it.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// What comes next at its place; waits for it.
    pub async fn next(&mut self) -> Next {
        let mut ends = self.growing.end.subscribe();
        let mut phases = self.growing.phase.subscribe();
        loop {
            ends.mark_unchanged();
            phases.mark_unchanged();
            let look = self.look();
            match look {
                Look::Bytes(bytes) => {
                    self.at += bytes.len() as u64;
                    return Next::Bytes(bytes);
                }
                Look::Spooled(spool, end) => match spool.read(self.at, end).await {
                    Ok(bytes) => {
                        self.at += bytes.len() as u64;
                        return Next::Bytes(bytes);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what was spooled cannot be read");
                        return Next::Otherwise(Phase::Failed(Trouble::ended()));
                    }
                },
                Look::Behind if matches!(self.growing.phase(), Phase::Arriving { .. }) => {
                    return Next::Behind;
                }
                Look::Behind | Look::NotYet => {}
            }
            match self.growing.phase() {
                Phase::Asking | Phase::Arriving { .. } => {}
                phase => return Next::Otherwise(phase),
            }
            // The senders live as long as this reader.
            tokio::select! {
                _ = ends.changed() => {}
                _ = phases.changed() => {}
            }
        }
    }

    fn look(&mut self) -> Look {
        let look = {
            let mut ring = self.growing.ring();
            let look = ring.look(self.at);
            let behind = matches!(look, Look::Behind);
            if behind || matches!(look, Look::Spooled(..)) {
                ring.along.remove(&self.id);
            } else {
                let taken = match &look {
                    Look::Bytes(bytes) => bytes.len() as u64,
                    _ => 0,
                };
                ring.along.insert(self.id, self.at + taken);
            }
            if behind != self.is_behind {
                self.is_behind = behind;
                ring.behind = if behind {
                    ring.behind + 1
                } else {
                    ring.behind.saturating_sub(1)
                };
            }
            look
        };
        self.growing.moved.notify_waiters();
        look
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let mut ring = self.growing.ring();
            ring.along.remove(&self.id);
            if self.is_behind {
                ring.behind = ring.behind.saturating_sub(1);
            }
        }
        self.growing.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::Spools;
    use super::*;

    fn piece(length: usize, value: u8) -> Bytes {
        Bytes::from(vec![value; length])
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(crate::domain::Algorithm::Sha256, bytes)
    }

    async fn bytes(reader: &mut Reader) -> Bytes {
        match reader.next().await {
            Next::Bytes(bytes) => bytes,
            Next::Behind => panic!("behind"),
            Next::Otherwise(phase) => panic!("{phase:?}"),
        }
    }

    async fn push(growing: &Growing, bytes: Bytes) {
        growing.room(bytes.len()).await;
        growing.push(growing.end(), bytes);
    }

    #[tokio::test]
    async fn everybody_who_reads_along_gets_every_byte_from_its_place_on() {
        let growing = Growing::new(digest(b""));
        growing.begin(30, 0, None, None);
        push(&growing, piece(10, 1)).await;
        let (mut first, mut later) = (growing.reader(0), growing.reader(5));
        assert_eq!(bytes(&mut first).await, piece(10, 1));
        assert_eq!(bytes(&mut later).await, piece(5, 1));
        let waits = tokio::spawn(async move { bytes(&mut first).await });
        push(&growing, piece(20, 2)).await;
        assert_eq!(waits.await.unwrap(), piece(20, 2));
        assert_eq!(bytes(&mut later).await, piece(20, 2));
    }

    #[tokio::test]
    async fn who_falls_out_of_the_window_is_told_and_the_window_is_bounded() {
        let growing = Growing::new(digest(b""));
        growing.begin(1 << 30, 0, None, None);
        for _ in 0..100 {
            push(&growing, piece(1 << 20, 1)).await;
        }
        let held: usize = growing.ring().pieces.iter().map(Bytes::len).sum();
        assert!(held as u64 <= WINDOW);
        let mut slow = growing.reader(0);
        assert!(matches!(slow.next().await, Next::Behind));
        slow.seek(growing.end() - 3);
        assert_eq!(bytes(&mut slow).await, piece(3, 1));
    }

    #[tokio::test]
    async fn with_a_spool_nobody_falls_behind_and_memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 64 << 20);
        let growing = Growing::new(digest(b""));
        growing.begin(40 << 20, 0, None, spools.open(40 << 20).await);
        for n in 0..40 {
            push(&growing, piece(1 << 20, n)).await;
        }
        let held: usize = growing.ring().pieces.iter().map(Bytes::len).sum();
        assert!(held as u64 <= WINDOW + BATCH, "{held}");
        let (mut late, mut read) = (growing.reader(0), Vec::new());
        while read.len() < 40 << 20 {
            read.extend_from_slice(&bytes(&mut late).await);
        }
        assert!(
            read.chunks(1 << 20)
                .zip(0..)
                .all(|(chunk, n)| chunk.iter().all(|byte| *byte == n))
        );
    }

    #[tokio::test]
    async fn what_comes_again_from_another_source_is_shown_once() {
        let growing = Growing::new(digest(b""));
        growing.begin(30, 0, None, None);
        growing.push(0, piece(20, 1));
        let mut reader = growing.reader(0);
        assert_eq!(bytes(&mut reader).await, piece(20, 1));
        growing.begin(30, 10, Some(Uuid::nil()), None);
        growing.push(10, piece(5, 1));
        growing.push(15, [piece(5, 1), piece(10, 2)].concat().into());
        assert_eq!(bytes(&mut reader).await, piece(10, 2));
        assert_eq!(growing.end(), 30);
    }

    #[tokio::test]
    async fn what_several_replicas_sent_is_confirmed_as_a_whole() {
        let growing = Growing::new(digest(b"abcdef"));
        growing.begin(6, 0, None, None);
        growing.push(0, Bytes::from_static(b"abc"));
        // Another begins anew; what is known of it is not shown again.
        growing.begin(6, 0, Some(Uuid::nil()), None);
        growing.push(0, Bytes::from_static(b"xbcde"));
        assert_eq!(growing.confirms(b"f"), Some(true));
        assert_eq!(growing.confirms(b"g"), Some(false));

        let growing = Growing::new(digest(b"abcdef"));
        growing.begin(6, 0, None, None);
        growing.push(0, Bytes::from_static(b"xbc"));
        growing.begin(6, 0, Some(Uuid::nil()), None);
        growing.push(0, Bytes::from_static(b"abcde"));
        assert_eq!(growing.confirms(b"f"), Some(false), "its first byte was another");

        let own = Growing::new(digest(b"abcdef"));
        own.begin(6, 0, Some(Uuid::nil()), None);
        assert_eq!(own.confirms(b"f"), None, "its session is hashed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_holds_no_memory_whoever_still_reads() {
        let growing = Growing::new(digest(b""));
        growing.begin(30, 0, None, None);
        growing.push(0, piece(20, 1));
        let mut slow = growing.reader(5);
        growing.set(Phase::Failed(Trouble::ended()));
        let gone = tokio::join!(growing.let_go(), async { bytes(&mut slow).await }).1;
        assert_eq!(gone, piece(15, 1), "it had time to take the rest");
        assert!(growing.ring().pieces.is_empty());
        assert!(matches!(slow.next().await, Next::Otherwise(Phase::Failed(_))));
    }

    #[tokio::test]
    async fn the_fetch_waits_for_the_fastest_reader_only_while_nobody_waits_behind() {
        let growing = Growing::new(digest(b""));
        growing.begin(1 << 30, 0, None, None);
        push(&growing, piece(1 << 20, 1)).await;
        let window = usize::try_from(WINDOW).unwrap();
        let mut along = growing.reader(0);
        bytes(&mut along).await;
        assert!(growing.ring().has_room(WINDOW), "it has read what there is");
        assert!(!growing.ring().has_room(WINDOW + 1), "it would run away");
        // Its place is before the window.
        push(&growing, piece(window, 1)).await;
        let mut late = growing.reader(0);
        assert!(matches!(late.next().await, Next::Behind));
        assert!(growing.ring().has_room(WINDOW + 1), "somebody waits for the end");
        drop(late);
        assert!(!growing.ring().has_room(WINDOW + 1));
        drop(along);
        assert!(growing.ring().has_room(WINDOW + 1));
    }

    #[tokio::test]
    async fn what_is_in_the_window_is_read_to_its_end_when_it_is_over() {
        let growing = Growing::new(digest(b""));
        growing.begin(10, 0, None, None);
        let mut reader = growing.reader(0);
        growing.push(0, piece(10, 1));
        growing.set(Phase::Failed(Trouble::ended()));
        assert_eq!(bytes(&mut reader).await, piece(10, 1));
        assert!(matches!(reader.next().await, Next::Otherwise(Phase::Failed(_))));
    }
}
