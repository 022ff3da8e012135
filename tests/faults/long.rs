//! Blobs of real size: minutes and gigabytes, in a run with `--full` only.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness::content::blob;
use harness::http::{Repository, attempt, with_query};
use harness::{Backend, Berth};
use reqwest::Method;
use sha2::{Digest, Sha256};

const GIB: u64 = 1 << 30;
const PIECE: usize = 1 << 20;
/// containerd waits 30 s for the answer to the PUT that closes an upload.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);
/// Beside its upload buffers a server needs no more than this.
const RESIDENT: u64 = 64 << 20;
const UPLOAD_MEMORY: u64 = 64 << 20;

#[tokio::test]
async fn a_blob_of_50_gib_goes_into_a_folder_and_out_again() {
    streams(Backend::Embedded, 50 * GIB).await;
}

#[tokio::test]
async fn a_blob_of_5_gib_goes_into_an_object_store_and_out_again() {
    streams(Backend::Distributed, 5 * GIB).await;
}

async fn streams(backend: Backend, size: u64) {
    let berth = Berth::builder()
        .backend(backend)
        .flag("--upload-memory", "64MiB")
        .flag("--redirect", "Never")
        .start()
        .await;
    let repository = Repository::new(&berth.url(""), "large");
    let location = repository.start_upload().await;

    let started = Instant::now();
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let body = reqwest::Body::wrap_stream(generated(size, hash.clone()));
    let answer = attempt(repository.at(Method::PATCH, &location).body(body)).await;
    let answer = answer.expect("an answer").expect(202);
    let pushed = started.elapsed();
    assert_eq!(answer.header("range"), format!("0-{}", size - 1));
    let digest = hash.lock().expect("the stream has ended").clone().finalize();
    let digest = format!("sha256:{}", hex::encode(digest));

    let closing = Instant::now();
    let url = with_query(&location, &format!("digest={digest}"));
    let answer = attempt(repository.at(Method::PUT, &url)).await;
    answer.expect("an answer").expect(201);
    let commit = closing.elapsed();

    let started = Instant::now();
    let response = repository
        .request(Method::GET, &format!("blobs/{digest}"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-length"], size.to_string().as_str());
    let mut pieces = response.bytes_stream();
    let mut read = Sha256::new();
    while let Some(piece) = pieces.next().await {
        read.update(piece.expect("the whole blob"));
    }
    assert_eq!(format!("sha256:{}", hex::encode(read.finalize())), digest);
    let pulled = started.elapsed();

    let rate = |time: Duration| (size >> 20) as f64 / time.as_secs_f64();
    let resident = berth.peak_memory();
    println!(
        "{backend:?}, {} GiB: push {:.0} MiB/s, commit {:.2} s, pull {:.0} MiB/s, peak memory {} MiB",
        size / GIB,
        rate(pushed),
        commit.as_secs_f64(),
        rate(pulled),
        resident >> 20
    );
    assert!(commit < COMMIT_WITHIN, "{commit:?}");
    assert!(resident <= UPLOAD_MEMORY + RESIDENT, "{} MiB", resident >> 20);
}

/// `size` bytes, no two pieces of them alike, hashed as they are sent.
fn generated(
    size: u64,
    hash: Arc<Mutex<Sha256>>,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> {
    let pattern = blob(PIECE, size);
    futures_util::stream::iter(0..size / PIECE as u64).map(move |number| {
        let mut piece = pattern.clone();
        piece[..8].copy_from_slice(&number.to_le_bytes());
        hash.lock().expect("only this stream hashes").update(&piece);
        Ok(bytes::Bytes::from(piece))
    })
}
