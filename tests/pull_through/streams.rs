//! What becomes of a blob whose upstream breaks off, lies or does not end.

use harness::content::blob;
use harness::http::{attempt, send};
use harness::{Fault, within};
use reqwest::Method;

use super::{AT_ONCE, KIB, MIB, Place, WAIT, at_once, digest_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_breaks_off_is_taken_up_where_it_was() {
    let place = Place::new().await;
    let layer = blob(4 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.once("GET", "/blobs/", Fault::Cut(MIB as u64 + 17));

    place.here("app").assert_blob(&digest, &layer).await;

    let asked = place.way.questions("GET", "/blobs/");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0].header("range"), "");
    let from = asked[1].header("range");
    let from = from
        .strip_prefix("bytes=")
        .and_then(|range| range.split('-').next());
    let from = from.and_then(|from| from.parse::<usize>().ok());
    let from = from.unwrap_or_else(|| panic!("the rest is asked for: {asked:?}"));
    assert!((1..=MIB + 17).contains(&from), "from {from} on");
    place.way.go_down();
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_knows_no_ranges_is_asked_for_all_again() {
    let place = Place::new().await;
    let layer = blob(2 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    // As if there were no ranges: the whole is sent once more.
    place.way.once("GET", "/blobs/", Fault::Cut(MIB as u64));
    place.way.always("GET", "/blobs/", Fault::Whole);

    let got = digest_of(place.here("app").request(Method::GET, &format!("blobs/{digest}"))).await;

    // If the client was cut off, the next attempt has it.
    if got.is_err() {
        place.here("app").assert_blob(&digest, &layer).await;
    } else {
        assert_eq!(got, Ok(digest));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_breaks_off_again_and_again_is_given_up() {
    let place = Place::new().await;
    let layer = blob(MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.always("GET", "/blobs/", Fault::Held(1000));
    let here = place.here("app");
    let request = || here.request(Method::GET, &format!("blobs/{digest}"));
    let mut answer = request().send().await.expect("an answer");
    let begun = within("the beginning", WAIT, answer.chunk()).await;
    assert!(begun.expect("no error").is_some());

    place.way.go_down();
    let rest = async {
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    };
    let end = within("an end", WAIT, rest).await;

    assert!(end.is_err(), "no regular end");
    place.way.heal();
    place.way.come_up();
    harness::eventually("it is fetched", WAIT, async || {
        (digest_of(request()).await.as_ref() == Ok(&digest)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_have_no_regular_end_and_are_not_kept() {
    let place = Place::new().await;
    let layer = blob(MIB, 1);
    let digest = place.layer("app", &layer).await;
    let (here, path) = (place.here("app"), format!("blobs/{digest}"));

    // In the middle, and in the very last byte.
    for byte in [MIB as u64 / 2, MIB as u64 - 1] {
        place.way.always("GET", "/blobs/", Fault::Flipped(byte));
        let pulled = at_once(5, async |_| digest_of(here.request(Method::GET, &path)).await).await;
        assert!(pulled.iter().all(Result::is_err), "{pulled:?}");
        place.way.forget();
        let again = digest_of(here.request(Method::GET, &path)).await;
        assert!(again.is_err(), "{again:?}");
        assert!(place.way.count("GET", "/blobs/") >= 1, "nothing is kept");
    }

    place.way.heal();
    place.way.forget();
    here.assert_blob(&digest, &layer).await;
    assert_eq!(place.way.count("GET", "/blobs/"), 1);
    place.way.go_down();
    here.assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn small_other_bytes_have_no_regular_end_either() {
    let place = Place::new().await;
    let layer = blob(100, 1);
    let digest = place.layer("app", &layer).await;
    let request = || place.here("app").request(Method::GET, &format!("blobs/{digest}"));
    place.way.once("GET", "/blobs/", Fault::Flipped(99));

    // An error before the first byte is as good.
    let got = attempt(request()).await;

    assert!(got.is_none_or(|answer| answer.status == 502));
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn an_upstream_need_not_tell_a_blob_s_length() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.always("*", "/blobs/", Fault::Without("content-length"));
    place
        .way
        .always("*", "/blobs/", Fault::Without("docker-content-digest"));
    let here = place.here("app");
    let path = format!("blobs/{digest}");

    let head = here.head(&path).await.expect(200);
    let got = send(here.request(Method::GET, &path)).await.expect(200);

    assert!(got.body == layer);
    for answer in [head, got] {
        assert_eq!(answer.header("content-length"), layer.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_an_end_is_cut() {
    let place = Place::new().await;
    let layer = blob(MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.always("GET", "/blobs/", Fault::Endless);
    let request = place.here("app").request(Method::GET, &format!("blobs/{digest}"));

    let got = within("an end", WAIT, digest_of(request)).await;

    // What was promised may have come whole before the lie showed; never more than that.
    if let Ok(got) = got {
        assert_eq!(got, digest);
    }
    harness::eventually("nobody listens to it any more", WAIT, async || {
        let asked = place.way.questions("GET", "/blobs/");
        asked.iter().all(harness::Question::is_over).then_some(())
    })
    .await;
    let asked = place.way.questions("GET", "/blobs/");
    let sent = asked.iter().map(harness::Question::sent).max();
    assert!(sent < Some(64 << 20), "{sent:?} bytes were read");
    place.way.heal();
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn a_blob_that_ends_in_order_but_too_early_is_asked_for_the_rest() {
    let place = Place::new().await;
    let layer = blob(300 * KIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.once("GET", "/blobs/", Fault::Short(1000));

    place.here("app").assert_blob(&digest, &layer).await;

    let asked = place.way.questions("GET", "/blobs/");
    assert_eq!(asked[1].header("range"), "bytes=1000-");
}

#[tokio::test]
async fn a_blob_whose_upstream_falls_silent_is_not_waited_for_without_end() {
    let place = Place::with(serde_json::json!({ "upstream": { "timeout": "1s" } })).await;
    let digest = place.layer("app", &blob(KIB, 1)).await;
    place.way.always("GET", "/blobs/", Fault::Hangs);
    let here = place.here("app");
    let request = here.request(Method::GET, &format!("blobs/{digest}"));

    let answer = within("an error", AT_ONCE, send(request)).await;

    assert!(super::is_failure(&answer), "{answer:?}");
}
