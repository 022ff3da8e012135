//! A region that is away costs no pull: no error, and no time that anybody would notice.

use std::time::{Duration, Instant};

use harness::content::blob;
use harness::{Bucket, Fault, Faulty, eventually};
use tokio::net::TcpListener;

use super::{Place, WAIT};

/// A pull that a region could not delay by more than its one look.
const SOON: Duration = Duration::from_secs(3);

/// The URL of a bucket at another address of the S3 server.
fn by_way_of(bucket: &Bucket, address: &str) -> String {
    let url = bucket.url();
    let (before, rest) = url.split_once("endpoint=").expect("an endpoint");
    let after = rest.split_once('&').map_or("", |(_, after)| after);
    format!(
        "{before}endpoint=http%3A%2F%2F{}&{after}",
        address.replace(':', "%3A")
    )
}

/// `host:port` of the S3 server.
fn server(bucket: &Bucket) -> String {
    let url = bucket.url();
    let (_, rest) = url.split_once("endpoint=http%3A%2F%2F").expect("an endpoint");
    rest.split('&').next().expect("an address").replace("%3A", ":")
}

/// A place whose region is reached by a way of the test's own.
async fn place_behind(way: &Faulty) -> Place {
    let eu = Bucket::create();
    let url = by_way_of(&eu, &way.address());
    Place::of(url, eu, "networks: [127.0.0.0/8]", |builder| {
        builder.flag("--redirect", "Never")
    })
    .await
}

#[tokio::test]
async fn where_nobody_listens_or_nobody_answers_everything_comes_from_home() {
    // Connections are taken by the kernel, and nothing is ever read of them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = (silent.local_addr().expect("an address").to_string(), silent);
    for address in ["127.0.0.1:1", &silent.0] {
        let eu = Bucket::create();
        let url = by_way_of(&eu, address);
        let place = Place::of(url, eu, "networks: [127.0.0.0/8]", |builder| builder).await;
        let content = blob(70_000, 1);
        let digest = place.repository.push_blob(&content).await;

        let begun = Instant::now();
        for agent in ["curl/8", "containerd/v2.4.2"] {
            let asked = place.asking(&digest, "").header("User-Agent", agent);
            let answer = harness::http::send(asked).await;
            assert!(
                answer.status.is_success() || answer.status.as_u16() == 307,
                "{}",
                answer.status
            );
            assert_eq!(answer.header("berth-region"), "home", "{address} {agent}");
        }
        assert!(begun.elapsed() < SOON, "{address}: {:?}", begun.elapsed());
        place.shows("berth_region_up{region=\"eu\"} 0").await;
        place
            .shows("berth_region_fallbacks_total{region=\"eu\",why=\"away\"} 2")
            .await;
    }
}

#[tokio::test]
async fn a_region_that_falls_silent_is_left_and_comes_back() {
    let way = Faulty::before(&server(&Bucket::create())).await;
    let place = place_behind(&way).await;
    let content = blob(70_000, 2);
    let digest = place.repository.push_blob(&content).await;
    place.replicate();
    place.is_up().await;
    let region = async || {
        let answer = place.blob(&digest, "").await.expect(200);
        assert!(answer.body == content);
        answer.header("berth-region").to_owned()
    };
    assert_eq!(region().await, "eu");

    way.always("*", "", Fault::Hangs);
    let begun = Instant::now();
    assert_eq!(region().await, "home");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // The next ones do not even look.
    let asked = way.count("GET", "");
    assert_eq!(region().await, "home");
    assert_eq!(way.count("GET", ""), asked);

    way.heal();
    eventually("the region is back", WAIT, async || {
        (region().await == "eu").then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_that_break_off_in_a_region_go_on_from_home() {
    let way = Faulty::before(&server(&Bucket::create())).await;
    let place = place_behind(&way).await;
    let content = blob(3_000_000, 3);
    let digest = place.repository.push_blob(&content).await;
    place.replicate();
    place.is_up().await;

    // Whatever is asked of the region again breaks off as well.
    way.always("GET", "blobs/", Fault::Cut(1_000_000));
    let answer = place.blob(&digest, "").await.expect(200);

    assert!(answer.body == content);
    assert_eq!(answer.header("berth-region"), "eu");
    place
        .shows("berth_region_fallbacks_total{region=\"eu\",why=\"broken\"} 1")
        .await;
}
