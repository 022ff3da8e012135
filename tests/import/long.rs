//! A repository as large as they come, and a blob as large as the memory must not be.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use harness::content::blob;
use harness::image::MANIFEST;

use super::{KIB, MIB, Place, push_layer};

const TAGS: usize = 10_000;
/// Of so many images.
const IMAGES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tags_come_over_and_the_second_run_only_compares() {
    let place = Place::new().await;
    let there = place.there("team/app");
    let mut images = Vec::new();
    for seed in 0..IMAGES {
        let image = harness::Image::new(seed as u64, KIB);
        image.push(&there, &image.digest()).await;
        images.push(image);
    }
    let pushes = stream::iter(0..TAGS).for_each_concurrent(8, async |number| {
        let (tag, image) = (format!("v{number}"), &images[number % IMAGES]);
        there
            .put_manifest(&tag, MANIFEST, &image.manifest)
            .await
            .expect(201);
    });
    pushes.await;

    let began = Instant::now();
    let told = place.import(&[]).await.all_equal();
    let first = began.elapsed();
    assert_eq!((told.tags("tags"), told.tags("set")), (TAGS as u64, TAGS as u64));
    assert_eq!(told.figure("manifestsCopied"), IMAGES as u64);
    place.way.forget();
    let began = Instant::now();
    let again = place.import(&[]).await.all_equal();
    eprintln!("10,000 tags: {first:?} at first, then {:?}", began.elapsed());
    assert_eq!((again.figure("bytes"), again.tags("set")), (0, 0));
    assert_eq!(place.way.count("*", "/blobs/"), 0);
    assert_eq!(place.way.count("GET", "/manifests/"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_a_blob() {
    let (small, large) = (peak(48 * MIB).await, peak(768 * MIB).await);
    eprintln!(
        "48 MiB took {} MiB of memory, 768 MiB {}",
        small / 1024,
        large / 1024
    );
    assert!(large < small + 32 * 1024, "{small} KiB, {large} KiB");
}

/// The most memory that an import of one blob of a size has held, in KiB.
async fn peak(size: usize) -> u64 {
    let place = Place::new().await;
    let layer = blob(size, 1);
    let digest = push_layer(&place.there("app"), "v1", &layer).await;
    let mut command = tokio::process::Command::from(place.command(&[]));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the import starts");
    let status = format!("/proc/{}/status", child.id().expect("it runs"));
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child can be waited for") {
            break ended;
        }
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = kib.unwrap_or(peak);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(ended.success(), "{ended}");
    place.here("app").assert_blob(&digest, &layer).await;
    assert_ne!(peak, 0, "it was seen");
    peak
}
