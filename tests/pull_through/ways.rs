//! By which names a cache is reached, and what is not done there.

use harness::http::{Repository, send};
use harness::{Backend, Image};
use reqwest::Method;
use serde_json::json;

use super::{KIB, Place, put_cache, reaching};

#[tokio::test]
async fn an_image_is_pulled_by_its_name_below_the_prefix_and_kept() {
    let mut place = Place::new().await;
    let image = place.pushed("team/app", "v1", 1).await;

    image.assert_pullable(&place.here("team/app"), "v1").await;

    place.way.forget();
    image.assert_pullable(&place.here("team/app"), "v1").await;
    assert!(place.asked().is_empty(), "{:?}", place.asked());
    place.upstream.stop();
    image.assert_pullable(&place.here("team/app"), "v1").await;
}

#[tokio::test]
async fn an_image_is_pulled_and_kept_on_postgres_and_s3() {
    let upstream = harness::Upstream::start().await;
    let way = harness::Faulty::before(&upstream.address()).await;
    let builder = reaching(harness::Berth::builder().backend(Backend::Distributed));
    let berth = builder.start().await;
    put_cache(&harness::Admin::of(&berth), "default", &way, json!({})).await;
    let image = Image::new(1, 300 * KIB);
    image.push(&upstream.repository("team/app"), "v1").await;
    let here = Repository::new(&berth.url(""), "up/team/app");

    image.assert_pullable(&here, "v1").await;

    way.go_down();
    image.assert_pullable(&here, "v1").await;
}

#[tokio::test]
async fn a_blob_is_sent_while_it_is_fetched_and_redirected_once_it_is_kept() {
    let upstream = harness::Upstream::start().await;
    let way = harness::Faulty::before(&upstream.address()).await;
    let builder = harness::Berth::builder().backend(Backend::Distributed);
    let builder = builder.flag("--egress-allow", "127.0.0.1");
    let berth = builder.flag("--redirect", "Always").start().await;
    put_cache(&harness::Admin::of(&berth), "default", &way, json!({})).await;
    let image = Image::new(1, KIB);
    image.push(&upstream.repository("app"), "v1").await;
    let here = Repository::new(&berth.url(""), "up/app");
    here.get_manifest("v1").await.expect(200);

    let path = format!("blobs/{}", harness::content::sha256(&image.config));
    assert_eq!(here.get(&path).await.expect(200).body, image.config);

    way.go_down();
    let kept = harness::eventually("it is kept", super::WAIT, async || {
        let answer = here.get(&path).await;
        (answer.status == 307).then_some(answer)
    })
    .await;
    let stored = send(harness::http::client().get(kept.header("location"))).await;
    assert_eq!(stored.expect(200).body, image.config);
}

#[tokio::test]
async fn a_node_pulls_by_the_name_of_the_registry_that_it_means() {
    let place = Place::with(json!({ "mirrorFor": ["docker.io"] })).await;
    let image = place.pushed("team/app", "v1", 1).await;
    // Without the prefix: that is what a node knows.
    let node = Repository::new(&place.berth.url(""), "team/app");
    let mut paths = vec!["manifests/v1".to_owned(), format!("manifests/{}", image.digest())];
    paths.extend(
        image
            .blobs()
            .map(|blob| format!("blobs/{}", harness::content::sha256(blob))),
    );

    for path in paths {
        for method in [Method::HEAD, Method::GET] {
            let request = node.request(method, &format!("{path}?ns=docker.io"));
            let answer = send(request).await.expect(200);
            assert_eq!(answer.header("oci-namespace"), "docker.io", "{path}");
        }
    }
    let listed = node.get("tags/list?ns=docker.io").await.expect(200).json();
    assert_eq!(listed, json!({ "name": "team/app", "tags": ["v1"] }));

    let ping = harness::http::client().get(place.berth.url("/v2/?ns=docker.io"));
    send(ping).await.expect(200);

    // It is the same content by either name.
    place.way.forget();
    image.assert_pullable(&place.here("team/app"), "v1").await;
    assert!(place.way.count("GET", "/app/") == 0, "{:?}", place.asked());
    // The node goes on to the next host.
    for path in ["manifests/v1?ns=quay.io", "manifests/v1?ns=10.1.1.1:5000"] {
        let answer = node.get(path).await.expect(404);
        assert_eq!(answer.error_code(), "NAME_UNKNOWN");
    }
    node.get_manifest("v1").await.expect(404);
    assert!(place.asked().is_empty(), "ns is no address to be asked");
}

#[tokio::test]
async fn official_images_of_docker_hub_are_found_without_their_library() {
    let place = Place::with(json!({ "mirrorFor": ["docker.io"] })).await;
    let image = place.pushed("library/alpine", "3", 1).await;

    image.assert_pullable(&place.here("alpine"), "3").await;

    assert_eq!(
        place.way.count("*", "/v2/alpine/"),
        0,
        "there is no such repository"
    );
    place.way.forget();
    image.assert_pullable(&place.here("library/alpine"), "3").await;
    assert!(place.asked().is_empty(), "it is the same repository");
    let node = Repository::new(&place.berth.url(""), "alpine");
    node.get("manifests/3?ns=docker.io").await.expect(200);
}

#[tokio::test]
async fn a_cache_without_a_prefix_serves_clients_that_know_neither_prefix_nor_ns() {
    let upstream = harness::Upstream::start().await;
    let way = harness::Faulty::before(&upstream.address()).await;
    let berth = reaching(harness::Berth::builder()).start().await;
    let admin = harness::Admin::of(&berth);
    let spec = json!({ "upstream": { "url": way.url() }, "mirrorFor": ["docker.io"] });
    admin.put("tenants/default/caches/all", spec).await;
    put_cache(&admin, "default", &way, json!({})).await;
    let official = Image::new(1, KIB);
    official.push(&upstream.repository("library/alpine"), "3").await;
    let other = Image::new(2, KIB);
    other.push(&upstream.repository("team/app"), "v1").await;
    let here = |name: &str| Repository::new(&berth.url(""), name);

    // As docker asks its `registry-mirrors`.
    official.assert_pullable(&here("library/alpine"), "3").await;
    official.assert_pullable(&here("alpine"), "3").await;
    other.assert_pullable(&here("team/app"), "v1").await;
    // The longer prefix counts.
    other.assert_pullable(&here("up/team/app"), "v1").await;
    assert_eq!(
        way.count("*", "/v2/up/"),
        0,
        "that is no repository of the upstream"
    );
    let pushed = here("own/app").request(Method::POST, "blobs/uploads/");
    assert_eq!(send(pushed).await.expect(405).error_code(), "UNSUPPORTED");
    way.go_down();
    official.assert_pullable(&here("library/alpine"), "3").await;
}

#[tokio::test]
async fn other_upstreams_have_no_library() {
    let place = Place::with(json!({ "mirrorFor": ["quay.test"] })).await;
    let image = place.pushed("alpine", "3", 1).await;

    image.assert_pullable(&place.here("alpine"), "3").await;

    assert_eq!(place.way.count("*", "library"), 0);
}

#[tokio::test]
async fn nothing_is_pushed_to_a_cache_or_deleted_from_it() {
    let place = Place::with(json!({ "mirrorFor": ["docker.io"] })).await;
    let image = place.pushed("team/app", "v1", 1).await;
    image.assert_pullable(&place.here("team/app"), "v1").await;
    let blob = harness::content::sha256(&image.config);
    let session = "blobs/uploads/00000000-0000-4000-8000-000000000000";
    place.way.forget();

    let node = Repository::new(&place.berth.url(""), "team/app");
    for (repository, ns) in [(place.here("team/app"), ""), (node, "?ns=docker.io")] {
        for (method, path) in [
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::PATCH, session.to_owned()),
            (Method::PUT, session.to_owned()),
            (Method::PUT, "manifests/v2".to_owned()),
            (Method::PUT, format!("manifests/{}", image.digest())),
            (Method::DELETE, "manifests/v1".to_owned()),
            (Method::DELETE, format!("manifests/{}", image.digest())),
            (Method::DELETE, format!("blobs/{blob}")),
        ] {
            let request = repository.request(method.clone(), &format!("{path}{ns}"));
            let request = request.header("content-type", harness::image::MANIFEST);
            let answer = send(request.body(image.manifest.clone())).await.expect(405);
            assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {path}{ns}");
        }
    }

    assert!(place.asked().is_empty(), "{:?}", place.asked());
    image.assert_pullable(&place.here("team/app"), "v1").await;
    // Beside the cache everything is as ever.
    let own = Repository::new(&place.berth.url(""), "own/app");
    image.push(&own, "v1").await;
    own.delete("manifests/v1").await.expect(202);
}
