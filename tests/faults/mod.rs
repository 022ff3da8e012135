//! Stage `faults`: what clients were told stays true, whatever is killed.
//!
//! What it is: real servers, killed and started again while clients push ([`kill`]), replicas that take
//! turns ([`switching`]), other releases ([`upgrade`]), stores that go away ([`object_store`], [`database`]), move
//! ([`failover`]), answer wrongly or in other states ([`wire`], [`database_states`], [`disk`]), also while content is let
//! go ([`housekeeping`], by the clients of [`builds`]), clocks that jump ([`clocks`]), power that fails ([`power`]), clients
//! that race ([`races`]) and blobs of real size ([`long`]). `docs/faults.md` is the table of all of them, and [`table`]
//! checks it. What it may use: the harness. What must hold: instants and orders may be random, claims may not: a client's
//! history ([`history`]) is checked against what the registry serves afterwards, its stores against each other
//! ([`aftermath`]), and a failure prints the seed.

pub mod aftermath;
mod builds;
mod changes;
mod clocks;
mod database;
mod database_states;
mod disk;
mod failover;
pub mod history;
mod housekeeping;
mod kill;
mod long;
mod object_store;
mod power;
mod races;
mod readers;
mod switching;
mod table;
mod upgrade;
mod wire;
pub mod writers;

use harness::http::Repository;
use harness::{Backend, Berth, Cluster};

/// One registry on embedded stores, or two replicas behind a proxy that takes turns.
enum Servers {
    One(Berth),
    Two(Cluster),
}

impl Servers {
    async fn start(backend: Backend) -> Servers {
        match backend {
            Backend::Embedded => Servers::One(Berth::start(backend).await),
            Backend::Distributed => Servers::Two(Cluster::start().await),
        }
    }

    fn repository(&self, name: &str) -> Repository {
        match self {
            Servers::One(berth) => Repository::new(&berth.url(""), name),
            Servers::Two(cluster) => Repository::new(&format!("http://{}", cluster.address()), name),
        }
    }

    fn count(&self) -> usize {
        match self {
            Servers::One(_) => 1,
            Servers::Two(_) => 2,
        }
    }

    fn server(&mut self, number: usize) -> &mut Berth {
        match self {
            Servers::One(berth) => berth,
            Servers::Two(cluster) => cluster.replica(number),
        }
    }
}
