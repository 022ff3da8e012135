//! Upload sessions and their writer's lease.

use std::sync::Arc;

use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::*;

on_both_stores! {
    a_session_belongs_to_its_repository_alone
    each_take_has_a_new_epoch_and_shuts_others_out_until_it_ends
    a_closing_put_binds_the_digest
    a_session_that_was_published_answers_with_its_digest
    the_next_writer_continues_from_the_last_checkpoint
    a_writer_that_lost_its_lease_changes_nothing
    a_renewed_lease_lasts_longer
    a_lease_by_a_clock_that_is_ahead_keeps_nobody_waiting
    idle_sessions_expire_oldest_first_and_no_more_than_asked
    a_published_session_expires_without_bytes_to_free
    a_cancelled_session_is_gone_and_a_published_one_cannot_be_cancelled
    open_sessions_are_counted_and_told_apart_from_dead_ones
}

async fn a_session_belongs_to_its_repository_alone(store: Arc<TestStore>) {
    let (here, there, other_tenant) = (repository("a/b"), repository("a/c"), repository_of(2, "a/b"));
    let id = begin(&store, &here).await;

    for elsewhere in [&there, &other_tenant] {
        assert!(store.upload(elsewhere, id).await.unwrap().is_none());
        assert!(matches!(
            store.take_upload(elsewhere, id, take()).await.unwrap(),
            Taken::Gone
        ));
        assert!(store.cancel_upload(elsewhere, id).await.unwrap().is_none());
        assert!(
            !store
                .commit_upload(elsewhere, commit(id, digest("x"), 1))
                .await
                .unwrap()
        );
    }
    assert!(
        !store
            .checkpoint_upload(TenantId(2), id, progress(0, 9))
            .await
            .unwrap()
    );
    assert!(!store.renew_upload(TenantId(2), id, 0, after(99)).await.unwrap());

    let row = store
        .upload(&here, id)
        .await
        .unwrap()
        .expect("the session is there");
    assert_eq!((row.id, row.epoch, row.offset, row.committed), (id, 0, 0, false));
    assert_eq!(
        (row.hash_states, row.state, row.digest),
        (vec![1, 0], state(0), None)
    );
    assert_eq!(
        store.count("SELECT count(*) FROM repository").await,
        0,
        "a session makes no repository"
    );
}

async fn each_take_has_a_new_epoch_and_shuts_others_out_until_it_ends(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;

    let first = taken(&store, &here, id, take()).await;
    assert_eq!((first.epoch, first.writer_until), (1, after(15)));
    let early = TakeUpload {
        now: after(14),
        until: after(29),
        closing: None,
    };
    match store.take_upload(&here, id, early).await.unwrap() {
        Taken::Busy(row) => assert_eq!((row.epoch, row.writer_until), (1, after(15))),
        other => panic!("{other:?}"),
    }
    let on_time = TakeUpload {
        now: after(15),
        until: after(30),
        closing: None,
    };
    assert_eq!(taken(&store, &here, id, on_time).await.epoch, 2);
    assert!(
        store
            .checkpoint_upload(here.tenant, id, progress(2, 5))
            .await
            .unwrap()
    );
    assert_eq!(
        taken(&store, &here, id, take()).await.epoch,
        3,
        "a checkpoint can end the lease"
    );
}

async fn a_closing_put_binds_the_digest(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;

    assert_eq!(
        taken(&store, &here, id, closing(digest("a"))).await.digest,
        Some(digest("a"))
    );
    // Whether or not the first one still writes.
    for ended in [false, true] {
        match store.take_upload(&here, id, closing(digest("b"))).await.unwrap() {
            Taken::OtherDigest(bound) => assert_eq!(bound, digest("a")),
            other => panic!("{other:?}"),
        }
        let same = store.take_upload(&here, id, closing(digest("a"))).await.unwrap();
        assert!(matches!(
            (ended, same),
            (false, Taken::Busy(_)) | (true, Taken::Yours(_))
        ));
        assert!(
            store
                .checkpoint_upload(here.tenant, id, progress(1, 0))
                .await
                .unwrap()
                || ended
        );
    }
}

async fn a_session_that_was_published_answers_with_its_digest(store: Arc<TestStore>) {
    let here = repository("app");
    let id = push_object(&store, &here, "layer").await;

    for asked in [take(), closing(digest("layer")), closing(digest("another"))] {
        match store.take_upload(&here, id, asked).await.unwrap() {
            Taken::Committed(row) => assert_eq!((row.digest, row.committed), (Some(digest("layer")), true)),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        !store
            .checkpoint_upload(here.tenant, id, progress(1, 9))
            .await
            .unwrap()
    );
    assert!(!store.renew_upload(here.tenant, id, 1, after(99)).await.unwrap());
}

async fn the_next_writer_continues_from_the_last_checkpoint(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    taken(&store, &here, id, take()).await;

    let large = 5 << 40;
    assert!(
        store
            .checkpoint_upload(here.tenant, id, progress(1, large))
            .await
            .unwrap()
    );

    let row = taken(&store, &here, id, take()).await;
    assert_eq!(
        (row.offset, row.hash_states, row.state),
        (large, vec![7; 40], state(large))
    );
}

async fn a_writer_that_lost_its_lease_changes_nothing(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    taken(&store, &here, id, take()).await;
    let later = TakeUpload {
        now: after(20),
        until: after(35),
        closing: None,
    };
    taken(&store, &here, id, later).await;

    assert!(
        !store
            .checkpoint_upload(here.tenant, id, progress(1, 9))
            .await
            .unwrap()
    );
    assert!(!store.renew_upload(here.tenant, id, 1, after(99)).await.unwrap());
    assert!(
        !store
            .commit_upload(&here, commit(id, digest("x"), 1))
            .await
            .unwrap()
    );

    let row = store
        .upload(&here, id)
        .await
        .unwrap()
        .expect("the session is there");
    assert_eq!(
        (row.epoch, row.offset, row.writer_until, row.committed),
        (2, 0, after(35), false)
    );
    assert_eq!(row.hash_states, vec![1, 0]);
    assert!(store.blob(&here, &digest("x")).await.unwrap().is_none());
    assert_eq!(store.count("SELECT count(*) FROM blob").await, 0);
}

async fn a_renewed_lease_lasts_longer(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    taken(&store, &here, id, take()).await;

    assert!(store.renew_upload(here.tenant, id, 1, after(60)).await.unwrap());

    let early = TakeUpload {
        now: after(59),
        until: after(70),
        closing: None,
    };
    assert!(matches!(
        store.take_upload(&here, id, early).await.unwrap(),
        Taken::Busy(_)
    ));
}

async fn idle_sessions_expire_oldest_first_and_no_more_than_asked(store: Arc<TestStore>) {
    let mut ids = Vec::new();
    for (tenant, second) in [(1, 3), (2, 1), (1, 2), (2, 4), (1, 9)] {
        let new = NewUpload {
            now: after(second),
            ..session(&repository_of(tenant, "app"), Uuid::new_v4())
        };
        ids.push((second, new.id));
        store.create_upload(new).await.unwrap();
    }
    // One of them is old and has a writer.
    let busy = TakeUpload {
        now: after(4),
        until: after(900),
        closing: None,
    };
    taken(&store, &repository_of(2, "app"), ids[3].1, busy).await;

    let mut expired: Vec<Uuid> = Vec::new();
    for most in [2, 2, 2] {
        let gone = store.expire_uploads(after(9), most).await.unwrap();
        assert!(gone.len() <= 2);
        assert!(gone.iter().all(|(_, bytes)| *bytes == state(0)));
        expired.extend(gone.iter().map(|(id, _)| *id));
    }

    let oldest_two = [ids[1].1, ids[2].1];
    assert!(oldest_two.iter().all(|id| expired[..2].contains(id)));
    assert_eq!(expired[2..], [ids[0].1]);
    let left = store
        .live_uploads(&ids.iter().map(|(_, id)| *id).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(left.len(), 2);
}

async fn a_published_session_expires_without_bytes_to_free(store: Arc<TestStore>) {
    let here = repository("app");
    let id = push_object(&store, &here, "layer").await;

    assert!(store.expire_uploads(after(1), 10).await.unwrap().is_empty());

    assert!(store.upload(&here, id).await.unwrap().is_none());
    assert!(store.blob(&here, &digest("layer")).await.unwrap().is_some());
}

async fn a_cancelled_session_is_gone_and_a_published_one_cannot_be_cancelled(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    taken(&store, &here, id, take()).await;
    assert!(
        store
            .checkpoint_upload(here.tenant, id, progress(1, 5))
            .await
            .unwrap()
    );

    let cancelled = store
        .cancel_upload(&here, id)
        .await
        .unwrap()
        .expect("it was there");
    assert_eq!(cancelled.state, state(5), "its bytes can be found and freed");
    assert!(store.cancel_upload(&here, id).await.unwrap().is_none());
    assert!(store.upload(&here, id).await.unwrap().is_none());
    assert!(
        !store
            .checkpoint_upload(here.tenant, id, progress(1, 9))
            .await
            .unwrap()
    );

    let published = push_object(&store, &here, "layer").await;
    assert!(store.cancel_upload(&here, published).await.unwrap().is_none());
    assert!(store.upload(&here, published).await.unwrap().is_some());
}

async fn open_sessions_are_counted_and_told_apart_from_dead_ones(store: Arc<TestStore>) {
    let here = repository("app");
    let (open, cancelled) = (begin(&store, &here).await, begin(&store, &here).await);
    let elsewhere = begin(&store, &repository_of(2, "app")).await;
    let published = push_object(&store, &here, "layer").await;
    store.cancel_upload(&here, cancelled).await.unwrap();

    assert!(
        store
            .checkpoint_upload(here.tenant, open, progress(0, 7))
            .await
            .unwrap()
    );
    let counted = store.inner().open_uploads().await.unwrap();
    let ours = counted.iter().find(|open| open.tenant == TenantId(1));
    assert_eq!(ours.map(|open| (open.count, open.bytes)), Some((1, 7)));
    assert_eq!(store.open_uploads(TenantId(1)).await.unwrap(), 1);
    assert_eq!(store.open_uploads(TenantId(3)).await.unwrap(), 0);
    let asked = [open, cancelled, elsewhere, published, Uuid::new_v4()];
    let mut live = store.live_uploads(&asked).await.unwrap();
    live.sort_unstable();
    let mut expected = vec![open, elsewhere];
    expected.sort_unstable();
    assert_eq!(live, expected);
    assert!(store.live_uploads(&[]).await.unwrap().is_empty());
}

async fn a_lease_by_a_clock_that_is_ahead_keeps_nobody_waiting(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    let ahead = TakeUpload {
        now: after(3600),
        until: after(3615),
        closing: None,
    };
    let thrown_off = taken(&store, &here, id, ahead).await;

    let next = taken(&store, &here, id, take()).await;

    assert_eq!((next.epoch, next.writer_until), (2, after(15)));
    assert!(
        !store
            .checkpoint_upload(here.tenant, id, progress(thrown_off.epoch, 9))
            .await
            .unwrap(),
        "the writer before changes nothing more"
    );
}
