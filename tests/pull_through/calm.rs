//! An upstream that refuses, fails or is late.

use std::time::{Duration, Instant};

use harness::content::sha256;
use harness::{Fault, eventually, within};
use serde_json::json;

use super::{AT_ONCE, Place, WAIT, is_failure, is_stale};

fn limited(seconds: u64) -> Fault {
    Fault::Answered(429, vec![("retry-after", seconds.to_string())])
}

fn failing(status: u16) -> Fault {
    Fault::Answered(status, Vec::new())
}

/// Each pull looks at the tag.
async fn watchful() -> Place {
    Place::with(json!({ "tags": { "revalidateAfter": "0s" }, "upstream": { "timeout": "1s" } })).await
}

#[tokio::test]
async fn a_cached_tag_is_served_while_the_upstream_limits_pulls_and_nobody_asks_it_meanwhile() {
    let place = watchful().await;
    let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
    image.assert_pullable(&here, "v1").await;
    place.way.always("*", "/app/", limited(2));
    place.way.forget();

    for _ in 0..5 {
        let answer = here.get_manifest("v1").await.expect(200);
        assert!(is_stale(&answer), "{answer:?}");
        assert_eq!(answer.body, image.manifest);
    }
    let refused = place.asked();
    assert_eq!(refused.len(), 1, "{refused:?}");
    // What is meant by its digest is what it is.
    let by_digest = here.get_manifest(&image.digest()).await.expect(200);
    assert!(!is_stale(&by_digest));
    image.assert_pullable(&here, "v1").await;

    place.way.heal();
    eventually("the upstream is asked again", WAIT, async || {
        let answer = here.get_manifest("v1").await.expect(200);
        (!is_stale(&answer)).then_some(())
    })
    .await;
    let asked = place.asked();
    let pause = asked[1].at.duration_since(refused[0].at);
    assert!(pause >= Duration::from_millis(1900), "{pause:?}");
}

#[tokio::test]
async fn what_is_not_cached_is_refused_with_the_pause_that_the_upstream_wants() {
    let place = watchful().await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    place.way.always("*", "/app/", limited(2));

    let begun = Instant::now();
    for path in ["manifests/v1".to_owned(), format!("manifests/{}", image.digest())] {
        let answer = here.get(&path).await.expect(429);
        assert_eq!(answer.error_code(), "TOOMANYREQUESTS", "{path}");
        let pause: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=3).contains(&pause), "{pause}");
    }
    assert_eq!(place.asked().len(), 1);

    place.way.heal();
    eventually("the upstream is asked again", WAIT, async || {
        let answer = here.get_manifest("v1").await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn a_blob_that_is_not_cached_is_refused_like_a_manifest() {
    let place = watchful().await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    here.get_manifest("v1").await.expect(200);
    place.way.always("*", "/blobs/", limited(2));

    let answer = here.get(&format!("blobs/{}", sha256(&image.config))).await;

    let answer = answer.expect(429);
    assert_ne!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn a_cached_tag_is_served_while_the_upstream_fails_or_is_late() {
    let down = Fault::Cut(0);
    let faults = [failing(500), failing(502), failing(503), Fault::Hangs, down];
    for fault in faults {
        let place = watchful().await;
        let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
        image.assert_pullable(&here, "v1").await;
        // HEADs have no body to be cut: a digest that differs makes it a GET.
        if let Fault::Cut(_) = fault {
            let new = place.pushed("app", "v1", 2).await;
            assert_ne!(new.digest(), image.digest());
        }
        place.way.always("*", "/manifests/", fault.clone());

        let answer = within("an answer", AT_ONCE, here.get_manifest("v1")).await;

        let answer = answer.expect(200);
        assert!(is_stale(&answer), "{fault:?}: {answer:?}");
        assert_eq!(answer.body, image.manifest);
        let head = here.head("manifests/v1").await.expect(200);
        assert!(is_stale(&head), "{fault:?}: {head:?}");
        image.assert_pullable(&here, "v1").await;
    }
}

#[tokio::test]
async fn what_is_not_cached_is_an_error_soon_while_the_upstream_fails_or_is_late() {
    for fault in [failing(500), failing(503), Fault::Hangs] {
        let place = watchful().await;
        let image = place.pushed("app", "v1", 1).await;
        place.way.always("*", "", fault.clone());
        let here = place.here("app");

        for path in [
            "manifests/v1".to_owned(),
            format!("manifests/{}", image.digest()),
            format!("blobs/{}", image.digest()),
            "tags/list".to_owned(),
        ] {
            let answer = within("an error", AT_ONCE, here.get(&path)).await;
            assert!(is_failure(&answer), "{fault:?} {path}: {answer:?}");
            assert_ne!(answer.error_code(), "", "{path}");
        }
    }
}

#[tokio::test]
async fn a_cache_that_serves_nothing_stale_fails_with_its_upstream() {
    let tags = json!({ "tags": { "revalidateAfter": "0s", "serveStaleOnError": "0s" } });
    let place = Place::with(tags).await;
    let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
    image.assert_pullable(&here, "v1").await;

    place.way.always("*", "", failing(503));
    let answer = here.get_manifest("v1").await;
    assert!(is_failure(&answer), "{answer:?}");
    place.way.heal();
    image.assert_pullable(&here, &image.digest()).await;
    eventually("the upstream is asked again", WAIT, async || {
        let answer = here.get_manifest("v1").await;
        (answer.status == 200).then_some(())
    })
    .await;

    place.way.always("*", "/app/", limited(1));
    let answer = here.get_manifest("v1").await.expect(429);
    assert_ne!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn a_stale_tag_is_served_no_longer_than_the_cache_says() {
    let tags = json!({ "tags": { "revalidateAfter": "0s", "serveStaleOnError": "3s" } });
    let place = Place::with(tags).await;
    let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
    image.assert_pullable(&here, "v1").await;
    place.way.always("*", "", failing(503));

    let answer = here.get_manifest("v1").await.expect(200);
    assert!(is_stale(&answer));

    eventually("it is too old", WAIT, async || {
        is_failure(&here.get_manifest("v1").await).then_some(())
    })
    .await;
    image.assert_pullable(&here, &image.digest()).await;
}

#[tokio::test]
async fn what_is_nowhere_is_not_asked_for_again_at_once_and_found_soon_after_it_is_pushed() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    let absent = format!("manifests/{}", sha256(b"nothing"));
    let blob = format!("blobs/{}", sha256(b"nothing"));

    for path in ["manifests/v2", &absent, &blob] {
        here.get(path).await.expect(404);
        let asked = place.asked().len();
        for _ in 0..5 {
            here.get(path).await.expect(404);
            here.head(path).await.expect(404);
        }
        assert_eq!(place.asked().len(), asked, "{path}");
    }

    let image = place.pushed("app", "v2", 2).await;
    eventually("the tag is found", WAIT, async || {
        let answer = here.get_manifest("v2").await;
        (answer.body == image.manifest).then_some(())
    })
    .await;
}
