//! Nodes that pull other registries' images through caches of a tenant.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::content::tar;
use harness::node::{NODE, Release, TenantOf, in_phase, logs, node_file, pod};
use harness::{Client, Upstream, chart, eventually, program};
use serde_json::json;

use super::apps::{asked, leave};
use super::hosts::HostFolder;

/// Another registry, as images name it, with a cache and with a place in the node's configuration.
struct Mirrored {
    name: String,
    upstream: Upstream,
    /// What is in its image's file.
    content: String,
    /// What tells containerd, if the test does.
    folder: Option<HostFolder>,
}

impl Mirrored {
    async fn start(tenant: &TenantOf<'_>, name: &str) -> Mirrored {
        let mut mirrored = Mirrored::cached(tenant, name).await;
        let hosts = format!(
            "server = \"https://{}\"\n\n[host.\"https://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            mirrored.name, tenant.host
        );
        mirrored.folder = Some(HostFolder::write(&mirrored.name, &hosts));
        mirrored
    }

    /// Nobody has told containerd of it.
    async fn cached(tenant: &TenantOf<'_>, name: &str) -> Mirrored {
        // Nobody else's, so that the node has no layer of it.
        let name = format!("{name}-{}.test", tenant.name);
        let upstream = Upstream::start_at(NODE).await;
        let content = format!("from {name}");
        let crane = Client::new("crane");
        let (base, reference) = (
            format!("{}/team/app:base", upstream.address()),
            format!("{}/team/app:v1", upstream.address()),
        );
        let folder = crane.path_text("base");
        std::fs::create_dir(&folder).expect("a folder");
        let unpacked = Command::new("tar")
            .args(["-xf", &node_file("images/busybox.tar"), "-C", &folder])
            .status();
        assert!(unpacked.expect("tar runs").success());
        crane.run(&["push", "--insecure", &folder, &base]).await;
        let layer = crane.file("layer.tar", &tar("unique", content.as_bytes()));
        crane
            .run(&[
                "append",
                "--insecure",
                "--new_layer",
                &layer,
                "--base",
                &base,
                "--new_tag",
                &reference,
            ])
            .await;

        let spec = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "PullThroughCache",
            "metadata": { "name": name, "namespace": tenant.name },
            "spec": {
                "tenantRef": { "name": tenant.name }, "prefix": name, "mirrorFor": [name],
                "visibility": "Public", "upstream": { "url": format!("http://{}", upstream.address()) },
                "tags": { "revalidateAfter": "0s" },
            },
        });
        let plane = &tenant.release.plane;
        plane.apply(spec).await.expect("a cache");
        plane
            .wait_for("PullThroughCache", &tenant.name, &name, "Ready", "True", "")
            .await;
        Mirrored {
            name,
            upstream,
            content,
            folder: None,
        }
    }

    fn image(&self) -> String {
        format!("{}/team/app:v1", self.name)
    }

    /// Runs its image in a pod of this name, and asserts that its own layer is there.
    async fn runs(&self, release: &Release, namespace: &str, name: &str) {
        let runs = pod(namespace, name, &self.image(), "cat /unique", json!({}));
        release.plane.apply(runs).await.expect("a pod");
        in_phase(&release.plane, namespace, name, "Succeeded").await;
        assert_eq!(logs(namespace, name).await, self.content);
    }

    /// Takes its image from the node, with what no other image has.
    fn forget(&self) {
        let removed = Command::new(program("ctr"))
            .args(["--namespace", "k8s.io", "images", "rm", "--sync", &self.image()])
            .output()
            .expect("ctr runs");
        assert!(removed.status.success(), "{removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_start_from_three_registries_by_one_endpoint_also_when_all_of_them_are_dead() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let mut registries = Vec::new();
    for name in ["one", "two", "three"] {
        registries.push(Mirrored::start(&acme, name).await);
    }
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    for (n, registry) in registries.iter().enumerate() {
        registry.runs(&release, &plain, &format!("alive-{n}")).await;
    }

    for registry in &mut registries {
        registry.upstream.stop();
    }
    for (n, registry) in registries.iter().enumerate() {
        release.plane.delete("Pod", &plain, &format!("alive-{n}")).await;
        registry.forget();
        registry.runs(&release, &plain, &format!("dead-{n}")).await;
    }

    for registry in &registries {
        let asked = asked(&acme, "team/app").await;
        let meant = format!("ns={}", registry.name);
        let theirs: Vec<_> = asked
            .iter()
            .filter(|request| request.path.contains(&meant))
            .collect();
        let pulled = theirs
            .iter()
            .filter(|request| request.method == "GET" && request.is_for_blob() && request.status < 400);
        // Its own layer at least, each time.
        assert!(pulled.count() >= 2, "{theirs:#?}");
        let resolved = theirs
            .iter()
            .filter(|request| request.method == "HEAD" && request.object() == "v1" && request.status == 200);
        assert!(resolved.count() >= 2, "{theirs:#?}");
    }
    leave(&release, &plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_chart_tell_containerd_which_tenant_to_ask_and_take_it_back() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let mut registry = Mirrored::cached(&acme, "told").await;
    let nodes = format!("{}-nodes", acme.name);
    let privileged = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
    release.namespace(&nodes, privileged).await;
    let folder = node_file("certs.d");
    let values = [
        "nodeMirrors.enabled=true".to_owned(),
        format!("nodeMirrors.hostsDir={folder}"),
        format!("nodeMirrors.mirrors[0].upstream={}", registry.name),
        format!("nodeMirrors.mirrors[0].tenant={}", acme.name),
        format!("domain={}", release.domain),
    ];
    let mut objects = chart::render("berth", &nodes, &values).into_iter();
    let set = objects.find(|object| object["kind"] == "DaemonSet");
    let set = release
        .plane
        .apply(set.expect("a DaemonSet"))
        .await
        .expect("a DaemonSet");
    let set = set["metadata"]["name"].as_str().expect("a name");
    let written = PathBuf::from(&folder).join(&registry.name).join("hosts.toml");
    let limit = Duration::from_secs(120);

    eventually("the file is there", limit, async || {
        written.exists().then_some(())
    })
    .await;
    let plain = format!("{}-plain", acme.name);
    release.namespace(&plain, json!({})).await;
    registry.runs(&release, &plain, "alive").await;
    // Nobody but the tenant knows it: the name leads nowhere, and the upstream is dead.
    registry.upstream.stop();
    release.plane.delete("Pod", &plain, "alive").await;
    registry.forget();
    registry.runs(&release, &plain, "dead").await;

    release.plane.delete("DaemonSet", &nodes, set).await;
    eventually("the file is gone", limit, async || {
        (!written.exists()).then_some(())
    })
    .await;
    for namespace in [plain, nodes] {
        leave(&release, &namespace).await;
    }
}
