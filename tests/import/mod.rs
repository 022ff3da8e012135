//! Stage `import`: what another registry holds, copied into a tenant.
//!
//! What it is: a real registry of another kind, a way to it on which faults happen and which counts what is asked, and the
//! command under test between that and a Berth ([`Place`]). What it may use: the harness. What must hold: what was copied
//! is the source's to the byte or is not there; what is there is not fetched again; however a run ends, the next goes on.

mod copying;
mod formats;
mod guide;
mod logins;
mod long;
mod mending;
mod refusing;
mod resuming;
mod selecting;
mod watching;

use std::process::{Command, Stdio};
use std::time::Duration;

use harness::http::Repository;
use harness::image::{INDEX, MANIFEST, descriptor};
use harness::{Berth, Faulty, Image, Upstream};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for a condition.
const WAIT: Duration = Duration::from_secs(60);
/// Longest time of a run.
const RUN: Duration = Duration::from_secs(300);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A source, the way to it, and where its content goes.
struct Place {
    upstream: Upstream,
    way: Faulty,
    berth: Berth,
    home: TempDir,
}

/// What a run has told.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    /// One document a line.
    lines: Vec<Value>,
    stderr: String,
}

impl Place {
    async fn new() -> Place {
        Place::before(Berth::builder().start().await).await
    }

    async fn before(berth: Berth) -> Place {
        let upstream = Upstream::start().await;
        let way = Faulty::before(&upstream.address()).await;
        Place {
            upstream,
            way,
            berth,
            home: TempDir::with_prefix("berth-import-").expect("a temporary folder"),
        }
    }

    /// A repository at the source, by no way that counts.
    fn there(&self, name: &str) -> Repository {
        self.upstream.repository(name)
    }

    /// A repository at the destination.
    fn here(&self, name: &str) -> Repository {
        Repository::new(&self.berth.url(""), name)
    }

    /// Pushes an image to the source.
    async fn pushed(&self, name: &str, tag: &str, seed: u64) -> Image {
        let image = Image::new(seed, KIB);
        image.push(&self.there(name), tag).await;
        image
    }

    /// An import from the source to the destination, with these arguments besides.
    fn command(&self, more: &[&str]) -> Command {
        let from = self.way.url();
        let mut arguments = vec![from.as_str()];
        arguments.extend(more);
        import(&self.berth, &self.home, &self.berth.url(""), &arguments)
    }

    async fn import(&self, more: &[&str]) -> Told {
        run(self.command(more)).await
    }
}

/// The command with these arguments, told to be understood by programs.
fn import(berth: &Berth, home: &TempDir, to: &str, arguments: &[&str]) -> Command {
    let mut command = import_for_people(berth, home, to, arguments);
    command.args(["--output", "json"]);
    command
}

/// The command with these arguments, as somebody with an empty home folder runs it.
fn import_for_people(berth: &Berth, home: &TempDir, to: &str, arguments: &[&str]) -> Command {
    let mut command = berth.command("import");
    command
        .args(["--to", to])
        .args(arguments)
        .env("HOME", home.path());
    for name in [
        "XDG_STATE_HOME",
        "DOCKER_CONFIG",
        "BERTH_TOKEN",
        "BERTH_SOURCE_PASSWORD",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
async fn run(command: Command) -> Told {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = harness::within("the import", RUN, command.output()).await;
    let output = output.expect("the import runs");
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    Told {
        code: output.status.code(),
        lines,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Told {
    /// The report of its last pass.
    fn report(&self) -> &Value {
        let mut reports = self.lines.iter().filter(|line| line["event"] == "report");
        reports
            .next_back()
            .unwrap_or_else(|| panic!("no report: {self:?}"))
    }

    /// A figure of the report.
    fn figure(&self, name: &str) -> u64 {
        number(&self.report()[name])
    }

    /// A figure of all tags.
    fn tags(&self, name: &str) -> u64 {
        number(&self.report()["tags"][name])
    }

    /// The same, when everything is as it is at the source.
    fn all_equal(self) -> Told {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.report()["equal"], true, "{self:?}");
        assert_eq!(self.tags("equal"), self.tags("tags"), "{self:?}");
        self
    }

    /// The same, when it ends with 1 and a problem holds all these words.
    fn failed(self, words: &[&str]) -> Told {
        assert_eq!(self.code, Some(1), "{self:?}");
        let text = self.report()["problems"].to_string();
        for word in words {
            assert!(text.contains(word), "{word} in {text}");
        }
        self
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Pushes an image of one layer; the layer's digest.
async fn push_layer(repository: &Repository, tag: &str, layer: &[u8]) -> String {
    repository.push_blob(b"{}").await;
    let digest = repository.push_blob(layer).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string();
    let put = repository.put_manifest(tag, MANIFEST, manifest.as_bytes());
    put.await.expect(201);
    digest
}

/// Pushes something that refers to a manifest, without a tag of its own; its bytes.
async fn push_referrer(
    repository: &Repository,
    reference: Option<&str>,
    subject: &[u8],
    content: &[u8],
) -> Vec<u8> {
    repository.push_blob(b"{}").await;
    repository.push_blob(content).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/octet-stream", content)],
        "subject": descriptor(MANIFEST, subject),
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = harness::content::sha256(&bytes);
    let put = repository.put_manifest(reference.unwrap_or(&digest), MANIFEST, &bytes);
    put.await.expect(201);
    bytes
}

/// Pushes an index of these manifests under a tag, or by its digest alone; its bytes.
async fn push_index(repository: &Repository, tag: Option<&str>, children: &[(&str, &[u8])]) -> Vec<u8> {
    let children: Vec<Value> = children
        .iter()
        .map(|(kind, bytes)| descriptor(kind, bytes))
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    let bytes = index.to_string().into_bytes();
    let digest = harness::content::sha256(&bytes);
    let put = repository.put_manifest(tag.unwrap_or(&digest), INDEX, &bytes);
    put.await.expect(201);
    bytes
}

/// The name of the tag that stands for a digest.
fn tag_for(digest: &str, ending: &str) -> String {
    format!("{}{ending}", digest.replace(':', "-"))
}

/// A manifest at the destination has just these bytes.
async fn assert_manifest(repository: &Repository, reference: &str, bytes: &[u8]) {
    let answer = repository.get_manifest(reference).await.expect(200);
    assert!(answer.body == bytes, "{reference}: {}", answer.text());
}
