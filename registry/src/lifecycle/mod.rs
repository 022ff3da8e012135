//! What becomes of content as time passes: retention, expiry, restores, collection, purges, metering.
//!
//! Each part is a task that every replica runs; the metadata store hands out the work, so that each piece of it is done
//! by one of them at a time, and is taken up by another if that one dies. It may use `metadata`, `blobs`, `tenancy` and
//! `audit`; requests never wait for it.
//!
//! What must hold: tags are the roots, and whatever a tag reaches stays; a preview and a run judge by the same walk;
//! metadata goes before bytes, and bytes no earlier than any URL or stream that could still read them.

pub mod changes;
pub mod collection;
pub mod coverage;
pub mod expiry;
pub mod figures;
pub mod fsck;
pub mod metering;
pub mod pulls;
pub mod purges;
pub mod retention;
pub mod traffic;

mod keeper;

pub use keeper::{Keeper, Parts};
