//! The pods that tell nodes' containerd to ask a tenant: what they may, and that the program does what the chart tells it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use harness::{eventually, same_as_stored, setting};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::pods::broken;
use super::{NAMESPACE, checkout, described, find, objects, rendered};

/// Pods on nodes, for two registries.
const ON: [&str; 4] = [
    "--set",
    "nodeMirrors.enabled=true,domain=registry.example.com",
    "--set-json",
    r#"nodeMirrors.mirrors=[{"upstream":"docker.io","tenant":"acme"},
    {"upstream":"quay.io","server":"https://quay.example","tenant":"beta","ca":"/etc/berth/ca.crt"}]"#,
];

fn with<'a>(more: &[&'a str]) -> Vec<Value> {
    let on: Vec<&'a str> = ON.to_vec();
    objects(&[&on[..], more].concat())
}

fn daemon_set(objects: &[Value]) -> &Value {
    find(objects, "DaemonSet", "berth-node-mirrors")
}

fn flags(objects: &[Value]) -> Vec<String> {
    let container = &daemon_set(objects)["spec"]["template"]["spec"]["containers"][0];
    let flags = container["args"].as_array().expect("flags").iter();
    flags
        .map(|flag| flag.as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn nothing_of_it_is_made_unless_it_is_wanted() {
    let none = objects(&[]);
    assert!(none.iter().all(|object| object["kind"] != "DaemonSet"));
    let render = rendered(&[&ON[..], &["--show-only", "templates/nodemirrors.yaml"]].concat());
    same_as_stored(&checkout("tests/chart/golden/node-mirrors.yaml"), &render);
}

#[test]
fn a_pod_reaches_one_folder_of_its_node_as_root_without_capabilities_and_nothing_more() {
    let objects = with(&[]);
    let pod = &daemon_set(&objects)["spec"]["template"]["spec"];
    // The one thing that `restricted` refuses is what it is for.
    assert_eq!(
        broken(pod),
        ["a volume of another kind", "runAsNonRoot", "runAsUser"]
    );
    let volumes = json!([{ "name": "hosts", "hostPath": {
        "path": "/etc/containerd/certs.d", "type": "DirectoryOrCreate",
    } }]);
    assert_eq!(pod["volumes"], volumes);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(pod["serviceAccountName"].is_null());
    let container = &pod["containers"][0];
    assert!(container["ports"].is_null());
    let mounts = json!([{ "name": "hosts", "mountPath": "/etc/containerd/certs.d" }]);
    assert_eq!(container["volumeMounts"], mounts);
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    let update = &daemon_set(&objects)["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        update["maxUnavailable"], 0,
        "the next one takes over before the last one ends"
    );

    let closed = with(&["--set", "networkPolicy.enabled=true"]);
    let policy = &find(&closed, "NetworkPolicy", "berth-node-mirrors")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!((&policy["ingress"], &policy["egress"]), (&json!([]), &json!([])));
    let labels = &daemon_set(&closed)["spec"]["template"]["metadata"]["labels"];
    for (label, value) in policy["podSelector"]["matchLabels"].as_object().expect("labels") {
        assert_eq!(labels[label], *value);
    }
}

#[test]
fn it_may_lie_in_a_namespace_of_its_own_under_a_name_of_this_release() {
    let more = "nodeMirrors.namespace=nodes,networkPolicy.enabled=true,commonLabels.team=platform";
    let objects = with(&["--set", more]);
    let there: Vec<&Value> = objects
        .iter()
        .filter(|object| object["metadata"]["namespace"] == "nodes")
        .collect();
    let names: Vec<String> = there.iter().map(|object| described(object)).collect();
    let name = "nodes/berth-system-berth-node-mirrors";
    assert_eq!(
        names,
        [format!("NetworkPolicy {name}"), format!("DaemonSet {name}")]
    );
    for object in there {
        assert_eq!(object["metadata"]["labels"]["team"], "platform");
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/component"],
            "node-mirrors"
        );
    }
    let elsewhere = with(&[]);
    assert_eq!(daemon_set(&elsewhere)["metadata"]["namespace"], NAMESPACE);
}

#[test]
fn a_tenant_is_asked_at_its_host_unless_another_url_is_given() {
    let asked = |more: &[&str]| -> Vec<String> {
        let flags = flags(&with(more)).into_iter();
        flags
            .filter_map(|flag| {
                flag.strip_prefix("--mirror=upstream=docker.io,endpoint=")
                    .map(str::to_owned)
            })
            .collect()
    };
    assert_eq!(asked(&[]), ["https://acme.registry.example.com"]);
    assert_eq!(
        asked(&["--set", "domain=registry.localhost,externalPort=5000"]),
        ["http://acme.registry.localhost:5000"]
    );
    assert_eq!(
        asked(&["--set", "nodeMirrors.endpoint=http://{tenant}.internal:8080"]),
        ["http://acme.internal:8080"]
    );
    let own = r#"nodeMirrors.mirrors=[{"upstream":"docker.io","endpoint":"http://127.0.0.1:30500"}]"#;
    assert_eq!(
        asked(&[
            "--set",
            "nodeMirrors.endpoint=http://{tenant}.internal",
            "--set-json",
            own
        ]),
        ["http://127.0.0.1:30500"]
    );
}

/// The program as a pod of the chart runs it, on a folder of the test's.
fn program(folder: &Path, instance: &str, more: &[&str]) -> Command {
    let mut program = Command::new(PathBuf::from(setting("BERTH_BIN")).with_file_name("berth-operator"));
    program.arg("node-mirrors");
    for flag in flags(&with(more)) {
        program.arg(match flag.split_once('=').expect("a flag with a value").0 {
            "--hosts-dir" => format!("--hosts-dir={}", folder.display()),
            "--instance" => format!("--instance={instance}"),
            _ => flag,
        });
    }
    program
}

/// A running program, ended with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }

    /// As a kubelet ends it.
    fn end(mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).expect("a process id is not 0");
        kill_process(pid, Signal::TERM).expect("it takes signals");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the folder holds files for exactly these registries.
async fn holds(folder: &Path, registries: &[&str]) {
    let patience = Duration::from_secs(20);
    eventually(&format!("{registries:?} in the folder"), patience, async || {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| folder.join(name).join("hosts.toml").exists())
            .collect();
        names.sort();
        (names == registries).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_keeps_its_mirrors_over_an_update_and_loses_them_with_the_release() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("ghcr.io")).expect("a folder");
    fs::write(folder.join("ghcr.io/hosts.toml"), "server = \"https://theirs\"").expect("a file");
    let first = Running::start(program(folder, "first", &[]));
    holds(folder, &["docker.io", "ghcr.io", "quay.io"]).await;
    let text = fs::read_to_string(folder.join("quay.io/hosts.toml")).expect("a file");
    for line in [
        "# managed by berth: berth-system/berth",
        "server = \"https://quay.example\"",
        "[host.\"https://beta.registry.example.com\"]",
        "  capabilities = [\"pull\", \"resolve\"]",
        "  ca = \"/etc/berth/ca.crt\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    // The list has become shorter; both pods are there for a while.
    let less = r#"nodeMirrors.mirrors=[{"upstream":"docker.io","tenant":"acme"}]"#;
    let second = Running::start(program(folder, "second", &["--set-json", less]));
    holds(folder, &["docker.io", "ghcr.io"]).await;
    first.end();
    holds(folder, &["docker.io", "ghcr.io"]).await;
    second.end();
    holds(folder, &["ghcr.io"]).await;
    let theirs = fs::read_to_string(folder.join("ghcr.io/hosts.toml")).expect("a file");
    assert_eq!(theirs, "server = \"https://theirs\"");
    assert_eq!(
        fs::read_dir(folder).expect("a folder").count(),
        1,
        "no note is left"
    );
}

#[tokio::test]
async fn files_outlive_the_pod_where_that_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Running::start(program(
        folder.path(),
        "one",
        &["--set", "nodeMirrors.removeOnExit=false"],
    ));
    holds(folder.path(), &["docker.io", "quay.io"]).await;
    running.end();
    holds(folder.path(), &["docker.io", "quay.io"]).await;
}
