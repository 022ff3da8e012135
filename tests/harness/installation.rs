//! An installation of Berth in the run's cluster: a namespace, a registry and an operator of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::berth::{Berth, Builder, peak_memory};
use crate::chart;
use crate::control_plane::ControlPlane;
use crate::environment::setting;
use crate::http::{attempt, client};
use crate::ports::free_port;
use crate::wait::eventually;

/// The apex of every installation; a test's tenants have names of their own.
pub const DOMAIN: &str = "registry.test";
/// Label of the Tenants of one installation.
const LABEL: &str = "berth.dev/installation";

/// What an installation is to be like.
#[derive(Default)]
pub struct Installer {
    plane: Option<ControlPlane>,
    flags: Vec<String>,
    registry: Option<Berth>,
    keys: Option<String>,
    operator: Option<PathBuf>,
    way: Option<String>,
}

impl Installer {
    /// Another release's operator.
    pub fn operator(mut self, program: &Path) -> Self {
        self.operator = Some(program.to_owned());
        self
    }

    /// The operators reach the API server at this `host:port`, which leads to it.
    pub fn way(mut self, address: &str) -> Self {
        self.way = Some(address.to_owned());
        self
    }

    /// A flag of the operator.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// A registry that runs already, with [`DOMAIN`] as its apex, instead of one of its own.
    pub fn registry(mut self, registry: Berth) -> Self {
        self.registry = Some(registry);
        self
    }

    /// In another cluster than the run's.
    pub fn plane(mut self, plane: ControlPlane) -> Self {
        self.plane = Some(plane);
        self
    }

    /// The operator makes the keys, and speaks to a registry at an address that the test starts with them.
    pub fn keys_secret(mut self, registry: &str) -> Self {
        self.keys = Some(registry.to_owned());
        self
    }

    /// Starts it.
    pub async fn start(self) -> Installation {
        let plane = match self.plane {
            Some(plane) => plane,
            None => ControlPlane::connect().await,
        };
        let id = format!("berth-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let registry = match self.registry {
            Some(registry) => registry,
            None => registry().start().await,
        };
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": id } });
        plane.apply(namespace).await.expect("a namespace");
        let mut values: Vec<String> = self
            .flags
            .iter()
            .filter_map(|flag| chart::value_of(flag))
            .collect();
        values.push(format!("domain={DOMAIN}"));
        let mut installation = Installation {
            plane,
            objects: chart::render(&id, &id, &values),
            id,
            registry,
            operators: Vec::new(),
            flags: self.flags,
            keys: self.keys,
            way: self.way,
            folder: tempfile::tempdir().expect("a folder"),
        };
        installation.authorise().await;
        match &self.operator {
            Some(program) => installation.start_operator_of(program).await,
            None => installation.start_operator().await,
        };
        installation
    }
}

fn registry() -> Builder {
    Berth::builder().flag("--domain", DOMAIN)
}

/// A namespace, a registry and its operators.
pub struct Installation {
    /// The API server.
    pub plane: ControlPlane,
    /// Name of the namespace; names of tenants begin with it.
    pub id: String,
    /// The registry.
    pub registry: Berth,
    operators: Vec<Operator>,
    flags: Vec<String>,
    keys: Option<String>,
    way: Option<String>,
    objects: Vec<Value>,
    folder: TempDir,
}

impl Installation {
    /// An installation whose routes are made by others.
    pub async fn start() -> Installation {
        Installer::default().start().await
    }

    /// One with flags of its own.
    pub fn builder() -> Installer {
        Installer::default()
    }

    /// Starts a further operator process and waits until it answers; its number.
    pub async fn start_operator(&mut self) -> usize {
        let program = PathBuf::from(setting("BERTH_BIN")).with_file_name("berth-operator");
        self.start_operator_of(&program).await
    }

    /// The same of another release.
    pub async fn start_operator_of(&mut self, program: &Path) -> usize {
        let number = self.operators.len();
        let log = self.folder.path().join(format!("operator-{number}.log"));
        let port = free_port();
        let output = File::create(&log).expect("a log");
        let mut child = Command::new(program)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .args(self.arguments(port))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .spawn()
            .expect("the operator starts");
        let probe = format!("http://127.0.0.1:{port}/readyz");
        let http = client();
        eventually("the operator is ready", Duration::from_secs(30), async || {
            attempt(http.get(&probe))
                .await
                .filter(|answer| answer.status == 200)
                .map(drop)
        })
        .await;
        assert!(
            child.try_wait().expect("a child").is_none(),
            "{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        self.operators.push(Operator { child, log, port });
        number
    }

    /// What the chart tells the operator, but for where the test has its registry and its own pace.
    fn arguments(&self, port: u16) -> Vec<String> {
        let mut own = vec![
            format!("--tenant-selector={LABEL}={}", self.id),
            format!("--ops-listen=127.0.0.1:{port}"),
        ];
        if !self
            .flags
            .iter()
            .any(|flag| flag.starts_with("--lease-duration="))
        {
            own.push("--lease-duration=3s".to_owned());
        }
        match &self.keys {
            Some(registry) => own.push(format!("--registry-url={registry}")),
            None => own.extend([
                format!("--registry-url={}", self.registry.admin_url("")),
                format!(
                    "--registry-key-file={}",
                    self.registry.data().join("keys/admin").display()
                ),
            ]),
        }
        own.extend(
            self.flags
                .iter()
                .filter(|flag| chart::value_of(flag).is_none())
                .cloned(),
        );
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let replaced: Vec<String> = own.iter().map(|argument| name(argument)).collect();
        // A file with the key goes instead of the Secret.
        let secret = |argument: &str| self.keys.is_none() && name(argument) == "--keys-secret";
        let of_chart = chart::operator_arguments(&self.objects).into_iter();
        let kept = of_chart.filter(|argument| !replaced.contains(&name(argument)) && !secret(argument));
        kept.chain(own).collect()
    }

    /// Makes the operator's service account with the rights that the chart gives it, and a kubeconfig of it.
    async fn authorise(&self) {
        let of_operator = |object: &&Value| {
            object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
                && [
                    "ServiceAccount",
                    "ClusterRole",
                    "ClusterRoleBinding",
                    "Role",
                    "RoleBinding",
                ]
                .iter()
                .any(|kind| object["kind"] == *kind)
        };
        for object in self.objects.iter().filter(of_operator) {
            self.plane.apply(object.clone()).await.expect("it is accepted");
        }
        let mut config = self
            .plane
            .kubeconfig_of(&self.id, &format!("{}-operator", self.id))
            .await;
        if let Some(way) = &self.way {
            config["clusters"][0]["cluster"]["server"] = json!(format!("https://{way}"));
        }
        std::fs::write(self.folder.path().join("kubeconfig"), config.to_string()).expect("a kubeconfig");
    }

    /// One of the operators.
    pub fn operator(&mut self, number: usize) -> &mut Operator {
        &mut self.operators[number]
    }

    /// Metrics of one of the operators.
    pub async fn metrics(&self, number: usize) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.operators[number].port);
        attempt(client().get(url)).await.expect("metrics").text()
    }

    /// What the chart renders for it.
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// What the operators have asked of the API server, by its audit log.
    pub fn requests(&self) -> Vec<Value> {
        let user = format!("system:serviceaccount:{0}:{0}-operator", self.id);
        self.plane.requests_of(&user)
    }

    /// How often the operators have written to the API server, but for renewals of the Lease.
    pub fn writes(&self) -> usize {
        let requests = self.requests();
        let writes = requests.iter().filter(|request| {
            ["create", "update", "patch", "delete"]
                .iter()
                .any(|verb| request["verb"] == *verb)
                && request["objectRef"]["resource"] != "leases"
        });
        writes.count()
    }

    /// How often one of the operators has looked at objects of a kind and found them ready.
    pub async fn ready_looks(&self, number: usize, kind: &str) -> usize {
        let wanted = format!("berth_operator_reconciliations_total{{kind=\"{kind}\",outcome=\"Ready\"}} ");
        let metrics = self.metrics(number).await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Name of a tenant of this test.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.id)
    }

    /// A Tenant; nothing is applied.
    pub fn tenant(&self, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": name, "labels": { LABEL: self.id } },
            "spec": spec,
        })
    }

    /// Applies a Tenant and waits until it is ready.
    pub async fn ready_tenant(&self, name: &str, spec: Value) -> Value {
        self.plane
            .apply(self.tenant(name, spec))
            .await
            .expect("the Tenant is accepted");
        self.plane.wait_for("Tenant", "", name, "Ready", "True", "").await
    }

    /// Makes a namespace of the test's own with labels; its name.
    pub async fn namespace(&self, suffix: &str, labels: Value) -> String {
        let name = self.name(suffix);
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        });
        self.plane.apply(namespace).await.expect("a namespace");
        name
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for operator in &self.operators {
                eprintln!("--- {}\n{}", operator.log.display(), operator.log());
            }
        }
    }
}

/// A process of the operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Operator {
    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            assert!(
                Instant::now() < deadline,
                "the operator still runs: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The most memory that the process has taken so far, without the pages of its program, in bytes.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("a running process");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
