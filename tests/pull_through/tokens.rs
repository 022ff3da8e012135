//! Tokens of upstreams.

use std::time::{Duration, Instant};

use harness::content::blob;
use harness::{Fault, Guard};
use serde_json::json;

use super::{MIB, Place, at_once, is_failure};

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_pull_is_renewed() {
    for uses in [1, 2] {
        let place = Place::new().await;
        place.way.guard(Guard::bearer().good_for(uses));
        let image = place.pushed("app", "v1", 1).await;

        image.assert_pullable(&place.here("app"), "v1").await;

        let tokens = place.way.count("GET", "/token");
        assert!((2..=6).contains(&tokens), "{tokens} tokens");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_in_the_middle_of_a_blob_is_renewed() {
    let place = Place::new().await;
    let layer = blob(2 * MIB, 1);
    let digest = place.layer("app", &layer).await;
    place.way.guard(Guard::bearer().good_for(1));
    // The first is refused for want of a token.
    let cut = Fault::Cut(MIB as u64);
    place.way.times(2, "GET", "/blobs/", cut);

    place.here("app").assert_blob(&digest, &layer).await;

    assert!(place.way.count("GET", "/token") >= 2);
    let asked = place.way.questions("GET", "/blobs/");
    let resumed = asked
        .iter()
        .any(|question| question.header("range").starts_with("bytes="));
    assert!(resumed, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_need_a_token_get_it_by_one_question() {
    let place = Place::new().await;
    place.way.guard(Guard::bearer());
    let late = Fault::Late(Duration::from_millis(300));
    place.way.always("GET", "/token", late);
    let mut images = Vec::new();
    for number in 0..20 {
        images.push(place.pushed("app", &format!("v{number}"), number).await);
    }
    let here = place.here("app");

    let answers = at_once(20, async |number| here.get_manifest(&format!("v{number}")).await).await;

    for (answer, image) in answers.into_iter().zip(&images) {
        assert_eq!(answer.expect(200).body, image.manifest);
    }
    assert_eq!(place.way.count("GET", "/token"), 1);
    images[0].assert_pullable(&here, "v0").await;
    assert_eq!(place.way.count("GET", "/token"), 1, "it is kept");
}

#[tokio::test]
async fn each_repository_has_a_token_of_its_own_that_only_pulls() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    place.way.guard(Guard::bearer());
    for name in ["one", "team/two"] {
        let image = place.pushed(name, "v1", 1).await;
        image.assert_pullable(&place.here(name), "v1").await;
        image.assert_pullable(&place.here(name), "v1").await;
    }

    let asked = place.way.questions("GET", "/token");

    let scopes: Vec<String> = asked
        .iter()
        .map(|question| question.path.replace("%3A", ":").replace("%2F", "/"))
        .collect();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert!(scopes[0].contains("scope=repository:one:pull"), "{scopes:?}");
    assert!(scopes[1].contains("scope=repository:team/two:pull"), "{scopes:?}");
    assert!(scopes.iter().all(|scope| !scope.contains("push")));
    assert!(scopes.iter().all(|scope| scope.contains("service=test")));
}

#[tokio::test]
async fn a_realm_that_fails_is_an_upstream_that_fails() {
    for (fault, expected) in [
        (Fault::Answered(503, Vec::new()), vec![502, 503]),
        (
            Fault::Answered(429, vec![("retry-after", "2".to_owned())]),
            vec![429],
        ),
        (Fault::Answered(401, Vec::new()), vec![404]),
        (Fault::Answered(200, Vec::new()), vec![502, 503]),
    ] {
        let place = Place::new().await;
        place.pushed("app", "v1", 1).await;
        place.way.guard(Guard::bearer());
        place.way.always("GET", "/token", fault.clone());

        let answer = place.here("app").get_manifest("v1").await;

        assert!(
            expected.contains(&answer.status.as_u16()),
            "{fault:?}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_token_that_does_not_come_wait_side_by_side() {
    let place = Place::with(json!({ "upstream": { "timeout": "2s" } })).await;
    place.way.guard(Guard::bearer());
    place.way.always("GET", "/token", Fault::Hangs);
    let here = place.here("app");

    let begun = Instant::now();
    let answers = at_once(8, async |number| here.get_manifest(&format!("v{number}")).await).await;

    // One after the other it would be 16 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for answer in answers {
        assert!(is_failure(&answer), "{answer:?}");
    }
}
