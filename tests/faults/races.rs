//! Clients that do the same at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use harness::content::{blob, sha256};
use harness::http::{Repository, send};
use harness::image::{MANIFEST, descriptor};
use harness::{Backend, within};
use reqwest::Method;
use serde_json::json;

use super::Servers;

/// Nothing here waits for a lease of a dead writer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

#[tokio::test]
async fn of_chunks_at_one_offset_exactly_one_is_taken() {
    for backend in Backend::BOTH {
        let servers = Servers::start(backend).await;
        let repository = servers.repository("app");
        for round in 0..8 {
            let start = blob(1000, round);
            let location = repository.start_upload().await;
            repository.patch(&location, None, start.clone()).await.expect(202);

            let chunks: Vec<Vec<u8>> = (0..6)
                .map(|writer| blob(200_000, 1000 + round * 10 + writer))
                .collect();
            let writes = chunks
                .iter()
                .map(|chunk| repository.patch(&location, Some("1000-200999"), chunk.clone()));
            let answers = within("six chunks", LIMIT, join_all(writes)).await;

            let taken: Vec<usize> = (0..6).filter(|&at| answers[at].status.as_u16() == 202).collect();
            assert_eq!(taken.len(), 1, "{backend:?}");
            for answer in answers.into_iter().filter(|answer| answer.status.as_u16() != 202) {
                let refused = answer.expect(416);
                assert_eq!(refused.header("range"), "0-200999");
                assert_eq!(refused.header("location"), location);
                assert_eq!(refused.error_code(), "BLOB_UPLOAD_INVALID");
            }
            let content = [start, chunks[taken[0]].clone()].concat();
            repository
                .close(&location, &sha256(&content), "")
                .await
                .expect(201);
            repository.assert_blob(&sha256(&content), &content).await;
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_closed_twice_at_once_is_closed_for_both() {
    for backend in Backend::BOTH {
        let servers = Servers::start(backend).await;
        let repository = servers.repository("app");
        for round in 0..10 {
            let content = blob(300_000, round);
            let digest = sha256(&content);
            let location = repository.start_upload().await;
            repository
                .patch(&location, None, content.clone())
                .await
                .expect(202);

            let closing = (0..2).map(|_| repository.close(&location, &digest, ""));
            for answer in within("two closing PUTs", LIMIT, join_all(closing)).await {
                let answer = answer.expect(201);
                assert_eq!(answer.header("docker-content-digest"), digest, "{backend:?}");
            }
            repository.assert_blob(&digest, &content).await;
        }
    }
}

#[tokio::test]
async fn one_blob_that_many_clients_push_at_once_is_taken_from_each() {
    for backend in Backend::BOTH {
        let servers = Servers::start(backend).await;
        let content = blob(1_500_000, 1);
        let digest = sha256(&content);
        let repositories: Vec<Repository> = (0..32)
            .map(|number| servers.repository(&format!("team/app-{}", number % 4)))
            .collect();

        let pushes = repositories.iter().enumerate().map(async |(number, repository)| {
            if number % 2 == 0 {
                let path = format!("blobs/uploads/?digest={digest}");
                let request = repository.request(Method::POST, &path).body(content.clone());
                send(request).await.expect(201);
            } else {
                let location = repository.start_upload().await;
                let (first, rest) = content.split_at(700_000);
                repository
                    .patch(&location, None, first.to_vec())
                    .await
                    .expect(202);
                repository
                    .close(&location, &digest, rest.to_vec())
                    .await
                    .expect(201);
            }
        });
        within("32 pushes", LIMIT, join_all(pushes)).await;

        for repository in &repositories[..4] {
            repository.assert_blob(&digest, &content).await;
        }
    }
}

#[tokio::test]
async fn a_push_that_races_a_delete_is_pullable_unless_the_delete_came_later() {
    for backend in Backend::BOTH {
        let servers = Servers::start(backend).await;
        let repository = servers.repository("app");
        let clock = AtomicU64::new(0);
        let tick = || clock.fetch_add(1, Ordering::SeqCst);
        for round in 0..40 {
            let content = blob(5_000, round);
            let digest = sha256(&content);
            let path = format!("blobs/{digest}");
            let push = async || {
                let began = tick();
                let request = repository.request(Method::POST, &format!("blobs/uploads/?digest={digest}"));
                send(request.body(content.clone())).await.expect(201);
                began
            };
            let delete = async || {
                let answer = repository.delete(&path).await;
                assert!([202, 404].contains(&answer.status.as_u16()), "{}", answer.status);
                (answer.status.as_u16() == 202).then(&tick)
            };
            push().await;

            let (first, second, deleted, again) = tokio::join!(push(), push(), delete(), delete());
            let head = repository.head(&path).await.status.as_u16();
            let last_push = first.max(second);
            let later_delete = [deleted, again]
                .into_iter()
                .flatten()
                .any(|ended| ended > last_push);
            assert!(
                head == 200 || (head == 404 && later_delete),
                "{backend:?}: {head}"
            );

            // Without a race there is no doubt: pushed is there, deleted is not.
            push().await;
            repository.assert_blob(&digest, &content).await;
            repository.delete(&path).await.expect(202);
            repository.head(&path).await.expect(404);
        }
    }
}

#[tokio::test]
async fn an_image_that_is_pushed_while_its_parts_are_deleted_is_refused_or_whole() {
    for backend in Backend::BOTH {
        let servers = Servers::start(backend).await;
        let repository = servers.repository("app");
        for round in 0..30 {
            let layer = blob(3_000, round);
            let digest = repository.push_blob(&layer).await;
            repository.push_blob(b"{}").await;
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "annotations": {"round": round.to_string()},
                "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [descriptor("application/octet-stream", &layer)],
            });
            let manifest = serde_json::to_vec(&manifest).expect("JSON values serialise");

            let blob_path = format!("blobs/{digest}");
            let (put, deleted) = tokio::join!(
                repository.put_manifest("v1", MANIFEST, &manifest),
                repository.delete(&blob_path),
            );

            let gone = repository.head(&blob_path).await.status.as_u16() == 404;
            match put.status.as_u16() {
                201 => {
                    let pulled = repository.get_manifest("v1").await.expect(200);
                    assert!(pulled.body == manifest);
                    assert!(
                        !gone || deleted.status.as_u16() == 202,
                        "a layer is gone that nobody deleted"
                    );
                }
                _ => {
                    assert_eq!(put.expect(400).error_code(), "MANIFEST_BLOB_UNKNOWN");
                    assert!(gone, "{backend:?}: refused for a layer that is there");
                }
            }
        }
    }
}
