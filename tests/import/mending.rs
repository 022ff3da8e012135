//! Failures that pass: connections that break, servers that are busy, limits.

use std::time::Duration;

use harness::content::blob;
use harness::{Berth, Fault, Faulty};

use super::{MIB, Place, Told, import, push_layer, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_breaks_goes_on_at_the_missing_byte() {
    let place = Place::new().await;
    let layer = blob(20 * MIB, 1);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let path = format!("/blobs/{digest}");
    place.way.times(2, "GET", &path, Fault::Cut(7 * MIB as u64));
    let told = place.import(&[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
    let asked = place.way.questions("GET", &path);
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0].header("range"), "");
    for question in &asked[1..] {
        assert!(question.header("range").starts_with("bytes="), "{question:?}");
    }
    let most = layer.len() as u64 + MIB as u64;
    assert!(told.figure("bytes") < most, "nothing comes twice: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_knows_no_ranges_is_read_again_from_its_first_byte() {
    let place = Place::new().await;
    let layer = blob(10 * MIB, 2);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let path = format!("/blobs/{digest}");
    place.way.once("GET", &path, Fault::Cut(3 * MIB as u64));
    place.way.always("GET", &path, Fault::Whole);
    place.import(&[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_for_a_while_is_asked_again() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 3).await;
    place.way.once("GET", "/v2/", Fault::Answered(503, vec![]));
    for part in ["/_catalog", "/tags/list", "/manifests/sha256", "/blobs/"] {
        place.way.once("GET", part, Fault::Answered(502, vec![]));
    }
    place
        .way
        .once("HEAD", "/manifests/v1", Fault::Answered(500, vec![]));
    place.import(&[]).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_waited_for_as_long_as_the_source_says() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 4).await;
    let limited = Fault::Answered(429, vec![("retry-after", "2".to_owned())]);
    place.way.once("GET", "/manifests/sha256", limited);
    place.import(&["--retries", "0"]).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;
    let asked = place.way.questions("GET", "/manifests/sha256");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(2), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_over_at_once_is_no_leave_to_ask_at_once() {
    let place = Place::new().await;
    place.pushed("app", "v1", 4).await;
    let limited = Fault::Answered(429, vec![("retry-after", "0".to_owned())]);
    place.way.times(3, "GET", "/manifests/sha256", limited);
    place.import(&["--retries", "0"]).await.all_equal();
    let asked = place.way.questions("GET", "/manifests/sha256");
    assert_eq!(asked.len(), 4, "{asked:?}");
    for pair in asked.windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(500), "{pause:?}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_told_and_copied_by_the_next_run() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 5).await;
    let other = place.pushed("other", "v1", 6).await;
    let path = format!("/v2/app/manifests/{}", image.digest());
    place.way.always("GET", &path, Fault::Answered(503, vec![]));
    let told = place.import(&["--retries", "1"]).await;
    let told = told.failed(&["app", "v1", "503"]);
    assert_eq!((told.tags("equal"), told.tags("missing")), (1, 1), "{told:?}");
    assert_eq!(place.way.count("GET", &path), 2);
    other.assert_pullable(&place.here("other"), "v1").await;

    place.way.heal();
    place.import(&[]).await.all_equal();
    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_fails_for_a_while_is_sent_what_it_lacks() {
    let place = Place::before(Berth::builder().start().await).await;
    let layer = blob(20 * MIB, 7);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let door = Faulty::before(&place.berth.address()).await;
    for method in ["POST", "PATCH", "PUT", "HEAD"] {
        door.times(2, method, "/v2/app", Fault::Answered(503, vec![]));
    }
    // Stored, and yet the answer gets lost: of one chunk, and of the end.
    door.once("PATCH", "/uploads/", Fault::Cut(0));
    door.once("PUT", "/uploads/", Fault::Cut(0));
    let told = through(&place, &door, &[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
    assert_eq!(place.way.count("GET", &format!("/blobs/{digest}")), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_still_at_an_upload_is_waited_for() {
    let place = Place::new().await;
    let layer = blob(20 * MIB, 8);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let door = Faulty::before(&place.berth.address()).await;
    // Somebody else writes; later somebody else ends it, which takes a while.
    door.times(2, "PATCH", "/uploads/", Fault::Answered(416, vec![]));
    let end = format!("digest={digest}");
    door.times(2, "PUT", &end, Fault::Answered(416, vec![]));
    through(&place, &door, &[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
    assert_eq!(place.way.count("GET", &format!("/blobs/{digest}")), 1);
    assert_eq!(door.count("PUT", &end), 3);
    assert_eq!(door.count("DELETE", "/uploads/"), 0, "it is not given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_somebody_else_holds_for_good_is_left_after_some_attempts_and_gone_on_with() {
    let place = Place::new().await;
    let layer = blob(20 * MIB, 9);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let door = Faulty::before(&place.berth.address()).await;
    let end = format!("digest={digest}");
    door.always("PUT", &end, Fault::Answered(416, vec![]));
    let told = through(&place, &door, &["--retries", "2"]).await.failed(&["app"]);
    assert_eq!(told.tags("missing"), 1, "{told:?}");
    assert_eq!(door.count("PUT", &end), 3);

    door.heal();
    place.way.forget();
    let told = through(&place, &door, &[]).await.all_equal();
    place.here("app").assert_blob(&digest, &layer).await;
    assert_eq!(place.way.count("GET", &format!("/blobs/{digest}")), 0, "{told:?}");
}

/// An import by way of this door.
async fn through(place: &Place, door: &Faulty, more: &[&str]) -> Told {
    let source = place.way.url();
    let arguments: Vec<&str> = [source.as_str()]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    run(import(&place.berth, &place.home, &door.url(), &arguments)).await
}
