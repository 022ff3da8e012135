//! Namespaces whose pods pull from a tenant, and what the registry's pods have written about it.

use harness::node::{Release, TenantOf, http, pod};
use harness::{eventually, http::attempt};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Pods of a registry.
const REGISTRIES: &str = "app.kubernetes.io/component=registry";

/// A namespace of which every pod gets the Secret of a tenant, from its creation on.
pub async fn apps(tenant: &TenantOf<'_>, suffix: &str) -> String {
    let (plane, name) = (&tenant.release.plane, format!("{}-{suffix}", tenant.name));
    tenant
        .release
        .namespace(&name, json!({ "pull": tenant.name }))
        .await;
    let ours = secret_of(tenant);
    // Admission copies what it has seen of the account into the pod.
    eventually(&format!("pods of {name} with {ours}"), PATIENCE, async || {
        let probe = pod(&name, "probe", "none", "", json!({}));
        let admitted = plane.dry_run(probe).await.ok()?;
        (admitted["spec"]["imagePullSecrets"][0]["name"] == ours.as_str()).then_some(())
    })
    .await;
    name
}

/// Name of the Secret by which pods pull from a tenant.
pub fn secret_of(tenant: &TenantOf<'_>) -> String {
    format!("berth-{}", tenant.name)
}

/// Ends everything of a namespace, so that it takes no more place on the node; nobody waits for it.
pub async fn leave(release: &Release, namespace: &str) {
    release.plane.delete("Namespace", "", namespace).await;
}

/// One request that a registry's pod has answered, by its access log.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path with the harmless parts of its query.
    pub path: String,
    /// The answer's status.
    pub status: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
}

impl Request {
    /// Whether it asks for a blob.
    pub fn is_for_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// The digest or tag at the end of its path.
    pub fn object(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// What containerd has asked about a repository so far, in the order of the answers. The repository's name is one that no
/// other tenant has: the log does not say whose it is.
pub async fn asked(tenant: &TenantOf<'_>, repository: &str) -> Vec<Request> {
    let below = format!("/v2/{repository}/");
    let lines = lines(tenant.release).await;
    let theirs = lines.iter().filter(|line| {
        let starts = |key: &str, text: &str| line[key].as_str().unwrap_or_default().starts_with(text);
        line["target"] == "access" && starts("path", &below) && starts("agent", "containerd/")
    });
    theirs.map(request).collect()
}

/// The credentials that a tenant has refused so far, and what it has denied to good ones.
pub async fn denials(tenant: &TenantOf<'_>) -> Vec<Value> {
    let mut lines = lines(tenant.release).await;
    lines.retain(|line| {
        line["target"] == "audit" && line["tenant"] == tenant.name.as_str() && line["outcome"] == "denied"
    });
    lines
}

fn request(line: &Value) -> Request {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    Request {
        method: text("method"),
        path: text("path"),
        status: line["status"].as_u64().unwrap_or_default(),
        sent: line["sent"].as_u64().unwrap_or_default(),
    }
}

/// What the registry's pods have written until now, oldest first. The files of the node are read, since the API server
/// shows no file that has been put aside for being long.
async fn lines(release: &Release) -> Vec<Value> {
    // What each pod writes comes in order, so that nothing from before this request comes after it.
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let pods = release.plane.list("Pod", &release.name, REGISTRIES).await;
    let running: Vec<&str> = pods
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .collect();
    for address in &running {
        attempt(http().get(format!("http://{address}:5000/v2/{mark}/tags/list")))
            .await
            .expect("a registry's pod answers");
    }
    eventually("the pods' logs", PATIENCE, async || {
        let lines = read(release);
        let marks = lines
            .iter()
            .filter(|line| line["path"].as_str().unwrap_or_default().contains(&mark));
        (marks.count() == running.len()).then_some(lines)
    })
    .await
}

fn read(release: &Release) -> Vec<Value> {
    let prefix = format!("{}_", release.name);
    let mut lines = Vec::new();
    let pods = std::fs::read_dir("/var/log/pods").expect("the node's logs");
    for pod in pods.flatten() {
        if !pod.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let Ok(files) = std::fs::read_dir(pod.path().join("registry")) else {
            continue;
        };
        for file in files.flatten() {
            // The file that is compressed at the moment is still there as it was.
            let text = std::fs::read(file.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            // Time, stream, and whether the line is whole.
            let written = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
            lines.extend(written.filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
    }
    lines.sort_by_key(|line| line["timestamp"].as_str().unwrap_or_default().to_owned());
    lines
}

/// The memory that each pod of the registry takes now, in bytes, by the pod's name.
pub async fn resident(release: &Release) -> Vec<(String, u64)> {
    let mut resident = Vec::new();
    for pod in release.plane.list("Pod", &release.name, REGISTRIES).await {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let Some(metrics) = attempt(http().get(format!("http://{address}:5002/metrics"))).await else {
            continue;
        };
        let text = metrics.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        let bytes = line
            .and_then(|value| value.trim().parse::<f64>().ok())
            .expect("resident memory");
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        resident.push((name, bytes as u64));
    }
    resident
}
