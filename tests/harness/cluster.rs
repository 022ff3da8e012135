//! Several replicas on one database and one bucket, behind a round-robin proxy.

use std::sync::Arc;

use crate::backend::{Backend, Storage};
use crate::berth::{Berth, Builder};
use crate::round_robin::RoundRobin;

/// Replicas that share everything but their process, and the proxy before them.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: no request reaches a replica that is being stopped.
    proxy: RoundRobin,
    replicas: Vec<Berth>,
}

impl Cluster {
    /// Two replicas on fresh distributed stores.
    pub async fn start() -> Cluster {
        Cluster::start_with(2, Berth::builder()).await
    }

    /// `count` replicas with the settings of `builder`, on fresh distributed stores.
    pub async fn start_with(count: usize, builder: Builder) -> Cluster {
        let storage = Arc::new(Storage::create(Backend::Distributed));
        let mut replicas = Vec::new();
        // The first one makes the keys that all of them share.
        let shared = storage.data(0).join("keys");
        for replica in 0..count {
            let mut builder = builder.clone().storage(storage.clone(), replica);
            if replica > 0 {
                builder = builder.flag("--keys", shared.to_str().expect("a plain path"));
            }
            replicas.push(builder.start().await);
        }
        let proxy = RoundRobin::start(replicas.iter().map(Berth::address).collect()).await;
        Cluster { proxy, replicas }
    }

    /// `host:port` of the proxy: what clients talk to.
    pub fn address(&self) -> String {
        self.proxy.address()
    }

    /// The proxy.
    pub fn proxy(&self) -> &RoundRobin {
        &self.proxy
    }

    /// One replica.
    pub fn replica(&mut self, number: usize) -> &mut Berth {
        &mut self.replicas[number]
    }
}
