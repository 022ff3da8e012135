//! What concerns the whole cluster: these tests run one after the other, and when no others do.

mod documents;
mod faults;
