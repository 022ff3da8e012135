//! crane, and with it go-containerregistry: cosign, Flux, ko.

use harness::{Backend, Berth, Client, Image, Layout};

use super::{LAYER, repository, tags, two_platforms};

on_both_backends!(
    pushes_and_pulls_an_image,
    copies_between_repositories,
    pushes_and_pulls_a_multi_platform_index,
    lists_moves_and_deletes_tags,
);

async fn pushes_and_pulls_an_image(backend: Backend) {
    let berth = Berth::start(backend).await;
    let crane = Client::new("crane");
    let image = Image::new(1, LAYER);
    let layout = Layout::of_image(&crane.path("image"), &image, "v1");
    let reference = format!("{}/app:v1", berth.address());

    crane.run(&["push", layout.path(), &reference]).await;

    assert_eq!(crane.run(&["digest", &reference]).await.text(), image.digest());
    assert!(crane.run(&["manifest", &reference]).await.stdout == image.manifest);
    assert!(crane.run(&["config", &reference]).await.stdout == image.config);
    crane
        .run(&["pull", "--format=oci", &reference, &crane.path_text("pulled")])
        .await;
    Layout::at(&crane.path("pulled")).assert_holds(&image);
    image.assert_pullable(&repository(&berth, "app"), "v1").await;
}

async fn copies_between_repositories(backend: Backend) {
    let berth = Berth::start(backend).await;
    let crane = Client::new("crane");
    let index = two_platforms(2);
    let layout = Layout::being_index(&crane.path("index"), &index);
    let (from, to) = (
        format!("{}/team/app:v1", berth.address()),
        format!("{}/prod/app:v1", berth.address()),
    );
    crane.run(&["push", "--index", layout.path(), &from]).await;

    crane.run(&["copy", &from, &to]).await;

    index.assert_pullable(&repository(&berth, "prod/app"), "v1").await;
    index.assert_pullable(&repository(&berth, "team/app"), "v1").await;
}

async fn pushes_and_pulls_a_multi_platform_index(backend: Backend) {
    let berth = Berth::start(backend).await;
    let crane = Client::new("crane");
    let index = two_platforms(3);
    let layout = Layout::being_index(&crane.path("index"), &index);
    let reference = format!("{}/deep/er/app:v1", berth.address());

    crane.run(&["push", "--index", layout.path(), &reference]).await;

    assert_eq!(crane.run(&["digest", &reference]).await.text(), index.digest());
    let arm = crane
        .run(&["digest", "--platform=linux/arm64", &reference])
        .await
        .text();
    assert_eq!(arm, index.images[1].digest());
    crane
        .run(&[
            "pull",
            "--format=oci",
            "--platform=all",
            &reference,
            &crane.path_text("pulled"),
        ])
        .await;
    let pulled = Layout::at(&crane.path("pulled"));
    pulled.assert_holds_bytes(&index.manifest);
    index.images.iter().for_each(|image| pulled.assert_holds(image));
}

async fn lists_moves_and_deletes_tags(backend: Backend) {
    let berth = Berth::start(backend).await;
    let crane = Client::new("crane");
    let image = Image::new(4, 1000);
    let app = repository(&berth, "app");
    image.push(&app, "v1").await;
    let name = format!("{}/app", berth.address());

    crane.run(&["tag", &format!("{name}:v1"), "stable"]).await;
    assert_eq!(crane.run(&["ls", &name]).await.text(), "stable\nv1");
    assert_eq!(crane.run(&["catalog", &berth.address()]).await.text(), "app");

    crane.run(&["delete", &format!("{name}:v1")]).await;
    assert_eq!(tags(&berth, "app").await, ["stable"]);
    image.assert_pullable(&app, "stable").await;

    crane
        .run(&["delete", &format!("{name}@{}", image.digest())])
        .await;
    app.get("manifests/stable").await.expect(404);
    assert!(
        !crane
            .attempt(&["manifest", &format!("{name}:stable")])
            .await
            .success
    );
}
