//! An upstream that is not there.

use std::time::{Duration, Instant};

use harness::{Fault, eventually, free_port};
use serde_json::json;

use super::{Place, WAIT, is_failure, is_stale};

/// What is not asked of anybody is answered in this time.
const FAST: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_upstream_that_is_down_is_not_tried_each_time_and_soon_found_to_be_back() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let image = place.pushed("app", "cached", 1).await;
    let other = place.pushed("app", "other", 2).await;
    let here = place.here("app");
    image.assert_pullable(&here, "cached").await;
    place.way.go_down();

    // Each asks for something else: it is the upstream that is given up.
    let mut number = 0;
    let mut next = async || {
        number += 1;
        let begun = Instant::now();
        let answer = here.get_manifest(&format!("tag-{number}")).await;
        assert!(is_failure(&answer), "{answer:?}");
        begun.elapsed()
    };
    for _ in 0..10 {
        next().await;
    }
    let connections = place.way.connections();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        fastest = fastest.min(next().await);
    }
    let tried = place.way.connections() - connections;
    // One may be to see whether it is back.
    assert!(tried <= 1, "tried {tried} times");
    assert!(fastest < FAST, "{fastest:?}");
    let begun = Instant::now();
    let answer = here.get_manifest("cached").await.expect(200);
    assert!(is_stale(&answer));
    assert!(begun.elapsed() < WAIT / 10);
    image.assert_pullable(&here, "cached").await;

    place.way.come_up();
    eventually("the upstream is asked again", WAIT, async || {
        let answer = here.get_manifest("other").await;
        (answer.body == other.manifest).then_some(())
    })
    .await;
    let answer = here.get_manifest("cached").await.expect(200);
    assert!(!is_stale(&answer));
}

#[tokio::test]
async fn an_upstream_that_nobody_serves_is_an_error_soon() {
    let place = Place::new().await;
    let url = format!("http://127.0.0.1:{}", free_port());
    place.configure(json!({ "upstream": { "url": url } })).await;

    for number in 0..10 {
        let begun = Instant::now();
        let answer = place.here("app").get_manifest(&format!("v{number}")).await;
        assert!(is_failure(&answer), "{answer:?}");
        assert!(begun.elapsed() < super::AT_ONCE);
    }
}

#[tokio::test]
async fn what_one_repository_does_not_have_does_not_keep_others_from_being_asked_for() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;

    for number in 0..30 {
        let name = format!("nothing-{number}");
        place.here(&name).get_manifest("v1").await.expect(404);
    }

    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test]
async fn a_cache_is_asked_for_by_its_new_upstream_as_soon_as_it_has_one() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let url = format!("http://127.0.0.1:{}", free_port());
    place.configure(json!({ "upstream": { "url": url } })).await;
    for number in 0..10 {
        let answer = place.here("app").get_manifest(&format!("v{number}")).await;
        assert!(is_failure(&answer), "{answer:?}");
    }

    place.configure(json!({})).await;

    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test]
async fn a_short_failure_is_survived_by_who_waits_for_a_blob() {
    let place = Place::new().await;
    let layer = harness::content::blob(1 << 20, 1);
    let digest = place.layer("app", &layer).await;
    // The answer has begun: there is something to go on with.
    place.way.once("GET", "/blobs/", Fault::Cut(1 << 19));

    place.here("app").assert_blob(&digest, &layer).await;
}

#[tokio::test]
async fn what_an_upstream_calls_a_bad_request_does_not_keep_others_from_being_asked_for() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    place
        .way
        .always("GET", "/bad/", Fault::Refused(400, "NAME_INVALID"));

    for number in 0..10 {
        let answer = place.here("bad").get_manifest(&format!("v{number}")).await;
        assert!(is_failure(&answer), "{answer:?}");
    }

    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test]
async fn what_is_cached_is_served_where_the_cache_cannot_even_ask() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (image, other) = (
        place.pushed("app", "v1", 1).await,
        place.pushed("app", "v2", 2).await,
    );
    let here = place.here("app");
    image.assert_pullable(&here, "v1").await;
    let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    place
        .configure(json!({ "upstream": { "caBundle": broken }, "tags": { "revalidateAfter": "0s" } }))
        .await;

    let answer = here.get_manifest("v1").await.expect(200);
    assert!(is_stale(&answer));
    image.assert_pullable(&here, &image.digest()).await;
    let listed = here.get("tags/list").await.expect(200);
    assert_eq!(listed.json()["tags"], json!(["v1"]));
    for reference in ["v2".to_owned(), other.digest()] {
        assert!(is_failure(&here.get_manifest(&reference).await), "{reference}");
    }
}
