//! `If-None-Match`, `If-Match` and `If-Range`.

use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, send};
use harness::image::MANIFEST;
use reqwest::Method;

use super::{EMPTY, artifact, push_artifact, registry};

async fn put(repository: &Repository, tag: &str, header: (&str, &str), manifest: &[u8]) -> Answer {
    let request = repository.request(Method::PUT, &format!("manifests/{tag}"));
    let request = request
        .header("Content-Type", MANIFEST)
        .header(header.0, header.1);
    send(request.body(manifest.to_vec())).await
}

#[tokio::test]
async fn a_client_that_has_the_content_is_told_so_however_it_quotes() {
    let (_berth, repository) = registry().await;
    let digest = sha256(&push_artifact(&repository, "v1", "application/x", None).await);
    let blob = sha256(EMPTY);

    for (path, digest) in [
        ("manifests/v1".to_owned(), &digest),
        (format!("manifests/{digest}"), &digest),
        (format!("blobs/{blob}"), &blob),
    ] {
        for form in [
            digest.clone(),
            format!("\"{digest}\""),
            format!("W/\"{digest}\""),
            format!("\"other\", \"{digest}\""),
            "*".into(),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let request = repository.request(method, &path).header("If-None-Match", &form);
                let answer = send(request).await.expect(304);
                assert_eq!(answer.header("etag"), format!("\"{digest}\""), "{path} {form}");
                assert!(answer.body.is_empty(), "{path} {form}");
            }
        }
        let request = repository
            .request(Method::GET, &path)
            .header("If-None-Match", "\"other\"");
        send(request).await.expect(200);
    }
}

#[tokio::test]
async fn a_tag_can_be_set_only_if_it_is_absent() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;
    let (first, second) = (
        artifact("application/x", None, "1"),
        artifact("application/x", None, "2"),
    );

    put(&repository, "v1", ("If-None-Match", "*"), &first)
        .await
        .expect(201);
    put(&repository, "v1", ("If-None-Match", "*"), &second)
        .await
        .expect(412);

    assert_eq!(repository.get_manifest("v1").await.expect(200).body, first);
    repository.get_manifest(&sha256(&second)).await.expect(404);
}

#[tokio::test]
async fn a_tag_can_be_moved_only_from_a_known_digest() {
    let (_berth, repository) = registry().await;
    let first = push_artifact(&repository, "v1", "application/x", None).await;
    let second = artifact("application/x", None, "2");
    let etag = format!("\"{}\"", sha256(&first));

    put(&repository, "v1", ("If-Match", "\"sha256:nonsense\""), &second)
        .await
        .expect(412);
    put(
        &repository,
        "v1",
        ("If-Match", &format!("\"{}\"", sha256(&second))),
        &second,
    )
    .await
    .expect(412);
    put(&repository, "absent", ("If-Match", "*"), &second)
        .await
        .expect(412);
    assert_eq!(repository.get_manifest("v1").await.expect(200).body, first);
    put(&repository, "v1", ("If-Match", &etag), &second)
        .await
        .expect(201);
    put(&repository, "v1", ("If-Match", &etag), &second)
        .await
        .expect(412);
    put(&repository, "v1", ("If-Match", "*"), &first)
        .await
        .expect(201);

    assert_eq!(repository.get_manifest("v1").await.expect(200).body, first);
}

#[tokio::test]
async fn of_many_writers_that_demand_an_absent_tag_one_wins() {
    let (_berth, repository) = registry().await;
    repository.push_blob(EMPTY).await;

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let repository = repository.clone();
        writers.spawn(async move {
            let manifest = artifact("application/x", None, &writer.to_string());
            let answer = put(&repository, "race", ("If-None-Match", "*"), &manifest).await;
            (answer.status.as_u16(), manifest)
        });
    }
    let results = writers.join_all().await;

    let won: Vec<_> = results.iter().filter(|(status, _)| *status == 201).collect();
    assert_eq!(won.len(), 1);
    assert!(results.iter().all(|(status, _)| [201, 412].contains(status)));
    assert_eq!(repository.get_manifest("race").await.expect(200).body, won[0].1);
}

#[tokio::test]
async fn a_range_counts_only_for_the_content_that_if_range_names() {
    let (_berth, repository) = registry().await;
    let content = blob(100, 1);
    let digest = repository.push_blob(&content).await;
    let read = async |if_range: &str| {
        let request = repository.request(Method::GET, &format!("blobs/{digest}"));
        send(
            request
                .header("Range", "bytes=10-19")
                .header("If-Range", if_range),
        )
        .await
    };

    assert!(read(&format!("\"{digest}\"")).await.expect(206).body == content[10..20]);
    assert!(read("\"other\"").await.expect(200).body == content);
    assert!(read("Wed, 21 Oct 2015 07:28:00 GMT").await.expect(200).body == content);
}
