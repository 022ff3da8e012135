//! The Kubernetes API server of the run, spoken to in JSON as `kubectl` would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::environment::setting;
use crate::http::provide_tls;
use crate::wait::eventually;

/// Longest wait for anything that controllers do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The API server, as a user of it.
#[derive(Clone)]
pub struct ControlPlane {
    client: Client,
    kubeconfig: PathBuf,
    audit: PathBuf,
}

/// A control plane of a test's own, to be crashed. Stopped when dropped.
pub struct OwnControlPlane {
    folder: TempDir,
}

impl OwnControlPlane {
    /// Starts one, which takes some five seconds.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> OwnControlPlane {
        let plane = OwnControlPlane {
            folder: tempfile::tempdir().expect("a folder"),
        };
        plane.tool("start");
        plane
    }

    /// The API server is killed, and another one starts at the same address.
    pub fn crash(&self) {
        self.tool("crash");
    }

    /// Likewise, and tokens of service accounts are signed with a new key from now on.
    pub fn resign(&self) {
        self.tool("resign");
    }

    /// As an administrator of it, with Berth's definitions installed.
    pub async fn connect(&self) -> ControlPlane {
        let plane = self.connect_bare().await;
        plane.install_definitions().await;
        plane
    }

    /// As an administrator of it.
    pub async fn connect_bare(&self) -> ControlPlane {
        let file = |name: &str| self.folder.path().join(name);
        ControlPlane::at(file("kubeconfig"), file("audit.log")).await
    }

    fn tool(&self, action: &str) {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/cluster");
        let mut command = Command::new(tool);
        command.arg(action).arg(self.folder.path()).stdin(Stdio::null());
        let done = command.status().expect("the tool runs");
        assert!(done.success() || std::thread::panicking(), "{action} failed");
    }
}

impl Drop for OwnControlPlane {
    fn drop(&mut self) {
        self.tool("stop");
    }
}

impl ControlPlane {
    /// As an administrator, with Berth's definitions installed.
    pub async fn connect() -> ControlPlane {
        let file = |name: &str| PathBuf::from(setting(name));
        let plane = Self::at(file("BERTH_TEST_KUBECONFIG"), file("BERTH_TEST_AUDIT")).await;
        plane.install_definitions().await;
        plane
    }

    async fn at(kubeconfig: PathBuf, audit: PathBuf) -> ControlPlane {
        provide_tls();
        let file = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a usable kubeconfig")).expect("a client");
        ControlPlane {
            client,
            kubeconfig,
            audit,
        }
    }

    /// Applies Berth's definitions and waits until they are served.
    pub async fn install_definitions(&self) {
        let manifest = include_str!("../../crds/manifests/berth.yaml");
        let documents: Vec<Value> = serde_yaml::Deserializer::from_str(manifest)
            .map(|document| serde::Deserialize::deserialize(document).expect("YAML"))
            .collect();
        for document in &documents {
            let mut document = document.clone();
            // So that a release of the documents' name takes them over.
            document["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
            document["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!("berth");
            document["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!("berth-system");
            self.apply(document).await.expect("a definition is accepted");
        }
        for document in &documents {
            let name = document["metadata"]["name"].as_str().expect("a name");
            self.wait("CustomResourceDefinition", "", name, |definition| {
                condition(definition, "Established").is_some_and(|found| found["status"] == "True")
            })
            .await;
        }
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    /// Applies an object by server-side apply, as `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) -> Result<Value, kube::Error> {
        let (kind, namespace, name) = coordinates(&object);
        let params = PatchParams::apply("user").force();
        let applied = self
            .api(&kind, &namespace)
            .patch(&name, &params, &Patch::Apply(&object))
            .await?;
        Ok(value(&applied))
    }

    /// Creates an object.
    pub async fn create(&self, object: Value) -> Result<Value, kube::Error> {
        let (kind, namespace, _) = coordinates(&object);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let created = self
            .api(&kind, &namespace)
            .create(&PostParams::default(), &object)
            .await?;
        Ok(value(&created))
    }

    /// An object, if it is there.
    pub async fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let found = self.api(kind, namespace).get_opt(name).await.expect("an answer");
        found.as_ref().map(value)
    }

    /// A token of a service account, as a pod's volume holds it; without audiences, for the API server.
    pub async fn token_of(&self, namespace: &str, account: &str, audiences: &[&str]) -> String {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let mut request = TokenRequest::default();
        request.spec.audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        made.expect("a token").status.expect("a token").token
    }

    /// A kubeconfig by which a service account asks, valid for an hour.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Value {
        let token = self.token_of(namespace, account, &[]).await;
        let file = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_yaml::from_str(&file).expect("YAML");
        config["users"][0]["user"] = json!({ "token": token });
        config
    }

    /// What a user has asked, by the audit log.
    pub fn requests_of(&self, user: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.audit).expect("an audit log");
        let theirs = log.lines().filter(|line| line.contains(user));
        // The last line may still be under way.
        theirs
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Objects with labels.
    pub async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Vec<Value> {
        let params = ListParams::default().labels(labels);
        let found = self.api(kind, namespace).list(&params).await.expect("an answer");
        found.items.iter().map(value).collect()
    }

    /// Merges into an object.
    pub async fn merge(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Value {
        let patch = Patch::Merge(&patch);
        let merged = self
            .api(kind, namespace)
            .patch(name, &PatchParams::default(), &patch)
            .await;
        value(&merged.expect("the patch is accepted"))
    }

    /// Merges into an object's status.
    pub async fn merge_status(&self, kind: &str, namespace: &str, name: &str, status: Value) {
        let patch = json!({ "status": status });
        let api = self.api(kind, namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the status is accepted");
    }

    /// Deletes an object, which may take its time to go.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let deleted = self
            .api(kind, namespace)
            .delete(name, &DeleteParams::default())
            .await;
        deleted.expect("the deletion is accepted");
    }

    /// Removes a pod that is to go, as its node does once nothing of it runs.
    pub async fn end_pod(&self, namespace: &str, name: &str) {
        // Somebody else may have been faster.
        let _ = self
            .api("Pod", namespace)
            .delete(name, &DeleteParams::default().grace_period(0))
            .await;
    }

    /// A document that the API server serves.
    pub async fn document(&self, path: &str) -> Value {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let text = self.client.request_text(request).await.expect("a document");
        serde_json::from_str(&text).expect("JSON")
    }

    /// `host:port` of it.
    ///
    /// # Panics
    /// If its kubeconfig names none.
    pub fn address(&self) -> String {
        let file = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let config: Value = serde_yaml::from_str(&file).expect("YAML");
        let server = config["clusters"][0]["cluster"]["server"].as_str();
        let address = server.and_then(|server| server.strip_prefix("https://"));
        address.expect("an address").to_owned()
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Waits until an object is as it should be, and returns it.
    pub async fn wait(&self, kind: &str, namespace: &str, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        let last = std::sync::Mutex::new(None);
        let what = format!("{kind} {namespace}/{name}");
        let found = tokio::time::timeout(
            PATIENCE,
            eventually(&what, PATIENCE * 2, async || {
                let found = self.find(kind, namespace, name).await;
                *last.lock().expect("no panic") = found.clone();
                found.filter(|found| is(found))
            }),
        );
        match found.await {
            Ok(found) => found,
            Err(_) => panic!(
                "{what} is not as awaited: {:#}",
                last.lock().expect("no panic").clone().unwrap_or_default()
            ),
        }
    }

    /// Waits until an object's condition has this status and reason.
    pub async fn wait_for(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        aspect: &str,
        status: &str,
        reason: &str,
    ) -> Value {
        self.wait(kind, namespace, name, |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && condition(object, aspect).is_some_and(|found| {
                    found["status"] == status && (reason.is_empty() || found["reason"] == reason)
                })
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn wait_gone(&self, kind: &str, namespace: &str, name: &str) {
        let what = format!("the end of {kind} {namespace}/{name}");
        eventually(&what, PATIENCE, async || {
            self.find(kind, namespace, name).await.is_none().then_some(())
        })
        .await;
    }

    /// What applying an object would store, as `kubectl apply --server-side --dry-run=server` says; unknown fields are
    /// refused.
    pub async fn dry_run(&self, object: Value) -> Result<Value, kube::Error> {
        let (kind, namespace, name) = coordinates(&object);
        let params = PatchParams::apply("user").force().dry_run().validation_strict();
        let api = self.api(&kind, &namespace);
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await?;
        Ok(value(&applied))
    }
}

/// A condition of an object's status.
pub fn condition<'a>(object: &'a Value, aspect: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == aspect)
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("JSON")
}

fn coordinates(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "Tenant" => ("berth.dev", "v1alpha1", "tenants"),
        "Repository" => ("berth.dev", "v1alpha1", "repositories"),
        "RetentionPolicy" => ("berth.dev", "v1alpha1", "retentionpolicies"),
        "PullThroughCache" => ("berth.dev", "v1alpha1", "pullthroughcaches"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        "Ingress" => ("networking.k8s.io", "v1", "ingresses"),
        "HTTPRoute" => ("gateway.networking.k8s.io", "v1", "httproutes"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        "Event" => ("events.k8s.io", "v1", "events"),
        "Namespace" => ("", "v1", "namespaces"),
        "Secret" => ("", "v1", "secrets"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        "Service" => ("", "v1", "services"),
        "Node" => ("", "v1", "nodes"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "ResourceQuota" => ("", "v1", "resourcequotas"),
        "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims"),
        "Pod" => ("", "v1", "pods"),
        "Deployment" => ("apps", "v1", "deployments"),
        "DaemonSet" => ("apps", "v1", "daemonsets"),
        "StatefulSet" => ("apps", "v1", "statefulsets"),
        "SubjectAccessReview" => ("authorization.k8s.io", "v1", "subjectaccessreviews"),
        "ClusterRole" => ("rbac.authorization.k8s.io", "v1", "clusterroles"),
        "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
        "Role" => ("rbac.authorization.k8s.io", "v1", "roles"),
        "RoleBinding" => ("rbac.authorization.k8s.io", "v1", "rolebindings"),
        "EndpointSlice" => ("discovery.k8s.io", "v1", "endpointslices"),
        other => panic!("the harness does not know the kind {other}"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
