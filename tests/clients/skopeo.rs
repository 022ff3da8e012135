//! skopeo, and with it containers/image: podman, buildah, CRI-O.

use harness::{Backend, Berth, Client, Image, Layout};

use super::{LAYER, repository, tags, two_platforms};

on_both_backends!(
    copies_an_image_up_and_down,
    copies_a_multi_platform_index_between_repositories,
    inspects_lists_and_deletes,
);

/// skopeo with a policy file of its own: the machine may have none, or one that refuses.
struct Skopeo {
    client: Client,
    policy: String,
}

impl Skopeo {
    fn new() -> Skopeo {
        let client = Client::new("skopeo");
        let policy = client.file(
            "policy.json",
            br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        Skopeo { client, policy }
    }

    async fn run(&self, arguments: &[&str]) -> harness::Output {
        self.client
            .run(&[&["--policy", &self.policy], arguments].concat())
            .await
    }

    async fn copy(&self, arguments: &[&str]) {
        let plain_http = [
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--preserve-digests",
        ];
        self.run(&[&["copy"], &plain_http[..], arguments].concat()).await;
    }
}

async fn copies_an_image_up_and_down(backend: Backend) {
    let berth = Berth::start(backend).await;
    let skopeo = Skopeo::new();
    let image = Image::new(20, LAYER);
    let layout = Layout::of_image(&skopeo.client.path("image"), &image, "v1");
    let reference = format!("docker://{}/app:v1", berth.address());

    skopeo
        .copy(&[&format!("oci:{}:v1", layout.path()), &reference])
        .await;

    image.assert_pullable(&repository(&berth, "app"), "v1").await;
    skopeo
        .copy(&[
            &reference,
            &format!("oci:{}:v1", skopeo.client.path_text("pulled")),
        ])
        .await;
    Layout::at(&skopeo.client.path("pulled")).assert_holds(&image);
}

async fn copies_a_multi_platform_index_between_repositories(backend: Backend) {
    let berth = Berth::start(backend).await;
    let skopeo = Skopeo::new();
    let index = two_platforms(21);
    let layout = Layout::of_index(&skopeo.client.path("index"), &index, "v1");
    let from = format!("docker://{}/team/app:v1", berth.address());
    let to = format!("docker://{}/prod/app:v1", berth.address());

    skopeo
        .copy(&["--all", &format!("oci:{}:v1", layout.path()), &from])
        .await;
    skopeo.copy(&["--all", &from, &to]).await;

    index.assert_pullable(&repository(&berth, "team/app"), "v1").await;
    index.assert_pullable(&repository(&berth, "prod/app"), "v1").await;
    skopeo
        .copy(&[
            "--all",
            &to,
            &format!("oci:{}:v1", skopeo.client.path_text("pulled")),
        ])
        .await;
    let pulled = Layout::at(&skopeo.client.path("pulled"));
    index.images.iter().for_each(|image| pulled.assert_holds(image));
}

async fn inspects_lists_and_deletes(backend: Backend) {
    let berth = Berth::start(backend).await;
    let skopeo = Skopeo::new();
    let app = repository(&berth, "app");
    let image = Image::new(22, 1000);
    image.push(&app, "v1").await;
    Image::new(23, 1000).push(&app, "v2").await;
    let name = format!("docker://{}/app", berth.address());

    let raw = skopeo
        .run(&["inspect", "--tls-verify=false", "--raw", &format!("{name}:v1")])
        .await;
    assert_eq!(raw.stdout, image.manifest);
    let listed = skopeo.run(&["list-tags", "--tls-verify=false", &name]).await;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("skopeo prints JSON");
    assert_eq!(listed["Tags"], serde_json::json!(["v1", "v2"]));

    skopeo
        .run(&["delete", "--tls-verify=false", &format!("{name}:v1")])
        .await;
    assert_eq!(tags(&berth, "app").await, ["v2"]);
}
