//! Blobs larger than the memory that their server may take.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use harness::content::blob;
use harness::http::{Repository, attempt, with_query};
use harness::{Backend, Berth};
use reqwest::Method;
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1 << 30;

#[tokio::test]
async fn a_gibibyte_goes_in_and_out_within_the_budget_and_64_mebibytes_more() {
    for (backend, size) in [(Backend::Embedded, SIZE), (Backend::Distributed, SIZE / 4)] {
        let berth = Berth::builder()
            .backend(backend)
            .flag("--upload-memory", "64MiB")
            .flag("--redirect", "Never")
            .start()
            .await;
        let repository = Repository::new(&berth.url(""), "large");
        let piece = bytes::Bytes::from(blob(MIB as usize, 1));
        let mut hash = Sha256::new();
        (0..size / MIB).for_each(|_| hash.update(&piece));
        let digest = format!("sha256:{}", hex::encode(hash.finalize()));

        let location = repository.start_upload().await;
        let sent = piece.clone();
        let pieces = stream::iter(0..size / MIB).map(move |_| Ok::<_, std::io::Error>(sent.clone()));
        let request = repository.at(Method::PUT, &with_query(&location, &format!("digest={digest}")));
        let push = attempt(request.body(reqwest::Body::wrap_stream(pieces)));
        let answer = harness::within("the push", Duration::from_secs(120), push).await;
        answer.expect("an answer").expect(201);

        let response = repository
            .request(Method::GET, &format!("blobs/{digest}"))
            .send()
            .await;
        let response = response.expect("an answer");
        assert_eq!(response.headers()["content-length"], size.to_string().as_str());
        let mut received = response.bytes_stream();
        let mut read = Sha256::new();
        while let Some(piece) = received.next().await {
            read.update(piece.expect("the whole blob"));
        }
        assert_eq!(format!("sha256:{}", hex::encode(read.finalize())), digest);

        let peak = berth.peak_memory() / MIB;
        println!(
            "{backend:?}: {} MiB of memory for a blob of {} MiB",
            peak,
            size / MIB
        );
        assert!(peak <= 64 + 64, "{backend:?}: {peak} MiB");
    }
}
