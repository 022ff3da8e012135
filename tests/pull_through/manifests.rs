//! Manifests through a cache.

use std::time::Duration;

use harness::content::sha256;
use harness::http::Repository;
use harness::image::INDEX;
use harness::{Fault, Image, Index, within};
use serde_json::json;

use super::{AT_ONCE, KIB, Place, at_once, is_failure};

#[tokio::test]
async fn a_head_tells_what_a_get_brings_whether_it_is_cached_or_not() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");

    // What was not asked for, then what only the HEAD has seen, then what is cached; first by tag, then by digest.
    for reference in ["v1".to_owned(), image.digest()] {
        for _ in 0..2 {
            let head = here.head(&format!("manifests/{reference}")).await.expect(200);
            let got = here.get_manifest(&reference).await.expect(200);
            assert_eq!(got.body, image.manifest);
            for answer in [head, got] {
                assert_eq!(answer.header("content-length"), image.manifest.len().to_string());
                assert_eq!(answer.header("content-type"), harness::image::MANIFEST);
                assert_eq!(answer.header("docker-content-digest"), image.digest());
            }
        }
    }
}

#[tokio::test]
async fn a_head_by_digest_of_what_nobody_has_asked_for_tells_its_length_and_type() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;

    let path = format!("manifests/{}", image.digest());
    let head = place.here("app").head(&path).await.expect(200);

    assert_eq!(head.header("content-length"), image.manifest.len().to_string());
    assert_eq!(head.header("content-type"), harness::image::MANIFEST);
    assert_eq!(head.header("docker-content-digest"), image.digest());
}

#[tokio::test]
async fn a_manifest_of_docker_s_own_type_keeps_its_type_and_bytes() {
    let place = Place::new().await;
    let there = place.there("app");
    let config = there.push_blob(b"{}").await;
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    // Spaces and all.
    let manifest = format!(
        "{{ \"schemaVersion\": 2,\n \"mediaType\": \"{media_type}\", \"layers\": [], \"config\": {{ \"size\": 2, \
         \"mediaType\": \"application/vnd.docker.container.image.v1+json\", \"digest\": \"{config}\" }} }}\n"
    );
    let put = there.put_manifest("v1", media_type, manifest.as_bytes());
    put.await.expect(201);

    let got = place.here("app").get_manifest("v1").await.expect(200);

    assert_eq!(got.header("content-type"), media_type);
    assert_eq!(got.text(), manifest);
}

#[tokio::test]
async fn what_is_cached_is_served_by_digest_without_a_question() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    place.way.guard(harness::Guard::bearer());
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    image.assert_pullable(&here, "v1").await;
    place.way.forget();

    image.assert_pullable(&here, &image.digest()).await;
    here.head(&format!("manifests/{}", image.digest()))
        .await
        .expect(200);

    assert!(place.asked().is_empty(), "nor for a token");
    place.way.go_down();
    image.assert_pullable(&here, &image.digest()).await;
}

#[tokio::test]
async fn other_bytes_than_a_digest_says_are_served_to_nobody_and_not_kept() {
    let place = Place::new().await;

    for (name, by_tag) in [("one", true), ("two", false)] {
        let image = place.pushed(name, "v1", 1).await;
        let here = place.here(name);
        let reference = if by_tag { "v1".to_owned() } else { image.digest() };
        place.way.always("GET", "/manifests/", Fault::Flipped(20));
        let answer = here.get_manifest(&reference).await.expect(502);
        assert!(!answer.error_code().is_empty());
        place.way.heal();
        place.way.forget();
        let got = here.get_manifest(&reference).await.expect(200);
        assert_eq!(got.body, image.manifest);
        assert_eq!(place.way.count("GET", "/manifests/"), 1, "nothing was kept");
        image.assert_pullable(&here, "v1").await;
    }
}

#[tokio::test]
async fn other_bytes_leave_the_cached_tag_as_it_is() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (here, old) = (place.here("app"), place.pushed("app", "v1", 1).await);
    old.assert_pullable(&here, "v1").await;
    let new = place.pushed("app", "v1", 2).await;

    place.way.always("GET", "/manifests/", Fault::Flipped(20));
    let answer = here.get_manifest("v1").await;

    // Either is right: the old one with a warning, or an error.
    if !is_failure(&answer) {
        assert!(super::is_stale(&answer));
        assert_eq!(answer.expect(200).body, old.manifest);
    }
    place.way.heal();
    new.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn an_upstream_need_not_tell_digests_or_lengths() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let there = "/manifests/";
    place
        .way
        .always("*", there, Fault::Without("docker-content-digest"));
    place.way.always("*", there, Fault::Without("content-length"));
    place.way.always("*", there, Fault::Without("etag"));
    let (here, old) = (place.here("app"), place.pushed("app", "v1", 1).await);

    let head = here.head("manifests/v1").await.expect(200);
    assert_eq!(head.header("content-length"), old.manifest.len().to_string());
    assert_eq!(head.header("docker-content-digest"), old.digest());
    old.assert_pullable(&here, "v1").await;
    old.assert_pullable(&here, &old.digest()).await;

    let new = place.pushed("app", "v1", 2).await;
    new.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn an_index_is_served_without_its_children_and_these_come_as_they_are_asked_for() {
    let place = Place::new().await;
    let images = ["amd64", "arm64"].iter().zip(1..);
    let index = Index::new(
        images
            .map(|(arch, seed)| Image::of_platform(arch, seed, KIB))
            .collect(),
    );
    let (there, here) = (place.there("app"), place.here("app"));
    for image in &index.images {
        image.push(&there, &image.digest()).await;
    }
    let put = there.put_manifest("v1", INDEX, &index.manifest);
    put.await.expect(201);

    let got = here.get_manifest("v1").await.expect(200);
    assert_eq!(got.body, index.manifest);
    assert_eq!(got.header("content-type"), INDEX);
    assert_eq!(place.way.count("GET", "/manifests/"), 1, "the index alone");

    let [amd, arm] = [&index.images[0], &index.images[1]];
    amd.assert_pullable(&here, &amd.digest()).await;
    assert_eq!(place.way.count("*", &arm.digest()), 0, "nobody wants it");
    assert_eq!(place.way.count("*", &sha256(&arm.config)), 0);
    arm.assert_pullable(&here, &arm.digest()).await;
    index.assert_pullable(&here, "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_many_ask_for_at_once_is_fetched_once() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let late = Fault::Late(Duration::from_millis(300));
    place.way.always("*", "/manifests/", late);
    let here = place.here("app");

    let answers = at_once(50, async |_| here.get_manifest("v1").await).await;

    for answer in answers {
        assert_eq!(answer.expect(200).body, image.manifest);
    }
    assert_eq!(place.way.count("GET", "/manifests/"), 1);
    assert!(place.way.count("HEAD", "/manifests/") <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_many_ask_for_by_its_digest_is_fetched_once() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let late = Fault::Late(Duration::from_millis(300));
    place.way.always("*", "/manifests/", late);
    let (here, digest) = (place.here("app"), image.digest());

    let answers = at_once(50, async |_| here.get_manifest(&digest).await).await;

    for answer in answers {
        assert_eq!(answer.expect(200).body, image.manifest);
    }
    assert_eq!(place.way.count("*", "/manifests/"), 1);
}

#[tokio::test]
async fn a_manifest_without_an_end_is_given_up() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    place.way.always("GET", "/manifests/", Fault::Endless);

    let asked = place.here("app");
    let answer = within("an error", AT_ONCE, asked.get_manifest("v1")).await;

    assert!(is_failure(&answer), "{answer:?}");
    let questions = place.way.questions("GET", "/manifests/");
    let sent = questions.iter().map(harness::Question::sent).max();
    assert!(sent < Some(32 << 20), "{sent:?} bytes were read");
}

#[tokio::test]
async fn what_the_upstream_does_not_have_is_not_there() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let digest = sha256(b"nothing");

    for (name, path, code) in [
        ("app", "manifests/v2".to_owned(), "MANIFEST_UNKNOWN"),
        ("app", format!("manifests/{digest}"), "MANIFEST_UNKNOWN"),
        ("app", format!("blobs/{digest}"), "BLOB_UNKNOWN"),
        ("nothing", "manifests/v1".to_owned(), "MANIFEST_UNKNOWN"),
    ] {
        let answer = place.here(name).get(&path).await.expect(404);
        assert_eq!(answer.error_code(), code, "{name} {path}");
        place.here(name).head(&path).await.expect(404);
    }
    // The prefix itself is no repository of the upstream.
    let prefix = Repository::new(&place.berth.url(""), super::CACHE);
    prefix.get_manifest("v1").await.expect(404);
    image.assert_pullable(&place.here("app"), "v1").await;
}
