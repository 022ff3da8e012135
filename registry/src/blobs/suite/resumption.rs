//! Uploads that change hands: between requests, between replicas, after crashes, beside zombies.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::{MEMORY, PART, Place, bytes, on_both_stores, stored, write};
use crate::blobs::{BlobError, BlobWriter, ObjectKey};

on_both_stores!(MEMORY;
    any_chunking_and_any_change_of_writers_gives_the_same_bytes,
    a_zombie_changes_nothing,
    a_zombie_cannot_publish_over_its_successor,
    a_successor_replaces_what_a_dead_writer_published_and_told_nobody,
    bytes_behind_the_state_are_dropped,
);

/// How a writer's turn ends.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It makes everything durable and goes on.
    Flush,
    /// It makes everything durable; another one continues.
    HandOver,
    /// It vanishes; another one continues from the last durable state.
    Crash,
    /// Another one continues from the last durable state while it is still writing.
    Overtaken,
}

/// Bytes to write, in pieces of which size, and then?
type Step = (usize, usize, Turn);

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![Just(0), 1..40_000usize, 1..PART, PART..2 * PART, Just(PART)];
    let piece = prop_oneof![1_000..5_000usize, 60_000..300_000usize, Just(2 * PART)];
    let turn = prop_oneof![
        Just(Turn::Flush),
        Just(Turn::HandOver),
        Just(Turn::HandOver),
        Just(Turn::Crash),
        Just(Turn::Overtaken)
    ];
    (length, piece, turn)
}

async fn any_chunking_and_any_change_of_writers_gives_the_same_bytes(place: Place) {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let config = Config {
            cases: 12,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config)
            .run(&prop::collection::vec(step(), 1..7), |steps| {
                runtime.block_on(upload(&place, &steps));
                Ok(())
            })
            .unwrap();
    });
    place.clean_up().await;
}

/// Uploads by these turns, keeping states as a session row would, and reads the object back.
async fn upload(place: &Place, steps: &[Step]) {
    let total = steps.iter().map(|step| step.0).sum();
    let (id, content, garbage) = (Uuid::now_v7(), bytes(1, total), bytes(9, PART + 1));
    let (mut state, mut epoch, mut at) = (place.store.begin(), 1, 0);
    let mut boundaries = vec![0];
    let mut writer = place.writer(id, epoch, &state).await;
    let mut zombies: Vec<Box<dyn BlobWriter>> = Vec::new();
    for &(length, piece, turn) in steps {
        let end = at + length;
        while at < end {
            let room = usize::try_from(writer.until_boundary()).unwrap();
            let next = piece.min(end - at).min(room);
            writer
                .write(content[at..at + next].to_vec().into())
                .await
                .unwrap();
            at += next;
            if writer.at_boundary() {
                boundaries.push(at as u64);
            }
            if let Some(durable) = writer.durable() {
                assert!(
                    boundaries.contains(&durable.offset()),
                    "no boundary: {}",
                    durable.offset()
                );
                state = stored(&durable);
            }
        }
        for zombie in &mut zombies {
            // It may fail or believe that it writes; it must not matter.
            let _ = zombie.write(garbage.clone().into()).await;
            let _ = zombie.flush().await;
        }
        if matches!(turn, Turn::Flush | Turn::HandOver) {
            state = stored(&writer.flush().await.unwrap());
            assert_eq!(state.offset(), at as u64);
        }
        if !matches!(turn, Turn::Flush) {
            epoch += 1;
            let successor = place.writer(id, epoch, &state).await;
            let former = std::mem::replace(&mut writer, successor);
            if matches!(turn, Turn::Overtaken) {
                zombies.push(former);
            }
            at = usize::try_from(state.offset()).unwrap();
        }
    }
    write(&mut writer, &content[at..], 100_000).await;
    assert_eq!(writer.finish().await.unwrap(), total as u64);
    for zombie in &mut zombies {
        let _ = zombie.write(garbage.clone().into()).await;
        let _ = zombie.flush().await;
    }
    let key = ObjectKey::of_upload(id);
    assert!(
        place.content(&key, 0..total).await == content,
        "the bytes changed"
    );
}

async fn a_zombie_changes_nothing(place: Place) {
    let (id, content, garbage) = (Uuid::now_v7(), bytes(1, 4 * PART), bytes(2, 3 * PART));
    let mut zombie = place.writer(id, 1, &place.store.begin()).await;
    write(&mut zombie, &content[..PART], PART).await;
    let state = zombie.flush().await.unwrap();
    let mut writer = place.writer(id, 2, &state).await;
    write(&mut writer, &content[PART..3 * PART], PART).await;
    let _ = zombie.write(garbage.clone().into()).await;
    let _ = zombie.flush().await;
    write(&mut writer, &content[3 * PART..], PART).await;
    assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
    let _ = zombie.write(garbage.into()).await;
    let _ = zombie.flush().await;
    assert!(place.content(&ObjectKey::of_upload(id), 0..content.len()).await == content);
    place.clean_up().await;
}

async fn a_zombie_cannot_publish_over_its_successor(place: Place) {
    let (id, content) = (Uuid::now_v7(), bytes(1, 100_000));
    let mut zombie = place.writer(id, 1, &place.store.begin()).await;
    write(&mut zombie, &bytes(2, 100_000), 100_000).await;
    let mut writer = place.writer(id, 2, &place.store.begin()).await;
    write(&mut writer, &content, 100_000).await;
    writer.finish().await.unwrap();
    assert!(matches!(zombie.finish().await, Err(BlobError::Broken(_))));
    assert!(place.content(&ObjectKey::of_upload(id), 0..content.len()).await == content);
    place.clean_up().await;
}

async fn a_successor_replaces_what_a_dead_writer_published_and_told_nobody(place: Place) {
    let (id, content) = (Uuid::now_v7(), bytes(1, 100_000));
    let mut dead = place.writer(id, 1, &place.store.begin()).await;
    write(&mut dead, &bytes(2, 50_000), 100_000).await;
    dead.finish().await.unwrap();
    let mut writer = place.writer(id, 2, &place.store.begin()).await;
    write(&mut writer, &content, 100_000).await;
    assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
    assert!(place.content(&ObjectKey::of_upload(id), 0..content.len()).await == content);
    place.clean_up().await;
}

async fn bytes_behind_the_state_are_dropped(place: Place) {
    let (id, content) = (Uuid::now_v7(), bytes(1, 200_000));
    let mut writer = place.writer(id, 1, &place.store.begin()).await;
    write(&mut writer, &content[..100_000], 100_000).await;
    let state = writer.flush().await.unwrap();
    write(&mut writer, &bytes(2, 2 * PART), 100_000).await;
    writer.flush().await.unwrap();
    drop(writer);
    let mut writer = place.writer(id, 2, &state).await;
    write(&mut writer, &content[100_000..], 100_000).await;
    assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
    assert!(place.content(&ObjectKey::of_upload(id), 0..content.len()).await == content);
    place.clean_up().await;
}
