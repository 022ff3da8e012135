//! Counters and quotas: exact at commit, whoever pushes at once.

use std::sync::Arc;

use futures_util::future::join_all;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::configuration::Usage;
use crate::metadata::*;

on_both_stores! {
    what_is_stored_is_counted_once_a_tenant_and_once_a_repository
    what_is_deleted_is_no_longer_counted
    a_push_over_a_quota_is_refused_and_leaves_nothing
    of_64_pushes_at_once_only_what_fits_is_taken
    tags_pushed_at_once_are_counted_exactly
    an_immutable_tag_stays_where_it_is
    a_manifest_with_an_immutable_tag_is_not_deleted
    a_session_is_found_by_who_started_it_alone
}

async fn tenant(store: &TestStore) -> Usage {
    store.configuration().usage(TenantId(1)).await.unwrap()
}

async fn of(store: &TestStore, repository: &Repository) -> Usage {
    let usage = store
        .configuration()
        .repository_usage(repository.tenant, &repository.name)
        .await;
    usage.unwrap().unwrap_or_default()
}

/// The counters must be what counting finds.
pub(super) async fn recount(store: &TestStore) {
    for drift in [
        "SELECT CAST((SELECT coalesce(sum(bytes), 0) FROM usage WHERE repository_id = 0) \
         - (SELECT coalesce(sum(size), 0) FROM blob b WHERE EXISTS (SELECT 1 FROM repository_blob l \
            WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest)) \
         - (SELECT coalesce(sum(size), 0) FROM manifest) AS BIGINT)",
        "SELECT CAST((SELECT coalesce(sum(bytes), 0) FROM usage WHERE repository_id <> 0) \
         - (SELECT coalesce(sum(b.size), 0) FROM repository_blob l JOIN blob b ON b.tenant_id = l.tenant_id \
            AND b.digest = l.digest) - (SELECT coalesce(sum(size), 0) FROM manifest) AS BIGINT)",
        "SELECT CAST((SELECT coalesce(sum(tags), 0) FROM usage WHERE repository_id = 0) \
         - (SELECT count(*) FROM tag) AS BIGINT)",
        "SELECT CAST((SELECT coalesce(sum(tags), 0) FROM usage WHERE repository_id <> 0) \
         - (SELECT count(*) FROM tag) AS BIGINT)",
        "SELECT CAST((SELECT coalesce(sum(stored), 0) FROM usage WHERE repository_id = 0) \
         - (SELECT coalesce(sum(size), 0) FROM blob) - (SELECT coalesce(sum(size), 0) FROM object_deletion) AS BIGINT)",
        "SELECT CAST((SELECT coalesce(sum(repositories), 0) FROM usage) \
         - (SELECT count(*) FROM repository) AS BIGINT)",
    ] {
        assert_eq!(store.count(drift).await, 0, "{drift}");
    }
}

async fn what_is_stored_is_counted_once_a_tenant_and_once_a_repository(store: Arc<TestStore>) {
    let (one, two) = (repository("one"), repository("two"));
    let layer = push_blob(&store, &one, "12345").await;
    push_blob(&store, &two, "12345").await;
    push_blob(&store, &two, "12345").await;
    store
        .mount_blob(&repository("three"), mount(layer))
        .await
        .unwrap();
    assert_eq!(
        (of(&store, &one).await.bytes, of(&store, &two).await.bytes),
        (5, 5)
    );
    assert_eq!(
        tenant(&store).await,
        Usage {
            bytes: 5,
            tags: 0,
            repositories: 3
        }
    );

    let image = image(&[layer]);
    let size = image.push().payload.len() as u64;
    put(&store, &one, image.push_as("v1")).await;
    put(&store, &one, image.push_as("v2")).await;
    put(&store, &one, image.push_as("v2")).await;
    assert_eq!(
        of(&store, &one).await,
        Usage {
            bytes: 5 + size,
            tags: 2,
            repositories: 0
        }
    );
    assert_eq!(
        tenant(&store).await,
        Usage {
            bytes: 5 + size,
            tags: 2,
            repositories: 3
        }
    );
    recount(&store).await;
}

async fn what_is_deleted_is_no_longer_counted(store: Arc<TestStore>) {
    let (one, two) = (repository("one"), repository("two"));
    let layer = push_blob(&store, &one, "12345").await;
    push_blob(&store, &two, "12345").await;
    let manifest = put(&store, &one, note("n").push_as("v1")).await;
    put(&store, &one, note("n").push_as("v2")).await;
    assert!(store.delete_tag(&one, &tag("v1"), deletion()).await.unwrap());
    assert_eq!(of(&store, &one).await.tags, 1);
    assert!(store.delete_manifest(&one, &manifest, deletion()).await.unwrap());
    assert_eq!(
        of(&store, &one).await,
        Usage {
            bytes: 5,
            tags: 0,
            repositories: 0
        }
    );
    store.unlink_blob(&one, &layer, NOW).await.unwrap();
    assert_eq!((of(&store, &one).await.bytes, tenant(&store).await.bytes), (0, 5));
    store.unlink_blob(&two, &layer, NOW).await.unwrap();
    assert_eq!(
        tenant(&store).await,
        Usage {
            bytes: 0,
            tags: 0,
            repositories: 2
        }
    );
    recount(&store).await;
}

async fn a_push_over_a_quota_is_refused_and_leaves_nothing(store: Arc<TestStore>) {
    let here = repository("app");
    let limits = Limits {
        storage: Some(8),
        repositories: Some(1),
        ..Limits::default()
    };
    let commit_of = async |content: &str, place: &Repository| {
        let id = begin(&store, place).await;
        taken(&store, place, id, closing(digest(content))).await;
        let commit = CommitUpload {
            limits,
            ..commit(id, digest(content), content.len() as u64)
        };
        store.inner().commit_upload(place, commit).await.unwrap()
    };
    assert!(matches!(
        commit_of("12345678", &here).await,
        Linked::Done(Some(_))
    ));
    assert_eq!(
        commit_of("9", &here).await,
        Linked::OverQuota(OverQuota {
            quota: Quota::Storage,
            usage: 8,
            limit: 8
        })
    );
    assert!(store.blob(&here, &digest("9")).await.unwrap().is_none());
    assert!(
        matches!(commit_of("12345678", &here).await, Linked::Done(None)),
        "nothing is added"
    );
    let other = commit_of("12345678", &repository("other")).await;
    assert!(
        matches!(
            other,
            Linked::OverQuota(OverQuota {
                quota: Quota::Repositories,
                ..
            })
        ),
        "{other:?}"
    );
    let put = PutManifest {
        limits: Limits {
            tags: Some(1),
            ..Limits::default()
        },
        ..note("n").push_as("v1")
    };
    assert!(matches!(
        store.put_manifest(&here, put.clone()).await.unwrap(),
        PutOutcome::Stored(Some(_))
    ));
    let second = PutManifest {
        tags: vec![tag("v2")],
        ..put.clone()
    };
    assert!(matches!(
        store.put_manifest(&here, second).await.unwrap(),
        PutOutcome::OverQuota(OverQuota {
            quota: Quota::Tags,
            usage: 1,
            limit: 1
        })
    ));
    assert!(matches!(
        store.put_manifest(&here, put).await.unwrap(),
        PutOutcome::Stored(None)
    ));
    assert_eq!(target(&store, &here, "v2").await, None);
    recount(&store).await;
}

async fn of_64_pushes_at_once_only_what_fits_is_taken(store: Arc<TestStore>) {
    let limits = Limits {
        storage: Some(100),
        ..Limits::default()
    };
    let pushes = (0..64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let (place, content) = (repository(&format!("app{}", n % 4)), format!("{n:010}"));
            let id = begin(&store, &place).await;
            taken(&store, &place, id, closing(digest(&content))).await;
            let commit = CommitUpload {
                limits,
                ..commit(id, digest(&content), 10)
            };
            store.inner().commit_upload(&place, commit).await.unwrap()
        })
    });
    let outcomes: Vec<Linked> = join_all(pushes)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap())
        .collect();
    let taken = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Linked::Done(_)))
        .count();
    assert_eq!(taken, 10);
    assert_eq!(tenant(&store).await.bytes, 100);
    recount(&store).await;
}

async fn tags_pushed_at_once_are_counted_exactly(store: Arc<TestStore>) {
    let pushes = (0..48).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            put(
                &store,
                &repository("app"),
                note(&format!("{}", n % 3)).push_as(&format!("v{}", n % 7)),
            )
            .await
        })
    });
    join_all(pushes)
        .await
        .into_iter()
        .for_each(|pushed| assert!(pushed.is_ok()));
    assert_eq!(tenant(&store).await.tags, 7);
    recount(&store).await;
}

async fn an_immutable_tag_stays_where_it_is(store: Arc<TestStore>) {
    let push = |text: &str| PutManifest {
        immutable: vec![tag("v1")],
        ..note(text).push_as("v1")
    };
    let pushes = (0..16).map(|n| {
        let (store, push) = (store.clone(), push(&n.to_string()));
        tokio::spawn(async move { store.put_manifest(&repository("app"), push).await.unwrap() })
    });
    let outcomes: Vec<PutOutcome> = join_all(pushes)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap())
        .collect();
    let stored = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, PutOutcome::Stored(_)))
        .count();
    let refused = outcomes
        .iter()
        .filter(|outcome| **outcome == PutOutcome::Immutable(tag("v1")))
        .count();
    assert_eq!((stored, refused), (1, 15));
    let here = repository("app");
    let first = target(&store, &here, "v1").await.unwrap();
    let again = (0..16)
        .map(|n| push(&n.to_string()))
        .find(|push| push.digest == first)
        .unwrap();
    assert!(matches!(
        store.put_manifest(&here, again).await.unwrap(),
        PutOutcome::Stored(None)
    ));
    recount(&store).await;
}

async fn a_manifest_with_an_immutable_tag_is_not_deleted(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push_as("v1.0_x")).await;
    let by = |globs: &[&str]| Deletion {
        immutable: globs.iter().map(|glob| (*glob).to_owned()).collect(),
        ..deletion()
    };
    for globs in [&["v*"][..], &["x", "v?.0_x"], &["*_x"]] {
        let outcome = store
            .inner()
            .delete_manifest(&here, &manifest, by(globs))
            .await
            .unwrap();
        assert_eq!(outcome, Deleted::Immutable("v1.0_x".into()), "{globs:?}");
    }
    // What other stores take for a wildcard is a character.
    let outcome = store
        .inner()
        .delete_manifest(&here, &manifest, by(&["v1_0_x", "V*"]))
        .await
        .unwrap();
    assert_eq!(outcome, Deleted::Done);
}

async fn a_session_is_found_by_who_started_it_alone(store: Arc<TestStore>) {
    let here = repository("app");
    let id = begin(&store, &here).await;
    let other = SessionKey {
        principal: "other".into(),
        ..key(&here, id)
    };
    assert!(store.inner().upload(&other).await.unwrap().is_none());
    assert!(matches!(
        store.inner().take_upload(&other, take()).await.unwrap(),
        Taken::Gone
    ));
    assert!(store.inner().cancel_upload(&other).await.unwrap().is_none());
    assert!(store.upload(&here, id).await.unwrap().is_some());
}
