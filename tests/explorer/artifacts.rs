//! What a page says of an image, an index, and of what refers to it.

use harness::content::sha256;
use harness::image::{INDEX, MANIFEST, descriptor};
use harness::{Image, Index};
use serde_json::json;

use super::House;

/// An image with a configuration that says something.
fn image() -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let layers = vec![vec![1; 3000], vec![2; 1000]];
    let config = json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2026-01-02T03:04:05Z",
        "config": {
            "User": "1000:1000", "Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Env": ["MODE=fast"],
            "ExposedPorts": { "8080/tcp": {} }, "WorkingDir": "/srv", "Labels": { "team": "blue" },
        },
        "history": [
            { "created_by": "ADD rootfs" }, { "created_by": "ENV MODE=fast", "empty_layer": true },
            { "created_by": "COPY app" },
        ],
    });
    let config = config.to_string().into_bytes();
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor(tar, layer)).collect::<Vec<_>>(),
        "annotations": { "org.opencontainers.image.source": "https://git.test/team/app" },
    });
    (manifest.to_string().into_bytes(), config, layers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_shown_with_its_layers_configuration_history_and_commands() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "team/app").await;
    let (manifest, config, layers) = image();
    for blob in layers.iter().chain([&config]) {
        repository.push_blob(blob).await;
    }
    repository
        .put_manifest("v1", MANIFEST, &manifest)
        .await
        .expect(201);
    let program = house.program("acme", &token);

    let told = program.json("/explorer/r/team/app/-/tags/v1").await;
    assert_eq!(told["kind"], "Image");
    assert_eq!(told["digest"], sha256(&manifest));
    assert_eq!(told["totalSize"], manifest.len() + config.len() + 4000);
    assert_eq!(told["layers"][0]["madeBy"], "ADD rootfs");
    assert_eq!(told["layers"][1]["madeBy"], "COPY app");
    assert_eq!(told["history"][1]["createdBy"], "ENV MODE=fast");
    assert_eq!(told["config"]["platform"]["architecture"], "arm64");
    assert_eq!(told["config"]["exposedPorts"], json!(["8080/tcp"]));
    assert_eq!(told["config"]["labels"], json!({ "team": "blue" }));
    assert_eq!(told["tag"]["pushedBy"], "token:test");
    let host = house.host("acme");
    assert_eq!(
        told["commands"][0]["line"],
        format!("docker pull {host}/team/app:v1")
    );

    let page = program
        .get("/explorer/r/team/app/-/tags/v1")
        .await
        .expect(200)
        .text();
    for text in [
        "Container image",
        "/bin/app",
        "MODE=fast",
        "1000:1000",
        "8080/tcp",
        "https://git.test/team/app",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let path = format!("/explorer/r/team/app/-/manifests/{}", sha256(&manifest));
    let by_digest = program.json(&path).await;
    assert_eq!(by_digest["layers"], told["layers"]);
    program.get("/explorer/r/team/app/-/tags/v2").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_shown_with_its_platforms_and_what_refers_to_it() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let images = ["amd64", "arm64"].iter().zip(1..);
    let index = Index::new(
        images
            .map(|(arch, seed)| Image::of_platform(arch, seed, 1000))
            .collect(),
    );
    for image in &index.images {
        image.push(&repository, &image.digest()).await;
    }
    repository
        .put_manifest("v1", INDEX, &index.manifest)
        .await
        .expect(201);
    let signature = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
        "subject": descriptor(INDEX, &index.manifest),
    });
    let signature = signature.to_string().into_bytes();
    repository.push_blob(b"{}").await;
    repository
        .put_manifest(&sha256(&signature), MANIFEST, &signature)
        .await
        .expect(201);
    let program = house.program("acme", &token);

    let told = program.json("/explorer/r/app/-/tags/v1").await;

    assert_eq!(told["kind"], "ImageIndex");
    let platforms = told["platforms"].as_array().expect("platforms");
    assert_eq!(platforms.len(), 2);
    assert_eq!(platforms[1]["platform"]["architecture"], "arm64");
    assert_eq!(platforms[1]["digest"], index.images[1].digest());
    assert!(platforms[1]["totalSize"].as_u64() > Some(1000));
    assert_eq!(told["referrers"][0]["digest"], sha256(&signature));
    let page = program.get("/explorer/r/app/-/tags/v1").await.expect(200).text();
    for text in ["linux/arm64", "signature", "Image for several platforms"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let about = format!("/explorer/r/app/-/manifests/{}", sha256(&signature));
    let about = program.json(&about).await;
    assert_eq!(
        (&about["kind"], &about["subject"]),
        (&json!("Signature"), &json!(index.digest()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_its_config_and_children_is_shown_all_the_same() {
    let house = House::new().await;
    let token = house.token("acme").await;
    house
        .admin
        .put_tenant("acme", json!({ "repositories": { "sparse": "Always" } }))
        .await;
    let repository = house.repository("acme", &token, "app").await;
    let (manifest, ..) = image();
    harness::eventually(
        "manifests are taken without their blobs",
        std::time::Duration::from_secs(10),
        async || {
            let put = repository.put_manifest("v1", MANIFEST, &manifest).await;
            (put.status == 201).then_some(())
        },
    )
    .await;

    let told = house
        .program("acme", &token)
        .json("/explorer/r/app/-/tags/v1")
        .await;

    assert_eq!(told["layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(told["config"], serde_json::Value::Null);
    house
        .program("acme", &token)
        .get("/explorer/r/app/-/tags/v1")
        .await
        .expect(200);
}
