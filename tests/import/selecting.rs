//! Which repositories and tags are meant, and what they are called.

use harness::content::sha256;
use harness::image::{MANIFEST, descriptor};
use harness::{Fault, Image};
use serde_json::json;

use super::{KIB, Place, assert_manifest, push_index, push_referrer, tag_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_globs_match_comes_with_all_that_belongs_to_it() {
    let place = Place::new().await;
    let app = place.there("team/app");
    let wanted = place.pushed("team/app", "v1", 1).await;
    let unwanted = place.pushed("team/app", "dev", 2).await;
    place.pushed("other/app", "v1", 3).await;
    let signature = tag_for(&wanted.digest(), ".sig");
    place.pushed("team/app", &signature, 4).await;
    // Of the signature itself, too.
    let signed = app.get_manifest(&signature).await.body;
    let attested = tag_for(&sha256(&signed), ".att");
    place.pushed("team/app", &attested, 5).await;
    let referrer = push_referrer(&app, None, &wanted.manifest, b"attested").await;
    push_index(
        &app,
        Some(&tag_for(&wanted.digest(), "")),
        &[(MANIFEST, &referrer)],
    )
    .await;
    place
        .pushed("team/app", &tag_for(&unwanted.digest(), ".sig"), 6)
        .await;

    let told = place.import(&["--repositories", "team/**", "--tags", "v*"]).await;
    let told = told.all_equal();
    assert_eq!(told.tags("tags"), 4, "{told:?}");
    let here = place.here("team/app");
    wanted.assert_pullable(&here, "v1").await;
    assert_manifest(&here, &signature, &signed).await;
    here.get_manifest(&attested).await.expect(200);
    assert_manifest(&here, &sha256(&referrer), &referrer).await;
    here.get_manifest("dev").await.expect(404);
    here.get_manifest(&tag_for(&unwanted.digest(), ".sig"))
        .await
        .expect(404);
    place.here("other/app").get_manifest("v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_alone_where_that_is_wanted() {
    // A source that lists referrers, and one where tags stand for them.
    let (place, listing) = (Place::new().await, harness::Berth::builder().start().await);
    let there = [
        place.there("app"),
        harness::http::Repository::new(&listing.url(""), "app"),
    ];
    let image = Image::new(1, KIB);
    let signature = tag_for(&image.digest(), ".sig");
    let mut signed = Vec::new();
    for app in &there {
        image.push(app, "v1").await;
        Image::new(2, KIB).push(app, &signature).await;
        signed = push_referrer(app, None, &image.manifest, b"signed").await;
    }
    let sources = [place.way.url(), listing.url("")];
    for source in &sources {
        let to = place.berth.url("");
        let told = super::run(super::import(
            &place.berth,
            &place.home,
            &to,
            &[source, "--referrers=false"],
        ))
        .await;
        assert_eq!(told.all_equal().tags("tags"), 1);
    }
    let here = place.here("app");
    image.assert_pullable(&here, "v1").await;
    here.get_manifest(&signature).await.expect(404);
    here.get_manifest(&sha256(&signed)).await.expect(404);

    let told = place.import(&["--referrers=false", "--tags", "*"]).await;
    assert_eq!(told.all_equal().tags("tags"), 2);
    here.get_manifest(&signature).await.expect(200);
    let to = place.berth.url("");
    super::run(super::import(
        &place.berth,
        &place.home,
        &to,
        &[&sources[1], "--referrers"],
    ))
    .await
    .all_equal();
    assert_manifest(&here, &sha256(&signed), &signed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_lose_one_beginning_and_gain_another() {
    let place = Place::new().await;
    let image = place.pushed("project/team/app", "v1", 1).await;
    let told = place
        .import(&["--strip-prefix", "project", "--prefix", "mirror/of"])
        .await;
    let told = told.all_equal();
    let repository = &told.report()["repositories"][0];
    assert_eq!(repository["source"], "project/team/app");
    assert_eq!(repository["destination"], "mirror/of/team/app");
    image
        .assert_pullable(&place.here("mirror/of/team/app"), "v1")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_repositories_do_not_become_one() {
    let place = Place::new().await;
    place.pushed("project/app", "v1", 1).await;
    place.pushed("app", "v1", 2).await;
    let told = place.import(&["--strip-prefix", "project"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("would both be called app"), "{told:?}");
    place.here("app").get_manifest("v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_a_list_wants_names() {
    let place = Place::new().await;
    let image = place.pushed("team/app", "v1", 1).await;
    for status in [401, 403, 404, 405] {
        place.way.heal();
        place
            .way
            .always("GET", "/_catalog", Fault::Answered(status, vec![]));
        let told = place.import(&["--repositories", "team/*"]).await;
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stderr.contains("name them: --repositories"), "{told:?}");
    }
    place.import(&["--repositories", "team/app"]).await.all_equal();
    image.assert_pullable(&place.here("team/app"), "v1").await;
    let told = place.import(&["--repositories", "team/absent"]).await;
    told.failed(&["team/absent"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_too_long_ago_stays_where_it_is() {
    let place = Place::new().await;
    let there = place.there("app");
    let push = async |tag: &str, config: serde_json::Value, annotations: serde_json::Value| {
        let config = config.to_string();
        there.push_blob(config.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "annotations": annotations, "layers": [],
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        });
        let manifest = manifest.to_string().into_bytes();
        there.put_manifest(tag, MANIFEST, &manifest).await.expect(201);
        manifest
    };
    let old = push("old", json!({ "created": "2020-01-01T00:00:00Z" }), json!({})).await;
    let new = push("new", json!({ "created": "2024-06-01T00:00:00Z" }), json!({})).await;
    let said = json!({ "org.opencontainers.image.created": "2019-01-01T00:00:00Z" });
    push("said", json!({ "created": "2024-06-02T00:00:00Z" }), said).await;
    push("undated", json!({}), json!({})).await;
    // As new as its newest image.
    push_index(&there, Some("mixed"), &[(MANIFEST, &old), (MANIFEST, &new)]).await;

    let told = place.import(&["--since", "2024-01-01"]).await.all_equal();
    assert_eq!((told.tags("tags"), told.tags("older")), (3, 2), "{told:?}");
    for (tag, status) in [
        ("old", 404),
        ("new", 200),
        ("said", 404),
        ("undated", 200),
        ("mixed", 200),
    ] {
        place.here("app").get_manifest(tag).await.expect(status);
    }
    let told = place.import(&["--since", "1d"]).await.all_equal();
    assert_eq!(
        told.tags("older"),
        2,
        "what is equal counts whatever its age: {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_are_read_for_an_age_only() {
    let place = Place::new().await;
    let image = Image::new(1, KIB);
    image.push(&place.there("app"), "v1").await;
    place.import(&["--dry-run"]).await;
    assert_eq!(place.way.count("GET", "/blobs/"), 0);
    place.import(&["--dry-run", "--since", "1h"]).await;
    assert_eq!(
        place
            .way
            .count("GET", &format!("/blobs/{}", sha256(&image.config))),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_or_a_glob_that_is_none_is_wrong_usage() {
    let place = Place::new().await;
    for arguments in [
        &["--to", "http://127.0.0.1/team"][..],
        &["--repositories", "Team/**"],
        &["--tags", "a/b"],
        &["--concurrency", "0"],
        &["--watch", "5m", "--dry-run"],
        &["--dry-run", "--watch=5m"],
    ] {
        let told = place.import(arguments).await;
        assert_eq!(told.code, Some(2), "{arguments:?} {told:?}");
    }
    let told = place.import(&["--since", "yesterday"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("90d"), "{told:?}");
}
