//! Berth as Helm installs it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::clients::{helm, kubectl};
use super::machine::NODE;
use super::{PATIENCE, TenantOf, text};
use crate::backend::{Backend, Storage};
use crate::chart;
use crate::client::{Client, Output};
use crate::control_plane::ControlPlane;
use crate::environment::{program, setting};
use crate::wait::eventually;

/// The apex of the shared release; others are at a name below it.
const APEX: &str = "registry.test";
/// Label of the Tenants of one release.
const LABEL: &str = "berth.dev/installation";

/// Berth, installed by Helm. Uninstalled when dropped, unless it is the shared one.
pub struct Release {
    /// The API server.
    pub plane: ControlPlane,
    /// Name of the release, of its namespace, of its Service, and of the Deployment or StatefulSet.
    pub name: String,
    /// Its apex.
    pub domain: String,
    backend: Backend,
    storage: Option<Storage>,
    is_shared: bool,
}

impl Release {
    /// The release that most tests share: two replicas on Postgres and S3 behind the edge, at `registry.test`. Installed
    /// by the first who asks, and left to the end of the node.
    pub async fn shared() -> Release {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let release = Release {
            plane: ControlPlane::connect().await,
            name: "berth-shared".to_owned(),
            domain: APEX.to_owned(),
            backend: Backend::Distributed,
            storage: None,
            is_shared: true,
        };
        INSTALLED
            .get_or_init(async || {
                // An earlier run on the same node may have left it.
                let found = helm()
                    .attempt(&["status", &release.name, "--namespace", &release.name])
                    .await;
                if found.success {
                    return;
                }
                release.make_namespace().await;
                let stores = Storage::create(Backend::Distributed);
                release.hand_over(&stores).await;
                // They go with their servers.
                std::mem::forget(stores);
                release.helm("install", &[]).await;
            })
            .await;
        release
    }

    /// A release of a test's own, ready to take requests. `name` is one for which the edge has a certificate
    /// (`tests/tools/contour`); its apex is `<name>.registry.test`. Values are `path=value`.
    pub async fn install(name: &str, backend: Backend, values: &[&str]) -> Release {
        let mut release = Release {
            plane: ControlPlane::connect().await,
            name: format!("berth-{name}"),
            domain: format!("{name}.{APEX}"),
            backend,
            storage: None,
            is_shared: false,
        };
        release.make_namespace().await;
        if backend == Backend::Distributed {
            let stores = Storage::create(backend);
            release.hand_over(&stores).await;
            release.storage = Some(stores);
        }
        release.helm("install", values).await;
        release
    }

    /// A release in mode `embedded` from a chart that a registry holds, which `helm` may pull.
    pub async fn install_from(name: &str, helm: &Client, chart: &str, version: &str) -> Release {
        let release = Release {
            plane: ControlPlane::connect().await,
            name: format!("berth-{name}"),
            domain: format!("{name}.{APEX}"),
            backend: Backend::Embedded,
            storage: None,
            is_shared: false,
        };
        release.make_namespace().await;
        let mut arguments = vec!["install", &release.name, chart, "--version", version];
        // Shorter than any command may take: Helm says why.
        arguments.extend(["--namespace", &release.name, "--wait", "--timeout", "150s"]);
        let values = release.values();
        for value in &values {
            arguments.extend(["--set", value]);
        }
        helm.run(&arguments).await;
        release
    }

    /// Its namespace, which takes only pods that the strictest standard takes.
    async fn make_namespace(&self) {
        // An earlier release of the name may still be on its way out.
        eventually("the end of an older namespace", PATIENCE, async || {
            let found = self.plane.find("Namespace", "", &self.name).await;
            let ends = found.is_some_and(|found| !found["metadata"]["deletionTimestamp"].is_null());
            (!ends).then_some(())
        })
        .await;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": self.name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        });
        self.plane.apply(namespace).await.expect("a namespace");
    }

    /// The Secrets with its stores.
    async fn hand_over(&self, stores: &Storage) {
        let (database, bucket) = (
            stores.database().expect("a database"),
            stores.bucket().expect("a bucket"),
        );
        let secrets = [
            ("postgres", json!({ "uri": database.url() })),
            ("bucket", json!({ "url": bucket.url() })),
            (
                "bucket-key",
                json!({
                    "AWS_ACCESS_KEY_ID": setting("AWS_ACCESS_KEY_ID"),
                    "AWS_SECRET_ACCESS_KEY": setting("AWS_SECRET_ACCESS_KEY"),
                }),
            ),
        ];
        for (name, data) in secrets {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": self.name },
                "stringData": data,
            });
            self.plane.apply(secret).await.expect("a Secret");
        }
    }

    fn values(&self) -> Vec<String> {
        let mut values = vec![
            format!("domain={}", self.domain),
            format!("operator.tenantSelector={LABEL}={}", self.name),
            // The harness has installed them, for every release of the cluster.
            "crds.install=false".to_owned(),
            "exposure.mode=gateway".to_owned(),
            "exposure.gateway.name=edge".to_owned(),
            "exposure.gateway.namespace=edge".to_owned(),
            // Upstreams of caches.
            format!("registry.egressAllow={{{NODE}}}"),
        ];
        if self.backend == Backend::Distributed {
            let stores = [
                "registry.mode=distributed",
                "registry.metadata.existingSecret=postgres",
                "registry.blobs.existingSecret=bucket",
                "registry.blobs.credentials.existingSecret=bucket-key",
            ];
            values.extend(stores.map(str::to_owned));
        }
        values
    }

    /// `helm install` or `helm upgrade` with the values of the harness and further ones; waits until it is ready.
    ///
    /// # Panics
    /// If it fails; the message shows the pods of its namespace.
    pub async fn helm(&self, verb: &str, values: &[&str]) -> Output {
        let folder = chart::chart();
        let folder = folder.to_str().expect("text");
        let own = self.values();
        let mut arguments = vec![
            verb,
            &self.name,
            folder,
            "--namespace",
            &self.name,
            "--wait",
            "--timeout",
            "150s",
        ];
        for value in own.iter().map(String::as_str).chain(values.iter().copied()) {
            arguments.extend(["--set", value]);
        }
        let output = helm().attempt(&arguments).await;
        if !output.success {
            let pods = kubectl()
                .attempt(&["describe", "pods", "--namespace", &self.name])
                .await;
            panic!("helm {verb} failed: {}\n{}", output.stderr, pods.text());
        }
        output
    }

    /// `helm uninstall`; what Kubernetes keeps of it stays.
    pub async fn uninstall(&self) {
        helm()
            .run(&[
                "uninstall",
                &self.name,
                "--namespace",
                &self.name,
                "--wait",
                "--timeout",
                "150s",
            ])
            .await;
    }

    /// A Tenant of this release; nothing is applied.
    pub fn tenant(&self, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Tenant",
            "metadata": { "name": name, "labels": { LABEL: self.name } }, "spec": spec,
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

    /// A tenant with a name that no other test has, in a namespace of that name, with more in its spec. Its namespace may
    /// declare for it and holds the Secret `ci`, whose token may pull and push everything; every namespace that carries
    /// the label `pull: <tenant>` gets a pull Secret.
    pub async fn new_tenant(&self, suffix: &str, more: Value) -> TenantOf<'_> {
        let name = format!("{suffix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        self.namespace(&name, json!({})).await;
        let mut spec = json!({
            "allowedNamespaces": { "from": "All" },
            "tokens": [{
                "name": "ci", "secretRef": { "namespace": name, "name": "ci" },
                "grants": [{ "repositories": ["**"], "actions": ["pull", "push", "delete"] }],
            }],
            "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": name } }, "serviceAccounts": ["default"] },
        });
        for (key, value) in more.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        self.ready_tenant(&name, spec).await;
        let secret = self
            .plane
            .find("Secret", &name, "ci")
            .await
            .expect("the token's Secret");
        let tenant = TenantOf {
            release: self,
            host: format!("{name}.{}", self.domain),
            name,
            secret,
        };
        tenant.is_open().await;
        tenant
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        });
        self.plane.apply(namespace).await.expect("a namespace");
        // Pods are refused until the namespace has its account.
        eventually("the default service account", PATIENCE, async || {
            self.plane.find("ServiceAccount", name, "default").await.map(drop)
        })
        .await;
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = Command::new(program("kubectl"))
                .args(["describe", "pods", "--namespace", &self.name])
                .output();
            eprintln!(
                "--- pods of {}\n{}",
                self.name,
                shown.map_or_else(|e| e.to_string(), |shown| text(&shown.stdout))
            );
            for component in ["operator", "registry"] {
                let selector = format!("app.kubernetes.io/component={component}");
                let shown = Command::new(program("kubectl"))
                    .args([
                        "logs",
                        "--namespace",
                        &self.name,
                        "--tail=25",
                        "--prefix",
                        "--selector",
                        &selector,
                    ])
                    .output();
                eprintln!(
                    "--- {component}\n{}",
                    shown.map_or_else(|e| e.to_string(), |shown| text(&shown.stdout))
                );
            }
        }
        if !self.is_shared {
            let quiet = |program_name: &str, arguments: &[&str]| {
                let mut command = Command::new(program(program_name));
                command
                    .args(arguments)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                let _ = command.status();
            };
            // Tenants first, while somebody can end them.
            quiet(
                "kubectl",
                &[
                    "delete",
                    "tenants",
                    "--selector",
                    &format!("{LABEL}={}", self.name),
                    "--timeout=60s",
                ],
            );
            quiet(
                "helm",
                &[
                    "uninstall",
                    &self.name,
                    "--namespace",
                    &self.name,
                    "--wait",
                    "--timeout",
                    "2m",
                ],
            );
            quiet("kubectl", &["delete", "namespace", &self.name, "--timeout=60s"]);
            free_volumes(&self.name);
        }
    }
}

/// Makes the volumes that a namespace has left empty and available again, as a cluster's provisioner would.
fn free_volumes(namespace: &str) {
    let columns = "custom-columns=N:.metadata.name,C:.spec.claimRef.namespace,P:.spec.local.path";
    let found = Command::new(program("kubectl"))
        .args(["get", "persistentvolumes", "--no-headers", "--output", columns])
        .output();
    let Ok(found) = found else { return };
    for line in text(&found.stdout).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, claimed_by, path] = words.as_slice() else {
            continue;
        };
        if *claimed_by != namespace {
            continue;
        }
        let _ = std::fs::remove_dir_all(path).and_then(|()| std::fs::create_dir(path));
        let patch = r#"{"spec":{"claimRef":null}}"#;
        let _ = Command::new(program("kubectl"))
            .args(["patch", "persistentvolume", name, "--patch", patch])
            .stdout(Stdio::null())
            .status();
    }
}
