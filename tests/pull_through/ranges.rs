//! Parts of blobs through a cache.

use harness::content::blob;
use harness::http::{Answer, Repository, send};
use harness::{Fault, within};
use reqwest::Method;

use super::{AT_ONCE, KIB, MIB, Place, WAIT, digest_of};

async fn part(repository: &Repository, digest: &str, range: &str) -> Answer {
    let request = repository.request(Method::GET, &format!("blobs/{digest}"));
    send(request.header("range", range)).await
}

#[tokio::test]
async fn parts_of_a_blob_that_nobody_has_pulled_are_right() {
    let layer = blob(300 * KIB, 1);
    let size = layer.len();

    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=1000-200999".to_owned(), 1000, 200_999),
        (format!("bytes={}-", size - 5), size - 5, size - 1),
        ("bytes=-7".to_owned(), size - 7, size - 1),
        (format!("bytes=100-{}", 10 * size), 100, size - 1),
    ] {
        let place = Place::new().await;
        let digest = place.layer("app", &layer).await;
        // Not yet here, then cached.
        for _ in 0..2 {
            let answer = part(&place.here("app"), &digest, &range).await.expect(206);
            assert!(answer.body == layer[from..=to], "{range}");
            let expected = format!("bytes {from}-{to}/{size}");
            assert_eq!(answer.header("content-range"), expected);
            assert_eq!(answer.header("content-length"), (to - from + 1).to_string());
            place.here("app").assert_blob(&digest, &layer).await;
        }
    }
}

#[tokio::test]
async fn a_part_beyond_the_end_is_refused() {
    let place = Place::new().await;
    let layer = blob(KIB, 1);
    let digest = place.layer("app", &layer).await;

    for _ in 0..2 {
        let answer = part(&place.here("app"), &digest, "bytes=5000-6000").await;
        let answer = answer.expect(416);
        assert_eq!(answer.header("content-range"), format!("bytes */{KIB}"));
        place.here("app").assert_blob(&digest, &layer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_far_away_does_not_wait_for_all_before_it() {
    let place = Place::new().await;
    let layer = blob(24 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    // The whole does not come further than this.
    place.way.always("GET", "/blobs/", Fault::Held(MIB as u64));
    let here = place.here("app");
    let mut whole = here
        .request(Method::GET, &format!("blobs/{digest}"))
        .send()
        .await
        .expect("an answer");
    let begun = within("the beginning", WAIT, whole.chunk()).await;
    assert!(begun.expect("no error").is_some());

    let from = layer.len() - 1000;
    let range = format!("bytes={from}-");
    let end = within("the end of the blob", AT_ONCE, part(&here, &digest, &range)).await;

    assert!(end.expect(206).body == layer[from..]);
    place.way.release();
    while whole.chunk().await.expect("no error").is_some() {}
    here.assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_the_end_of_a_blob_first_does_not_wait_for_the_whole() {
    let place = Place::new().await;
    let layer = blob(24 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.always("GET", "/blobs/", Fault::Held(MIB as u64));
    let here = place.here("app");

    let from = layer.len() - 1000;
    let range = format!("bytes={from}-");
    let end = within("the end of the blob", AT_ONCE, part(&here, &digest, &range)).await;

    assert!(end.expect(206).body == layer[from..]);
    place.way.release();
    here.assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn other_bytes_in_a_part_are_no_part_of_what_is_kept() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = place.layer("app", &layer).await;
    let here = place.here("app");
    place.way.once("GET", "/blobs/", Fault::Flipped(2000));

    let request = here.request(Method::GET, &format!("blobs/{digest}"));
    // Whether this part has the wrong byte or not: nobody can tell by a part alone.
    let _ = harness::http::attempt(request.header("range", "bytes=1000-2999")).await;

    // Who comes while that fetch is not over shares its end.
    harness::eventually("the right bytes are fetched", WAIT, async || {
        let whole = digest_of(here.request(Method::GET, &format!("blobs/{digest}"))).await;
        (whole.as_ref() == Ok(&digest)).then_some(())
    })
    .await;
    here.assert_blob(&digest, &layer).await;
    let answer = part(&here, &digest, "bytes=1000-2999").await;
    assert!(answer.expect(206).body == layer[1000..3000]);
}
