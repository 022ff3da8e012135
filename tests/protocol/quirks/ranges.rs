//! Parts of blobs.

use harness::content::{blob, sha256};
use harness::http::{Answer, Repository, send};
use reqwest::Method;

use super::registry;

async fn read(repository: &Repository, digest: &str, range: &str) -> Answer {
    send(
        repository
            .request(Method::GET, &format!("blobs/{digest}"))
            .header("Range", range),
    )
    .await
}

#[tokio::test]
async fn one_range_is_sent_with_its_place_and_length() {
    let (_berth, repository) = registry().await;
    let content = blob(100, 1);
    let digest = repository.push_blob(&content).await;

    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=5-", 5, 99),
        ("bytes=-10", 90, 99),
        ("bytes=90-1000", 90, 99),
        ("bytes=-1000", 0, 99),
        ("bytes=0-99", 0, 99),
        ("Bytes=1-2", 1, 2),
        ("bytes= 3-4", 3, 4),
        ("bytes=10-19,200-300", 10, 19),
        ("bytes=10-19,15-29", 10, 29),
        ("bytes=10-19,20-29", 10, 29),
        ("bytes=0-99999999999999999999999", 0, 99),
    ] {
        let answer = read(&repository, &digest, range).await.expect(206);
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {first}-{last}/100"),
            "{range}"
        );
        assert_eq!(
            answer.header("content-length"),
            (last - first + 1).to_string(),
            "{range}"
        );
        assert_eq!(answer.header("docker-content-digest"), digest, "{range}");
        assert!(answer.body == content[first..=last], "{range}");
    }
}

#[tokio::test]
async fn a_range_without_a_byte_of_the_blob_is_unsatisfiable() {
    let (_berth, repository) = registry().await;
    let digest = repository.push_blob(&blob(100, 2)).await;

    for range in [
        "bytes=100-",
        "bytes=100-200",
        "bytes=500-0",
        "bytes=-0",
        "bytes=200-300,400-500",
    ] {
        let answer = read(&repository, &digest, range).await.expect(416);
        assert_eq!(answer.header("content-range"), "bytes */100", "{range}");
    }
}

#[tokio::test]
async fn a_range_that_means_nothing_is_ignored() {
    let (_berth, repository) = registry().await;
    let content = blob(100, 3);
    let digest = repository.push_blob(&content).await;

    for range in [
        "items=0-1",
        "bytes=a-b",
        "bytes=",
        "bytes=-",
        "bytes",
        "0-1",
        "bytes=1-2,x",
        "bytes=+1-2",
    ] {
        let answer = read(&repository, &digest, range).await.expect(200);
        assert!(
            answer.body == content && answer.header("content-range").is_empty(),
            "{range}"
        );
    }
}

#[tokio::test]
async fn a_range_on_a_head_or_of_the_empty_blob_is_ignored() {
    let (_berth, repository) = registry().await;
    let digest = repository.push_blob(&blob(100, 4)).await;
    let empty = repository.push_blob(b"").await;

    let head = repository.request(Method::HEAD, &format!("blobs/{digest}"));
    let head = send(head.header("Range", "bytes=0-9")).await.expect(200);
    assert_eq!(head.header("content-length"), "100");
    for range in ["bytes=0-0", "bytes=0-", "bytes=-5"] {
        let answer = read(&repository, &empty, range).await.expect(200);
        assert!(
            answer.body.is_empty() && answer.header("content-length") == "0",
            "{range}"
        );
    }
}

#[tokio::test]
async fn several_ranges_are_sent_as_parts_in_one_answer_of_known_length() {
    let (_berth, repository) = registry().await;
    let content = blob(1000, 5);
    let digest = repository.push_blob(&content).await;

    let answer = read(&repository, &digest, "bytes=0-9,500-519,-5")
        .await
        .expect(206);

    let kind = answer.header("content-type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{kind}"));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert_eq!(
        parts(&answer.body, boundary.trim_matches('"')),
        [
            ("bytes 0-9/1000".to_owned(), content[..10].to_vec()),
            ("bytes 500-519/1000".to_owned(), content[500..520].to_vec()),
            ("bytes 995-999/1000".to_owned(), content[995..].to_vec()),
        ]
    );
}

#[tokio::test]
async fn more_ranges_than_a_client_needs_are_answered_with_the_whole() {
    let (_berth, repository) = registry().await;
    let content = blob(1000, 6);
    let digest = repository.push_blob(&content).await;
    let many = |count: usize| {
        let ranges: Vec<String> = (0..count).map(|at| format!("{0}-{0}", at * 10)).collect();
        format!("bytes={}", ranges.join(","))
    };

    read(&repository, &digest, &many(16)).await.expect(206);
    for count in [17, 90] {
        assert!(read(&repository, &digest, &many(count)).await.expect(200).body == content);
    }
}

#[tokio::test]
async fn a_pull_that_broke_off_is_resumed_to_the_byte() {
    let (_berth, repository) = registry().await;
    let content = blob(3_000_000, 7);
    let digest = repository.push_blob(&content).await;

    let mut pulled = content[..1_234_567].to_vec();
    let answer = read(&repository, &digest, "bytes=1234567-").await.expect(206);
    assert_eq!(answer.header("content-range"), "bytes 1234567-2999999/3000000");
    pulled.extend(answer.body);

    assert_eq!(sha256(&pulled), digest);
}

#[tokio::test]
async fn parallel_parts_make_the_whole() {
    let (_berth, repository) = registry().await;
    let content = blob(2_000_000, 8);
    let digest = repository.push_blob(&content).await;

    let reads = (0..20).map(|part| {
        let range = format!("bytes={}-{}", part * 100_000, part * 100_000 + 99_999);
        let (repository, digest) = (repository.clone(), digest.clone());
        async move { read(&repository, &digest, &range).await.expect(206).body }
    });
    let pulled = futures_util::future::join_all(reads).await.concat();

    assert!(pulled == content);
}

/// The parts of a multipart body: their `Content-Range` and bytes.
fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
    let delimiter = format!("--{boundary}");
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let mut rest = body;
    let mut parts = Vec::new();
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            break;
        }
        let head = find(rest, b"\r\n\r\n").expect("a part has headers");
        let headers = String::from_utf8_lossy(&rest[..head]).into_owned();
        let range = headers
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-range: ")
                    .map(str::to_owned)
            })
            .expect("a part has a Content-Range");
        rest = &rest[head + 4..];
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).expect("a part has an end");
        parts.push((range, rest[..end].to_vec()));
    }
    parts
}
