//! Real clients at a cache.

use harness::http::Repository;
use harness::image::INDEX;
use harness::{Client, Image, Index, Layout};

use super::{CACHE, KIB, Place};

/// An index of two images at the upstream.
pub async fn two_platforms(place: &Place) -> Index {
    let images = ["amd64", "arm64"].iter().zip(1..);
    let index = Index::new(
        images
            .map(|(architecture, seed)| Image::of_platform(architecture, seed, 300 * KIB))
            .collect(),
    );
    let there = place.there("team/app");
    for image in &index.images {
        image.push(&there, &image.digest()).await;
    }
    let put = there.put_manifest("v1", INDEX, &index.manifest);
    put.await.expect(201);
    index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crane_pulls_from_a_cache_and_copies_out_of_it() {
    let place = Place::new().await;
    let index = two_platforms(&place).await;
    let crane = Client::new("crane");
    let address = place.berth.address();
    let reference = format!("{address}/{CACHE}/team/app:v1");

    let arm = crane
        .run(&["digest", "--platform=linux/arm64", &reference])
        .await
        .text();
    assert_eq!(arm, index.images[1].digest());
    let mine = format!("{address}/mine/app:v1");
    crane.run(&["copy", &reference, &mine]).await;

    let own = Repository::new(&place.berth.url(""), "mine/app");
    index.assert_pullable(&own, "v1").await;
    assert_eq!(crane.run(&["digest", &reference]).await.text(), index.digest());
    let listed = crane.run(&["ls", &format!("{address}/{CACHE}/team/app")]).await;
    assert_eq!(listed.text(), "v1");
    let other = format!("{address}/{CACHE}/team/app:v2");
    assert!(!crane.attempt(&["copy", &mine, &other]).await.success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_copies_all_platforms_from_a_cache() {
    let place = Place::new().await;
    let index = two_platforms(&place).await;
    let skopeo = Client::new("skopeo");
    let policy = skopeo.file(
        "policy.json",
        br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    );
    let from = format!("docker://{}/{CACHE}/team/app:v1", place.berth.address());
    let to = format!("oci:{}:v1", skopeo.path_text("pulled"));

    let arguments = ["--policy", &policy, "copy", "--all", "--preserve-digests"];
    skopeo
        .run(&[&arguments[..], &["--src-tls-verify=false", &from, &to]].concat())
        .await;

    let pulled = Layout::at(&skopeo.path("pulled"));
    index.images.iter().for_each(|image| pulled.assert_holds(image));
}
