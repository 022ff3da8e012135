//! What may be pulled through a cache, by whom, and how long it stays.

use harness::content::sha256;
use harness::http::Repository;
use harness::{Admin, Berth, Faulty, Guard, Image, Upstream, eventually};
use serde_json::{Value, json};

use super::{KIB, Place, WAIT, behind, door, put_cache, two_tenants};

#[tokio::test]
async fn only_repositories_that_are_allowed_and_not_denied_are_asked_for() {
    let rules = json!({ "allow": ["team/**", "tools"], "deny": ["team/secret/**", "**/private"] });
    let place = Place::with(rules).await;
    let mut images = Vec::new();
    for name in ["team/app", "tools", "team/secret/app", "team/private", "else"] {
        images.push((name, place.pushed(name, "v1", images.len() as u64).await));
    }

    for (name, image) in &images[..2] {
        image.assert_pullable(&place.here(name), "v1").await;
    }
    place.way.forget();
    for (name, image) in &images[2..] {
        for path in [
            "manifests/v1".to_owned(),
            format!("manifests/{}", image.digest()),
            format!("blobs/{}", sha256(&image.config)),
            "tags/list".to_owned(),
        ] {
            place.here(name).get(&path).await.expect(404);
            place.here(name).head(&path).await;
        }
        let path = format!("referrers/{}", image.digest());
        place.here(name).get(&path).await;
    }
    assert!(place.asked().is_empty(), "{:?}", place.asked());
}

#[tokio::test]
async fn what_is_denied_later_is_not_served_from_the_cache_either() {
    let place = Place::new().await;
    let image = place.pushed("team/app", "v1", 1).await;
    let here = place.here("team/app");
    image.assert_pullable(&here, "v1").await;

    place.configure(json!({ "deny": ["team/**"] })).await;

    for path in [
        "manifests/v1".to_owned(),
        format!("manifests/{}", image.digest()),
        format!("blobs/{}", sha256(&image.config)),
    ] {
        here.get(&path).await.expect(404);
        here.head(&path).await.expect(404);
    }
    place.configure(json!({})).await;
    image.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn only_tags_that_are_allowed_are_asked_for() {
    let place = Place::with(json!({ "tags": { "allow": ["v*", "stable"] } })).await;
    let here = place.here("app");
    for tag in ["v1", "stable", "latest"] {
        place.pushed("app", tag, 1).await;
    }

    for tag in ["v1", "stable"] {
        here.get_manifest(tag).await.expect(200);
    }
    place.way.forget();
    here.head("manifests/latest").await.expect(404);
    let answer = here.get_manifest("latest").await.expect(404);
    assert_eq!(answer.error_code(), "MANIFEST_UNKNOWN");
    assert!(place.asked().is_empty(), "{:?}", place.asked());
}

#[tokio::test]
async fn a_pinned_tag_stays_as_it_was_first_pulled() {
    let tags = json!({ "tags": { "revalidateAfter": "0s", "pinned": ["v*"] } });
    let place = Place::with(tags).await;
    let here = place.here("app");
    let old = place.pushed("app", "v1", 1).await;
    let moving = place.pushed("app", "latest", 2).await;
    old.assert_pullable(&here, "v1").await;
    moving.assert_pullable(&here, "latest").await;
    place.pushed("app", "v1", 3).await;
    let moved = place.pushed("app", "latest", 4).await;
    place.way.forget();

    for _ in 0..3 {
        here.head("manifests/v1").await.expect(200);
        old.assert_pullable(&here, "v1").await;
    }

    assert!(place.asked().is_empty(), "{:?}", place.asked());
    moved.assert_pullable(&here, "latest").await;
    place.there("app").delete("manifests/v1").await.expect(202);
    old.assert_pullable(&here, "v1").await;
}

struct Seen {
    _upstream: Upstream,
    way: Faulty,
    berth: Berth,
    admin: Admin,
    image: Image,
}

/// The tenant `acme`, which serves to anybody by default, and an image that it can have through a cache.
async fn public_tenant() -> Seen {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let (berth, admin) = two_tenants().await;
    let public = json!({ "repositories": { "visibility": "Public" } });
    admin.put_tenant("acme", public).await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    Seen {
        _upstream: upstream,
        way,
        berth,
        admin,
        image,
    }
}

impl Seen {
    async fn configure(&self, more: Value) {
        put_cache(&self.admin, "acme", &self.way, more).await;
    }

    /// The status of what nobody gets.
    async fn nobody(&self) -> u16 {
        let door = door(&self.berth, "acme", None).await;
        let here: Repository = behind(&door, "up/app");
        let status = here.get_manifest("v1").await.status.as_u16();
        if status == 200 {
            self.image.assert_pullable(&here, "v1").await;
        }
        status
    }
}

#[tokio::test]
async fn a_cache_without_a_login_is_as_public_as_its_tenant() {
    let seen = public_tenant().await;
    seen.configure(json!({})).await;
    assert_eq!(seen.nobody().await, 200);

    seen.configure(json!({ "visibility": "Private" })).await;
    assert_eq!(seen.nobody().await, 401);

    seen.configure(json!({})).await;
    seen.admin.put_tenant("acme", json!({})).await;
    assert_eq!(seen.nobody().await, 401);
}

#[tokio::test]
async fn a_cache_with_a_login_is_private_unless_it_says_otherwise() {
    let seen = public_tenant().await;
    seen.way.guard(Guard::basic("reader", "first"));
    let login = json!({ "username": "reader", "password": "first" });
    seen.configure(json!({ "upstream": login })).await;

    assert_eq!(seen.nobody().await, 401);
    assert!(super::asked(&seen.way).is_empty(), "for nobody nothing is asked");
    let token = seen.admin.token("acme", &["up/**"], &["pull"]).await;
    let own = door(&seen.berth, "acme", Some(&token)).await;
    seen.image.assert_pullable(&behind(&own, "up/app"), "v1").await;
    assert_eq!(seen.nobody().await, 401, "also when it is cached");

    let public = json!({ "match": "up/**", "visibility": "Public" });
    seen.admin.put("tenants/acme/repositories/up", public).await;
    assert_eq!(seen.nobody().await, 200, "a repository's own word counts");
    let gone = seen
        .admin
        .ask(reqwest::Method::DELETE, "tenants/acme/repositories/up", None);
    gone.await.expect(200);
    assert_eq!(seen.nobody().await, 401);

    seen.configure(json!({ "upstream": login, "visibility": "Public" }))
        .await;
    assert_eq!(seen.nobody().await, 200);
}

#[tokio::test]
async fn what_nobody_pulls_is_dropped_and_can_be_had_again() {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let short = super::reaching(Berth::builder())
        .flag("--lease", "2s")
        .flag("--gc-delay", "1s")
        .flag("--restore-window", "1ms");
    let berth = short.start().await;
    let admin = Admin::of(&berth);
    put_cache(&admin, "default", &way, json!({ "keepUnpulled": "3s" })).await;
    // Another one below its prefix, which keeps everything.
    let keeping = json!({ "upstream": { "url": way.url() }, "prefix": "up/kept" });
    admin.put("tenants/default/caches/kept", keeping).await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    let here = Repository::new(&berth.url(""), "up/app");
    let own = Repository::new(&berth.url(""), "own/app");
    Image::new(2, KIB).push(&own, "v1").await;
    image.assert_pullable(&here, "v1").await;
    let in_other = Repository::new(&berth.url(""), "up/kept/other");
    let kept_image = Image::new(3, KIB);
    kept_image.push(&upstream.repository("other"), "v1").await;
    kept_image.assert_pullable(&in_other, "v1").await;

    eventually("nothing of it is stored", WAIT, async || {
        // Its own time is once a day.
        let run = "tenants/default/retention/run?policy=cache%3Aup";
        admin.ask(reqwest::Method::POST, run, None).await;
        let storage = admin.ask(reqwest::Method::GET, "storage", None).await;
        let logical = storage.expect(200).json()["logicalBytes"].as_u64();
        let kept = [Image::new(2, KIB), Image::new(3, KIB)];
        let kept: usize = kept.iter().flat_map(Image::blobs).map(<[u8]>::len).sum();
        (logical < Some((kept + KIB * 3) as u64)).then_some(())
    })
    .await;

    way.forget();
    image.assert_pullable(&here, "v1").await;
    assert!(way.count("GET", "/blobs/") >= 3, "it is fetched again");
    own.get_manifest("v1").await.expect(200);
    way.go_down();
    kept_image.assert_pullable(&in_other, "v1").await;
}
