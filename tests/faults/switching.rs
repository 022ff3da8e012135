//! Another replica for every request of an upload.

use harness::content::{blob, sha256, sha512};
use harness::http::{Repository, send, with_query};
use harness::{Backend, Cluster};
use reqwest::Method;

use super::Servers;

const MIB: usize = 1 << 20;

async fn cluster() -> (Cluster, Repository) {
    let cluster = Cluster::start().await;
    let repository = Repository::new(&format!("http://{}", cluster.address()), "app");
    (cluster, repository)
}

/// Sends chunks of these lengths, each with its range.
async fn send_chunks(repository: &Repository, location: &str, content: &[u8], lengths: &[usize]) {
    let mut at = 0;
    for length in lengths {
        let range = format!("{at}-{}", at + length - 1);
        let answer = repository
            .patch(location, Some(&range), content[at..at + length].to_vec())
            .await
            .expect(202);
        at += length;
        assert_eq!(answer.header("range"), format!("0-{}", at - 1));
    }
    assert_eq!(at, content.len());
}

#[tokio::test]
async fn replicas_take_turns_in_one_upload_whatever_the_chunks() {
    let (cluster, repository) = cluster().await;
    let cases: [(&str, Vec<usize>); 5] = [
        ("", vec![1; 24]),
        ("", vec![7 * MIB; 5]),
        (
            "?digest-algorithm=sha512",
            vec![5 * MIB - 1, 1, 5 * MIB + 1, 100, 7 * MIB, 1, 16 * MIB, 3],
        ),
        ("?digest-algorithm=sha512", vec![1; 7]),
        ("", vec![MIB, 7 * MIB, 1, 64 * 1024, 5 * MIB, 2]),
    ];

    for (seed, (query, lengths)) in cases.into_iter().enumerate() {
        let content = blob(lengths.iter().sum(), seed as u64);
        let request = repository.request(Method::POST, &format!("blobs/uploads/{query}"));
        let start = send(request).await.expect(202);
        let location = start.header("location").to_owned();
        send_chunks(&repository, &location, &content, &lengths).await;
        let digest = if query.is_empty() {
            sha256(&content)
        } else {
            sha512(&content)
        };
        repository.close(&location, &digest, "").await.expect(201);
        repository.assert_blob(&digest, &content).await;
        repository.assert_blob(&digest, &content).await;
    }

    let served = cluster.proxy().served();
    assert!(served[0].abs_diff(served[1]) <= 1, "{served:?}");
}

#[tokio::test]
async fn a_digest_that_nobody_announced_is_verified_by_the_replica_that_closes() {
    let (_cluster, repository) = cluster().await;
    let content = blob(13 * MIB, 7);

    for digest in [sha512(&content), sha512(b"other")] {
        let location = repository.start_upload().await;
        send_chunks(&repository, &location, &content, &[6 * MIB, 7 * MIB]).await;
        let right = digest == sha512(&content);
        repository
            .close(&location, &digest, "")
            .await
            .expect(if right { 201 } else { 400 });
    }

    repository.assert_blob(&sha512(&content), &content).await;
}

#[tokio::test]
async fn what_one_replica_acknowledged_the_other_shows_at_once() {
    let (cluster, repository) = cluster().await;
    let manifest_type = harness::image::MANIFEST;

    for round in 0..20 {
        let image = harness::Image::new(round, 500);
        cluster.proxy().route_to(&[usize::from(round % 2 == 0)]);
        image.push(&repository, "v1").await;
        cluster.proxy().route_to(&[usize::from(round % 2 == 1)]);
        image.assert_pullable(&repository, "v1").await;
        let listed = repository.get("tags/list").await.expect(200).json();
        assert_eq!(listed["tags"], serde_json::json!(["v1"]));
        repository.delete("manifests/v1").await.expect(202);
        cluster.proxy().route_to(&[usize::from(round % 2 == 0)]);
        repository.get_manifest("v1").await.expect(404);
        repository
            .put_manifest("v1", manifest_type, &image.manifest)
            .await
            .expect(201);
        repository.delete("manifests/v1").await.expect(202);
    }
}

#[tokio::test]
async fn an_upload_goes_on_at_the_other_replica_when_one_is_killed_in_a_chunk() {
    let mut servers = Servers::start(Backend::Distributed).await;
    let repository = servers.repository("app");
    let Servers::Two(cluster) = &mut servers else {
        return;
    };
    cluster.proxy().route_to(&[0]);
    let content = blob(20 * MIB, 1);
    let location = repository.start_upload().await;
    repository
        .patch(&location, None, content[..6 * MIB].to_vec())
        .await
        .expect(202);

    // In the middle of a chunk: its client has sent some of it and waits.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let request = repository
        .at(Method::PATCH, &location)
        .body(reqwest::Body::wrap_stream(stream));
    let chunk = tokio::spawn(harness::http::attempt(request));
    for piece in content[6 * MIB..12 * MIB].chunks(64 * 1024) {
        sender
            .send(Ok(piece.to_vec()))
            .await
            .expect("the chunk is being sent");
    }
    cluster.replica(0).kill9();
    cluster.proxy().route_to(&[1]);
    drop(sender);
    let cut = chunk.await.expect("no panic");
    assert!(cut.is_none_or(|answer| answer.status.as_u16() == 502));

    // The dead writer's lease holds 15 s; a chunk that waits for its end is told to look again.
    let resumed = harness::eventually(
        "the upload goes on",
        std::time::Duration::from_secs(60),
        async || {
            let range = repository.progress(&location).await;
            let at = range
                .strip_prefix("0-")
                .and_then(|last| last.parse::<usize>().ok())?
                + 1;
            assert!((6 * MIB..=12 * MIB).contains(&at), "{range}");
            let range = format!("{at}-{}", content.len() - 1);
            let answer = repository
                .patch(&location, Some(&range), content[at..].to_vec())
                .await;
            (answer.status.as_u16() == 202).then_some(())
        },
    );
    resumed.await;
    let url = with_query(&location, &format!("digest={}", sha256(&content)));
    send(repository.at(Method::PUT, &url)).await.expect(201);
    repository.assert_blob(&sha256(&content), &content).await;
}
