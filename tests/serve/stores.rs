//! Metadata and blobs are chosen apart from each other.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Backend, Berth, Image};

/// Pushes an image and half a blob, restarts, pulls the one and completes the other.
async fn keeps_what_it_took(mut berth: Berth) {
    let repository = Repository::new(&berth.url(""), "team/app");
    let image = Image::new(1, 100_000);
    image.push(&repository, "v1").await;
    let content = blob(7_000_000, 2);
    let location = repository.start_upload().await;
    repository
        .patch(&location, None, content[..6_000_000].to_vec())
        .await
        .expect(202);

    assert_eq!(berth.terminate(Duration::from_secs(20)).await.code(), Some(0));
    berth.restart().await;

    image.assert_pullable(&repository, "v1").await;
    repository
        .close(&location, &sha256(&content), content[6_000_000..].to_vec())
        .await
        .expect(201);
    repository.assert_blob(&sha256(&content), &content).await;
}

#[tokio::test]
async fn sqlite_goes_with_an_object_store() {
    let storage = harness::Storage::create(Backend::Distributed);
    let bucket = storage.bucket().expect("a bucket").url();
    let berth = Berth::builder().flag("--blobs", &bucket).start().await;
    keeps_what_it_took(berth).await;
}

#[tokio::test]
async fn postgres_goes_with_a_folder() {
    let storage = harness::Storage::create(Backend::Distributed);
    let database = storage.database().expect("a database").url();
    let berth = Berth::builder().flag("--metadata", &database).start().await;
    keeps_what_it_took(berth).await;
    assert!(
        !storage
            .database()
            .expect("a database")
            .query("SELECT * FROM manifest")
            .is_empty()
    );
}
