//! What refers to a manifest, through a cache.

use harness::content::sha256;
use harness::http::{Answer, Repository};
use harness::image::{INDEX, MANIFEST, descriptor};
use harness::{Berth, Faulty, Image};
use serde_json::{Value, json};

use super::{KIB, Place, cached};

const SIGNATURE: &str = "application/vnd.test.signature";

/// A signature of an image.
fn signature(image: &Image) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": SIGNATURE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
        "subject": descriptor(MANIFEST, &image.manifest),
    });
    manifest.to_string().into_bytes()
}

async fn push_signature(repository: &Repository, image: &Image) -> Vec<u8> {
    let manifest = signature(image);
    repository.push_blob(b"{}").await;
    let digest = sha256(&manifest);
    let put = repository.put_manifest(&digest, MANIFEST, &manifest);
    put.await.expect(201);
    manifest
}

fn digests(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), INDEX);
    let manifests = answer.json()["manifests"].clone();
    let manifests = manifests.as_array().expect("a list");
    manifests.iter().map(|entry| entry["digest"].clone()).collect()
}

#[tokio::test]
async fn referrers_come_from_an_upstream_that_knows_them() {
    let upstream = Berth::start(harness::Backend::Embedded).await;
    let way = Faulty::before(&upstream.address()).await;
    let (berth, _admin) = cached(&way, json!({})).await;
    let there = Repository::new(&upstream.url(""), "app");
    let here = Repository::new(&berth.url(""), "up/app");
    let image = Image::new(1, KIB);
    image.push(&there, "v1").await;
    let signature = push_signature(&there, &image).await;
    let path = format!("referrers/{}", image.digest());

    let listed = here.get(&path).await.expect(200);
    assert_eq!(digests(&listed), [sha256(&signature)]);
    assert_eq!(listed.json()["manifests"][0]["artifactType"], SIGNATURE);
    let asked = way.count("*", "/referrers/");
    for (filter, expected) in [(SIGNATURE, 1), ("application/other", 0)] {
        let filtered = format!("{path}?artifactType={filter}");
        let filtered = here.get(&filtered).await.expect(200);
        assert_eq!(digests(&filtered).len(), expected, "{filter}");
    }
    here.get(&path).await.expect(200);
    assert!(
        way.count("*", "/referrers/") <= asked + 2,
        "they are kept briefly"
    );
    let got = here.get_manifest(&sha256(&signature)).await.expect(200);
    assert_eq!(got.body, signature);
    here.assert_blob(&sha256(b"{}"), b"{}").await;
}

#[tokio::test]
async fn referrers_come_from_the_tag_that_stands_for_them_at_other_upstreams() {
    let place = Place::new().await;
    let (there, here) = (place.there("app"), place.here("app"));
    let image = place.pushed("app", "v1", 1).await;
    let signature = push_signature(&there, &image).await;
    let mut entry = descriptor(MANIFEST, &signature);
    entry["artifactType"] = json!(SIGNATURE);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string();
    let tag = image.digest().replace(':', "-");
    let put = there.put_manifest(&tag, INDEX, index.as_bytes());
    put.await.expect(201);

    let path = format!("referrers/{}", image.digest());
    let listed = here.get(&path).await.expect(200);

    assert_eq!(digests(&listed), [sha256(&signature)]);
    let other = format!("{path}?artifactType=application/other");
    assert!(digests(&here.get(&other).await.expect(200)).is_empty());
    let got = here.get_manifest(&sha256(&signature)).await.expect(200);
    assert_eq!(got.body, signature);
}

#[tokio::test]
async fn what_nothing_refers_to_has_an_empty_list_and_is_not_asked_for_again_at_once() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    image.assert_pullable(&place.here("app"), "v1").await;
    let path = format!("referrers/{}", image.digest());

    let first = place.here("app").get(&path).await.expect(200);
    assert!(digests(&first).is_empty());
    place.way.forget();
    let second = place.here("app").get(&path).await.expect(200);

    assert!(digests(&second).is_empty());
    assert!(place.asked().is_empty(), "{:?}", place.asked());
}
