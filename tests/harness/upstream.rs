//! Another registry: that of the distribution project, as an upstream of caches.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::environment::program;
use crate::http::Repository;
use crate::ports::free_port;

/// How long it may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A registry of the distribution project on a folder of its own. It has no referrers API. Killed when dropped.
#[derive(Debug)]
pub struct Upstream {
    folder: TempDir,
    host: String,
    port: u16,
    child: Option<Child>,
}

impl Upstream {
    /// The name that [`Upstream::ask_for_login`] asks for.
    pub const USERNAME: &str = "reader";
    /// Its password.
    pub const PASSWORD: &str = "first";
    /// The two as htpasswd(1) writes them: bcrypt, of the lowest cost.
    const HTPASSWD: &str = "reader:$2b$04$abcdefghijklmnopqrstuuvybHXQqehXl2NdtAhT6BAmwe6EZ8HOi\n";

    /// A new and empty one, open to anybody.
    pub async fn start() -> Upstream {
        Upstream::start_at("127.0.0.1").await
    }

    /// The same at another address of this machine, or of the network namespace that the test is in.
    pub async fn start_at(host: &str) -> Upstream {
        let mut upstream = Upstream {
            folder: TempDir::with_prefix("berth-upstream-").expect("a temporary folder"),
            host: host.to_owned(),
            port: 0,
            child: None,
        };
        upstream.run(false).await;
        upstream
    }

    /// Asks everybody for name and password from now on. It gets another address.
    pub async fn ask_for_login(&mut self) {
        self.stop();
        self.run(true).await;
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// One of its repositories.
    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(&format!("http://{}", self.address()), name)
    }

    /// Ends it; nobody listens at its address any more.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    async fn run(&mut self, asks: bool) {
        // Another process may take a port between its choice and its use.
        for _ in 0..5 {
            self.port = free_port();
            self.configure(asks);
            self.child = Some(self.spawn());
            if self.becomes_ready().await {
                return;
            }
            self.stop();
        }
        let log = std::fs::read_to_string(self.folder.path().join("log"));
        panic!("the upstream did not start: {}", log.unwrap_or_default());
    }

    fn configure(&self, asks: bool) {
        let folder = self.folder.path();
        let mut settings = json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": folder.join("data") },
                "delete": { "enabled": true },
            },
            "http": { "addr": self.address(), "relativeurls": true },
        });
        if asks {
            let path = folder.join("htpasswd");
            write(&path, Self::HTPASSWD);
            settings["auth"] = json!({ "htpasswd": { "realm": "upstream", "path": path } });
        }
        // JSON is YAML.
        write(&folder.join("config.json"), &settings.to_string());
    }

    fn spawn(&self) -> Child {
        let folder = self.folder.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log file");
        Command::new(program("registry"))
            .arg("serve")
            .arg(folder.join("config.json"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .env("OTEL_SDK_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("the registry of the distribution project runs")
    }

    async fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        let http = crate::http::client();
        let url = format!("http://{}/v2/", self.address());
        while Instant::now() < deadline {
            let child = self.child.as_mut().expect("it was started");
            if !matches!(child.try_wait(), Ok(None)) {
                return false;
            }
            if http.get(&url).send().await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
