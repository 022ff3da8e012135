//! Stage `backup`: what was acknowledged comes back, whatever is lost, and moves between stores as it is.
//!
//! What it is: backups of embedded installations, also under load ([`taking`]), what is wrong with them ([`damage`]),
//! runs that are cut ([`cuts`]), moves to other stores and back ([`converting`]), and the documented ways for PostgreSQL
//! and S3: a dump and a copy ([`drill`]), an archive and versions ([`point_in_time`]). What it may use: the harness, and the history of clients of the stage `faults`. What must hold:
//! every claim is about what the registry serves afterwards, and the check of the stores finds nothing.

mod converting;
mod cuts;
mod damage;
mod drill;
mod point_in_time;
mod running;
mod taking;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use harness::{Backend, Berth, Builder, Storage};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything here may take.
const WAIT: Duration = Duration::from_secs(180);

/// A folder for backups.
struct Vault(TempDir);

impl Vault {
    fn new() -> Vault {
        Vault(TempDir::with_prefix("berth-vault-").expect("a temporary folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("backup")
    }

    fn text(&self) -> String {
        text(&self.path())
    }

    /// Paths of all objects below the folder.
    fn objects(&self) -> Vec<PathBuf> {
        let mut objects = Vec::new();
        for shard in std::fs::read_dir(self.path().join("blobs")).expect("a folder of objects") {
            let shard = std::fs::read_dir(shard.expect("a folder").path()).expect("a folder");
            objects.extend(shard.map(|object| object.expect("an object").path()));
        }
        objects.sort();
        objects
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

/// A command with a server's stores and admin listener.
fn command(berth: &Berth, words: &[&str]) -> Command {
    let mut command = berth.command(words[0]);
    let admin = berth.admin_url("");
    command.args(&words[1..]);
    command.arg(format!("--admin-listen={}", admin.trim_start_matches("http://")));
    command.args(["-o", "json"]);
    command
}

/// Runs a command to its end.
async fn output(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    output.await.expect("no panic")
}

/// Runs a command that must succeed; its last line.
async fn done(berth: &Berth, words: &[&str]) -> Value {
    let output = output(command(berth, words)).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{words:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    last(&said)
}

/// Runs a command that must fail; what it says.
async fn refused(berth: &Berth, words: &[&str]) -> String {
    let output = output(command(berth, words)).await;
    assert_eq!(
        output.status.code(),
        Some(1),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last of the JSON lines; one document is one as well.
fn last(said: &str) -> Value {
    if let Ok(document) = serde_json::from_str(said) {
        return document;
    }
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The check of the stores, with every byte, finds nothing.
async fn assert_sound(berth: &Berth) {
    let state = done(berth, &["fsck", "--rehash"]).await;
    assert_eq!(state["found"], 0, "{state:#}");
}

/// Stores without a server, as a new machine has them.
fn elsewhere(backend: Backend) -> Arc<Storage> {
    Arc::new(Storage::create(backend))
}

fn on(storage: &Arc<Storage>) -> Builder {
    Berth::builder().storage(storage.clone(), 0)
}
