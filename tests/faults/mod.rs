//! Stage `faults`: what clients were told stays true, whatever is killed.
//!
//! What it is: real servers, killed and started again while clients push ([`kill`]), replicas that take
//! turns ([`switching`]), stores that go away ([`object_store`], [`database`]), clients that race
//! ([`races`]) and blobs of real size ([`long`]). What it may use: the harness. What must hold: instants
//! and orders may be random, claims may not: a client's history ([`history`]) is checked against what the
//! registry serves afterwards, and a failure prints the seed.

mod database;
mod history;
mod kill;
mod long;
mod object_store;
mod races;
mod switching;
mod writers;

use harness::http::Repository;
use harness::{Backend, Berth, Cluster};

/// Random numbers that a seed repeats (splitmix64).
struct Dice(u64);

impl Dice {
    /// A seed of this run's own, printed so that a failure can be repeated by writing it here.
    fn new() -> Dice {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        println!("seed {seed}");
        Dice(seed)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % limit
    }
}

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
