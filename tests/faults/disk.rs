//! The disk is full.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use harness::content::{blob, sha256};
use harness::http::{Repository, send};
use harness::image::MANIFEST;
use harness::{Backend, Berth, Dice, Image, SmallDisk, Storage, eventually, program};
use reqwest::Method;

use super::aftermath::{pause_collection, stores_fit};
use super::history::History;
use super::readers::Readers;
use super::writers::{Manner, Writers};

/// Within it the disk is full, or pushes go on.
const LIMIT: Duration = Duration::from_secs(60);
const SIZE: u64 = 48 << 20;

/// What lies on the disk that gets full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Everything,
    MetadataAlone,
}

async fn full_and_free_again(on: On) {
    let storage = Arc::new(Storage::create(Backend::Embedded));
    let place = storage.data(0).join("disk");
    let disk = SmallDisk::at(&place, SIZE);
    let (database, filler) = (place.join("berth.db"), place.join("filler"));
    let blobs = match on {
        On::Everything => place.join("blobs"),
        On::MetadataAlone => storage.data(0).join("blobs"),
    };
    let text = |path: &PathBuf| path.to_str().expect("a plain path").to_owned();
    let mut berth = Berth::builder()
        .storage(storage.clone(), 0)
        .program(&disk.program())
        .flag("--metadata", &format!("sqlite:{}", text(&database)))
        .flag("--blobs", &format!("folder:{}", text(&blobs)))
        // Whatever is asked for by HEAD would be given a new lease.
        .flag("--lease", "1s")
        .start()
        .await;
    pause_collection(&berth).await;
    let repository = Repository::new(&berth.url(""), "app");
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    let (pushed, history, mut dice) = (
        repository.sibling("pushed"),
        Arc::new(History::default()),
        Dice::new(),
    );
    let manner = Manner {
        may_be_full: true,
        ..Manner::default()
    };
    let readers = Readers::start(&repository, &image);
    let writers = Writers::like(manner, &pushed, &history, &mut dice);
    pushes_go_on(&history).await;

    disk.fill(&filler);

    let small = blob(1000, 1);
    let push = async || {
        let path = format!("blobs/uploads/?digest={}", sha256(&small));
        send(repository.request(Method::POST, &path).body(small.clone())).await
    };
    eventually("a push is refused", LIMIT, async || {
        let refused = push().await;
        if refused.status.as_u16() == 201 {
            return None;
        }
        assert_eq!(
            refused.expect(507).error_code(),
            "UNAVAILABLE",
            "what a client may be told"
        );
        Some(())
    })
    .await;
    writers.stop().await;
    for _ in 0..10 {
        repository.head("manifests/v1").await.expect(200);
        image.assert_pullable(&repository, "v1").await;
    }
    history.check(&pushed).await;
    let (_, refused, cut) = readers.met();
    assert_eq!((refused, cut), (0, 0), "pulls need no room");

    std::fs::remove_file(disk.path(&filler)).expect("the filler");

    let writers = Writers::start(&pushed, &history, &mut dice);
    pushes_go_on(&history).await;
    repository
        .put_manifest("v2", MANIFEST, &image.manifest)
        .await
        .expect(201);
    assert_eq!(push().await.status.as_u16(), 201);
    writers.stop().await;
    readers.stop().await;
    berth.kill9();
    berth.restart().await;
    history.check(&pushed).await;
    history.check_all(&pushed).await;
    image.assert_pullable(&repository, "v2").await;
    stores_fit(&berth, |statement| {
        let output = disk
            .command(&program("sqlite3"))
            .args(["-cmd", ".timeout 10000"])
            .arg(&database)
            .arg(statement)
            .output()
            .expect("sqlite3 runs");
        let rows = String::from_utf8(output.stdout).expect("text");
        rows.lines()
            .map(|row| row.split('|').map(str::to_owned).collect())
            .collect()
    })
    .await;
    let (blobs, manifests) = history.acknowledged();
    println!("{on:?}: {blobs} blobs and {manifests} manifests acknowledged");
}

async fn pushes_go_on(history: &History) {
    let (_, before) = history.acknowledged();
    eventually("pushes go on", LIMIT, async || {
        (history.acknowledged().1 >= before + 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_refuses_pushes_and_serves_pulls_until_there_is_room() {
    full_and_free_again(On::Everything).await;
}

#[tokio::test]
async fn a_full_disk_under_the_metadata_alone_refuses_pushes_and_serves_pulls_until_there_is_room() {
    full_and_free_again(On::MetadataAlone).await;
}
