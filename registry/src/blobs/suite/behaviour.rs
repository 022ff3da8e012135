//! Objects: written, read, completed, discarded, deleted, swept.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{MEMORY, PART, Place, bytes, on_both_stores, stored, write};
use crate::blobs::{BlobError, ObjectKey};

on_both_stores!(MEMORY;
    blobs_of_every_size_are_read_back,
    a_range_is_that_slice,
    what_is_absent_is_not_found,
    completing_from_the_state_is_idempotent,
    completing_after_a_finish_whose_answer_was_lost_succeeds,
    a_state_without_its_bytes_cannot_be_continued_or_completed,
    discarding_frees_everything,
    a_finished_upload_leaves_its_object_only,
    deleting_twice_succeeds,
    leftovers_are_found_and_swept_but_objects_stay,
    leftovers_are_paged,
    a_probe_succeeds,
    a_presigned_link_serves_the_bytes,
);

async fn blobs_of_every_size_are_read_back(place: Place) {
    let sizes = [
        0,
        1,
        32 << 10,
        64 << 10,
        300_000,
        PART - 1,
        PART,
        PART + 1,
        2 * PART,
        3 * PART + 7,
    ];
    for size in sizes {
        let content = bytes(size as u64, size);
        let key = place.push(&content).await;
        assert!(
            place.content(&key, 0..size).await == content,
            "{size} bytes came back changed"
        );
    }
    place.clean_up().await;
}

async fn a_range_is_that_slice(place: Place) {
    let size = 2 * PART + 12_345;
    let content = bytes(1, size);
    let key = place.push(&content).await;
    let edges = [0, 1, 65_535, 65_537, 262_144, PART, PART + 1, size - 1, size];
    for (index, &start) in edges.iter().enumerate() {
        for &end in &edges[index..] {
            assert!(
                place.content(&key, start..end).await == content[start..end],
                "{start}..{end}"
            );
        }
    }
    place.clean_up().await;
}

async fn what_is_absent_is_not_found(place: Place) {
    let key = ObjectKey::of_upload(Uuid::now_v7());
    let Err(error) = place.store.read(&key, 0..10).await else {
        panic!("it was found")
    };
    assert!(matches!(error, BlobError::NotFound { .. }), "{error}");
    place.clean_up().await;
}

async fn completing_from_the_state_is_idempotent(place: Place) {
    for size in [0, 10, 100_000, PART, 2 * PART + 3] {
        let (id, content) = (Uuid::now_v7(), bytes(2, size));
        let mut writer = place.writer(id, 1, &place.store.begin()).await;
        write(&mut writer, &content, 70_000).await;
        let state = stored(&writer.flush().await.unwrap());
        drop(writer);
        assert_eq!(state.offset(), size as u64);
        for _ in 0..3 {
            assert_eq!(place.store.complete(id, &state).await.unwrap(), size as u64);
        }
        assert!(place.content(&ObjectKey::of_upload(id), 0..size).await == content);
    }
    place.clean_up().await;
}

async fn completing_after_a_finish_whose_answer_was_lost_succeeds(place: Place) {
    for size in [10, 100_000, 2 * PART + 300_000] {
        let (id, content) = (Uuid::now_v7(), bytes(3, size));
        let mut writer = place.writer(id, 1, &place.store.begin()).await;
        write(&mut writer, &content, 70_000).await;
        let state = stored(&writer.flush().await.unwrap());
        writer.finish().await.unwrap();
        assert_eq!(place.store.complete(id, &state).await.unwrap(), size as u64);
        assert!(place.content(&ObjectKey::of_upload(id), 0..size).await == content);
        assert_eq!(
            place
                .listing()
                .await
                .iter()
                .filter(|path| path.contains(&id.to_string()))
                .count(),
            1
        );
    }
    place.clean_up().await;
}

async fn a_state_without_its_bytes_cannot_be_continued_or_completed(place: Place) {
    let id = Uuid::now_v7();
    let mut writer = place.writer(id, 1, &place.store.begin()).await;
    write(&mut writer, &bytes(4, PART + 100_000), 100_000).await;
    let state = writer.flush().await.unwrap();
    drop(writer);
    place.store.discard(id, &state).await.unwrap();
    assert!(place.store.complete(id, &state).await.is_err());
    let continued = async {
        let mut writer = place.store.resume(id, 2, stored(&state), None).await?;
        writer.write(bytes(4, PART).into()).await?;
        writer.finish().await
    };
    assert!(continued.await.is_err());
    place.clean_up().await;
}

async fn discarding_frees_everything(place: Place) {
    for size in [0, 10, 100_000, PART, 2 * PART + 100_000] {
        for flushed in [false, true] {
            let id = Uuid::now_v7();
            let begun = place.store.begin();
            let mut writer = place.writer(id, 1, &begun).await;
            write(&mut writer, &bytes(5, size), 100_000).await;
            // A writer whose states were never persisted is discarded by the first state.
            if flushed {
                writer.flush().await.unwrap();
            }
            drop(writer);
            place.store.discard(id, &begun).await.unwrap();
            place.store.discard(id, &begun).await.unwrap();
        }
    }
    let finished = Uuid::now_v7();
    let mut writer = place.writer(finished, 1, &place.store.begin()).await;
    write(&mut writer, &bytes(5, 10), 10).await;
    let state = writer.flush().await.unwrap();
    writer.finish().await.unwrap();
    place.store.discard(finished, &state).await.unwrap();
    assert_eq!(place.listing().await, Vec::<String>::new());
    place.clean_up().await;
}

async fn a_finished_upload_leaves_its_object_only(place: Place) {
    let (id, mut state) = (Uuid::now_v7(), place.store.begin());
    for epoch in 1..=8 {
        let mut writer = place.writer(id, epoch, &state).await;
        write(&mut writer, &bytes(6, PART / 3), 50_000).await;
        state = writer.flush().await.unwrap();
    }
    place.writer(id, 9, &state).await.finish().await.unwrap();
    let listing = place.listing().await;
    assert!(
        listing.len() == 1 && listing[0].ends_with(&ObjectKey::of_upload(id).path()),
        "{listing:?}"
    );
    place.clean_up().await;
}

async fn deleting_twice_succeeds(place: Place) {
    let key = place.push(b"content").await;
    place.store.delete(&key).await.unwrap();
    place.store.delete(&key).await.unwrap();
    assert!(matches!(
        place.store.read(&key, 0..1).await,
        Err(BlobError::NotFound { .. })
    ));
    place.clean_up().await;
}

async fn leftovers_are_found_and_swept_but_objects_stay(place: Place) {
    let published = place.push(b"content").await;
    let mut left = Vec::new();
    for size in [100_000, PART, 2 * PART + 100_000] {
        let id = Uuid::now_v7();
        let mut writer = place.writer(id, 1, &place.store.begin()).await;
        write(&mut writer, &bytes(7, size), 100_000).await;
        writer.flush().await.unwrap();
        left.push(id);
    }
    let young = place
        .store
        .unpublished(Duration::from_secs(3600), None)
        .await
        .unwrap();
    assert!(young.is_empty(), "{young:?}");
    assert_eq!(place.store.unpublished(Duration::ZERO, None).await.unwrap(), left);
    for id in left.iter().copied().chain([published.upload()]) {
        place.store.sweep(id).await.unwrap();
        place.store.sweep(id).await.unwrap();
    }
    let listing = place.listing().await;
    assert!(
        listing.len() == 1 && listing[0].ends_with(&published.path()),
        "{listing:?}"
    );
    place.clean_up().await;
}

async fn leftovers_are_paged(place: Place) {
    let mut left = Vec::new();
    for _ in 0..5 {
        let id = Uuid::new_v4();
        let mut writer = place.writer(id, 1, &place.store.begin()).await;
        write(&mut writer, &bytes(8, 40_000), 40_000).await;
        writer.flush().await.unwrap();
        left.push(id);
    }
    left.sort();
    for (index, id) in left.iter().enumerate() {
        let rest = place.store.unpublished(Duration::ZERO, Some(*id)).await.unwrap();
        assert_eq!(rest, left[index + 1..]);
    }
    place.clean_up().await;
}

async fn a_probe_succeeds(place: Place) {
    place.store.probe().await.unwrap();
    place.clean_up().await;
}

async fn a_presigned_link_serves_the_bytes(place: Place) {
    let key = place.push(b"content").await;
    let link = place.store.presign(&key, Duration::from_secs(60)).await.unwrap();
    if let Some(link) = link {
        let link = url::Url::parse(&link).unwrap();
        let host = link.socket_addrs(|| None).unwrap()[0];
        let target = &link[url::Position::BeforePath..];
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let mut connection = tokio::net::TcpStream::connect(host).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ncontent"),
            "{answer}"
        );
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("content-type: application/octet-stream"),
            "{answer}"
        );
    }
    place.clean_up().await;
}
