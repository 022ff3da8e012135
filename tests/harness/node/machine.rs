//! The machine that the node is.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::environment::setting;

/// The node's address, in tests/tools/node: where pods reach what a test serves.
pub const NODE: &str = "10.88.0.1";

/// A file of the node, by its name below the node's folder.
pub fn node_file(name: &str) -> String {
    format!("{}/{name}", setting("BERTH_TEST_NODE_DIR"))
}

/// A power cut: everything that runs on the node ends at once, and the node starts again.
pub fn reboot_node() {
    tool("node", "reboot-inside", &setting("BERTH_TEST_NODE_DIR"));
}

/// The API server is killed; everything else goes on.
pub fn halt_api_server() {
    tool("cluster", "halt", &node_file("cluster"));
}

/// It is started again.
pub fn resume_api_server() {
    tool("cluster", "resume", &node_file("cluster"));
}

fn tool(name: &str, action: &str, folder: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tools").join(name);
    let done = Command::new(path)
        .args([action, folder])
        .stdin(Stdio::null())
        .status();
    assert!(done.expect("the tool runs").success(), "{name} {action} failed");
}
