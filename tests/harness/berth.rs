//! One registry process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::backend::{Backend, Storage};
use crate::environment::setting;
use crate::ports::free_port;

/// How long a server may take until `/readyz` answers 200.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How many lines of the log a failed test shows; the whole of it stays in the output folder.
const LOG_SHOWN: usize = 40;

/// Says how a registry is started. Everything has a default; [`Builder::start`] starts it.
#[derive(Debug, Clone)]
pub struct Builder {
    storage: Option<Arc<Storage>>,
    backend: Backend,
    replica: usize,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    admin_port: Option<u16>,
    listen: Option<String>,
    is_peer: bool,
    program: Option<PathBuf>,
}

impl Builder {
    /// Another binary than the one under test: that of another release.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// A port of the admin listener that somebody was told before.
    pub fn admin_port(mut self, port: u16) -> Self {
        self.admin_port = Some(port);
        self
    }

    /// `host:port` of the OCI API, instead of a free port on loopback.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// Further replicas reach the OCI API where it listens (`--peer-address`).
    pub fn reached_by_peers(mut self) -> Self {
        self.is_peer = true;
        self
    }

    /// Fresh stores of this kind; [`Backend::Embedded`] if never said.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Stores that exist already, as the replica with this number.
    pub fn storage(mut self, storage: Arc<Storage>, replica: usize) -> Self {
        self.storage = Some(storage);
        self.replica = replica;
        self
    }

    /// A further flag with its value, `("--sparse", "Always")`.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push(format!("{name}={value}"));
        self
    }

    /// A further environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the registry and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready; the log is shown.
    pub async fn start(self) -> Berth {
        let storage = self
            .storage
            .clone()
            .unwrap_or_else(|| Arc::new(Storage::create(self.backend)));
        let log = storage.data(self.replica).with_extension("log");
        let mut berth = Berth {
            storage,
            builder: self,
            ports: [0; 3],
            log,
            child: None,
        };
        // Another process may take a port between its choice and its use.
        for _ in 0..5 {
            berth.ports = std::array::from_fn(|_| free_port());
            if let Some(port) = berth.builder.admin_port {
                berth.ports[1] = port;
            }
            berth.spawn();
            if berth.becomes_ready().await {
                return berth;
            }
            berth.kill9();
            if !berth.log().to_lowercase().contains("address already in use") {
                break;
            }
        }
        panic!("the registry did not get ready within {READY_WITHIN:?}");
    }
}

/// A registry of the test's own: its process, ports, stores and log. Killed when dropped.
#[derive(Debug)]
pub struct Berth {
    child: Option<Child>,
    builder: Builder,
    /// The ports of `--listen`, `--admin-listen` and `--ops-listen`.
    ports: [u16; 3],
    log: PathBuf,
    storage: Arc<Storage>,
}

impl Berth {
    /// The defaults: fresh embedded stores, no further flags.
    pub fn builder() -> Builder {
        Builder {
            storage: None,
            backend: Backend::Embedded,
            replica: 0,
            flags: Vec::new(),
            variables: Vec::new(),
            admin_port: None,
            listen: None,
            is_peer: false,
            program: None,
        }
    }

    /// A registry on fresh stores of this kind.
    pub async fn start(backend: Backend) -> Berth {
        Berth::builder().backend(backend).start().await
    }

    /// `host:port` of the OCI API, as clients write it in references.
    pub fn address(&self) -> String {
        let listen = self.builder.listen.clone();
        listen.unwrap_or_else(|| format!("127.0.0.1:{}", self.ports[0]))
    }

    /// The URL of a path of the OCI API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The URL of a path of the admin API.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[1])
    }

    /// The URL of a path of the ops listener.
    pub fn ops_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[2])
    }

    /// The data folder of this process.
    pub fn data(&self) -> PathBuf {
        self.storage.data(self.builder.replica)
    }

    /// The stores, to be shared with a further replica or to be looked into.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Everything that the processes so far wrote to standard output and error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The process id.
    ///
    /// # Panics
    /// If the registry does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the registry runs").id()
    }

    /// The most memory that the process has taken so far, without the pages of its program, in bytes.
    ///
    /// # Panics
    /// If the registry does not run.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.pid())
    }

    /// A command of the binary under test with this server's stores and folders as settings:
    /// for further subcommands, or for a second `serve` on the same folder.
    pub fn command(&self, subcommand: &str) -> Command {
        let program = match &self.builder.program {
            Some(program) => program.clone(),
            None => setting("BERTH_BIN").into(),
        };
        let mut command = Command::new(program);
        command.arg(subcommand).envs(self.settings()).stdin(Stdio::null());
        // What it asks lies on this machine.
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Ends the process without a warning, as a power cut or the OOM killer would.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether the process was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Asks the process to end (SIGTERM) and waits until it has, at most `limit`.
    ///
    /// # Panics
    /// If the process still runs after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = self.ended(limit).await;
        self.child = None;
        status
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// If the registry does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id is not 0");
        kill_process(pid, signal).expect("the registry takes signals");
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        let child = self.child.as_mut().expect("the registry runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the registry still runs after {limit:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts the registry again on the same stores and ports, after [`Berth::kill9`] or
    /// [`Berth::terminate`]; a process that still runs is killed first.
    ///
    /// # Panics
    /// If it does not get ready.
    pub async fn restart(&mut self) {
        self.kill9();
        self.spawn();
        assert!(self.becomes_ready().await, "the registry did not get ready again");
    }

    /// The next start is that of another binary.
    pub fn becomes(&mut self, program: &Path) {
        self.builder.program = Some(program.to_owned());
    }

    /// The settings of this server as environment variables.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![("BERTH_DATA".to_owned(), path_text(&self.data()))];
        if let (Some(database), Some(bucket)) = (self.storage.database(), self.storage.bucket()) {
            settings.push(("BERTH_METADATA".to_owned(), database.url()));
            settings.push(("BERTH_BLOBS".to_owned(), bucket.url()));
        }
        settings.extend(self.builder.variables.iter().cloned());
        settings
    }

    /// Shows the end of the log and keeps the whole below the output folder, by the test's name.
    fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_SHOWN)..];
        let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
        let kept = PathBuf::from(setting("BERTH_TEST_OUTPUT")).join("logs");
        let kept_log = kept.join(format!("{test}.{}.log", self.builder.replica));
        let _ = std::fs::create_dir_all(&kept).and_then(|()| std::fs::write(&kept_log, &log));
        eprintln!(
            "--- end of the registry's log; all of it: {}\n{}",
            kept_log.display(),
            shown.join("\n")
        );
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let [_, admin, ops] = self.ports;
        let peer = self
            .builder
            .is_peer
            .then(|| format!("--peer-address={}", self.address()));
        let child = self
            .command("serve")
            .arg(format!("--listen={}", self.address()))
            .arg(format!("--admin-listen=127.0.0.1:{admin}"))
            .arg(format!("--ops-listen=127.0.0.1:{ops}"))
            .args(peer)
            .args(&self.builder.flags)
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start the registry: {e}"));
        self.child = Some(child);
    }

    /// Whether `/readyz` answers 200 before the process ends and before [`READY_WITHIN`] is over.
    async fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        let http = crate::http::client();
        let url = self.ops_url("/readyz");
        while Instant::now() < deadline {
            if !self.is_running() {
                return false;
            }
            if http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            self.show_log();
        }
    }
}

/// The most memory that a process has taken so far, in bytes: what was resident (`VmHWM`) without the pages of its program
/// (`RssFile`), which the kernel shares, reads ahead and drops as it sees fit.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("the status of a running process");
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number of kB")
            * 1024
    };
    of("VmHWM:") - of("RssFile:")
}

fn path_text(path: &Path) -> String {
    path.to_str()
        .expect("temporary folders have plain names")
        .to_owned()
}
