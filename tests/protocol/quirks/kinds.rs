//! The kinds of manifests that tools push.

use harness::content::{blob, sha256, tar};
use harness::image::{INDEX, MANIFEST, descriptor};
use harness::{Image, Index};
use serde_json::{Value, json};

use super::{EMPTY, artifact, bytes, push_artifact, registry};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

#[tokio::test]
async fn a_buildkit_cache_is_an_index_or_list_whose_children_are_blobs() {
    let (_berth, repository) = registry().await;
    let (config, layer) = (b"{\"layers\":[]}".as_slice(), tar("file", &blob(1000, 1)));
    repository.push_blob(config).await;
    repository.push_blob(&layer).await;

    for (tag, kind, layer_type) in [
        ("oci", INDEX, "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("docker", DOCKER_LIST, DOCKER_LAYER),
    ] {
        let children = [descriptor(layer_type, &layer), descriptor(CACHE_CONFIG, config)];
        let cache = bytes(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": children}));
        repository.put_manifest(tag, kind, &cache).await.expect(201);
        let answer = repository.get_manifest(tag).await.expect(200);
        assert!(answer.body == cache && answer.header("content-type") == kind);
        // The cache holds its children as a manifest holds its layers.
        let refused = repository
            .delete(&format!("blobs/{}", sha256(&layer)))
            .await
            .expect(405);
        assert_eq!(refused.error_code(), "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_buildkit_cache_is_an_image_of_its_own_config_type() {
    let (_berth, repository) = registry().await;
    let (config, layer) = (b"{\"records\":[]}".as_slice(), blob(1000, 2));
    repository.push_blob(config).await;
    repository.push_blob(&layer).await;
    let manifest = bytes(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CACHE_CONFIG, config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &layer)],
    }));

    repository
        .put_manifest("cache", MANIFEST, &manifest)
        .await
        .expect(201);

    assert!(repository.get_manifest("cache").await.expect(200).body == manifest);
}

#[tokio::test]
async fn an_index_may_hold_attestations_beside_its_images() {
    let (_berth, repository) = registry().await;
    let image = Image::new(3, 100);
    image.push(&repository, &image.digest()).await;
    let attestation = Image::new(4, 100);
    attestation.push(&repository, &attestation.digest()).await;
    let mut child = descriptor(MANIFEST, &attestation.manifest);
    child["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    child["annotations"] = json!({
        "vnd.docker.reference.digest": image.digest(), "vnd.docker.reference.type": "attestation-manifest",
    });
    let children = [descriptor(MANIFEST, &image.manifest), child];
    let index = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}));

    repository.put_manifest("v1", INDEX, &index).await.expect(201);

    assert!(repository.get_manifest("v1").await.expect(200).body == index);
    image.assert_pullable(&repository, &image.digest()).await;
    attestation
        .assert_pullable(&repository, &attestation.digest())
        .await;
}

#[tokio::test]
async fn docker_images_and_lists_are_kept_as_they_are() {
    let (_berth, repository) = registry().await;
    let (config, layer) = (b"{\"os\":\"linux\"}".as_slice(), tar("file", b"text"));
    repository.push_blob(config).await;
    repository.push_blob(&layer).await;
    let manifest = bytes(&json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, config), "layers": [descriptor(DOCKER_LAYER, &layer)],
    }));
    let mut child = descriptor(DOCKER_MANIFEST, &manifest);
    child["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let list = bytes(&json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [child]}));

    for (tag, kind, document) in [("image", DOCKER_MANIFEST, manifest), ("list", DOCKER_LIST, list)] {
        repository.put_manifest(tag, kind, &document).await.expect(201);
        let answer = repository.get_manifest(tag).await.expect(200);
        assert!(
            answer.body == document && answer.header("content-type") == kind,
            "{tag}"
        );
    }
}

#[tokio::test]
async fn schema_1_is_refused_by_type_and_by_shape() {
    let (_berth, repository) = registry().await;
    let old =
        br#"{"schemaVersion":1,"name":"app","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}"#;

    for kind in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        MANIFEST,
        "",
    ] {
        let refused = repository.put_manifest("v1", kind, old).await.expect(400);
        assert_eq!(refused.error_code(), "MANIFEST_INVALID", "{kind}");
    }
}

#[tokio::test]
async fn a_type_that_the_registry_does_not_read_is_an_unsupported_type() {
    let (_berth, repository) = registry().await;

    for kind in [
        "application/json",
        "text/html",
        "application/vnd.example.manifest.v1+json",
    ] {
        let refused = repository
            .put_manifest("v1", kind, b"{\"schemaVersion\":2}")
            .await
            .expect(415);
        assert_eq!(refused.error_code(), "MANIFEST_INVALID", "{kind}");
    }
}

#[tokio::test]
async fn layers_that_live_elsewhere_need_not_be_pushed() {
    let (_berth, repository) = registry().await;
    let config = b"{\"os\":\"windows\"}".as_slice();
    repository.push_blob(config).await;
    let mut with_urls = descriptor(DOCKER_LAYER, b"elsewhere");
    with_urls["urls"] = json!(["https://example.com/layer"]);
    let layers: [Value; 4] = [
        descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            b"foreign",
        ),
        descriptor(
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            b"nondistributable",
        ),
        descriptor(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            b"nondistributable too",
        ),
        with_urls,
    ];
    let manifest = bytes(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(DOCKER_CONFIG, config), "layers": layers,
    }));

    repository
        .put_manifest("windows", MANIFEST, &manifest)
        .await
        .expect(201);

    repository
        .head(&format!("blobs/{}", sha256(b"foreign")))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_chart_is_kept_with_its_types_and_its_tag_with_an_underscore() {
    let (_berth, repository) = registry().await;
    let (config, chart, signature) = (
        b"{\"name\":\"chart\"}".as_slice(),
        blob(500, 5),
        b"signed".as_slice(),
    );
    for content in [config, &chart, signature] {
        repository.push_blob(content).await;
    }
    let manifest = bytes(&json!({
        "schemaVersion": 2, "config": descriptor("application/vnd.cncf.helm.config.v1+json", config),
        "layers": [
            descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart),
            descriptor("application/vnd.cncf.helm.chart.provenance.v1.prov", signature),
        ],
        "annotations": {"org.opencontainers.image.title": "chart"},
    }));

    repository
        .put_manifest("1.2.3_build.4", MANIFEST, &manifest)
        .await
        .expect(201);

    assert!(repository.get_manifest("1.2.3_build.4").await.expect(200).body == manifest);
}

#[tokio::test]
async fn cosign_signs_by_tags_of_a_digest_and_by_referrers() {
    let (_berth, repository) = registry().await;
    let image = Image::new(6, 10);
    let digest = image.push(&repository, "v1").await;
    let tag = digest.replace(':', "-");

    for suffix in ["sig", "att", "sbom"] {
        push_artifact(&repository, &format!("{tag}.{suffix}"), "application/x", None).await;
        repository
            .head(&format!("manifests/{tag}.{suffix}"))
            .await
            .expect(200);
    }
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let subject = descriptor(MANIFEST, &image.manifest);
    let signature = artifact(bundle, Some(subject), "signature");
    repository.push_blob(EMPTY).await;
    repository
        .put_manifest(&sha256(&signature), MANIFEST, &signature)
        .await
        .expect(201);

    let referrers = repository
        .get(&format!("referrers/{digest}"))
        .await
        .expect(200)
        .json();
    assert_eq!(referrers["manifests"][0]["artifactType"], bundle);
    assert_eq!(referrers["manifests"][0]["digest"], sha256(&signature));
}

#[tokio::test]
async fn an_index_may_hold_indexes() {
    let (_berth, repository) = registry().await;
    let image = Image::new(7, 10);
    image.push(&repository, &image.digest()).await;
    let inner = Index::new(vec![image]);
    repository
        .put_manifest(&inner.digest(), INDEX, &inner.manifest)
        .await
        .expect(201);
    let children = [descriptor(INDEX, &inner.manifest)];
    let outer = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}));

    repository.put_manifest("outer", INDEX, &outer).await.expect(201);

    inner.assert_pullable(&repository, &inner.digest()).await;
}
