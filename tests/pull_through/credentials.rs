//! Who a cache says it is to its upstream.

use harness::content::sha256;
use harness::http::{Repository, send};
use harness::{Berth, Fault, Faulty, Guard, Image, RoundRobin, Upstream};
use http::HeaderMap;
use reqwest::Method;
use serde_json::{Value, json};

use super::{KIB, Place, basic, cached, is_stale, put_cache};

fn login(username: &str, password: &str) -> Value {
    json!({ "upstream": { "username": username, "password": password } })
}

#[tokio::test]
async fn a_cache_shows_name_and_password_to_a_registry_that_asks_for_them() {
    let mut upstream = Upstream::start().await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    upstream.ask_for_login().await;
    upstream.repository("app").get_manifest("v1").await.expect(401);
    let way = Faulty::before(&upstream.address()).await;

    let right = login(Upstream::USERNAME, Upstream::PASSWORD);
    let (berth, admin) = cached(&way, right).await;
    let here = Repository::new(&berth.url(""), "up/app");
    image.assert_pullable(&here, "v1").await;

    for wrong in [login(Upstream::USERNAME, "wrong"), json!({})] {
        put_cache(&admin, "default", &way, wrong).await;
        here.get_manifest("v2").await.expect(404);
        image.assert_pullable(&here, &image.digest()).await;
    }
}

#[tokio::test]
async fn a_cache_gets_tokens_of_a_registry_that_gives_them() {
    let upstream = Berth::builder().flag("--open", "Never").start().await;
    let token = harness::Admin::of(&upstream)
        .token("default", &["**"], &["pull", "push"])
        .await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", basic("x-token", &token));
    let pusher = RoundRobin::adding(vec![upstream.address()], headers).await;
    let there = Repository::new(&format!("http://{}", pusher.address()), "app");
    let image = Image::new(1, KIB);
    image.push(&there, "v1").await;
    let way = Faulty::before(&upstream.address()).await;

    let (berth, _admin) = cached(&way, login("x-token", &token)).await;

    let here = Repository::new(&berth.url(""), "up/app");
    image.assert_pullable(&here, "v1").await;
    assert!(way.count("GET", "/v2/token") >= 1, "{:?}", way.asked());
    let listed = here.get("tags/list").await.expect(200).json();
    assert_eq!(listed["tags"], json!(["v1"]));
}

#[tokio::test]
async fn a_new_password_counts_at_once() {
    let guards: [fn(&str, &str) -> Guard; 2] = [Guard::basic, |username, password| {
        Guard::bearer().to(username, password)
    }];
    for guard in guards {
        let place = Place::with(login("reader", "first")).await;
        let image = place.pushed("app", "v1", 1).await;
        let here = place.here("app");
        place.way.guard(guard("reader", "second"));
        here.get_manifest("v1").await.expect(404);
        here.get_manifest(&image.digest()).await.expect(404);

        place.configure(login("reader", "second")).await;

        image.assert_pullable(&here, "v1").await;
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_whatever_is_shown_is_not_asked_without_end() {
    let never = Guard::bearer().to("reader", "first").good_for(0);
    for guard in [Guard::basic("reader", "other"), never] {
        let place = Place::with(login("reader", "first")).await;
        place.pushed("app", "v1", 1).await;
        place.way.guard(guard);

        place.here("app").get_manifest("v1").await.expect(404);

        let asked = place.asked().len();
        assert!((1..=8).contains(&asked), "asked {asked} times");
    }
}

#[tokio::test]
async fn what_an_upstream_refuses_is_not_there_and_what_is_cached_stays() {
    for status in [401, 403] {
        let place = Place::with(json!({ "tags": { "revalidateAfter": "0s" } })).await;
        let image = place.pushed("app", "v1", 1).await;
        let here = place.here("app");
        image.assert_pullable(&here, "v1").await;
        place.way.always("*", "", Fault::Answered(status, Vec::new()));

        let cached = here.get_manifest("v1").await.expect(200);
        assert!(is_stale(&cached), "{cached:?}");
        let absent = here.get_manifest("v2").await.expect(404);
        assert_eq!(absent.error_code(), "MANIFEST_UNKNOWN");
        assert_eq!(absent.header("www-authenticate"), "");
        let blob = format!("blobs/{}", sha256(b"nothing"));
        here.get(&blob).await.expect(404);
    }
}

#[tokio::test]
async fn what_a_client_shows_stays_here() {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let builder = super::reaching(Berth::builder()).flag("--open", "Never");
    let berth = builder.start().await;
    let admin = harness::Admin::of(&berth);
    put_cache(&admin, "default", &way, json!({})).await;
    let token = admin.token("default", &["**"], &["pull"]).await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    let here = Repository::new(&berth.url(""), "up/app");
    let secrets = ["cookie", "x-api-key", "proxy-authorization", "x-forwarded-for"];

    let mut paths = vec!["manifests/v1".to_owned(), "tags/list".to_owned()];
    paths.extend(image.blobs().map(|blob| format!("blobs/{}", sha256(blob))));
    paths.push(format!("referrers/{}", image.digest()));
    for guard in [None, Some(Guard::bearer())] {
        if let Some(guard) = guard {
            way.guard(guard);
        }
        for path in &paths {
            let mut request = here.request(Method::GET, path);
            for secret in secrets {
                request = request.header(secret, "secret-of-the-client");
            }
            let request = request.header("accept", harness::image::MANIFEST);
            send(request.basic_auth("x-token", Some(&token)))
                .await
                .expect(200);
        }
        // What is cached shows nothing: the second round asks for another tag.
        image.push(&upstream.repository("app"), "v2").await;
        paths = vec!["manifests/v2".to_owned()];
    }

    let asked = way.asked();
    assert!(asked.len() >= paths.len());
    for question in asked {
        let shown = format!("{:?}", question.headers);
        assert!(!shown.contains("secret-of-the-client"), "{shown}");
        let authorization = question.header("authorization");
        assert!(
            authorization.is_empty() || authorization.starts_with("Bearer "),
            "{shown}"
        );
        assert!(!authorization.contains(&token));
    }
    assert!(!berth.log().contains(&token));
}

#[tokio::test]
async fn a_password_is_told_to_no_realm_elsewhere() {
    let place = Place::with(login("reader", "first")).await;
    let image = place.pushed("app", "v1", 1).await;
    let elsewhere = Faulty::before(&place.upstream.address()).await;
    elsewhere.guard(Guard::bearer());
    let realm = format!("{}/token", elsewhere.url());
    place.way.guard(Guard::bearer().at_realm(&realm));

    // The token from there is good for nothing at the upstream.
    let answer = place.here("app").get_manifest("v1").await;

    assert_ne!(answer.status, 200);
    for question in elsewhere.asked().iter().chain(&place.way.asked()) {
        assert!(
            !question.header("authorization").starts_with("Basic"),
            "{question:?}"
        );
    }
    let reason = place.berth.log();
    assert!(!reason.contains("first\""), "no password in the log");
    place.way.guard(Guard::bearer().to("reader", "first"));
    harness::eventually("it has a token", super::WAIT, async || {
        let answer = place.here("app").get_manifest("v1").await;
        (answer.body == image.manifest).then_some(())
    })
    .await;
}
