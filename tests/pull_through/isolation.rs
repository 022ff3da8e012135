//! Whose a cache is.

use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, client, send};
use harness::{Fault, Faulty, Image, Upstream, eventually, within};
use reqwest::Method;
use serde_json::json;

use super::{AT_ONCE, KIB, WAIT, asked, behind, digest_of, door, put_cache, two_tenants};

/// Everything that is asked of an image, by tag and by digest.
fn paths(image: &Image) -> Vec<String> {
    let digest = image.digest();
    let mut paths = vec![
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("referrers/{digest}"),
        "tags/list".to_owned(),
    ];
    paths.extend(image.blobs().map(|blob| format!("blobs/{}", sha256(blob))));
    paths
}

#[tokio::test]
async fn what_one_tenant_has_cached_another_gets_from_its_own_upstream_or_not_at_all() {
    let (ours, theirs) = (Upstream::start().await, Upstream::start().await);
    let our_way = Faulty::before(&ours.address()).await;
    let their_way = Faulty::before(&theirs.address()).await;
    let (berth, admin) = two_tenants().await;
    put_cache(&admin, "acme", &our_way, json!({})).await;
    let mine = admin.token("acme", &["**"], &["pull"]).await;
    let other = admin.token("other", &["**"], &["pull"]).await;
    let (our_door, their_door) = (
        door(&berth, "acme", Some(&mine)).await,
        door(&berth, "other", Some(&other)).await,
    );
    let image = Image::new(1, KIB);
    image.push(&ours.repository("app"), "v1").await;
    let here = behind(&our_door, "up/app");
    image.assert_pullable(&here, "v1").await;
    our_way.forget();

    // It has no cache at all.
    let there = behind(&their_door, "up/app");
    for path in paths(&image) {
        let answer = there.get(&path).await;
        let absent = behind(&their_door, "nothing/app").get(&path).await;
        assert_eq!(answer.status, absent.status, "{path}");
        assert_ne!(answer.body, image.manifest);
    }
    // It has one of its own, by the same names, before an upstream that has nothing of this.
    put_cache(&admin, "other", &their_way, json!({})).await;
    there.get_manifest("v1").await.expect(404);
    there.get_manifest(&image.digest()).await.expect(404);
    for blob in image.blobs() {
        there.get(&format!("blobs/{}", sha256(blob))).await.expect(404);
    }
    assert!(their_way.count("*", "/blobs/") >= 1, "its own upstream is asked");
    assert!(asked(&our_way).is_empty(), "and no other one");
    // And then one that has it.
    put_cache(&admin, "other", &our_way, json!({})).await;
    harness::eventually("it is found", super::WAIT, async || {
        let answer = there.get_manifest("v1").await;
        (answer.status == 200).then_some(())
    })
    .await;
    image.assert_pullable(&there, "v1").await;
    for blob in image.blobs() {
        let fetched = our_way.count("GET", &sha256(blob));
        assert_eq!(fetched, 1, "all bytes are fetched again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_upstream_stalls_does_not_keep_others_from_theirs() {
    let (ours, theirs) = (Upstream::start().await, Upstream::start().await);
    let our_way = Faulty::before(&ours.address()).await;
    let their_way = Faulty::before(&theirs.address()).await;
    let (berth, admin) = two_tenants().await;
    put_cache(&admin, "acme", &our_way, json!({})).await;
    put_cache(&admin, "other", &their_way, json!({})).await;
    let mine = admin.token("acme", &["**"], &["pull"]).await;
    let other = admin.token("other", &["**"], &["pull"]).await;
    let (our_door, their_door) = (
        door(&berth, "acme", Some(&mine)).await,
        door(&berth, "other", Some(&other)).await,
    );
    let here = behind(&our_door, "up/app");
    our_way.always("GET", "/blobs/", Fault::Held(10));
    let mut pulls = Vec::new();
    // More than all tenants together are given at once.
    for seed in 0..60 {
        let digest = ours.repository("app").push_blob(&blob(KIB, seed)).await;
        let request = here.request(Method::GET, &format!("blobs/{digest}"));
        pulls.push((digest, tokio::spawn(digest_of(request))));
    }
    eventually("its fetches stall", WAIT, async || {
        (our_way.count("GET", "/blobs/") >= 16).then_some(())
    })
    .await;

    let image = Image::new(1, KIB);
    image.push(&theirs.repository("app"), "v1").await;
    let there = behind(&their_door, "up/app");
    within("the other's pull", AT_ONCE, image.assert_pullable(&there, "v1")).await;

    our_way.release();
    for (digest, pull) in pulls {
        assert_eq!(pull.await.expect("no panic"), Ok(digest));
    }
}

#[tokio::test]
async fn how_a_cache_fares_is_told_of_its_own_tenant_only() {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let (berth, admin) = two_tenants().await;
    put_cache(&admin, "acme", &way, json!({})).await;
    let mine = admin.token("acme", &["**"], &["pull"]).await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    let our_door = door(&berth, "acme", Some(&mine)).await;
    image.assert_pullable(&behind(&our_door, "up/app"), "v1").await;

    let other = "tenants/other/pull-through?cache=up";
    admin.ask(Method::GET, other, None).await.expect(404);
    put_cache(&admin, "other", &way, json!({})).await;
    let figures = admin.ask(Method::GET, other, None).await.expect(200).json();
    assert_eq!(figures["misses"], 0, "{figures}");
    assert_eq!(figures["bytes"], 0, "{figures}");
    assert_eq!(figures["repositories"], 0, "{figures}");

    // Nor is it told to who only has a token of the tenant.
    for tenant in ["acme", "other"] {
        let url = berth.admin_url(&format!("/admin/v1/tenants/{tenant}/pull-through?cache=up"));
        for shown in [None, Some(&mine)] {
            let mut request = client().get(&url);
            if let Some(token) = shown {
                request = request.bearer_auth(token);
            }
            let answer = send(request).await;
            assert!([401, 403].contains(&answer.status.as_u16()), "{answer:?}");
        }
    }
}

/// What of an answer differs between what is there and what is not, once the names are taken away.
fn shown(answer: &Answer, name: &str) -> (u16, String, String) {
    (
        answer.status.as_u16(),
        answer.header("www-authenticate").replace(name, "NAME"),
        answer.text().replace(name, "NAME"),
    )
}

#[tokio::test]
async fn who_has_no_grant_cannot_tell_what_a_cache_or_its_upstream_has() {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let (berth, admin) = two_tenants().await;
    put_cache(&admin, "acme", &way, json!({ "deny": ["denied"] })).await;
    let image = Image::new(1, KIB);
    for name in ["cached", "uncached", "denied"] {
        image.push(&upstream.repository(name), "v1").await;
    }
    let mine = admin.token("acme", &["**"], &["pull"]).await;
    let own = door(&berth, "acme", Some(&mine)).await;
    image.assert_pullable(&behind(&own, "up/cached"), "v1").await;
    way.forget();

    let elsewhere = admin.token("acme", &["team/**"], &["pull"]).await;
    let pusher = admin.token("acme", &["team/**"], &["pull", "push"]).await;
    for token in [None, Some(&elsewhere), Some(&pusher)] {
        let stranger = door(&berth, "acme", token.map(String::as_str)).await;
        for path in paths(&image) {
            let ask = async |name: &str| {
                let repository: Repository = behind(&stranger, name);
                shown(&repository.get(&path).await, name)
            };
            // Beside the cache, where there is nothing at all.
            let absent = ask("nothing").await;
            for name in ["up/cached", "up/uncached", "up/denied", "up/nothing"] {
                assert_eq!(ask(name).await, absent, "{name} {path} {token:?}");
            }
        }
    }
    assert!(asked(&way).is_empty(), "for strangers nobody is asked");
}

#[tokio::test]
async fn two_caches_of_a_tenant_keep_what_is_theirs() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let one_way = Faulty::before(&one.address()).await;
    let two_way = Faulty::before(&two.address()).await;
    let (berth, admin) = super::cached(&one_way, json!({})).await;
    let spec = json!({ "upstream": { "url": two_way.url() }, "prefix": "up/inner" });
    admin.put("tenants/default/caches/inner", spec).await;
    let (outer, inner) = (Image::new(1, KIB), Image::new(2, KIB));
    outer.push(&one.repository("app"), "v1").await;
    outer.push(&one.repository("inner/app"), "v1").await;
    inner.push(&two.repository("app"), "v1").await;
    let at = |name: &str| Repository::new(&berth.url(""), name);

    outer.assert_pullable(&at("up/app"), "v1").await;
    // The longer prefix counts.
    inner.assert_pullable(&at("up/inner/app"), "v1").await;

    assert_eq!(one_way.count("*", "/inner/"), 0);
    // What merely begins with the same letters is no part of a cache.
    at("upper/app").get_manifest("v1").await.expect(404);
    outer.push(&at("upper/app"), "v1").await;
}
