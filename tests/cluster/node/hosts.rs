//! Where the node's containerd looks for a host (`certs.d`).

use std::path::PathBuf;

use harness::node::{Release, node_file};

/// The folder of one host; gone when dropped.
pub struct HostFolder(PathBuf);

impl HostFolder {
    /// Writes it. containerd reads it at each pull.
    pub fn write(host: &str, hosts_toml: &str) -> HostFolder {
        let folder = PathBuf::from(node_file("certs.d")).join(host);
        std::fs::create_dir(&folder).expect("a folder for the host");
        std::fs::write(folder.join("hosts.toml"), hosts_toml).expect("hosts.toml");
        HostFolder(folder)
    }
}

impl Drop for HostFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The address of a release's Service, where the registry speaks plain HTTP.
pub async fn service(release: &Release) -> String {
    let service = release
        .plane
        .find("Service", &release.name, &release.name)
        .await
        .expect("the Service");
    format!(
        "{}:80",
        service["spec"]["clusterIP"].as_str().expect("an address")
    )
}
