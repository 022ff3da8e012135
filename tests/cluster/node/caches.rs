//! Nodes that pull other registries' images through caches of a tenant.

use std::process::Command;

use harness::content::tar;
use harness::node::{NODE, Release, TenantOf, in_phase, logs, node_file, pod};
use harness::{Client, Upstream, program};
use serde_json::json;

use super::apps::{asked, leave};
use super::hosts::HostFolder;

/// Another registry, as images name it, with a cache and with a place in the node's configuration.
struct Mirrored {
    name: String,
    upstream: Upstream,
    /// What is in its image's file.
    content: String,
    _folder: HostFolder,
}

impl Mirrored {
    async fn start(tenant: &TenantOf<'_>, name: &str) -> Mirrored {
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
        let hosts = format!(
            "server = \"https://{name}\"\n\n[host.\"https://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            tenant.host
        );
        let _folder = HostFolder::write(&name, &hosts);
        Mirrored {
            name,
            upstream,
            content,
            _folder,
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
