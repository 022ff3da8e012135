//! BuildKit on the run's node: a daemon of a test's own, with a cache that nobody else fills.
//!
//! Its steps run by runc in the node's network. It needs no flag that lowers its sandbox; what they leave in control
//! groups lies below the node's group.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::environment::{program, setting};
use crate::node::node_file;

/// Longest wait for its start, and for its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with an empty cache. Stopped when dropped, and nothing of it stays.
pub struct BuildKit {
    daemon: Child,
    folder: TempDir,
    address: String,
    group: String,
}

impl BuildKit {
    /// Starts one that trusts the edge's authority for a registry's host.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(host: &str) -> BuildKit {
        let folder = TempDir::with_prefix("berth-buildkit-").expect("a temporary folder");
        let path = |name: &str| text(&folder.path().join(name));
        let kubelet = std::fs::read_to_string(node_file("kubelet.yaml")).expect("the kubelet's settings");
        let kubelet: Value = serde_yaml::from_str(&kubelet).expect("YAML");
        let groups = kubelet["cgroupRoot"].as_str().expect("the node's control group");
        let group = format!("{groups}/buildkit-{}", uuid::Uuid::new_v4().simple());
        let settings = format!(
            "[registry.\"{host}\"]\nca = [\"{}\"]\n[worker.oci]\ndefaultCgroupParent = \"{group}\"\n",
            setting("BERTH_TEST_EDGE_CA")
        );
        std::fs::write(path("buildkitd.toml"), settings).expect("settings");
        let log = std::fs::File::create(path("log")).expect("a log");
        let address = format!("unix://{}", path("socket"));
        let daemon = Command::new(program("buildkitd"))
            .args(["--config", &path("buildkitd.toml"), "--root", &path("root")])
            .args(["--addr", &address, "--containerd-worker=false"])
            .args([
                "--oci-worker-binary=runc",
                "--oci-worker-net=host",
                "--cdi-disabled",
            ])
            .env_clear()
            .env("PATH", setting("PATH"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("buildkitd runs");
        let mut buildkit = BuildKit {
            daemon,
            folder,
            address,
            group,
        };
        let client = Client::new("buildctl");
        let deadline = Instant::now() + PATIENCE;
        while !client
            .attempt(&["--addr", &buildkit.address, "debug", "workers"])
            .await
            .success
        {
            let ended = buildkit.daemon.try_wait().expect("a process of ours");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "buildkitd: {ended:?}"
            );
        }
        buildkit
    }

    /// Runs `buildctl` against it, which must succeed; what it shows of its progress.
    pub async fn run(&self, buildctl: &Client, arguments: &[&str]) -> String {
        let address = ["--addr", &self.address];
        buildctl.run(&[&address[..], arguments].concat()).await.stderr
    }

    /// The control groups of its steps; version 1 has a tree for each controller.
    fn groups(&self) -> Vec<std::path::PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let trees = std::fs::read_dir(root).into_iter().flatten().flatten();
        let trees = trees.map(|tree| tree.path());
        std::iter::once(root.to_owned())
            .chain(trees)
            .map(|tree| tree.join(self.group.trim_start_matches('/')))
            .filter(|group| group.is_dir())
            .collect()
    }
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.daemon);
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- buildkitd\n{}", log.unwrap_or_default());
        }
        // A step that was cut off may have left a process, its mounts and its groups.
        for group in self.groups() {
            end_group(&group);
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = text(self.folder.path());
        let targets = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for target in targets.filter(|target| target.starts_with(&below)) {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
    }
}

/// Kills what is in a control group or below it, and removes it.
fn end_group(group: &Path) {
    for child in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if child.path().is_dir() {
            end_group(&child.path());
        }
    }
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let members = members.lines().filter_map(|line| line.parse().ok());
    for pid in members.filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    // Busy until its processes are buried.
    let deadline = Instant::now() + PATIENCE;
    while std::fs::remove_dir(group).is_err() && group.is_dir() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &Path) -> String {
    path.to_str()
        .expect("temporary folders have plain names")
        .to_owned()
}
