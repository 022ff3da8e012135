//! regctl, and with it regclient: anonymous mounts, digest-algorithm, chunked uploads as last resort.

use harness::content::{blob, sha256};
use harness::{Backend, Berth, Client, Layout};

use super::{repository, tags, two_platforms};

on_both_backends!(
    copies_from_and_to_layouts,
    pushes_a_referrer_and_finds_it,
    puts_gets_and_deletes_blobs_and_tags
);

async fn regctl(berth: &Berth) -> Client {
    let regctl = Client::new("regctl");
    let config = regctl.path_text("regctl.json");
    let regctl = regctl.variable("REGCTL_CONFIG", &config);
    regctl
        .run(&[
            "registry",
            "set",
            "--tls",
            "disabled",
            "--skip-check",
            &berth.address(),
        ])
        .await;
    regctl
}

async fn copies_from_and_to_layouts(backend: Backend) {
    let berth = Berth::start(backend).await;
    let regctl = regctl(&berth).await;
    let index = two_platforms(10);
    let layout = Layout::of_index(&regctl.path("index"), &index, "v1");
    let (from, to) = (
        format!("{}/team/app:v1", berth.address()),
        format!("{}/prod/app:v1", berth.address()),
    );

    regctl
        .run(&["image", "copy", &format!("ocidir://{}:v1", layout.path()), &from])
        .await;
    regctl.run(&["image", "copy", &from, &to]).await;

    index.assert_pullable(&repository(&berth, "prod/app"), "v1").await;
    let pulled = format!("ocidir://{}:v1", regctl.path_text("pulled"));
    regctl.run(&["image", "copy", &to, &pulled]).await;
    let pulled = Layout::at(&regctl.path("pulled"));
    pulled.assert_holds_bytes(&index.manifest);
    index.images.iter().for_each(|image| pulled.assert_holds(image));
}

async fn pushes_a_referrer_and_finds_it(backend: Backend) {
    let berth = Berth::start(backend).await;
    let regctl = regctl(&berth).await;
    let image = harness::Image::new(11, 1000);
    image.push(&repository(&berth, "app"), "v1").await;
    let subject = format!("{}/app:v1", berth.address());
    let file = regctl.file("notes.txt", b"release notes");

    let put = [
        "artifact",
        "put",
        "--artifact-type",
        "application/vnd.example.notes",
        "--subject",
        &subject,
    ];
    regctl
        .run(&[&put[..], &["-f", &file, "--file-media-type", "text/plain"]].concat())
        .await;

    let list = regctl
        .run(&["artifact", "list", "--format", "{{len .Descriptors}}", &subject])
        .await
        .text();
    assert_eq!(list, "1");
    let get = [
        "artifact",
        "get",
        "--subject",
        &subject,
        "--filter-artifact-type",
        "application/vnd.example.notes",
    ];
    assert_eq!(regctl.run(&get).await.stdout, b"release notes");
}

async fn puts_gets_and_deletes_blobs_and_tags(backend: Backend) {
    let berth = Berth::start(backend).await;
    let regctl = regctl(&berth).await;
    let name = format!("{}/app", berth.address());
    let app = repository(&berth, "app");
    let image = harness::Image::new(12, 1000);
    image.push(&app, "v1").await;
    image.push(&app, "v2").await;

    assert_eq!(regctl.run(&["tag", "ls", &name]).await.text(), "v1\nv2");
    regctl.run(&["tag", "delete", &format!("{name}:v1")]).await;
    assert_eq!(tags(&berth, "app").await, ["v2"]);
    image.assert_pullable(&app, "v2").await;

    regctl
        .run(&["manifest", "delete", &format!("{name}@{}", image.digest())])
        .await;
    assert_eq!(tags(&berth, "app").await, [""; 0]);

    let layer = &image.layers[0];
    let digest = sha256(layer);
    assert!(regctl.run(&["blob", "get", &name, &digest]).await.stdout == *layer);
    regctl.run(&["blob", "delete", &name, &digest]).await;
    app.head(&format!("blobs/{digest}")).await.expect(404);

    // The same again at once, larger and different: a deleted blob leaves nothing behind.
    let content = blob(700_000, 13);
    app.push_blob(&content).await;
    assert!(
        regctl
            .run(&["blob", "get", &name, &sha256(&content)])
            .await
            .stdout
            == content
    );
}
