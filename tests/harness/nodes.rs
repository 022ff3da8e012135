//! What nodes do to pods, in a cluster that has none: every pod of a namespace is said to run and to be ready.
//!
//! The cluster's own controllers then count replicas and finish roll-outs as they do above real nodes. Nothing is
//! run: tests start the programs by themselves.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::control_plane::ControlPlane;

/// Stands in for the nodes of a namespace until it is dropped.
pub struct Nodes(JoinHandle<()>);

impl Nodes {
    /// For the pods of a namespace.
    pub fn of(plane: &ControlPlane, namespace: &str) -> Nodes {
        let (plane, namespace) = (plane.clone(), namespace.to_owned());
        Nodes(tokio::spawn(async move {
            loop {
                for pod in plane.list("Pod", &namespace, "").await {
                    if pod["status"]["phase"] == "Pending" && pod["metadata"]["deletionTimestamp"].is_null() {
                        run(&plane, &namespace, &pod).await;
                    }
                    if !pod["metadata"]["deletionTimestamp"].is_null() {
                        let name = pod["metadata"]["name"].as_str().expect("a name");
                        plane.end_pod(&namespace, name).await;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(plane: &ControlPlane, namespace: &str, pod: &Value) {
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|aspect| json!({ "type": aspect, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }))
        .collect();
    let status = json!({ "phase": "Running", "conditions": conditions });
    plane.merge_status("Pod", namespace, name, status).await;
}
