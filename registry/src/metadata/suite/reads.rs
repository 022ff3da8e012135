//! Lookups while others write: cached and batched, yet never behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::Digest;
use crate::metadata::*;

on_both_stores! {
    no_reader_sees_an_older_tag_than_was_acknowledged_or_seen
    every_lookup_after_an_acknowledged_change_of_a_blob_sees_it
    a_change_through_another_repository_shows_nothing_stale
    each_of_many_lookups_at_once_gets_its_own_answer
}

/// A tag moves through numbered manifests. A reader must see at least the number that was acknowledged, and
/// at least the highest that any reader had seen, when it asked.
async fn no_reader_sees_an_older_tag_than_was_acknowledged_or_seen(store: Arc<TestStore>) {
    const ROUNDS: usize = 2000;
    let here = repository("app");
    let pushes: Vec<PutManifest> = (0..ROUNDS)
        .map(|n| note(&n.to_string()).push_as("latest"))
        .collect();
    let numbers: HashMap<Digest, usize> = pushes.iter().map(|push| push.digest).zip(0..).collect();
    put(&store, &here, pushes[0].clone()).await;
    let (numbers, newest, done) = (
        Arc::new(numbers),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );

    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, here, numbers, newest, done) = (
                store.clone(),
                here.clone(),
                numbers.clone(),
                newest.clone(),
                done.clone(),
            );
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) {
                    let floor = newest.load(Ordering::SeqCst);
                    let seen = numbers[&target(&store, &here, "latest").await.expect("the tag is there")];
                    assert!(seen >= floor, "saw {seen} after {floor}");
                    newest.fetch_max(seen, Ordering::SeqCst);
                    reads += 1;
                    // An answer from the cache never yields otherwise.
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    for (number, push) in pushes.into_iter().enumerate() {
        put(&store, &here, push).await;
        newest.fetch_max(number, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);

    for reads in join_all(readers).await {
        assert!(reads.unwrap() > 0);
    }
}

async fn every_lookup_after_an_acknowledged_change_of_a_blob_sees_it(store: Arc<TestStore>) {
    let (base, here) = (repository("base"), repository("app"));
    let layer = push_blob(&store, &base, "layer").await;
    let done = Arc::new(AtomicBool::new(false));
    // They fill the cache at every moment of a change.
    let background: Vec<_> = (0..4)
        .map(|_| {
            let (store, here, done) = (store.clone(), here.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    store.blob(&here, &layer).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    for _ in 0..300 {
        for linked in [true, false] {
            if linked {
                assert!(store.mount_blob(&here, mount(layer)).await.unwrap());
            } else {
                assert_eq!(
                    store.unlink_blob(&here, &layer, NOW).await.unwrap(),
                    Unlinked::Done
                );
            }
            let lookups = (0..4).map(|_| store.blob(&here, &layer));
            for answer in join_all(lookups).await {
                assert_eq!(answer.unwrap().is_some(), linked);
            }
        }
    }

    done.store(true, Ordering::SeqCst);
    for reader in join_all(background).await {
        reader.unwrap();
    }
}

/// A blob's row is shared by the repositories of a tenant, the cached answers are not.
async fn a_change_through_another_repository_shows_nothing_stale(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    let layer = push_blob(&store, &here, "layer").await;
    let before = store.blob(&here, &layer).await.unwrap().expect("it is linked");
    assert!(store.mount_blob(&there, mount(layer)).await.unwrap());

    assert!(store.lease_blob(&there, &layer, after(50_000)).await.unwrap());
    assert_eq!(
        store.unlink_blob(&there, &layer, NOW).await.unwrap(),
        Unlinked::Done
    );

    let row = store
        .blob(&here, &layer)
        .await
        .unwrap()
        .expect("it is linked still");
    assert_eq!((row.key, row.size), (before.key, before.size));
    assert!(
        row.leased_until <= after(50_000),
        "a lease may be longer than is known, never shorter"
    );
}

async fn each_of_many_lookups_at_once_gets_its_own_answer(store: Arc<TestStore>) {
    let mut expected = Vec::new();
    for tenant in [1, 2] {
        for name in ["a", "a/b"] {
            let place = repository_of(tenant, name);
            let text = format!("{tenant} {name}");
            let (blob, manifest) = (
                push_blob(&store, &place, &text).await,
                put(&store, &place, note(&text).push_as("v1")).await,
            );
            expected.push((place, blob, manifest));
        }
    }

    let lookups = (0..2000_usize).map(|number| {
        let (store, expected) = (store.clone(), expected.clone());
        tokio::spawn(async move {
            let (place, blob, manifest) = &expected[number % expected.len()];
            let (_, foreign_blob, foreign_manifest) = &expected[(number + 1) % expected.len()];
            match number % 6 {
                0 => assert_eq!(target(&store, place, "v1").await, Some(*manifest)),
                1 => assert_eq!(target(&store, place, &format!("no{number}")).await, None),
                2 => assert!(
                    store
                        .manifest(place, &by_digest(*manifest))
                        .await
                        .unwrap()
                        .is_some()
                ),
                3 => assert!(
                    store
                        .manifest(place, &by_digest(*foreign_manifest))
                        .await
                        .unwrap()
                        .is_none()
                ),
                4 => assert!(store.blob(place, blob).await.unwrap().is_some()),
                _ => assert!(store.blob(place, foreign_blob).await.unwrap().is_none()),
            }
        })
    });
    for lookup in join_all(lookups).await {
        lookup.unwrap();
    }
}
