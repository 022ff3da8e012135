//! Berth as Helm installs it on the run's node, and the pods that pull from it.
//!
//! The test itself runs in the node's network namespace: it resolves what pods resolve and reaches what they reach.

mod clients;
mod machine;
mod pods;
mod release;
mod tenant;

use std::time::Duration;

pub use clients::{entry, helm, http, kubectl, logged_in};
pub use machine::{NODE, halt_api_server, node_file, reboot_node, resume_api_server};
pub use pods::{events, in_phase, logs, pod, told};
pub use release::Release;
pub use tenant::TenantOf;

/// Longest wait for a pod: images of gigabytes are pulled on two busy cores.
const PATIENCE: Duration = Duration::from_secs(180);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
