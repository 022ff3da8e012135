//! What was stored is there after a restart; the schema is brought up to date when it is wanted.

use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::Repository;
use harness::{Backend, Berth, Image, Index, eventually};

use super::{ANY_PORTS, Ended};

#[tokio::test]
async fn a_restart_keeps_everything_an_open_upload_as_well() {
    for backend in Backend::BOTH {
        let mut berth = Berth::start(backend).await;
        let repository = Repository::new(&berth.url(""), "team/app");
        let images = vec![
            Image::of_platform("amd64", 1, 10_000),
            Image::of_platform("arm64", 2, 10_000),
        ];
        let index = Index::new(images);
        for image in &index.images {
            image.push(&repository, &image.architecture).await;
        }
        repository
            .put_manifest("v1", harness::image::INDEX, &index.manifest)
            .await
            .expect(201);
        let content = blob(9_000_000, 3);
        let location = repository.start_upload().await;
        repository
            .patch(&location, None, content[..7_000_000].to_vec())
            .await
            .expect(202);
        let tags = repository.get("tags/list").await.expect(200).json();
        let uid = tenant_uid(&berth).await;

        assert_eq!(berth.terminate(Duration::from_secs(20)).await.code(), Some(0));
        berth.restart().await;

        index.assert_pullable(&repository, "v1").await;
        assert_eq!(repository.get("tags/list").await.expect(200).json(), tags);
        assert_eq!(repository.progress(&location).await, "0-6999999");
        repository
            .close(&location, &sha256(&content), content[7_000_000..].to_vec())
            .await
            .expect(201);
        repository.assert_blob(&sha256(&content), &content).await;
        assert_eq!(tenant_uid(&berth).await, uid, "{backend:?}");
    }
}

#[tokio::test]
async fn a_writer_that_was_killed_with_the_server_keeps_nobody_waiting() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "app");
    let content = blob(10_000, 4);
    let location = repository.start_upload().await;
    let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(content[..6_000].to_vec())]);
    let silent = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
    let writer = tokio::spawn({
        let (repository, location) = (repository.clone(), location.clone());
        async move {
            let body = reqwest::Body::wrap_stream(silent);
            repository
                .at(reqwest::Method::PATCH, &location)
                .body(body)
                .send()
                .await
                .map(drop)
        }
    });
    eventually(
        "the first bytes are stored",
        Duration::from_secs(20),
        async || (repository.progress(&location).await == "0-5999").then_some(()),
    )
    .await;

    berth.kill9();
    berth.restart().await;
    let restarted = std::time::Instant::now();
    repository
        .patch(&location, Some("6000-9999"), content[6_000..].to_vec())
        .await
        .expect(202);

    // A writer's lease lasts 15 s.
    assert!(
        restarted.elapsed() < Duration::from_secs(8),
        "{:?}",
        restarted.elapsed()
    );
    repository
        .close(&location, &sha256(&content), Vec::new())
        .await
        .expect(201);
    writer.abort();
}

/// The id of the first tenant, asked with the key of the data folder: both must be the old ones.
async fn tenant_uid(berth: &Berth) -> String {
    let key = std::fs::read_to_string(berth.data().join("keys/admin")).expect("the key");
    let request = harness::http::client().get(berth.admin_url("/admin/v1/state"));
    let answer = harness::http::send(request.bearer_auth(key.trim())).await;
    answer.expect(200).json()["tenants"][0]["uid"].to_string()
}

#[tokio::test]
async fn the_schema_is_made_by_migrate_where_serve_may_not() {
    for backend in Backend::BOTH {
        // Stores that no server has used: the settings come from one that has others.
        let storage = std::sync::Arc::new(harness::Storage::create(backend));
        let unused = Berth::start(Backend::Embedded).await;
        let command = |subcommand: &str| {
            let mut command = unused.command(subcommand);
            command.env("BERTH_DATA", storage.data(0));
            if let (Some(database), Some(bucket)) = (storage.database(), storage.bucket()) {
                command
                    .env("BERTH_METADATA", database.url())
                    .env("BERTH_BLOBS", bucket.url());
            }
            command
        };

        let mut serve = command("serve");
        serve.args(ANY_PORTS).arg("--migrate=false");
        Ended::of(serve).expect(1, &["metadata", "berth-registry migrate"]);
        for _ in 0..2 {
            let mut migrate = command("migrate");
            migrate.args(["-o", "json"]);
            let ended = Ended::of(migrate).expect(0, &[]);
            let said: serde_json::Value = serde_json::from_str(&ended.output).expect("JSON");
            assert_eq!(said["migrated"], true);
        }

        let berth = Berth::builder()
            .storage(storage.clone(), 0)
            .flag("--migrate", "false")
            .start()
            .await;
        let repository = Repository::new(&berth.url(""), "app");
        let image = Image::new(1, 1000);
        image.push(&repository, "v1").await;
        image.assert_pullable(&repository, "v1").await;
    }
}
