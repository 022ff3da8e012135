//! Counts what goes into a decoder and comes out of it, and stops it at the limits.
//!
//! Decoders wrap and reword the errors of their readers. The meter keeps the reason of a stop itself, so that it does
//! not get lost on the way.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::limits::Limits;
use super::unreadable::UnreadableArchive;

/// Counts for one archive.
pub(super) struct Meter<'a> {
    /// What is allowed.
    pub limits: &'a Limits<'a>,
    compressed: Cell<u64>,
    decompressed: Cell<u64>,
    stopped: Cell<Option<UnreadableArchive>>,
}

impl<'a> Meter<'a> {
    pub fn new(limits: &'a Limits<'a>) -> Self {
        Self {
            limits,
            compressed: Cell::new(0),
            decompressed: Cell::new(0),
            stopped: Cell::new(None),
        }
    }

    /// What an error of a decoder or reader comes from.
    pub fn explain(&self, error: &io::Error) -> UnreadableArchive {
        let stopped = self.stopped.take();
        stopped.unwrap_or_else(|| UnreadableArchive::Broken(error.to_string()))
    }

    /// Counts bytes that came out of a decoder.
    pub fn came_out(&self, bytes: usize) -> io::Result<()> {
        let decompressed = add(&self.decompressed, bytes);
        let compressed = self.compressed.get();
        let limits = self.limits;
        let proportionate = compressed
            .saturating_mul(limits.ratio)
            .saturating_add(limits.free);
        if decompressed > proportionate {
            return Err(self.stop(UnreadableArchive::Bomb {
                compressed,
                decompressed,
                ratio: limits.ratio,
            }));
        }
        if decompressed > limits.decompressed {
            let limit = limits.decompressed;
            return Err(self.stop(UnreadableArchive::Decompressed { limit }));
        }
        self.is_wanted()
    }

    /// Counts bytes that go into a decoder.
    fn goes_in(&self, bytes: usize) -> io::Result<()> {
        let limit = self.limits.compressed;
        if add(&self.compressed, bytes) > limit {
            return Err(self.stop(UnreadableArchive::Compressed { limit }));
        }
        self.is_wanted()
    }

    fn is_wanted(&self) -> io::Result<()> {
        let limits = self.limits;
        if limits.cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(self.stop(UnreadableArchive::Cancelled));
        }
        if limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(self.stop(UnreadableArchive::Late));
        }
        Ok(())
    }

    /// Keeps the reason, and makes an error that carries it past a decoder.
    pub fn stop(&self, why: UnreadableArchive) -> io::Error {
        let error = io::Error::other(why.to_string());
        self.stopped.set(Some(why));
        error
    }
}

fn add(count: &Cell<u64>, bytes: usize) -> u64 {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let sum = count.get().saturating_add(bytes);
    count.set(sum);
    sum
}

/// A reader whose bytes are counted before a decoder gets them.
pub(super) struct Incoming<'m, R> {
    pub reader: R,
    pub meter: &'m Meter<'m>,
}

impl<R: Read> Read for Incoming<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(into) {
            Ok(bytes) => self.meter.goes_in(bytes).map(|()| bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.meter.stop(UnreadableArchive::Source(error))),
        }
    }
}
