//! How much may be read and kept.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// What reading one archive may cost. [`Limits::default`] fits the layers of ordinary images.
#[derive(Debug, Clone)]
pub struct Limits<'a> {
    /// Bytes taken from the reader.
    pub compressed: u64,
    /// Bytes of the tar archive, after decompression.
    pub decompressed: u64,
    /// Decompressed bytes for each compressed one, beyond [`Self::free`]; more is a bomb.
    pub ratio: u64,
    /// Decompressed bytes that are no bomb whatever the ratio: small archives of zeros are ordinary.
    pub free: u64,
    /// Bytes of the window of a zstd frame, which is memory for as long as the frame is read. RFC 8878 section
    /// 3.1.1.1.2 asks decoders for at least 8 MiB.
    pub window: u64,
    /// Entries, folders without an entry of their own included.
    pub entries: usize,
    /// Bytes of a path or of a link's target; Linux has no longer ones.
    pub path: usize,
    /// Bytes of all the names and targets kept, each different one counted once, with 64 for its place.
    pub names: usize,
    /// When to stop.
    pub deadline: Option<Instant>,
    /// Set by whoever no longer wants the answer.
    pub cancelled: Option<&'a AtomicBool>,
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self {
            compressed: GIB,
            decompressed: 4 * GIB,
            ratio: 200,
            free: 64 * MIB,
            window: 8 * MIB,
            entries: 100_000,
            path: 4096,
            names: 32 << 20,
            deadline: None,
            cancelled: None,
        }
    }
}
