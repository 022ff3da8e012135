//! Two replicas before one upstream.

use std::sync::Arc;
use std::time::Duration;

use harness::content::blob;
use harness::http::{Repository, client, send};
use harness::{Admin, Berth, Builder, Cluster, Fault, Faulty, Image, Upstream, eventually, within};
use reqwest::Method;
use serde_json::json;

use super::{KIB, MIB, WAIT, at_once, digest_of, push_layer, put_cache, reaching};

struct Two {
    upstream: Upstream,
    way: Faulty,
    cluster: Cluster,
    /// The same repository at each replica.
    here: [Repository; 2],
}

/// Two replicas that both know of the cache.
async fn two_replicas() -> Two {
    replicas_of(reaching(Berth::builder())).await
}

/// The same, which read from each other what one of them fetches.
async fn two_peers() -> Two {
    replicas_of(reaching(Berth::builder()).reached_by_peers()).await
}

async fn replicas_of(builder: Builder) -> Two {
    let upstream = Upstream::start().await;
    let way = Faulty::before(&upstream.address()).await;
    let mut cluster = Cluster::start_with(2, builder).await;
    let admin = Admin::of(cluster.replica(0));
    put_cache(&admin, "default", &way, json!({})).await;
    let here = [0, 1].map(|number| Repository::new(&cluster.replica(number).url(""), "up/app"));
    for repository in &here {
        eventually("both know the cache", WAIT, async || {
            let answer = repository.delete("manifests/nothing").await;
            (answer.status == 405).then_some(())
        })
        .await;
    }
    Two {
        upstream,
        way,
        cluster,
        here,
    }
}

impl Two {
    /// Pushes an image of one layer, and pulls its manifest at a replica.
    async fn layer(&self, layer: &[u8]) -> String {
        let there = self.upstream.repository("app");
        let digest = push_layer(&there, "v1", layer).await;
        self.here[0].get_manifest("v1").await.expect(200);
        self.way.forget();
        digest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_many_ask_both_replicas_for_is_fetched_once() {
    fetched_once(two_replicas().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_many_ask_both_peers_for_is_fetched_once() {
    fetched_once(two_peers().await).await;
}

async fn fetched_once(two: Two) {
    let digest = two.layer(&blob(16 * MIB, 1)).await;
    let rate = 4 * MIB as u64;
    two.way.always("GET", "/blobs/", Fault::Slow(rate));
    let path = format!("blobs/{digest}");

    let pulled = at_once(40, async |number| {
        digest_of(two.here[number % 2].request(Method::GET, &path)).await
    })
    .await;

    assert_eq!(pulled, vec![Ok(digest); 40]);
    let asked = two.way.questions("GET", "/blobs/");
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_many_ask_both_replicas_for_is_fetched_once() {
    let two = two_replicas().await;
    let image = Image::new(1, KIB);
    image.push(&two.upstream.repository("app"), "v1").await;
    let late = Fault::Late(Duration::from_millis(500));
    two.way.always("*", "/manifests/", late);
    two.way.forget();

    let answers = at_once(40, async |number| two.here[number % 2].get_manifest("v1").await).await;

    for answer in answers {
        assert_eq!(answer.expect(200).body, image.manifest);
    }
    assert_eq!(two.way.count("GET", "/manifests/"), 1, "{:?}", two.way.asked());
    // What one has looked at the other need not look at.
    two.way.forget();
    for repository in &two.here {
        image.assert_pullable(repository, "v1").await;
    }
    assert_eq!(two.way.count("*", "/manifests/"), 0, "{:?}", two.way.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_whose_replica_is_killed_is_finished_by_the_other() {
    finished_by_the_other(two_replicas().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_whose_peer_is_killed_is_finished_by_the_other() {
    finished_by_the_other(two_peers().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_sends_on_what_the_other_fetches_while_it_comes() {
    let two = two_peers().await;
    let layer = blob(8 * MIB, 1);
    let digest = two.layer(&layer).await;
    two.way.always("GET", "/blobs/", Fault::Held(3 * MIB as u64));
    let path = format!("blobs/{digest}");

    let mut answers = Vec::new();
    for repository in &two.here {
        let request = repository.request(Method::GET, &path);
        let mut answer = within("an answer", WAIT, request.send()).await.expect("one");
        let begun = within("the beginning", WAIT, answer.chunk()).await;
        assert!(begun.expect("no error").is_some());
        answers.push(answer);
    }

    two.way.release();
    for mut answer in answers {
        while answer.chunk().await.expect("no error").is_some() {}
    }
    two.here[1].assert_blob(&digest, &layer).await;
    assert_eq!(two.way.count("GET", "/blobs/"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_that_one_peer_was_sent_reach_nobody_as_a_whole_blob() {
    let two = two_peers().await;
    for seed in 0..6 {
        let layer = blob(8 * MIB, seed);
        let digest = two.layer(&layer).await;
        two.way.once("GET", "/blobs/", Fault::Flipped(5 * MIB as u64));
        let path = format!("blobs/{digest}");
        let got = at_once(6, async |client| {
            digest_of(two.here[client % 2].request(Method::GET, &path)).await
        })
        .await;
        assert!(got.iter().any(Result::is_err), "it was sent to somebody: {got:?}");
        for found in got.iter().flatten() {
            assert_eq!(found, &digest);
        }
        for here in &two.here {
            here.assert_blob(&digest, &layer).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_peer_is_sent_what_a_replica_fetches() {
    let mut two = two_peers().await;
    let digest = two.layer(&blob(MIB, 1)).await;
    two.way.always("GET", "/blobs/", Fault::Held(KIB as u64));
    let request = two.here[0].request(Method::GET, &format!("blobs/{digest}"));
    let whole = tokio::spawn(digest_of(request));
    eventually("it is being fetched", WAIT, async || {
        (two.way.count("GET", "/blobs/") == 1).then_some(())
    })
    .await;
    let admin = Admin::of(two.cluster.replica(0));
    let token = admin.token("default", &["**"], &["pull"]).await;

    let url = two.cluster.replica(0).url("/peer/blob");
    for shown in ["", "Bearer x", &format!("Bearer {token}")] {
        let request = client().get(&url).header("range", "bytes=0-");
        let answer = send(request.header("authorization", shown)).await;
        assert!([401, 404].contains(&answer.status.as_u16()), "{answer:?}");
    }

    two.way.release();
    assert_eq!(whole.await.expect("no panic"), Ok(digest));
}

async fn finished_by_the_other(mut two: Two) {
    let layer = blob(16 * MIB, 1);
    let digest = two.layer(&layer).await;
    two.way.once("GET", "/blobs/", Fault::Held(9 * MIB as u64));
    let path = format!("blobs/{digest}");
    let mut first = two.here[0]
        .request(Method::GET, &path)
        .send()
        .await
        .expect("an answer");
    let begun = within("the beginning of the blob", WAIT, first.chunk()).await;
    assert!(begun.expect("no error").is_some(), "the first replica fetches");
    eventually("the fetch is in its middle", WAIT, async || {
        let asked = two.way.questions("GET", "/blobs/");
        (asked[0].sent() >= 9 * MIB as u64).then_some(())
    })
    .await;
    let second = Arc::new(two.here[1].clone());
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (second, path) = (second.clone(), path.clone());
            tokio::spawn(async move { digest_of(second.request(Method::GET, &path)).await })
        })
        .collect();
    // The other has heard of it by now: it answers what needs no byte of it.
    two.here[1].head(&path).await.expect(200);
    assert_eq!(two.way.count("GET", "/blobs/"), 1);

    two.cluster.replica(0).kill9();

    for client in waiting {
        let pulled = within("the blob", 2 * WAIT, client).await.expect("no panic");
        assert_eq!(pulled, Ok(digest.clone()));
    }
    two.here[1].assert_blob(&digest, &layer).await;
    let asked = two.way.questions("GET", "/blobs/");
    assert!(asked.len() <= 3, "{asked:?}");
    two.way.go_down();
    two.here[1].assert_blob(&digest, &layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_whose_replica_is_killed_while_it_asks_is_asked_for_by_the_other() {
    let mut two = two_replicas().await;
    let image = Image::new(1, KIB);
    image.push(&two.upstream.repository("app"), "v1").await;
    two.way.once("*", "/manifests/", Fault::Hangs);
    two.way.forget();
    let (first, second) = (two.here[0].clone(), two.here[1].clone());
    let lost = tokio::spawn(async move {
        let request = first.request(Method::GET, "manifests/v1");
        harness::http::attempt(request).await
    });
    eventually("the first replica asks", WAIT, async || {
        (two.way.count("*", "/manifests/") == 1).then_some(())
    })
    .await;

    two.cluster.replica(0).kill9();

    assert!(lost.await.expect("no panic").is_none());
    eventually("the second has it", 2 * WAIT, async || {
        let answer = second.get_manifest("v1").await;
        (answer.body == image.manifest).then_some(())
    })
    .await;
    image.assert_pullable(&second, "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_has_cached_the_other_serves_without_the_upstream() {
    let two = two_replicas().await;
    let image = Image::new(1, 300 * KIB);
    image.push(&two.upstream.repository("app"), "v1").await;

    image.assert_pullable(&two.here[0], "v1").await;

    two.way.go_down();
    image.assert_pullable(&two.here[1], "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_the_upstream_wants_is_kept_by_each_replica() {
    let two = two_replicas().await;
    let image = Image::new(1, KIB);
    image.push(&two.upstream.repository("app"), "v1").await;
    let pause = Fault::Answered(429, vec![("retry-after", "60".to_owned())]);
    two.way.always("*", "/app/", pause);
    two.way.forget();

    for _ in 0..5 {
        for repository in &two.here {
            repository.get_manifest("v1").await.expect(429);
        }
    }

    let asked = two.way.count("*", "/app/");
    assert!(asked <= 2, "each may find out by itself: {asked}");
}
