//! What is copied, and that nothing is copied twice.

use harness::content::sha256;
use harness::http::Repository;
use harness::image::{INDEX, MANIFEST};
use harness::{Berth, Image, Index};

use super::{
    KIB, Place, assert_manifest, import, import_for_people, push_index, push_layer, push_referrer, run,
    tag_for,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_over_and_a_second_run_transfers_nothing() {
    let place = Place::new().await;
    let app = place.there("team/app");
    let image = place.pushed("team/app", "v1", 1).await;
    let tool = place.pushed("tool", "latest", 2).await;
    // An index of an index of images.
    let platforms = Index::new(vec![
        Image::of_platform("amd64", 3, KIB),
        Image::of_platform("arm64", 4, KIB),
    ]);
    for image in &platforms.images {
        image.push(&app, &image.digest()).await;
    }
    let inner = platforms.digest();
    app.put_manifest(&inner, INDEX, &platforms.manifest)
        .await
        .expect(201);
    let outer = push_index(&app, Some("nested"), &[(INDEX, &platforms.manifest)]).await;
    // A signature of cosign's, and the referrers of clients that know no referrers API.
    let signature = place
        .pushed("team/app", &tag_for(&image.digest(), ".sig"), 5)
        .await;
    let referrer = push_referrer(&app, None, &image.manifest, b"attested").await;
    let fallback = push_index(
        &app,
        Some(&tag_for(&image.digest(), "")),
        &[(MANIFEST, &referrer)],
    )
    .await;

    let told = place.import(&[]).await.all_equal();
    assert_eq!(told.tags("tags"), 5, "{told:?}");
    assert_eq!(told.tags("set"), 5, "{told:?}");
    let here = place.here("team/app");
    image.assert_pullable(&here, "v1").await;
    tool.assert_pullable(&place.here("tool"), "latest").await;
    assert_manifest(&here, "nested", &outer).await;
    platforms.assert_pullable(&here, &inner).await;
    signature
        .assert_pullable(&here, &tag_for(&image.digest(), ".sig"))
        .await;
    assert_manifest(&here, &tag_for(&image.digest(), ""), &fallback).await;
    let listed = here
        .get(&format!("referrers/{}", image.digest()))
        .await
        .expect(200);
    assert!(listed.text().contains(&sha256(&referrer)), "{}", listed.text());

    place.way.forget();
    let again = place.import(&[]).await.all_equal();
    for figure in ["bytes", "blobsCopied", "blobsMounted", "manifestsCopied"] {
        assert_eq!(again.figure(figure), 0, "{again:?}");
    }
    assert_eq!(again.tags("set"), 0, "{again:?}");
    assert_eq!(place.way.count("*", "/blobs/"), 0, "{:?}", place.way.asked());
    assert_eq!(
        place.way.count("GET", "/manifests/"),
        0,
        "{:?}",
        place.way.asked()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_cache_whose_index_lists_layers_comes_over() {
    let place = Place::new().await;
    // The other source does not take such an index.
    let from = Berth::builder().start().await;
    let there = Repository::new(&from.url(""), "cache");
    let layer = harness::content::blob(9 * KIB, 8);
    let digest = there.push_blob(&layer).await;
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let cache = push_index(&there, Some("main"), &[(kind, &layer)]).await;
    let command = import(&place.berth, &place.home, &place.berth.url(""), &[&from.url("")]);
    let told = run(command).await.all_equal();
    assert_eq!(
        (told.figure("blobsCopied"), told.figure("sparse")),
        (1, 0),
        "{told:?}"
    );
    let here = place.here("cache");
    assert_manifest(&here, "main", &cache).await;
    here.assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_many_images_share_is_fetched_once() {
    let place = Place::new().await;
    let layer = harness::content::blob(64 * KIB, 7);
    let mut digest = String::new();
    for name in ["a/one", "b/two", "c/three"] {
        for tag in ["v1", "v2"] {
            digest = push_layer(&place.there(name), tag, &layer).await;
        }
    }
    let told = place.import(&[]).await.all_equal();
    assert_eq!(place.way.count("GET", &format!("/blobs/{digest}")), 1);
    // Its configuration is shared as well.
    assert_eq!(told.figure("blobsCopied"), 2, "{told:?}");
    assert_eq!(told.figure("blobsMounted"), 4, "{told:?}");
    for name in ["a/one", "b/two", "c/three"] {
        place.here(name).assert_blob(&digest, &layer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_is_missing_and_copies_nothing() {
    let place = Place::new().await;
    let image = place.pushed("team/app", "v1", 1).await;
    let told = place.import(&["--dry-run"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let size = image.manifest.len() + image.blobs().map(<[u8]>::len).sum::<usize>();
    assert_eq!(told.figure("bytesMissing"), size as u64, "{told:?}");
    assert_eq!(
        (told.figure("blobsCopied"), told.figure("bytes")),
        (3, 0),
        "{told:?}"
    );
    assert_eq!((told.tags("missing"), told.tags("set")), (1, 1), "{told:?}");
    assert_eq!(told.report()["dryRun"], true);
    assert_eq!(place.way.count("*", "/blobs/"), 0);
    place.here("team/app").get_manifest("v1").await.expect(404);

    place.import(&[]).await.all_equal();
    let after = place.import(&["--dry-run"]).await.all_equal();
    assert_eq!(
        (after.figure("bytesMissing"), after.tags("set")),
        (0, 0),
        "{after:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_missing_below_an_image_are_found_by_a_deep_look() {
    let place = Place::before(Berth::builder().flag("--sparse", "Always").start().await).await;
    let image = place.pushed("app", "v1", 1).await;
    let here = place.here("app");
    here.put_manifest("v1", MANIFEST, &image.manifest)
        .await
        .expect(201);
    let told = place.import(&[]).await.all_equal();
    assert_eq!(
        told.figure("blobsCopied"),
        0,
        "an image is taken to be whole: {told:?}"
    );
    let told = place.import(&["--deep"]).await.all_equal();
    assert_eq!(told.figure("blobsCopied"), 3, "{told:?}");
    image.assert_pullable(&here, "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_pages_is_read_to_its_end() {
    let place = Place::new().await;
    let image = place.pushed("team/app", "v0", 1).await;
    let there = place.there("team/app");
    for number in 1..1200 {
        let tag = format!("v{number}");
        there
            .put_manifest(&tag, MANIFEST, &image.manifest)
            .await
            .expect(201);
    }
    let told = place.import(&[]).await.all_equal();
    assert_eq!(told.tags("tags"), 1200, "{told:?}");
    assert_eq!(told.figure("manifestsCopied"), 1, "{told:?}");
    assert!(
        place.way.count("GET", "/tags/list") > 1,
        "{:?}",
        place.way.asked()
    );
    image.assert_pullable(&place.here("team/app"), "v1199").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_get_a_table_and_the_figures_in_words() {
    let place = Place::new().await;
    place.pushed("team/app", "v1", 1).await;
    for expected in ["1 of 1 tags are equal", "nothing was transferred: 0 bytes"] {
        let (source, to) = (place.way.url(), place.berth.url(""));
        let output = import_for_people(&place.berth, &place.home, &to, &[&source]).output();
        let output = output.expect("the import runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(text.starts_with("SOURCE"), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
