//! The S3 server is killed and comes back.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{Repository, attempt, with_query};
use harness::{Backend, Berth, Image, OwnServer, eventually, within};
use reqwest::Method;

const MIB: usize = 1 << 20;
/// Within it every request is answered while the store is away, and served once it is back.
const LIMIT: Duration = Duration::from_secs(60);

async fn registry(s3: &OwnServer) -> (Berth, Repository) {
    let berth = Berth::builder()
        .backend(Backend::Distributed)
        .variable("BERTH_BLOBS", &s3.url())
        .flag("--redirect", "Never")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "app");
    (berth, repository)
}

/// Sends the rest of an upload from where the registry says that it stands, until it is published.
async fn go_on(repository: &Repository, location: &str, content: &[u8]) {
    eventually("the upload completes", LIMIT, async || {
        let range = repository.progress(location).await;
        let last: i64 = range
            .strip_prefix("0-")
            .and_then(|last| last.parse().ok())
            .expect("a Range");
        let at = usize::try_from(last + 1).expect("an offset");
        if at < content.len() {
            let range = format!("{at}-{}", content.len() - 1);
            let request = repository
                .at(Method::PATCH, location)
                .header("Content-Range", range);
            let answer = attempt(request.body(content[at..].to_vec())).await?;
            if answer.status.as_u16() != 202 {
                assert!([416, 503].contains(&answer.status.as_u16()), "{answer:?}");
                return None;
            }
        }
        let url = with_query(location, &format!("digest={}", sha256(content)));
        let answer = attempt(repository.at(Method::PUT, &url)).await?;
        (answer.status.as_u16() == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_survives_the_absence_of_the_object_store() {
    let mut s3 = OwnServer::s3();
    let (berth, repository) = registry(&s3).await;
    let image = Image::new(1, 100_000);
    image.push(&repository, "before").await;
    let content = blob(40 * MIB, 2);
    let location = repository.start_upload().await;
    repository
        .patch(&location, None, content[..9 * MIB].to_vec())
        .await
        .expect(202);

    s3.kill();

    let refused = within(
        "an answer while the store is away",
        LIMIT,
        repository.patch(&location, None, content[9 * MIB..].to_vec()),
    )
    .await;
    assert_eq!(refused.expect(503).error_code(), "UNAVAILABLE");
    // What needs no blob store works on: manifests, tags, the existence of blobs, the state of uploads.
    let pulled = repository.get_manifest("before").await.expect(200);
    assert!(pulled.body == image.manifest);
    repository
        .head(&format!("blobs/{}", sha256(&image.config)))
        .await
        .expect(200);
    assert!(repository.progress(&location).await.starts_with("0-"));
    let blob_path = format!("blobs/{}", sha256(&image.layers[0]));
    let read = within(
        "a read",
        LIMIT,
        attempt(repository.request(Method::GET, &blob_path)),
    )
    .await;
    assert!(read.is_none_or(|answer| answer.status.as_u16() == 503));
    let ready = harness::http::client();
    eventually("the registry is not ready without its blobs", LIMIT, async || {
        let answer = ready.get(berth.ops_url("/readyz")).send().await.ok()?;
        (answer.status().as_u16() == 503).then_some(())
    })
    .await;

    s3.start();

    go_on(&repository, &location, &content).await;
    repository.assert_blob(&sha256(&content), &content).await;
    image.assert_pullable(&repository, "before").await;
    Image::new(3, 100_000).push(&repository, "after").await;
    eventually("the registry is ready again", LIMIT, async || {
        let answer = ready.get(berth.ops_url("/readyz")).send().await.ok()?;
        (answer.status().as_u16() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn uploads_that_are_in_flight_when_the_object_store_is_killed_complete_later() {
    let mut s3 = OwnServer::s3();
    let (_berth, repository) = registry(&s3).await;
    let mut uploads = Vec::new();
    let mut chunks = tokio::task::JoinSet::new();
    for seed in 10..14 {
        let content = blob(24 * MIB, seed);
        let location = repository.start_upload().await;
        let pieces = content.chunks(128 * 1024).map(<[u8]>::to_vec).collect();
        let request = repository.at(Method::PATCH, &location);
        chunks.spawn(attempt(request.body(harness::http::streamed(pieces))));
        uploads.push((location, content));
    }
    // Some part of some upload has reached the store.
    let first = uploads[0].0.clone();
    eventually("bytes have arrived", LIMIT, async || {
        let range = repository.progress(&first).await;
        (range != "0--1").then_some(())
    })
    .await;

    s3.kill();
    s3.start();

    for answer in within("the chunks in flight", LIMIT, chunks.join_all()).await {
        let status = answer.map(|answer| answer.status.as_u16());
        assert!(matches!(status, None | Some(202 | 503)), "{status:?}");
    }
    for (location, content) in &uploads {
        go_on(&repository, location, content).await;
        repository.assert_blob(&sha256(content), content).await;
    }
}
