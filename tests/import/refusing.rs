//! What is not taken: wrong bytes, formats that are not stored, tags that may not move.

use harness::content::blob;
use harness::image::MANIFEST;
use harness::{Admin, Berth, Fault, Faulty, Image, Index};
use serde_json::json;

use super::{KIB, MIB, Place, import, push_index, push_layer, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_with_other_bytes_than_its_digest_is_refused() {
    let place = Place::new().await;
    let small = place.pushed("small", "v1", 1).await;
    let digest = harness::content::sha256(&small.layers[0]);
    let large = blob(20 * MIB, 2);
    let large_digest = push_layer(&place.there("large"), "v1", &large).await;
    let good = place.pushed("good", "v1", 3).await;
    place
        .way
        .always("GET", &format!("/blobs/{digest}"), Fault::Flipped(100));
    place.way.always(
        "GET",
        &format!("/blobs/{large_digest}"),
        Fault::Flipped(17 * MIB as u64),
    );

    let told = place
        .import(&[])
        .await
        .failed(&[&digest, &large_digest, "has the digest"]);
    assert_eq!((told.tags("equal"), told.tags("missing")), (1, 2), "{told:?}");
    good.assert_pullable(&place.here("good"), "v1").await;
    for (name, digest) in [("small", &digest), ("large", &large_digest)] {
        place.here(name).get_manifest("v1").await.expect(404);
        place
            .here(name)
            .head(&format!("blobs/{digest}"))
            .await
            .expect(404);
    }

    place.way.heal();
    place.import(&[]).await.all_equal();
    place.here("large").assert_blob(&large_digest, &large).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_with_other_bytes_than_its_digest_is_refused() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let path = format!("/manifests/{}", image.digest());
    place.way.always("GET", &path, Fault::Flipped(30));
    place
        .import(&[])
        .await
        .failed(&[&image.digest(), "has the digest"]);
    place.here("app").get_manifest("v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_an_end_is_left_at_the_size_that_its_manifest_says() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    let digest = harness::content::sha256(&image.layers[0]);
    place
        .way
        .always("GET", &format!("/blobs/{digest}"), Fault::Endless);
    let told = place.import(&[]).await.failed(&["more than the"]);
    assert!(told.figure("bytes") < MIB as u64, "{told:?}");
    place.here("app").get_manifest("v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_version_of_dockers_format_is_skipped_with_a_reason() {
    let place = Place::new().await;
    let image = place.pushed("app", "v1", 1).await;
    place.pushed("app", "old", 2).await;
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    place
        .way
        .always("HEAD", "/manifests/old", Fault::With("content-type", kind));
    let told = place.import(&[]).await.all_equal();
    assert_eq!((told.tags("tags"), told.tags("skipped")), (1, 1), "{told:?}");
    assert_eq!(told.report()["problems"][0]["kind"], "skipped", "{told:?}");
    let why = told.report()["problems"][0]["why"].to_string();
    assert!(why.contains("schema 1"), "{why}");
    image.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_the_source_lacks_is_told_and_the_destination_decides_about_its_index() {
    for (sparse, code) in [("Never", 1), ("Indexes", 0)] {
        let place = Place::before(Berth::builder().flag("--sparse", sparse).start().await).await;
        let there = place.there("app");
        let index = Index::new(vec![
            Image::of_platform("amd64", 1, KIB),
            Image::of_platform("arm64", 2, KIB),
        ]);
        for image in &index.images {
            image.push(&there, &image.digest()).await;
        }
        let children: Vec<(&str, &[u8])> = index
            .images
            .iter()
            .map(|image| (MANIFEST, image.manifest.as_slice()))
            .collect();
        push_index(&there, Some("v1"), &children).await;
        let lost = index.images[1].digest();
        there.delete(&format!("manifests/{lost}")).await.expect(202);

        let told = place.import(&[]).await;
        assert_eq!(told.code, Some(code), "{sparse}: {told:?}");
        assert_eq!(told.figure("sparse"), 1, "{sparse}: {told:?}");
        let problems = told.report()["problems"].to_string();
        assert!(problems.contains(&lost), "{sparse}: {problems}");
        let here = place.here("app").get_manifest("v1").await;
        assert_eq!(here.status.is_success(), code == 0, "{sparse}: {here:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_was_moved_follows_the_source_unless_it_is_to_be_kept() {
    let place = Place::new().await;
    let there = place.pushed("app", "v1", 1).await;
    let here = Image::new(2, KIB);
    here.push(&place.here("app"), "v1").await;
    let told = place.import(&["--keep-existing"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_eq!(
        (told.tags("different"), told.figure("failed")),
        (1, 0),
        "{told:?}"
    );
    assert_eq!(told.report()["repositories"][0]["different"], 1, "{told:?}");
    here.assert_pullable(&place.here("app"), "v1").await;

    place.import(&[]).await.all_equal();
    there.assert_pullable(&place.here("app"), "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_and_its_words_are_told() {
    let place = Place::new().await;
    place.pushed("app", "v1", 1).await;
    let admin = Admin::of(&place.berth);
    admin
        .put_tenant("default", json!({ "quota": { "storage": "1Ki" } }))
        .await;
    let token = admin.token("default", &["**"], &["pull", "push"]).await;
    let mut command = place.command(&[]);
    command.env("BERTH_TOKEN", &token);
    let told = run(command).await.failed(&["app", "quota"]);
    assert_eq!(told.tags("missing"), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immutable_tag_stays_and_is_reported() {
    let place = Place::new().await;
    let here = Image::new(2, KIB);
    here.push(&place.here("app"), "v1").await;
    let admin = Admin::of(&place.berth);
    let immutable = json!({ "match": "**", "immutableTags": ["v*"] });
    admin.put_tenant("default", json!({})).await;
    admin.put("tenants/default/repositories/all", immutable).await;
    let token = admin.token("default", &["**"], &["pull", "push"]).await;
    place.pushed("app", "v1", 1).await;
    let latest = place.pushed("app", "latest", 3).await;

    let mut command = place.command(&[]);
    command.env("BERTH_TOKEN", &token);
    let told = run(command).await.failed(&["immutable"]);
    assert_eq!((told.tags("equal"), told.tags("different")), (1, 1), "{told:?}");
    let set = told.lines.iter().filter(|line| line["event"] == "set");
    assert_eq!(set.count(), 1, "{told:?}");
    let answer = harness::http::client()
        .get(place.berth.url("/v2/app/manifests/latest"))
        .header("accept", MANIFEST)
        .basic_auth("x-token", Some(&token));
    let answer = harness::http::send(answer).await.expect(200);
    assert!(answer.body == latest.manifest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_without_such_a_place_is_told_from_a_source_that_lacks_something() {
    for (method, part) in [("POST", "/v2/app/blobs/uploads/"), ("PUT", "/v2/app/manifests/")] {
        let place = Place::new().await;
        place.pushed("app", "v1", 1).await;
        let door = Faulty::before(&place.berth.address()).await;
        door.always(method, part, Fault::Answered(404, vec![]));
        let source = place.way.url();
        let told = run(import(&place.berth, &place.home, &door.url(), &[&source])).await;
        let told = told.failed(&[&door.address(), "404", "app"]);
        assert_eq!(
            (told.tags("tags"), told.tags("missing")),
            (1, 1),
            "{method}: {told:?}"
        );
        assert!(
            !told.report()["problems"].to_string().contains("has no"),
            "{told:?}"
        );
    }
}
