//! Blobs through a cache, whole.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{attempt, send};
use harness::{Fault, eventually};
use reqwest::Method;

use super::{KIB, MIB, Place, WAIT, at_once, digest_of};

#[tokio::test]
async fn a_blob_that_nobody_has_pulled_comes_with_its_length_and_digest() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = place.layer("app", &layer).await;
    let (here, path) = (place.here("app"), format!("blobs/{digest}"));

    // Not yet here, then cached.
    for _ in 0..2 {
        let head = here.head(&path).await.expect(200);
        let got = here.get(&path).await.expect(200);
        assert!(got.body == layer);
        for answer in [head, got] {
            assert_eq!(answer.header("content-length"), layer.len().to_string());
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-type"), "application/octet-stream");
            assert_eq!(answer.header("accept-ranges"), "bytes");
        }
    }
    assert_eq!(place.way.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn a_blob_is_served_though_nobody_has_asked_for_its_manifest() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");

    for blob in image.blobs() {
        here.head(&format!("blobs/{}", sha256(blob))).await.expect(200);
        here.assert_blob(&sha256(blob), blob).await;
    }
    image.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn an_empty_blob_comes_through() {
    let place = Place::new().await;
    let digest = place.layer("app", b"").await;
    let here = place.here("app");

    for _ in 0..2 {
        let got = here.get(&format!("blobs/{digest}")).await.expect(200);
        assert_eq!(
            (got.body.len(), got.header("content-length")),
            (0, "0"),
            "{got:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_every_size_come_through_cold() {
    let place = Place::new().await;
    // Around what is shown before there is a session, and around the window.
    let sizes = [1, 2, 100, MIB - 1, MIB, MIB + 1, 8 * MIB, 8 * MIB + 1];

    for (size, seed) in sizes.into_iter().zip(1..) {
        let layer = blob(size, seed);
        let digest = place.layer(&format!("app-{size}"), &layer).await;
        let here = place.here(&format!("app-{size}"));
        for _ in 0..2 {
            here.assert_blob(&digest, &layer).await;
        }
        assert_eq!(place.way.count("GET", "/blobs/"), 1, "{size}");
    }
}

#[tokio::test]
async fn a_blob_of_another_repository_of_the_upstream_is_not_in_this_one() {
    let place = Place::new().await;
    let layer = blob(KIB, 1);
    let digest = place.layer("one", &layer).await;
    place.here("one").assert_blob(&digest, &layer).await;
    place.layer("two", b"other").await;

    let answer = place.here("two").get(&format!("blobs/{digest}")).await;

    assert_eq!(answer.expect(404).error_code(), "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_many_ask_for_at_once_is_fetched_once() {
    let place = Place::new().await;
    let digest = place.layer("app", &blob(8 * MIB, 1)).await;
    let rate = 16 * MIB as u64;
    place.way.always("GET", "/blobs/", Fault::Slow(rate));
    let (here, path) = (place.here("app"), format!("blobs/{digest}"));

    let pulled = at_once(30, async |_| digest_of(here.request(Method::GET, &path)).await).await;

    assert_eq!(pulled, vec![Ok(digest.clone()); 30]);
    assert_eq!(place.way.count("GET", "/blobs/"), 1);
    assert_eq!(digest_of(here.request(Method::GET, &path)).await, Ok(digest));
    assert_eq!(place.way.count("GET", "/blobs/"), 1, "it is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_to_a_fetch_gets_all_from_the_beginning() {
    let place = Place::new().await;
    let digest = place.layer("app", &blob(4 * MIB, 1)).await;
    place.way.always("GET", "/blobs/", Fault::Held(2 * MIB as u64));
    let (here, path) = (place.here("app"), format!("blobs/{digest}"));
    let pull = || tokio::spawn(digest_of(here.request(Method::GET, &path)));

    let first = pull();
    eventually("the fetch is in its middle", WAIT, async || {
        let asked = place.way.questions("GET", "/blobs/");
        asked
            .iter()
            .any(|question| question.sent() >= 2 * MIB as u64)
            .then_some(())
    })
    .await;
    // It gets what there is while the rest is still held.
    let mut second = here.request(Method::GET, &path).send().await.expect("an answer");
    let begun = harness::within("the beginning of the blob", WAIT, second.chunk()).await;
    assert!(begun.expect("no error").is_some_and(|bytes| !bytes.is_empty()));
    let third = pull();
    place.way.release();

    for client in [first, third] {
        assert_eq!(client.await.expect("no panic"), Ok(digest.clone()));
    }
    while second.chunk().await.expect("no error").is_some() {}
    assert_eq!(place.way.count("GET", "/blobs/"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_when_the_client_that_began_it_is_gone() {
    let place = Place::new().await;
    let layer = blob(4 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.always("GET", "/blobs/", Fault::Held(MIB as u64));
    let here = place.here("app");
    let request = here.request(Method::GET, &format!("blobs/{digest}"));
    let mut answer = request.send().await.expect("an answer");
    let begun = answer.chunk().await.expect("no error");
    assert!(begun.is_some_and(|bytes| !bytes.is_empty()));

    drop(answer);
    place.way.release();

    eventually("the upstream has sent all", WAIT, async || {
        let asked = place.way.questions("GET", "/blobs/");
        let all = asked
            .iter()
            .all(|question| question.is_over() && question.sent() == layer.len() as u64);
        all.then_some(())
    })
    .await;
    here.assert_blob(&digest, &layer).await;
    assert_eq!(place.way.count("GET", "/blobs/"), 1);
    place.way.go_down();
    here.assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn a_client_that_only_asks_for_the_head_fetches_nothing() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = place.layer("app", &layer).await;

    let head = place.here("app").head(&format!("blobs/{digest}")).await;

    assert_eq!(head.expect(200).header("content-length"), layer.len().to_string());
    assert_eq!(place.way.count("GET", "/blobs/"), 0);
}

#[tokio::test]
async fn a_blob_that_is_gone_from_the_upstream_is_not_there_until_it_is_back() {
    let place = Place::new().await;
    let layer = blob(KIB, 1);
    let digest = place.layer("app", &layer).await;
    let (here, path) = (place.here("app"), format!("blobs/{digest}"));
    place.there("app").delete(&path).await.expect(202);

    assert_eq!(here.get(&path).await.expect(404).error_code(), "BLOB_UNKNOWN");

    place.there("app").push_blob(&layer).await;
    eventually("the blob is found", WAIT, async || {
        let answer = send(here.request(Method::GET, &path)).await;
        (answer.body == layer).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_images_at_once_come_through_whole() {
    let place = Place::new().await;
    place
        .way
        .always("*", "/v2/", Fault::Late(Duration::from_millis(20)));
    let mut images = Vec::new();
    for number in 0..8 {
        let name = format!("app-{}", number % 3);
        let tag = format!("v{number}");
        images.push((name.clone(), tag.clone(), place.pushed(&name, &tag, number).await));
    }

    at_once(24, async |client| {
        let (name, tag, image) = &images[client % images.len()];
        image.assert_pullable(&place.here(name), tag).await;
    })
    .await;

    let mut fetched: Vec<String> = Vec::new();
    for question in place.way.questions("GET", "/blobs/") {
        fetched.push(question.path);
    }
    fetched.sort();
    let all = fetched.len();
    fetched.dedup();
    assert_eq!(fetched.len(), all, "no blob was fetched twice");
    // Whoever asks for what is nowhere does no harm to the others.
    let nothing = place.here("app-0").request(Method::GET, "manifests/none");
    assert_eq!(attempt(nothing).await.expect("an answer").status, 404);
}
