//! Stage `protocol`, with `conformance` as a stage of its own: the wire behaviour.
//!
//! What it is: the OCI suites and our own requests for what they leave out. What it may use: the
//! harness. What must hold: every claim is read from an answer on the wire or from a suite's report,
//! never from an exit code alone.

pub(crate) mod conformance;
mod hostile;
mod older_suite;
mod quirks;
mod redirect;
mod report;
