//! Every black-box suite, by what a user sees. A stage of `./tests/run` is a filter on the module
//! names below: a new suite is one `mod` line here, or in the stage's own mod.rs.

mod backup;
mod chart;
mod clients;
mod cluster;
mod explorer;
mod faults;
mod import;
mod lifecycle;
mod protocol;
mod pull_through;
mod regions;
mod serve;
mod tenancy;
mod webhooks;
