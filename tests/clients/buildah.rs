//! buildah: an image made, pushed and pulled by the libraries that podman uses.

use harness::content::blob;
use harness::{Backend, Berth, Client};

use super::tags;

on_both_backends!(builds_pushes_and_pulls_an_image);

/// buildah with a store of its own below its home; `vfs` needs no kernel support.
struct Buildah {
    client: Client,
    global: Vec<String>,
}

impl Buildah {
    fn new() -> Buildah {
        let client = Client::new("buildah").variable("BUILDAH_ISOLATION", "chroot");
        let policy = client.file(
            "policy.json",
            br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        let registries = client.file("registries.conf", b"unqualified-search-registries = []\n");
        let client = client.variable("CONTAINERS_REGISTRIES_CONF", &registries);
        client.file(
            ".config/containers/policy.json",
            br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        let global = vec![
            "--storage-driver=vfs".to_owned(),
            format!("--root={}", client.path_text("store")),
            format!("--runroot={}", client.path_text("run")),
        ];
        Buildah {
            client,
            global: [global, vec![format!("--signature-policy={policy}")]].concat(),
        }
    }

    async fn run(&self, command: &str, arguments: &[&str]) -> String {
        let (policy, global) = self.global.split_last().expect("global flags");
        let mut all: Vec<&str> = global.iter().map(String::as_str).collect();
        all.push(command);
        if ["push", "pull", "commit"].contains(&command) {
            all.push(policy);
        }
        all.extend(arguments);
        self.client.run(&all).await.text()
    }
}

async fn builds_pushes_and_pulls_an_image(backend: Backend) {
    let berth = Berth::start(backend).await;
    let buildah = Buildah::new();
    let content = blob(400_000, 30);
    let file = buildah.client.file("content.bin", &content);
    let reference = format!("{}/built/app:v1", berth.address());
    let container = buildah.run("from", &["scratch"]).await;
    buildah.run("copy", &[&container, &file, "/content.bin"]).await;
    buildah.run("commit", &[&container, &reference]).await;

    buildah.run("push", &["--tls-verify=false", &reference]).await;

    assert_eq!(tags(&berth, "built/app").await, ["v1"]);
    // A second store that knows nothing of the image.
    let fresh = Buildah::new();
    let pulled = fresh.run("pull", &["--tls-verify=false", &reference]).await;
    let container = fresh.run("from", &["--pull-never", &pulled]).await;
    let root = fresh.run("mount", &[&container]).await;
    let copied =
        std::fs::read(std::path::Path::new(&root).join("content.bin")).expect("the file in the image");
    assert!(copied == content, "the file came back with other bytes");
    fresh.run("rm", &[&container]).await;
}
