//! What one client can take of what is shared.

use futures_util::future::join_all;
use harness::content::{blob, sha256};
use harness::http::send;
use harness::{Backend, Berth};
use reqwest::Method;

use super::Target;

#[tokio::test]
async fn open_uploads_are_capped_and_closing_or_cancelling_makes_room() {
    for backend in Backend::BOTH {
        let target = Target::of(Berth::builder().backend(backend).flag("--max-open-uploads", "5")).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(target.repository.start_upload().await);
        }

        for path in ["blobs/uploads/", "blobs/uploads/?mount=sha256:0&from=x"] {
            let refused = send(target.repository.request(Method::POST, path))
                .await
                .expect(429);
            assert_eq!(refused.error_code(), "TOOMANYREQUESTS");
            assert!(refused.header("retry-after").parse::<u64>().is_ok());
        }
        // What is open goes on, and reads do.
        target.repository.get_manifest("v1").await.expect(200);
        target.repository.patch(&open[0], None, "abc").await.expect(202);
        target
            .repository
            .close(&open[0], &sha256(b"abc"), "")
            .await
            .expect(201);
        open[0] = target.repository.start_upload().await;
        send(target.repository.at(Method::DELETE, &open[1]))
            .await
            .expect(204);
        open[1] = target.repository.start_upload().await;
        send(target.repository.request(Method::POST, "blobs/uploads/"))
            .await
            .expect(429);
        target.survived().await;
    }
}

#[tokio::test]
async fn failed_uploads_make_room_as_well() {
    let target = Target::of(Berth::builder().flag("--max-open-uploads", "3")).await;

    for _ in 0..10 {
        let location = target.repository.start_upload().await;
        target
            .repository
            .close(&location, &sha256(b"other"), "abc")
            .await
            .expect(400);
    }
    for _ in 0..10 {
        let path = format!("blobs/uploads/?digest={}", sha256(b"other"));
        send(target.repository.request(Method::POST, &path).body("abc"))
            .await
            .expect(400);
    }
    target.survived().await;
}

#[tokio::test]
async fn a_small_upload_budget_serves_many_uploads_in_turn() {
    for backend in Backend::BOTH {
        let target = Target::of(Berth::builder().backend(backend).flag("--upload-memory", "64MiB")).await;
        let pushes = (0..40).map(async |seed| {
            let content = blob(3_000_000, 100 + seed);
            let digest = target.repository.push_blob(&content).await;
            target.repository.assert_blob(&digest, &content).await;
        });
        harness::within("40 pushes", std::time::Duration::from_secs(60), join_all(pushes)).await;
        target.survived().await;
    }
}

#[tokio::test]
async fn many_ranges_cost_no_more_than_the_blob() {
    let target = Target::start().await;
    let content = blob(1_000_000, 3);
    let digest = target.repository.push_blob(&content).await;
    let path = format!("blobs/{digest}");

    for ranges in [
        vec!["0-"; 1000],
        vec!["0-999999"; 5000],
        (0..1000).map(|_| "5-5").collect(),
        vec!["-1", "0-0", "999999-"],
        vec![
            "18446744073709551615-18446744073709551615",
            "0-18446744073709551616",
        ],
    ] {
        let range = format!("bytes={}", ranges.join(","));
        let request = target
            .repository
            .request(Method::GET, &path)
            .header("Range", range);
        let answer = send(request).await;
        assert!(
            [200, 206, 416].contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
        assert!(answer.body.len() < 1_100_000, "{} bytes", answer.body.len());
    }
    target.survived().await;
}
