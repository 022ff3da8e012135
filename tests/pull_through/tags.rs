//! How tags follow the upstream.

use harness::http::{Answer, send};
use harness::image::INDEX;
use harness::{Fault, within};
use reqwest::Method;
use serde_json::{Value, json};

use super::{AT_ONCE, Place, is_failure, is_stale};

#[tokio::test]
async fn a_tag_is_not_looked_at_again_for_a_while() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "1h" } })).await;
    let (here, old) = (place.here("app"), place.pushed("app", "v1", 1).await);
    old.assert_pullable(&here, "v1").await;
    place.pushed("app", "v1", 2).await;
    place.way.forget();

    for _ in 0..3 {
        here.head("manifests/v1").await.expect(200);
        old.assert_pullable(&here, "v1").await;
    }

    assert!(place.asked().is_empty(), "{:?}", place.asked());
}

#[tokio::test]
async fn a_tag_that_is_looked_at_each_time_is_fetched_only_when_it_has_moved() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (here, old) = (place.here("app"), place.pushed("app", "v1", 1).await);
    here.get_manifest("v1").await.expect(200);
    let pulls = async |method: Method, heads: usize, gets: usize| {
        place.way.forget();
        let answer = send(here.request(method, "manifests/v1")).await.expect(200);
        let counted = ["HEAD", "GET"].map(|method| place.way.count(method, "/manifests/"));
        assert_eq!(counted, [heads, gets]);
        answer.header("docker-content-digest").to_owned()
    };

    for method in [Method::GET, Method::HEAD, Method::GET] {
        assert_eq!(pulls(method, 1, 0).await, old.digest());
    }
    for (number, method) in [(2, Method::GET), (3, Method::HEAD)] {
        let new = place.pushed("app", "v1", number).await;
        assert_eq!(pulls(method, 1, 1).await, new.digest());
        assert_eq!(pulls(Method::GET, 1, 0).await, new.digest());
        new.assert_pullable(&here, "v1").await;
    }
    // What it once stood for is still there.
    old.assert_pullable(&here, &old.digest()).await;
}

#[tokio::test]
async fn a_tag_that_comes_back_to_what_is_cached_is_not_fetched_again() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (here, one) = (place.here("app"), place.pushed("app", "v1", 1).await);
    one.assert_pullable(&here, "v1").await;
    let two = place.pushed("app", "v1", 2).await;
    two.assert_pullable(&here, "v1").await;
    one.push(&place.there("app"), "v1").await;
    place.way.forget();

    one.assert_pullable(&here, "v1").await;

    assert!(place.way.count("GET", "/app/") == 0, "{:?}", place.asked());
}

#[tokio::test]
async fn a_tag_that_the_upstream_has_deleted_is_gone_or_kept_as_the_cache_says() {
    for kept in [false, true] {
        let tags = json!({ "tags": { "revalidateAfter": "0s", "keepDeleted": kept } });
        let place = Place::with(tags).await;
        let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
        image.assert_pullable(&here, "v1").await;
        place.there("app").delete("manifests/v1").await.expect(202);

        let answer = here.get_manifest("v1").await;
        if kept {
            image.assert_pullable(&here, "v1").await;
        } else {
            assert_eq!(answer.expect(404).error_code(), "MANIFEST_UNKNOWN");
            here.head("manifests/v1").await.expect(404);
        }
        image.assert_pullable(&here, &image.digest()).await;

        let again = place.pushed("app", "v1", 2).await;
        harness::eventually("the tag is seen again", super::WAIT, async || {
            let answer = here.get_manifest("v1").await;
            (answer.body == again.manifest).then_some(())
        })
        .await;
    }
}

fn tags(answer: &Answer) -> Value {
    answer.json()["tags"].clone()
}

#[tokio::test]
async fn the_upstream_s_tags_are_listed_page_by_page() {
    let place = Place::new().await;
    for number in 1..=5 {
        place.pushed("team/app", &format!("v{number}"), number).await;
    }
    let here = place.here("team/app");

    let all = here.get("tags/list").await.expect(200);
    assert_eq!(
        all.json(),
        json!({ "name": "up/team/app", "tags": ["v1", "v2", "v3", "v4", "v5"] })
    );
    let last = here.get("tags/list?n=2&last=v3").await.expect(200);
    assert_eq!(tags(&last), json!(["v4", "v5"]));
    let (mut path, mut seen) = ("tags/list?n=2".to_owned(), Vec::new());
    for _ in 0..3 {
        let page = here.get(&path).await.expect(200);
        seen.extend(tags(&page).as_array().expect("a list").clone());
        let link = page.header("link").to_owned();
        let Some((next, _)) = link.trim_start_matches('<').split_once('>') else {
            break;
        };
        // Clients go where it says, and that must be here.
        let below = next.strip_prefix("/v2/up/team/app/");
        below
            .unwrap_or_else(|| panic!("{link} is no place of the cache"))
            .clone_into(&mut path);
    }
    assert_eq!(json!(seen), tags(&all));
    here.sibling("up/nothing").get("tags/list").await.expect(404);
}

#[tokio::test]
async fn the_cached_tags_are_listed_while_the_upstream_is_down() {
    let place = Place::new().await;
    for number in 1..=4 {
        place.pushed("app", &format!("v{number}"), number).await;
    }
    let here = place.here("app");
    for tag in ["v2", "v4"] {
        here.get_manifest(tag).await.expect(200);
    }
    place.way.go_down();

    let listed = here.get("tags/list").await.expect(200);
    assert_eq!(tags(&listed), json!(["v2", "v4"]));
    let page = here.get("tags/list?n=1").await.expect(200);
    assert_eq!(tags(&page), json!(["v2"]));
    assert!(page.header("link").contains("last=v2"), "{page:?}");
}

#[tokio::test]
async fn lists_without_an_end_are_given_up() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    here.get_manifest("v1").await.expect(200);
    place.way.always("GET", "/tags/list", Fault::Endless);
    // The upstream has no API of referrers but the tag that stands for it.
    let nothing = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let tag = image.digest().replace(':', "-");
    let put = place
        .there("app")
        .put_manifest(&tag, INDEX, nothing.as_bytes())
        .await;
    put.expect(201);
    place.way.always("GET", "/manifests/sha256-", Fault::Endless);

    for path in ["tags/list".to_owned(), format!("referrers/{}", image.digest())] {
        let answer = within("an answer", AT_ONCE, here.get(&path)).await;
        assert!(is_failure(&answer) || is_stale(&answer), "{path}: {answer:?}");
    }
    for asked in place.asked() {
        assert!(
            asked.sent() < 16 << 20,
            "{} bytes of {}",
            asked.sent(),
            asked.path
        );
    }
    place.way.heal();
    let listed = here.get("tags/list").await.expect(200);
    assert_eq!(tags(&listed), json!([tag, "v1"]));
}

#[tokio::test]
async fn a_tag_that_the_upstream_speaks_of_is_not_deleted_for_what_one_of_its_replicas_lacks() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (here, old) = (place.here("app"), place.pushed("app", "v1", 1).await);
    old.assert_pullable(&here, "v1").await;
    let new = place.pushed("app", "v1", 2).await;
    let by_digest = format!("/manifests/{}", new.digest());
    place
        .way
        .always("GET", &by_digest, Fault::Refused(404, "MANIFEST_UNKNOWN"));

    let answer = here.get_manifest("v1").await.expect(200);

    assert_eq!(answer.body, new.manifest);
    // Nor is one that refuses to be asked by HEAD.
    place.way.heal();
    let newer = place.pushed("app", "v1", 3).await;
    place
        .way
        .always("HEAD", "/manifests/v1", Fault::Refused(405, "UNSUPPORTED"));
    newer.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn a_cached_tag_is_served_before_clients_give_up_on_an_upstream_that_is_silent() {
    let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
    let (here, image) = (place.here("app"), place.pushed("app", "v1", 1).await);
    image.assert_pullable(&here, "v1").await;
    place.way.always("HEAD", "/manifests/", Fault::Hangs);

    let soon = std::time::Duration::from_secs(20);
    let answer = within("what is here", soon, here.get_manifest("v1"))
        .await
        .expect(200);

    assert!(is_stale(&answer));
    assert_eq!(answer.body, image.manifest);
}
