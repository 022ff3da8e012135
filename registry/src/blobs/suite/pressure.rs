//! Many uploads and little memory.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{PART, Place, bytes, on_both_stores, write};
use crate::blobs::ObjectKey;

/// A fifth of one part.
const LITTLE: u64 = 1 << 20;

on_both_stores!(LITTLE;
    eight_uploads_finish_with_less_memory_than_a_part,
    a_flushed_writer_holds_no_memory,
    uploads_that_come_and_go_at_once_do_not_meet,
);

async fn eight_uploads_finish_with_less_memory_than_a_part(place: Place) {
    let place = Arc::new(place);
    let uploads: Vec<_> = (0..8)
        .map(|seed| {
            let place = place.clone();
            tokio::spawn(async move {
                let content = bytes(seed, PART + PART / 2);
                let key = place.push(&content).await;
                assert!(place.content(&key, 0..content.len()).await == content);
            })
        })
        .collect();
    for upload in uploads {
        let finished = tokio::time::timeout(Duration::from_secs(120), upload).await;
        finished.expect("the uploads wait for each other").unwrap();
    }
    assert_eq!(place.listing().await.len(), 8);
    Arc::into_inner(place).unwrap().clean_up().await;
}

async fn a_flushed_writer_holds_no_memory(place: Place) {
    let (id, idle) = (Uuid::now_v7(), bytes(1, 900_000));
    let mut writer = place.writer(id, 1, &place.store.begin()).await;
    write(&mut writer, &idle, 100_000).await;
    writer.flush().await.unwrap();
    // Takes all the memory there is, while the first writer idles.
    let other = bytes(2, 3 << 20);
    let pushed = tokio::time::timeout(Duration::from_secs(60), place.push(&other)).await;
    pushed.expect("the idle writer holds memory");
    write(&mut writer, b"more", 4).await;
    writer.finish().await.unwrap();
    let content = place.content(&ObjectKey::of_upload(id), 0..900_004).await;
    assert!(content == [&idle[..], b"more"].concat());
    place.clean_up().await;
}

/// Each makes the first object below `uploads/` or takes away the last one, again and again.
async fn uploads_that_come_and_go_at_once_do_not_meet(place: Place) {
    let place = Arc::new(place);
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let place = place.clone();
            tokio::spawn(async move {
                let content = bytes(client, 40_000);
                for _ in 0..60 {
                    let id = Uuid::now_v7();
                    let mut writer = place.writer(id, 1, &place.store.begin()).await;
                    write(&mut writer, &content, 40_000).await;
                    writer.flush().await.unwrap();
                    writer.finish().await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(place.listing().await.len(), 6 * 60);
    Arc::into_inner(place).unwrap().clean_up().await;
}
