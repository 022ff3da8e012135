//! What is told about a cache.

use harness::{Fault, Question, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, WAIT};

/// The figures once they are as they should be: they are added up a little later than things happen.
async fn told(place: &Place, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let last = std::sync::Mutex::new(Value::Null);
    let waited = eventually(what, WAIT, async || {
        let figures = place.figures().await;
        let found = is_so(&figures).then(|| figures.clone());
        *last.lock().expect("no holder panics") = figures;
        found
    });
    let told = tokio::time::timeout(WAIT - WAIT / 60, waited).await;
    told.unwrap_or_else(|_| panic!("{what}: {}", last.lock().expect("no holder panics")))
}

fn number(figures: &Value, name: &str) -> u64 {
    let number = figures[name].as_u64();
    number.unwrap_or_else(|| panic!("{name} in {figures}"))
}

#[tokio::test]
async fn a_cache_tells_what_it_fetched_and_what_it_saved() {
    let place = Place::new().await;
    let fresh = place.figures().await;
    for name in [
        "hits",
        "misses",
        "bytesSaved",
        "bytesFetched",
        "bytes",
        "repositories",
    ] {
        assert_eq!(fresh[name], json!(0), "{name} in {fresh}");
    }
    let image = place.pushed("app", "v1", 1).await;
    let blobs: usize = image.blobs().map(<[u8]>::len).sum();
    let all = (blobs + image.manifest.len()) as u64;
    let limit = Fault::With("ratelimit-limit", "100;w=21600");
    place.way.always("*", "/manifests/", limit);
    let remaining = Fault::With("ratelimit-remaining", "76;w=21600");
    place.way.always("*", "/manifests/", remaining);
    image.assert_pullable(&place.here("app"), "v1").await;

    let first = told(&place, "all was fetched", |figures| {
        figures["bytesFetched"].as_u64() >= Some(all)
    })
    .await;

    assert!(number(&first, "misses") >= 4, "{first}");
    let sent: u64 = place.way.asked().iter().map(Question::sent).sum();
    assert!(number(&first, "bytesFetched") <= sent, "{first}");
    assert_eq!(first["rateLimit"]["limit"], 100, "{first}");
    assert_eq!(first["rateLimit"]["remaining"], 76, "{first}");
    assert_eq!(first["reachable"], true, "{first}");
    assert_eq!(first["repositories"], 1, "{first}");
    assert!(number(&first, "bytes") >= blobs as u64, "{first}");

    for _ in 0..3 {
        image.assert_pullable(&place.here("app"), "v1").await;
    }
    let second = told(&place, "something was saved", |figures| {
        figures["bytesSaved"].as_u64() >= Some(number(&first, "bytesSaved") + 3 * all)
    })
    .await;
    assert!(number(&second, "hits") >= number(&first, "hits") + 12, "{second}");
    assert_eq!(second["bytesFetched"], first["bytesFetched"]);
    assert_eq!(second["misses"], first["misses"]);
}

#[tokio::test]
async fn a_cache_tells_that_its_upstream_is_not_reached_and_that_it_is_again() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    here.get_manifest("v1").await.expect(200);
    told(&place, "it is reached", |figures| figures["reachable"] == true).await;

    place.way.go_down();
    here.get_manifest("v1").await.expect(200);
    let down = told(&place, "it is not reached", |figures| {
        figures["reachable"] == false
    })
    .await;
    assert_eq!(down["repositories"], 1, "{down}");

    place.way.come_up();
    eventually("it is asked again", WAIT, async || {
        let answer = here.get_manifest("v1").await;
        (!super::is_stale(&answer)).then_some(())
    })
    .await;
    told(&place, "it is reached again", |figures| {
        figures["reachable"] == true
    })
    .await;
    image.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn a_cache_that_is_not_there_has_no_figures() {
    let place = Place::new().await;

    for path in [
        "tenants/default/pull-through?cache=other",
        "tenants/nobody/pull-through?cache=up",
    ] {
        place.admin.ask(Method::GET, path, None).await.expect(404);
    }
    let path = "tenants/default/caches/up";
    place.admin.ask(Method::DELETE, path, None).await.expect(200);
    let path = "tenants/default/pull-through?cache=up";
    place.admin.ask(Method::GET, path, None).await.expect(404);
    place.configure(json!({})).await;
    assert_eq!(place.figures().await["hits"], 0);
}
