//! PATCH: where an upload stands, and chunks that do not fit.

use std::time::{Duration, Instant};

use harness::Wire;
use harness::content::{blob, sha256};
use harness::http::{send, streamed};
use reqwest::Method;

use super::registry;

#[tokio::test]
async fn every_answer_of_an_upload_says_where_it_stands_in_the_form_that_docker_parses() {
    let (_berth, repository) = registry().await;
    let content = blob(300, 1);

    let start = send(repository.request(Method::POST, "blobs/uploads/"))
        .await
        .expect(202);
    let (location, id) = (
        start.header("location").to_owned(),
        start.header("docker-upload-uuid").to_owned(),
    );
    assert!(
        location.starts_with("/v2/team-a/app/blobs/uploads/") && location.contains(&id),
        "{location}"
    );
    assert_eq!((start.header("range"), id.len()), ("0-0", 36));
    let first = repository
        .patch(&location, None, content[..100].to_vec())
        .await
        .expect(202);
    let second = repository
        .patch(&location, Some("100-299"), content[100..].to_vec())
        .await
        .expect(202);

    for (answer, range) in [(first, "0-99"), (second, "0-299")] {
        assert_eq!(answer.header("range"), range);
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.header("docker-upload-uuid"), id);
        assert_eq!(answer.header("content-length"), "0");
    }
    assert_eq!(repository.progress(&location).await, "0-299");
}

#[tokio::test]
async fn an_upload_without_a_byte_reads_0_0_while_pushing_and_0_minus_1_where_a_client_asks() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;

    assert_eq!(repository.progress(&location).await, "0--1");
    let refused = repository
        .patch(&location, Some("5-9"), "67890")
        .await
        .expect(416);
    assert_eq!(
        (refused.header("range"), refused.header("location")),
        ("0--1", location.as_str())
    );
    assert_eq!(refused.error_code(), "BLOB_UPLOAD_INVALID");
    let empty = repository.patch(&location, None, "").await.expect(202);
    assert_eq!(empty.header("range"), "0-0");
}

#[tokio::test]
async fn a_content_range_with_unit_and_size_is_understood_and_nonsense_is_refused() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;

    repository
        .patch(&location, Some("bytes 0-4/10"), "12345")
        .await
        .expect(202);
    for nonsense in [
        "",
        "5",
        "9-5",
        "a-b",
        "-5",
        "5-",
        "99999999999999999999999-99999999999999999999999",
    ] {
        let refused = repository
            .patch(&location, Some(nonsense), "67890")
            .await
            .expect(416);
        assert_eq!(refused.error_code(), "BLOB_UPLOAD_INVALID", "{nonsense}");
    }
    assert_eq!(repository.progress(&location).await, "0-4");
    repository
        .patch(&location, Some("bytes 5-9/*"), "67890")
        .await
        .expect(202);
    repository
        .close(&location, &sha256(b"1234567890"), "")
        .await
        .expect(201);
}

#[tokio::test]
async fn a_content_range_that_contradicts_the_body_is_a_size_error_and_costs_nothing() {
    let (_berth, repository) = registry().await;
    let content = blob(40, 2);
    let location = repository.start_upload().await;
    repository
        .patch(&location, Some("0-9"), content[..10].to_vec())
        .await
        .expect(202);

    let bodies = [
        ("declared longer", reqwest::Body::from(content[10..21].to_vec())),
        ("declared shorter", reqwest::Body::from(content[10..19].to_vec())),
        (
            "streamed longer",
            streamed(vec![content[10..15].to_vec(), content[15..31].to_vec()]),
        ),
        ("streamed shorter", streamed(vec![content[10..15].to_vec()])),
    ];
    let started = Instant::now();
    for (what, body) in bodies {
        let refused = repository.patch(&location, Some("10-19"), body).await.expect(400);
        assert_eq!(refused.error_code(), "SIZE_INVALID", "{what}");
        assert_eq!(repository.progress(&location).await, "0-9", "{what}");
    }
    repository
        .patch(&location, Some("10-39"), content[10..].to_vec())
        .await
        .expect(202);
    // A refusal holds no lease that the next chunk would have to wait for.
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    repository
        .close(&location, &sha256(&content), "")
        .await
        .expect(201);
    repository.assert_blob(&sha256(&content), &content).await;
}

#[tokio::test]
async fn a_connection_that_breaks_keeps_what_has_arrived() {
    let (berth, repository) = registry().await;
    let content = blob(100, 9);
    for head in [
        "Content-Length: 100\r\n\r\n",
        "Content-Length: 100\r\nContent-Range: 0-99\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n64\r\n",
    ] {
        let location = repository.start_upload().await;
        let mut wire = Wire::connect(&berth.address()).await;
        wire.send(format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\n{head}"))
            .await;
        wire.send(&content[..60]).await;
        wire.end().await;
        wire.rest().await;

        assert_eq!(repository.progress(&location).await, "0-59", "{head}");
        repository
            .patch(&location, Some("60-99"), content[60..].to_vec())
            .await
            .expect(202);
        repository
            .close(&location, &sha256(&content), "")
            .await
            .expect(201);
    }
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_taken_in_one_patch_and_across_several() {
    let (_berth, repository) = registry().await;
    let content = blob(700_000, 3);
    let location = repository.start_upload().await;

    for part in content.chunks(300_000) {
        let pieces = part.chunks(777).map(<[u8]>::to_vec).collect();
        repository
            .patch(&location, None, streamed(pieces))
            .await
            .expect(202);
    }
    repository
        .close(&location, &sha256(&content), "")
        .await
        .expect(201);

    repository.assert_blob(&sha256(&content), &content).await;
}

#[tokio::test]
async fn chunks_of_one_byte_make_a_blob() {
    let (_berth, repository) = registry().await;
    let content = blob(50, 4);
    let location = repository.start_upload().await;

    for (at, byte) in content.iter().enumerate() {
        let range = format!("{at}-{at}");
        let answer = repository
            .patch(&location, Some(&range), vec![*byte])
            .await
            .expect(202);
        assert_eq!(answer.header("range"), format!("0-{at}"));
    }
    repository
        .close(&location, &sha256(&content), "")
        .await
        .expect(201);

    repository.assert_blob(&sha256(&content), &content).await;
}

#[tokio::test]
async fn chunks_need_no_content_type_and_any_is_ignored() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;

    for (chunk, kind) in [
        ("a", "application/json"),
        ("b", "text/html; charset=x"),
        ("c", "nonsense"),
    ] {
        let request = repository
            .at(Method::PATCH, &location)
            .header("Content-Type", kind);
        send(request.body(chunk)).await.expect(202);
    }
    repository.patch(&location, None, "d").await.expect(202);

    repository
        .close(&location, &sha256(b"abcd"), "")
        .await
        .expect(201);
}

#[tokio::test]
async fn a_session_belongs_to_its_repository() {
    let (_berth, repository) = registry().await;
    let location = repository.start_upload().await;
    repository.patch(&location, None, "kept").await.expect(202);
    let elsewhere = location.replace("team-a/app", "team-b/app");

    for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
        let url = harness::http::with_query(&elsewhere, &format!("digest={}", sha256(b"kept")));
        let answer = send(repository.at(method.clone(), &url)).await.expect(404);
        assert_eq!(answer.error_code(), "BLOB_UPLOAD_UNKNOWN", "{method}");
    }

    assert_eq!(repository.progress(&location).await, "0-3");
}

#[tokio::test]
async fn what_is_no_session_id_names_no_session() {
    let (_berth, repository) = registry().await;
    repository.push_blob(b"x").await;

    for id in [
        "x",
        "00000000-0000-0000-0000-000000000000",
        "%2e%2e%2e",
        &"f".repeat(500),
    ] {
        let answer = repository.get(&format!("blobs/uploads/{id}")).await.expect(404);
        assert_eq!(answer.error_code(), "BLOB_UPLOAD_UNKNOWN", "{id}");
    }
}
