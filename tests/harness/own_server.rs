//! Servers of a test's own, to be killed and started again while a registry uses them.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::environment::{program, setting};
use crate::ports::free_port;

/// How long a server may take until it takes connections, or until it has ended.
const LIMIT: Duration = Duration::from_secs(30);

/// Where an S3 server that can keep old versions does so.
const VERSIONS: &str = "versions";

/// An S3 server or a PostgreSQL server on a port that stays the same. Stopped and removed when dropped.
#[derive(Debug)]
pub struct OwnServer {
    kind: Kind,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Postgres,
}

impl OwnServer {
    /// An S3 server with one empty bucket, under the credentials of the run's own server.
    pub fn s3() -> OwnServer {
        let server = OwnServer::prepare(Kind::S3);
        std::fs::create_dir_all(server.folder.path().join("data/bucket")).expect("a bucket");
        server.started()
    }

    /// The same for a bucket that may be told to keep old versions.
    pub(crate) fn s3_that_can_keep_versions() -> OwnServer {
        let server = OwnServer::prepare(Kind::S3);
        for folder in ["data/bucket", VERSIONS] {
            std::fs::create_dir_all(server.folder.path().join(folder)).expect("a folder");
        }
        server.started()
    }

    /// A PostgreSQL server with an empty database.
    pub fn postgres() -> OwnServer {
        let server = OwnServer::prepared_postgres();
        let made = unprivileged(&postgres_program("initdb"))
            .arg("-D")
            .arg(server.data())
            .args([
                "-U",
                "berth",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.started()
    }

    /// Everything that the server wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What the registry's `--blobs` or `--metadata` takes.
    pub fn url(&self) -> String {
        self.url_through(&self.address())
    }

    /// The same by way of another address.
    pub fn url_through(&self, address: &str) -> String {
        match self.kind {
            Kind::S3 => format!(
                "s3://bucket/registry?region=us-east-1&endpoint=http%3A%2F%2F{}&path-style=true",
                address.replace(':', "%3A")
            ),
            Kind::Postgres => format!("postgres://berth@{address}/postgres"),
        }
    }

    /// `host:port`, where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the server as a crash of its machine would; its clients' connections break.
    pub fn kill(&mut self) {
        // PostgreSQL's children outlive a killed parent; its immediate shutdown takes them along, and
        // recovers from the log at the next start like after any crash.
        let signal = match self.kind {
            Kind::S3 => Signal::KILL,
            Kind::Postgres => Signal::QUIT,
        };
        self.end(signal);
    }

    /// Ends the server in order, cutting its clients off.
    pub fn stop(&mut self) {
        let signal = match self.kind {
            Kind::S3 => Signal::TERM,
            Kind::Postgres => Signal::INT,
        };
        self.end(signal);
    }

    /// Starts it again after [`OwnServer::kill`] or [`OwnServer::stop`], and waits until it takes
    /// connections.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&mut self) {
        self.child = Some(self.spawn());
        let deadline = Instant::now() + LIMIT;
        while !self.answers() {
            assert!(
                Instant::now() < deadline,
                "{:?} did not start: {}",
                self.kind,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn prepare(kind: Kind) -> OwnServer {
        let folder = TempDir::with_prefix("berth-own-").expect("a temporary folder");
        OwnServer {
            kind,
            port: free_port(),
            folder,
            child: None,
        }
    }

    /// A folder for a PostgreSQL server, and nothing in it.
    pub(crate) fn prepared_postgres() -> OwnServer {
        let server = OwnServer::prepare(Kind::Postgres);
        if is_root() {
            let owned = Command::new("chown")
                .arg("postgres:")
                .arg(server.folder.path())
                .status();
            assert!(
                owned.is_ok_and(|status| status.success()),
                "a folder for PostgreSQL"
            );
        }
        server
    }

    /// Where its data lies.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn started(mut self) -> OwnServer {
        self.start();
        self
    }

    fn spawn(&self) -> Child {
        let data = self.data();
        let mut command = match self.kind {
            Kind::S3 => {
                let mut command = Command::new(program("versitygw"));
                command
                    .env("ROOT_ACCESS_KEY", setting("AWS_ACCESS_KEY_ID"))
                    .env("ROOT_SECRET_KEY", setting("AWS_SECRET_ACCESS_KEY"))
                    .args([
                        "--port",
                        &format!("127.0.0.1:{}", self.port),
                        "--quiet",
                        "--keep-alive",
                        "posix",
                    ]);
                let versions = self.folder.path().join(VERSIONS);
                if versions.exists() {
                    command.arg("--versioning-dir").arg(versions);
                }
                command.arg(&data);
                command
            }
            Kind::Postgres => {
                let mut command = unprivileged(&postgres_program("postgres"));
                command
                    .arg("-D")
                    .arg(&data)
                    .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
                    .arg(self.folder.path())
                    .current_dir("/");
                command
            }
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the {:?} server: {error}", self.kind))
    }

    fn answers(&self) -> bool {
        match self.kind {
            Kind::S3 => TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
            // It takes connections before it has recovered, and refuses what is asked in them.
            Kind::Postgres => Command::new(postgres_program("pg_isready"))
                .args([
                    "-q",
                    "-h",
                    "127.0.0.1",
                    "-U",
                    "berth",
                    "-p",
                    &self.port.to_string(),
                ])
                .status()
                .is_ok_and(|status| status.success()),
        }
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
        let deadline = Instant::now() + LIMIT;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn postgres_program(name: &str) -> PathBuf {
    let folder = std::env::var("BERTH_TEST_POSTGRES_BIN");
    Path::new(folder.as_deref().unwrap_or("/usr/lib/postgresql/15/bin")).join(name)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// PostgreSQL refuses to run as root. setpriv replaces itself by the program: the process id stays.
pub(crate) fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(program)
        .env("HOME", "/");
    command
}
