//! What containerd does that a simpler client does not: layers in parts, several at a time; bodies that are resumed where
//! they broke; one platform of many; digests in references.

use std::collections::BTreeSet;

use harness::Client;
use harness::content::{sha256, tar};
use harness::image::{INDEX, Image, MANIFEST, descriptor};
use harness::node::{Release, TenantOf, in_phase, logs, pod, told};
use serde_json::json;

use super::apps::{Request, apps, asked, leave};
use super::cutting::{Cutting, Passed};
use super::hosts::{HostFolder, service};
use super::images::{Draft, Pushing};

const MIB: usize = 1 << 20;
/// The parts in which the node's containerd reads layers (`concurrent_layer_fetch_buffer` in tests/tools/node).
const PART: usize = 8 * MIB;

/// Bytes that no other image has, and that nothing compresses.
fn random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").expect("random bytes"),
        &mut bytes,
    )
    .expect("random bytes");
    bytes
}

/// An image with one more layer, which holds the file `/unique`; the layer's digest and the file's hash.
async fn with_layer(pushing: &Pushing<'_>, size: usize) -> (String, String) {
    let mut draft = pushing.busybox().await;
    let content = random(size);
    let layer = tar("unique", &content);
    let digest = sha256(&layer);
    pushing.layer(&mut draft, layer).await;
    pushing.finish(&draft, "v1").await;
    (digest, sha256(&content).replace("sha256:", ""))
}

/// Runs the image `v1` in a namespace, and asserts that its file is whole.
async fn runs_whole(release: &Release, namespace: &str, image: &str, hash: &str) {
    let whole = pod(namespace, "whole", image, "sha256sum /unique", json!({}));
    release.plane.apply(whole).await.expect("a pod");
    in_phase(&release.plane, namespace, "whole", "Succeeded").await;
    assert_eq!(logs(namespace, "whole").await, format!("{hash}  /unique"));
}

fn of_blob<'a>(asked: &'a [Request], digest: &str) -> Vec<&'a Request> {
    asked
        .iter()
        .filter(|request| request.is_for_blob() && request.object() == digest)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_layer_is_read_in_ranges_from_the_registry() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({ "redirect": "Never" })).await;
    let pushing = Pushing::to(&acme, "app");
    let size = 5 * PART - MIB;
    let (digest, hash) = with_layer(&pushing, size).await;
    let apps = apps(&acme, "apps").await;
    runs_whole(&release, &apps, &format!("{}:v1", pushing.image()), &hash).await;

    let asked = asked(&acme, pushing.repository()).await;
    let parts = of_blob(&asked, &digest);
    // Each is asked for as `bytes=N-`, and left when the part is complete.
    assert_eq!(parts.len(), 5, "{parts:#?}");
    assert!(parts.iter().all(|part| part.status == 206), "{parts:#?}");
    assert!(
        parts.iter().all(|part| part.sent >= (PART - MIB) as u64),
        "{parts:#?}"
    );
    leave(&release, &apps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_of_a_large_layer_is_redirected_to_the_object_store() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    let (digest, hash) = with_layer(&pushing, 3 * PART - MIB).await;
    let apps = apps(&acme, "apps").await;
    runs_whole(&release, &apps, &format!("{}:v1", pushing.image()), &hash).await;

    let asked = asked(&acme, pushing.repository()).await;
    let parts = of_blob(&asked, &digest);
    assert_eq!(parts.len(), 3, "{parts:#?}");
    assert!(
        parts.iter().all(|part| part.status == 307 && part.sent == 0),
        "{parts:#?}"
    );
    leave(&release, &apps).await;
}

/// Pulls an image of a public tenant through a wire that breaks; what went over it of the layer.
async fn pulled_over(release: &Release, size: usize, cuts: &[u64]) -> Vec<Passed> {
    let public = json!({ "redirect": "Never", "repositories": { "visibility": "Public" } });
    let acme = release.new_tenant("acme", public).await;
    let pushing = Pushing::to(&acme, "app");
    let (digest, hash) = with_layer(&pushing, size).await;
    let wire = Cutting::start(&service(release).await, &digest, cuts).await;
    // The tenant's name leads to the node, where the wire is; nothing else is asked.
    let _folder = HostFolder::write(
        &acme.host,
        &format!("server = \"http://{}:{}\"\n", acme.host, wire.port()),
    );
    let apps = format!("{}-apps", acme.name);
    release.namespace(&apps, json!({})).await;
    runs_whole(release, &apps, &format!("{}:v1", pushing.image()), &hash).await;
    leave(release, &apps).await;
    wire.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_whose_connection_breaks_is_resumed_from_the_byte_where_it_broke() {
    let release = Release::shared().await;
    // Less than a part: one request for all of it. It breaks early, in the middle of nothing, and at once.
    let size = (6 * MIB + 1536) as u64;
    let (first, second) = (100_001, 3 * MIB as u64 + 17);
    let passed = pulled_over(&release, 6 * MIB, &[first, second, 0]).await;
    let expected = [
        (0, first, true),
        (first, second, true),
        (first + second, 0, true),
        (first + second, size - first - second, false),
    ];
    let expected = expected.map(|(from, bytes, is_cut)| Passed {
        range: format!("bytes={from}-"),
        status: 206,
        bytes,
        is_cut,
    });
    assert_eq!(passed, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_read_in_parts_is_whole_although_parts_break() {
    let release = Release::shared().await;
    let passed = pulled_over(&release, 4 * PART, &[300_000, 500_000]).await;
    let cut: Vec<&Passed> = passed.iter().filter(|passed| passed.is_cut).collect();
    assert_eq!(cut.len(), 2, "{passed:#?}");
    assert!(
        passed
            .iter()
            .all(|passed| passed.status == 206 && passed.range.starts_with("bytes=")),
        "{passed:#?}"
    );
    // It goes on from within a part.
    let starts = |passed: &Passed| -> usize {
        let range = passed.range.trim_start_matches("bytes=").trim_end_matches('-');
        range.parse().expect("a position")
    };
    assert!(
        passed.iter().any(|passed| starts(passed) % PART != 0),
        "{passed:#?}"
    );
}

/// The digests that a draft's manifest, as it is stored, brings along.
fn blobs_of(manifest: &[u8]) -> BTreeSet<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    let all = std::iter::once(&manifest["config"]).chain(layers);
    all.map(|blob| blob["digest"].as_str().expect("a digest").to_owned())
        .collect()
}

/// An index over an image that runs here, one that does not, and what is said about the first; and what of it belongs
/// here: the index, one manifest, its blobs.
async fn index(pushing: &Pushing<'_>, draft: &Draft, reference: &str) -> (String, BTreeSet<String>) {
    let amd64 = pushing.finish(draft, "amd64").await;
    let stored = pushing.stored("amd64").await;
    let arm64 = Image::of_platform("arm64", u64::from(uuid::Uuid::new_v4().as_fields().0), 1000);
    for blob in arm64.blobs() {
        pushing.blob(blob.to_vec()).await;
    }
    let other: serde_json::Value = serde_json::from_slice(&arm64.manifest).expect("JSON");
    pushing.manifest("arm64", MANIFEST, &other).await;
    let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": [] })
        .to_string()
        .into_bytes();
    let config = json!({ "architecture": "unknown", "os": "unknown", "rootfs": { "type": "layers", "diff_ids": [sha256(&statement)] } })
        .to_string()
        .into_bytes();
    let attestation = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.in-toto+json", &statement)],
    });
    pushing.blob(statement).await;
    pushing.blob(config).await;
    pushing.manifest("attestation", MANIFEST, &attestation).await;

    let child = |manifest: &[u8], architecture: &str, os: &str| {
        let mut child = descriptor(MANIFEST, manifest);
        child["platform"] = json!({ "architecture": architecture, "os": os });
        child
    };
    let mut about = child(&pushing.stored("attestation").await, "unknown", "unknown");
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": amd64,
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [child(&pushing.stored("arm64").await, "arm64", "linux"), child(&stored, "amd64", "linux"), about],
    });
    let digest = pushing.manifest(reference, INDEX, &index).await;
    let mut here = blobs_of(&stored);
    here.extend([amd64, digest.clone()]);
    (digest, here)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_index_the_node_asks_for_its_own_platform_and_for_nothing_else() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    let mut draft = pushing.busybox().await;
    let own = tar("unique", &random(1000));
    pushing.layer(&mut draft, own).await;
    let (digest, here) = index(&pushing, &draft, "v1").await;
    let apps = apps(&acme, "apps").await;
    let image = format!("{}:v1", pushing.image());
    let runs = pod(&apps, "runs", &image, "uname -m", json!({}));
    release.plane.apply(runs).await.expect("a pod");
    let done = in_phase(&release.plane, &apps, "runs", "Succeeded").await;
    assert_eq!(logs(&apps, "runs").await, "x86_64");
    let id = done["status"]["containerStatuses"][0]["imageID"].to_string();
    assert!(id.contains(&digest), "{id}");

    let asked = asked(&acme, pushing.repository()).await;
    let objects: BTreeSet<String> = asked
        .iter()
        .map(|request| request.object().to_owned())
        .filter(|object| object != "v1")
        .collect();
    // The layer of busybox is on the node already, as often as another image has brought it.
    assert!(objects.is_subset(&here), "{objects:#?} of {here:#?}");
    let shared = here.difference(&objects).count();
    assert!(shared <= 1, "{objects:#?} of {here:#?}");
    leave(&release, &apps).await;
}

/// A digest that nothing has.
fn absent() -> String {
    sha256(uuid::Uuid::new_v4().as_bytes())
}

/// Waits until a pod has run this image, and returns what its file says.
async fn ran(acme: &TenantOf<'_>, namespace: &str, name: &str, digest: &str) -> String {
    let done = in_phase(&acme.release.plane, namespace, name, "Succeeded").await;
    let id = done["status"]["containerStatuses"][0]["imageID"].to_string();
    assert!(id.contains(digest), "{id}");
    logs(namespace, name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_name_images_by_digest_and_a_tag_beside_it_is_not_looked_at() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    let base = pushing.busybox().await;
    let mut digests = Vec::new();
    for version in ["first", "second"] {
        let mut draft = base.clone();
        pushing.layer(&mut draft, tar("unique", version.as_bytes())).await;
        digests.push(pushing.finish(&draft, "v1").await);
    }
    let (apps, image) = (apps(&acme, "apps").await, pushing.image());
    // The tag has moved on; the digest has not, and beside a digest no tag need even be there.
    let by_digest = [
        ("by-digest", format!("{image}@{}", digests[0])),
        ("with-tag", format!("{image}:v1@{}", digests[0])),
        ("with-no-tag", format!("{image}:none@{}", digests[0])),
    ];
    let by_tag = ("by-tag", format!("{image}:v1"));
    for (name, reference) in by_digest.iter().chain([&by_tag]) {
        let runs = pod(&apps, name, reference, "cat /unique", json!({}));
        release.plane.apply(runs).await.expect("a pod");
    }
    for (name, _) in &by_digest {
        assert_eq!(ran(&acme, &apps, name, &digests[0]).await, "first");
    }
    assert_eq!(ran(&acme, &apps, by_tag.0, &digests[1]).await, "second");
    let asked = asked(&acme, pushing.repository()).await;
    let tags = asked
        .iter()
        .filter(|request| !request.object().starts_with("sha256:"));
    assert!(
        tags.clone().count() > 0 && tags.clone().all(|request| request.object() == "v1"),
        "{asked:#?}"
    );
    let nowhere = format!("{image}:v1@{}", absent());
    let nothing = pod(&apps, "nothing", &nowhere, "true", json!({}));
    release.plane.apply(nothing).await.expect("a pod");
    let events = told(&apps, "nothing", "Failed to pull image").await;
    assert!(events.contains("not found"), "{events}");
    leave(&release, &apps).await;
}

/// The registry begins the life of a tag anew at such a HEAD (stage `lifecycle`): this shows that it is all that comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_what_is_there_asks_for_the_tag_by_head_and_puts_nothing() {
    let release = Release::shared().await;
    let acme = release.new_tenant("acme", json!({})).await;
    let pushing = Pushing::to(&acme, "app");
    with_layer(&pushing, MIB).await;
    let image = format!("{}:v1", pushing.image());
    let login = format!("x-token:{}", acme.token());
    let ctr = Client::new("ctr");
    let namespace = ["--namespace", "pushes", "images"];
    for verb in ["pull", "push"] {
        let arguments = [verb, "--user", &login, &image];
        ctr.run(&[namespace.as_slice(), &arguments].concat()).await;
    }
    ctr.run(&[namespace.as_slice(), &["remove", "--sync", &image]].concat())
        .await;

    let asked = asked(&acme, pushing.repository()).await;
    let of_tag = |method: &str| {
        let is = |request: &&Request| request.method == method && request.path.contains("/manifests/v1");
        asked.iter().filter(is).count()
    };
    assert_eq!(of_tag("PUT"), 0, "{asked:#?}");
    // One of the pull, one of the push.
    assert!(of_tag("HEAD") >= 2, "{asked:#?}");
}
