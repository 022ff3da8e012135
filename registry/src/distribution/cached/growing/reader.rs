//! One who reads a blob while it arrives.

use std::sync::Arc;

use bytes::Bytes;

use super::{Growing, Look, Phase};
use crate::distribution::cached::trouble::Trouble;

/// One who reads along.
pub(in super::super) struct Reader {
    pub(super) growing: Arc<Growing>,
    pub(super) id: u64,
    pub(super) at: u64,
    pub(super) is_behind: bool,
}

/// What comes next for a reader.
pub(in super::super) enum Next {
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
