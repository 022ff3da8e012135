//! The harness: the real binary, real stores and real clients, started and stopped for one test.
//!
//! What it is: builders for everything that a black-box suite needs ([`Berth`], [`Cluster`],
//! [`Database`], [`Bucket`], [`Client`]), content with known digests ([`content`]), images made from
//! it ([`Image`]) and a plain HTTP client ([`http`]). What it may use: the programs and servers that
//! `./tests/run` names in the environment, and nothing of the registry's own code. What must hold:
//! every test has its own process, folder, database and prefix; what a test started is stopped by
//! process id when its value is dropped; nothing sleeps for a fixed time ([`eventually`] waits for a
//! condition); a failed test shows the log of its server.

mod admin;
mod archive;
mod backend;
mod berth;
mod browser;
mod buildkit;
pub mod chart;
mod client;
mod clock;
mod cluster;
mod collector;
pub mod content;
mod control_plane;
mod database;
mod desk;
mod dice;
mod edge;
mod environment;
mod faulty;
mod fuse;
pub mod http;
pub mod image;
mod installation;
mod issuer;
mod layout;
mod load;
pub mod node;
mod nodes;
mod own_server;
mod ports;
mod receiver;
mod relay;
mod round_robin;
pub mod schemas;
mod small_disk;
mod standby;
mod stored;
mod tls_files;
mod upstream;
mod versions;
mod wait;
mod wire;

pub use admin::Admin;
pub use archive::Archive;
pub use backend::{Backend, Bucket, Storage};
pub use berth::{Berth, Builder};
pub use browser::{Browser, BrowserOutcome, BrowserStep};
pub use buildkit::BuildKit;
pub use client::{Client, Output};
pub use clock::Clock;
pub use cluster::Cluster;
pub use collector::{Collector, TracedSpan};
pub use control_plane::{ControlPlane, OwnControlPlane, condition};
pub use database::{Database, query};
pub use desk::{Desk, Person};
pub use dice::Dice;
pub use edge::{Edge, RoutesBy};
pub use environment::{output_folder, program, setting};
pub use faulty::{Fault, Faulty, Guard, Question};
pub use fuse::Fuse;
pub use image::{Image, Index};
pub use installation::{Installation, Installer};
pub use issuer::Issuer;
pub use layout::Layout;
pub use load::{Failure, Load};
pub use nodes::Nodes;
pub use own_server::OwnServer;
pub use ports::free_port;
pub use receiver::{Received, Receiver, Reply};
pub use relay::Relay;
pub use round_robin::RoundRobin;
pub use rustix::process::Signal;
pub use small_disk::SmallDisk;
pub use stored::same_as_stored;
pub use tls_files::TlsFiles;
pub use upstream::Upstream;
pub use versions::{DeleteMarker, Versions};
pub use wait::{eventually, within};
pub use wire::{Head, Wire};
