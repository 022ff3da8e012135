//! Writes at once: who wins, what is kept, and what can never come of a race.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::*;

on_both_stores! {
    of_many_pushes_for_an_absent_tag_one_wins
    of_many_pushes_that_expect_the_same_tag_one_wins
    first_pushes_at_once_make_one_repository
    of_many_writers_one_takes_a_session
    the_same_blob_committed_many_times_at_once_is_one_blob
    a_stored_manifest_never_lacks_a_blob_however_unlinking_races_it
    a_write_that_fails_fails_alone
    a_caller_that_goes_away_loses_no_write_and_leaves_no_stale_answer
    pushes_of_the_same_tags_in_any_order_all_succeed
    manifests_that_share_layers_are_deleted_at_once
    a_tag_that_moves_while_its_manifest_is_deleted_is_moved_or_deleted
}

async fn of_many_pushes_for_an_absent_tag_one_wins(store: Arc<TestStore>) {
    let pushes = (0..64).map(|number| {
        let store = store.clone();
        let push = note(&number.to_string()).push_as("v1");
        let push = PutManifest {
            precondition: Precondition::Absent,
            ..push
        };
        tokio::spawn(async move {
            (
                push.digest,
                store.put_manifest(&repository("app"), push).await.unwrap(),
            )
        })
    });
    let mut winners = Vec::new();
    for outcome in join_all(pushes).await {
        match outcome.unwrap() {
            (digest, PutOutcome::Stored(_)) => winners.push(digest),
            (_, outcome) => assert_eq!(outcome, PutOutcome::PreconditionFailed),
        }
    }

    assert_eq!(winners.len(), 1);
    assert_eq!(target(&store, &repository("app"), "v1").await, Some(winners[0]));
    assert_eq!(store.count("SELECT count(*) FROM manifest").await, 1);
    assert_eq!(store.count("SELECT count(*) FROM tag_history").await, 1);
}

async fn of_many_pushes_that_expect_the_same_tag_one_wins(store: Arc<TestStore>) {
    let first = put(&store, &repository("app"), note("first").push_as("v1")).await;
    let pushes = (0..64).map(|number| {
        let store = store.clone();
        let push = note(&number.to_string()).push_as("v1");
        let push = PutManifest {
            precondition: Precondition::Is(vec![first]),
            ..push
        };
        tokio::spawn(async move { store.put_manifest(&repository("app"), push).await.unwrap() })
    });
    let outcomes: Vec<PutOutcome> = join_all(pushes)
        .await
        .into_iter()
        .map(|push| push.unwrap())
        .collect();

    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, PutOutcome::Stored(_)))
            .count(),
        1
    );
    assert_eq!(store.count("SELECT count(*) FROM manifest").await, 2);
}

async fn first_pushes_at_once_make_one_repository(store: Arc<TestStore>) {
    let pushes = (0..64).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            if number % 2 == 0 {
                put(
                    &store,
                    &repository("app"),
                    note("n").push_as(&format!("v{number}")),
                )
                .await;
            } else {
                push_blob(&store, &repository("app"), &format!("layer {number}")).await;
            }
        })
    });
    for push in join_all(pushes).await {
        push.unwrap();
    }

    assert_eq!(store.count("SELECT count(*) FROM repository").await, 1);
    assert_eq!(
        store
            .tags(&repository("app"), None, 100)
            .await
            .unwrap()
            .unwrap()
            .len(),
        32
    );
    assert_eq!(
        store
            .count("SELECT count(DISTINCT repository_id) FROM repository_blob")
            .await,
        1
    );
    assert_eq!(store.count("SELECT count(*) FROM repository_blob").await, 32);
}

async fn of_many_writers_one_takes_a_session(store: Arc<TestStore>) {
    let id = begin(&store, &repository("app")).await;
    let writers = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.take_upload(&repository("app"), id, take()).await.unwrap() })
    });
    let mut taken = 0;
    for answer in join_all(writers).await {
        match answer.unwrap() {
            Taken::Yours(_) => taken += 1,
            other => assert!(matches!(other, Taken::Busy(_)), "{other:?}"),
        }
    }

    assert_eq!(taken, 1);
    assert_eq!(
        store
            .upload(&repository("app"), id)
            .await
            .unwrap()
            .expect("the session")
            .epoch,
        1
    );
}

async fn the_same_blob_committed_many_times_at_once_is_one_blob(store: Arc<TestStore>) {
    let pushes = (0..32).map(|number| {
        let store = store.clone();
        let place = repository(&format!("app{}", number % 4));
        tokio::spawn(async move { push_object(&store, &place, "layer").await })
    });
    let ids: Vec<Uuid> = join_all(pushes).await.into_iter().map(|id| id.unwrap()).collect();

    let live = store.live_objects(&ids).await.unwrap();
    let due = store.due_objects(after(60), after(90), 100).await.unwrap();
    assert_eq!((live.len(), due.len()), (1, 31));
    for number in 0..4 {
        let row = store
            .blob(&repository(&format!("app{number}")), &digest("layer"))
            .await
            .unwrap();
        assert_eq!(row.expect("it is linked").key.upload(), live[0]);
    }
}

/// A push and the unlinking of its layer run at once: one of them must see the other.
async fn a_stored_manifest_never_lacks_a_blob_however_unlinking_races_it(store: Arc<TestStore>) {
    const PAIRS: usize = 16;
    const ROUNDS: usize = 150;
    let races = (0..PAIRS).map(|pair| {
        let store = store.clone();
        tokio::spawn(async move {
            let (base, here) = (
                repository(&format!("base{pair}")),
                repository(&format!("app{pair}")),
            );
            let layer = push_blob(&store, &base, &format!("layer {pair}")).await;
            let mut stored = 0;
            for round in 0..ROUNDS {
                assert!(store.mount_blob(&here, mount(layer)).await.unwrap());
                // As layer of an image and as child of an index.
                let document = if round % 3 == 0 {
                    index(&[layer])
                } else {
                    image(&[layer])
                };
                let push = document.noted(&round.to_string()).push_as("v1");
                let manifest = push.digest;
                let (pushing, unlinking) = (
                    tokio::spawn({
                        let (store, here) = (store.clone(), here.clone());
                        async move { store.put_manifest(&here, push).await.unwrap() }
                    }),
                    tokio::spawn({
                        let (store, here) = (store.clone(), here.clone());
                        async move { store.unlink_blob(&here, &layer, NOW).await.unwrap() }
                    }),
                );
                let (pushed, unlinked) = (pushing.await.unwrap(), unlinking.await.unwrap());
                match (&pushed, unlinked) {
                    (PutOutcome::Stored(_), Unlinked::InUse(user)) => assert_eq!(user, manifest),
                    (PutOutcome::Missing(missing), Unlinked::Done) => assert_eq!(*missing, [layer]),
                    other => panic!("both won, or none: {other:?}"),
                }
                let kept = matches!(pushed, PutOutcome::Stored(_));
                assert_eq!(store.blob(&here, &layer).await.unwrap().is_some(), kept);
                assert_eq!(
                    store.delete_manifest(&here, &manifest, deletion()).await.unwrap(),
                    kept
                );
                stored += usize::from(kept);
            }
            stored
        })
    });
    let mut stored = 0;
    for race in join_all(races).await {
        stored += race.unwrap();
    }
    assert!(
        (1..PAIRS * ROUNDS).contains(&stored),
        "each order came up: {stored} of {}",
        PAIRS * ROUNDS
    );
}

async fn a_write_that_fails_fails_alone(store: Arc<TestStore>) {
    let here = repository("app");
    let existing = begin(&store, &here).await;
    let writes = (0..200).map(|number| {
        let (store, here) = (store.clone(), here.clone());
        tokio::spawn(async move {
            match number % 4 {
                // The id is taken: the database refuses the statement.
                0 if number == 100 => assert!(store.create_upload(session(&here, existing)).await.is_err()),
                1 => {
                    let refused = store
                        .put_manifest(&here, image(&[digest("absent")]).push())
                        .await
                        .unwrap();
                    assert_eq!(refused, PutOutcome::Missing(vec![digest("absent")]));
                }
                _ => {
                    put(&store, &here, note("n").push_as(&format!("v{number}"))).await;
                }
            }
        })
    });
    for write in join_all(writes).await {
        write.unwrap();
    }

    assert_eq!(store.tags(&here, None, 1000).await.unwrap().unwrap().len(), 149);
    assert_eq!(store.count("SELECT count(*) FROM tag_history").await, 149);
    assert_eq!(store.count("SELECT count(*) FROM upload").await, 1);
}

async fn a_caller_that_goes_away_loses_no_write_and_leaves_no_stale_answer(store: Arc<TestStore>) {
    let here = repository("app");
    for round in 0..50 {
        let before = target(&store, &here, "v1").await;
        let push = note(&round.to_string()).push_as("v1");
        let written = push.digest;
        assert_ne!(before, Some(written));
        // Polled once, then dropped, as when a client's connection breaks.
        let mut call = store.put_manifest(&here, push);
        let polled = futures_util::poll!(&mut call);
        drop(call);
        assert!(polled.is_pending());

        let arrived = async {
            while target(&store, &here, "v1").await != Some(written) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrived)
            .await
            .expect("the write arrives");
    }
    assert_eq!(store.count("SELECT count(*) FROM tag_history").await, 50);
}

async fn pushes_of_the_same_tags_in_any_order_all_succeed(store: Arc<TestStore>) {
    let pushes = (0..32).map(|number| {
        let store = store.clone();
        let mut tags: Vec<_> = (0..50).map(|n| tag(&format!("v{n}"))).collect();
        if number % 2 == 0 {
            tags.reverse();
        }
        let push = PutManifest {
            tags,
            ..note(&number.to_string()).push()
        };
        tokio::spawn(async move { put(&store, &repository("app"), push).await })
    });
    for push in join_all(pushes).await {
        push.unwrap();
    }

    assert_eq!(
        store.count("SELECT count(DISTINCT digest) FROM tag").await,
        1,
        "the last push has them all"
    );
    assert_eq!(store.count("SELECT count(*) FROM tag_history").await, 32 * 50);
}

async fn manifests_that_share_layers_are_deleted_at_once(store: Arc<TestStore>) {
    let here = repository("app");
    let mut layers = Vec::new();
    for number in 0..20 {
        layers.push(push_blob(&store, &here, &format!("layer {number}")).await);
    }
    let mut manifests = Vec::new();
    for number in 0..24 {
        layers.rotate_left(1);
        let push = image(&layers)
            .noted(&number.to_string())
            .push_as(&format!("v{number}"));
        manifests.push(put(&store, &here, push).await);
    }
    store.execute("DELETE FROM review_blob").await;

    let deletions = manifests.into_iter().map(|manifest| {
        let store = store.clone();
        tokio::spawn(async move {
            assert!(
                store
                    .delete_manifest(&repository("app"), &manifest, deletion())
                    .await
                    .unwrap()
            );
        })
    });
    for deletion in join_all(deletions).await {
        deletion.unwrap();
    }

    assert_eq!(store.count("SELECT count(*) FROM review_blob").await, 20);
    assert_eq!(store.count("SELECT count(*) FROM tag").await, 0);
    assert_eq!(
        store
            .count("SELECT count(*) FROM tag_history WHERE action = 1")
            .await,
        24
    );
}

async fn a_tag_that_moves_while_its_manifest_is_deleted_is_moved_or_deleted(store: Arc<TestStore>) {
    let here = repository("app");
    for round in 0..200 {
        let old = put(&store, &here, note(&format!("old {round}")).push_as("v1")).await;
        let push = note(&format!("new {round}")).push_as("v1");
        let new = push.digest;
        let (pushing, deleting) = (
            tokio::spawn({
                let (store, here) = (store.clone(), here.clone());
                async move { put(&store, &here, push).await }
            }),
            tokio::spawn({
                let (store, here) = (store.clone(), here.clone());
                async move { store.delete_manifest(&here, &old, deletion()).await.unwrap() }
            }),
        );
        pushing.await.unwrap();
        assert!(deleting.await.unwrap());
        assert_eq!(target(&store, &here, "v1").await, Some(new));
    }
    // Every tag that the history calls deleted was set again afterwards, by its push or the next one's.
    assert_eq!(store.count("SELECT count(*) FROM tag").await, 1);
    assert_eq!(
        store
            .count("SELECT count(*) FROM tag_history WHERE action = 0")
            .await,
        400
    );
}
