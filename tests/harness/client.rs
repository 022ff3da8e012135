//! Real client programs, each with a home of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::environment::{program, setting};
use crate::wait::within;

/// No single command of a client may take longer, unless it is told so.
const LIMIT: Duration = Duration::from_secs(180);

/// A client program with an empty home folder: no login, cache or setting of whoever runs the tests
/// reaches it, and nothing of it reaches them.
#[derive(Debug)]
pub struct Client {
    program: PathBuf,
    home: TempDir,
    variables: Vec<(String, String)>,
    limit: Duration,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Standard output as text without the white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl Client {
    /// The program with this name on `PATH`.
    pub fn new(name: &str) -> Client {
        let home = TempDir::with_prefix("berth-client-").expect("a temporary folder");
        std::fs::create_dir(home.path().join("tmp")).expect("a temporary folder");
        Client {
            program: program(name),
            home,
            variables: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Longest time of every command.
    pub fn limit(mut self, limit: Duration) -> Client {
        self.limit = limit;
        self
    }

    /// A further environment variable of every command.
    pub fn variable(mut self, name: &str, value: &str) -> Client {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The home folder, also the working folder of every command.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path below the home folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A path below the home folder as text, for command lines.
    pub fn path_text(&self, name: &str) -> String {
        self.path(name)
            .to_str()
            .expect("temporary folders have plain names")
            .to_owned()
    }

    /// Writes a file below the home folder and returns its path as text.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.path_text(name)
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// If it fails; the message shows what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.attempt(arguments).await;
        assert!(
            output.success,
            "{} {} failed\n{}\n{}",
            self.program.display(),
            arguments.join(" "),
            output.stderr,
            output.text()
        );
        output
    }

    /// Runs a command that may fail.
    pub async fn attempt(&self, arguments: &[&str]) -> Output {
        let home = self.home.path();
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(home)
            .env_clear()
            .env("PATH", setting("PATH"))
            .env("HOME", home)
            .env("TMPDIR", home.join("tmp"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("XDG_DATA_HOME", home.join(".local"))
            .env("XDG_RUNTIME_DIR", home.join("tmp"))
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within(
            &format!("{} {}", self.program.display(), arguments.join(" ")),
            self.limit,
            command.output(),
        )
        .await
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", self.program.display()));
        Output {
            success: output.status.success(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
