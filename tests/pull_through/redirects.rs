//! Upstreams that send their blobs from elsewhere.

use std::io::ErrorKind;
use std::net::TcpListener;

use harness::content::blob;
use harness::{Fault, Faulty, Guard, within};
use serde_json::json;

use super::{AT_ONCE, KIB, Place, is_failure};

fn to(url: String) -> Fault {
    Fault::Answered(307, vec![("location", url)])
}

#[tokio::test]
async fn a_blob_comes_from_another_host_which_sees_no_credential() {
    let login = json!({ "upstream": { "username": "reader", "password": "first" } });
    for guard in [
        Guard::basic("reader", "first"),
        Guard::bearer().to("reader", "first"),
    ] {
        let place = Place::with(login.clone()).await;
        place.way.guard(guard);
        let layer = blob(300 * KIB, 1);
        let digest = place.layer("app", &layer).await;
        let store = Faulty::before(&place.upstream.address()).await;
        let url = format!("{}/v2/app/blobs/{digest}?signature=x", store.url());
        place.way.always("*", "/blobs/", to(url));

        place.here("app").assert_blob(&digest, &layer).await;

        let asked = store.asked();
        assert!(!asked.is_empty(), "the other host was asked");
        for question in asked {
            assert_eq!(question.header("authorization"), "");
            assert_eq!(question.header("cookie"), "");
            assert!(question.path.ends_with("?signature=x"), "{}", question.path);
        }
    }
}

#[tokio::test]
async fn a_fetch_from_another_host_is_taken_up_by_asking_the_upstream_again() {
    let place = Place::new().await;
    let layer = blob(2 << 20, 1);
    let digest = place.layer("app", &layer).await;
    let store = Faulty::before(&place.upstream.address()).await;
    let url = format!("{}/v2/app/blobs/{digest}", store.url());
    place.way.always("GET", "/blobs/", to(url));
    store.once("GET", "/blobs/", Fault::Cut(1 << 20));

    place.here("app").assert_blob(&digest, &layer).await;

    assert_eq!(store.count("GET", "/blobs/"), 2);
    assert!(store.asked()[1].header("range").starts_with("bytes="));
    // Where it was sent to may have been good for a short time only.
    assert_eq!(place.way.count("GET", "/blobs/"), 2);
}

#[tokio::test]
async fn no_redirect_leads_to_an_address_that_is_not_allowed() {
    let place = Place::new().await;
    let inside = TcpListener::bind("127.0.0.2:0").expect("a port of another loopback address");
    inside.set_nonblocking(true).expect("a listener");
    let port = inside.local_addr().expect("its address").port();

    for (number, host) in [
        "169.254.169.254".to_owned(),
        format!("127.0.0.2:{port}"),
        format!("[::ffff:127.0.0.2]:{port}"),
        format!("2130706434:{port}"),
        "0.0.0.0".to_owned(),
        "[::1]".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("app-{number}");
        let layer = blob(KIB, number as u64);
        let digest = place.layer(&name, &layer).await;
        let image = place.pushed(&name, "v2", number as u64).await;
        let url = format!("http://{host}/latest/meta-data/");
        place.way.always("GET", "/blobs/", to(url.clone()));
        place.way.always("*", "/manifests/v2", to(url));
        let here = place.here(&name);

        let blob = within("an error", AT_ONCE, here.get(&format!("blobs/{digest}"))).await;
        let manifest = within("an error", AT_ONCE, here.get_manifest("v2")).await;

        for answer in [blob, manifest] {
            assert!(
                !answer.text().contains("169.254") || answer.status == 502,
                "{answer:?}"
            );
            assert_eq!(answer.expect(502).header("location"), "", "{host}");
        }
        place.way.heal();
        here.assert_blob(&digest, &layer).await;
        image.assert_pullable(&here, "v2").await;
    }
    let nobody = inside.accept().expect_err("nobody has come");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn redirects_in_a_circle_are_given_up() {
    let place = Place::new().await;
    let digest = place.layer("app", &blob(KIB, 1)).await;
    let own = format!("{}/v2/app/blobs/{digest}", place.way.url());
    place.way.always("*", "/blobs/", to(own));

    let here = place.here("app");
    let answer = within("an error", AT_ONCE, here.get(&format!("blobs/{digest}"))).await;

    assert!(is_failure(&answer), "{answer:?}");
    let asked = place.way.count("*", "/blobs/");
    assert!(asked <= 30, "asked {asked} times");
}

#[tokio::test]
async fn an_upstream_at_an_address_that_is_not_allowed_is_not_asked() {
    let place = Place::new().await;
    let inside = TcpListener::bind("127.0.0.2:0").expect("a port of another loopback address");
    inside.set_nonblocking(true).expect("a listener");
    let url = format!("http://{}", inside.local_addr().expect("its address"));
    place.configure(json!({ "upstream": { "url": url } })).await;

    let answer = place.here("app").get_manifest("v1").await;

    assert!(is_failure(&answer), "{answer:?}");
    let nobody = inside.accept().expect_err("nobody has come");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}
