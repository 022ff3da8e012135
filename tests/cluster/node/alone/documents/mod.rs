//! The guides for Kubernetes, operations, backups, upgrades and releases, followed to the letter: every command of theirs
//! is run, in their order.
//!
//! What is put in the place of a word of theirs is said in each test: there is no engine that could run kind, no way to
//! Docker Hub, and paths of the machine are the test's own.

mod kubernetes;
mod machine;
mod releases;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::http::{attempt, client};
use harness::{Signal, eventually, setting};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Longest wait for a command of a guide.
const PATIENCE: Duration = Duration::from_secs(240);

/// The fenced blocks of a guide, with the heading that each is below.
fn blocks(guide: &str) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(checkout().join("docs").join(guide)).expect("a guide");
    let (mut blocks, mut heading, mut open) = (Vec::new(), String::new(), None::<(String, String)>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ").or(line.strip_prefix("### ")) {
                    title.clone_into(&mut heading);
                }
            }
            (Some(_), Some(_)) => {
                let (language, content) = open.take().expect("it is open");
                blocks.push((heading.clone(), language, content));
            }
            (Some((_, content)), None) => {
                content.push_str(line);
                content.push('\n');
            }
        }
    }
    blocks
}

/// The commands below the headings of a guide that begin so.
fn commands(guide: &str, title: &str) -> Vec<String> {
    let found = blocks(guide).into_iter();
    found
        .filter(|(heading, language, _)| heading.starts_with(title) && language == "sh")
        .map(|(.., block)| block)
        .collect()
}

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the checkout")
}

/// Somebody at a terminal in the checkout's folder, with programs of their own and words that mean something else here.
struct Reader {
    folder: TempDir,
    words: Vec<(String, String)>,
}

impl Reader {
    fn new(words: &[(&str, String)]) -> Reader {
        let reader = Reader {
            folder: TempDir::with_prefix("berth-reader-").expect("a folder"),
            words: words
                .iter()
                .map(|(word, by)| ((*word).to_owned(), by.clone()))
                .collect(),
        };
        std::fs::create_dir(reader.path("bin")).expect("a folder");
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of the reader's own.
    fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\nset -e\n{script}")).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }

    fn meant(&self, block: &str) -> String {
        self.words
            .iter()
            .fold(block.to_owned(), |text, (word, by)| text.replace(word, by))
    }

    fn shell(&self, block: &str) -> Command {
        let programs = Path::new(&setting("BERTH_BIN"))
            .parent()
            .expect("a folder")
            .to_owned();
        let mut command = Command::new("bash");
        command
            .args(["-e", "-o", "pipefail", "-c", &self.meant(block)])
            .current_dir(checkout())
            .env("HOME", self.folder.path())
            .env(
                "PATH",
                format!(
                    "{}:{}:{}",
                    self.path("bin").display(),
                    programs.display(),
                    setting("PATH")
                ),
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a block, which must succeed; what it printed.
    async fn runs(&self, block: &str) -> String {
        let output = tokio::time::timeout(PATIENCE, self.shell(block).output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{block} does not end"))
            .expect("a shell");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{block}\n{text}");
        text
    }

    /// Runs a block that ends with a server, until that is ready.
    async fn serves(&self, block: &str, ops: &str) -> Server {
        let mut command = self.shell(&block.replace("berth-registry serve", "exec berth-registry serve"));
        let child = command.stdout(Stdio::null()).spawn().expect("a shell");
        let (http, url) = (client(), format!("http://{ops}/readyz"));
        eventually(block, Duration::from_secs(60), async || {
            attempt(http.get(&url))
                .await
                .filter(|answer| answer.status == 200)
                .map(drop)
        })
        .await;
        Server(child)
    }
}

struct Server(Child);

impl Server {
    /// Asks it to end, as a supervisor does.
    async fn ends(mut self) {
        let id = self
            .0
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .expect("it runs");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.0.wait()).await;
        assert!(ended.expect("it ends").expect("a status").success());
    }
}
