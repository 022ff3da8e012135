//! What is inside archives: the files of a layer, and Helm charts.
//!
//! ```text
//!   reader ─> meter ─> compressed ─> meter ─> members ─┬─> listing ─> tree
//!            (bytes)   (gzip, zstd)  (bytes)   (tar)   └─> chart
//! ```
//!
//! Everything here blocks, belongs to one thread, and touches neither disk nor network: what is read comes from the
//! reader, and what is said about it is plain data. Layers are tar archives, plain or compressed with gzip or zstd, by
//! the layer part of the OCI image specification; the bytes say which, since media types are often wrong.
//!
//! What must hold: nobody vouches for an archive, so that nothing in it decides how much memory or time is used
//! ([`Limits`]); names are text and are never followed; a listing that is not whole says so ([`Cut`]).

pub mod chart;
mod compressed;
mod extended;
mod growing;
mod limits;
mod listing;
mod members;
mod meter;
mod tree;
mod unreadable;

pub use self::limits::Limits;
pub use self::listing::list;
pub use self::tree::{Entry, Kind, Tree};
pub use self::unreadable::{Cut, UnreadableArchive};

#[cfg(test)]
mod testing;
