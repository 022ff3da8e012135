//! No request reads a table from end to end, however large it has grown: on Postgres the server counts it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::{Algorithm, Digest};
use crate::metadata::pull_through::{CacheNews, ClaimKey, Claimed, TakeClaim};
use crate::metadata::*;

/// A repository of 50,000 tags, 10,000 manifests and 10,000 blobs, and long queues.
const GROWN: [&str; 13] = [
    "INSERT INTO repository VALUES (1, 10, 'grown', 0), (1, 11, 'small', 0), (2, 12, 'grown', 0)",
    "INSERT INTO blob SELECT 1, '\\x01' || sha256(i::text::bytea), gen_random_uuid(), 1, 0, 0 \
     FROM generate_series(1, 10000) AS i",
    "INSERT INTO repository_blob SELECT 1, 10, '\\x01' || sha256(i::text::bytea), 0 \
     FROM generate_series(1, 10000) AS i",
    "INSERT INTO manifest SELECT 1, 10, '\\x01' || sha256(i::text::bytea), 'x', NULL, NULL, '{}', 2, 0, 'ci', 0 \
     FROM generate_series(1, 10000) AS i",
    "INSERT INTO manifest_blob SELECT 1, 10, '\\x01' || sha256(i::text::bytea), '\\x01' || sha256((i/2)::text::bytea) \
     FROM generate_series(1, 10000) AS i",
    "INSERT INTO manifest_child SELECT 1, 10, '\\x01' || sha256(i::text::bytea), '\\x01' || sha256((i/2)::text::bytea), 0 \
     FROM generate_series(1, 5000) AS i",
    "INSERT INTO tag SELECT 1, 10, 'v' || i, '\\x01' || sha256((1 + i % 10000)::text::bytea), 0, 0, 'ci' \
     FROM generate_series(1, 50000) AS i",
    "INSERT INTO referrer SELECT 1, 10, 'sha256:subject', '\\x01' || sha256(i::text::bytea), 'a/a', '{}', 2 \
     FROM generate_series(1, 20000) AS i",
    "INSERT INTO upload SELECT 1, gen_random_uuid(), 'grown', 'ci', i, i, 0, 0, 0, '', '{\"folder\":{\"offset\":0}}' \
     FROM generate_series(1, 5000) AS i",
    "INSERT INTO object_deletion SELECT 1, gen_random_uuid(), i FROM generate_series(1, 5000) AS i",
    "INSERT INTO cached_tag SELECT 1, 'grown', 'v' || i, i FROM generate_series(1, 50000) AS i",
    "INSERT INTO upstream_claim SELECT 1, 'grown', 'tag:v' || i, gen_random_uuid(), NULL, NULL, i \
     FROM generate_series(1, 10000) AS i",
    "INSERT INTO cache_figures SELECT i, 'hub', 0, 0, 0, 0 FROM generate_series(1, 10000) AS i",
];

/// Tables that a request must not read from end to end; the others have a few rows here.
const SCANS: &str = "SELECT coalesce(string_agg(relname, ' '), '') FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN ('blob', \
    'repository_blob', 'manifest', 'manifest_blob', 'manifest_child', 'tag', 'referrer', 'upload', 'object_deletion', \
    'cached_tag', 'upstream_claim', 'cache_figures')";

fn numbered(number: u32) -> Digest {
    digest(&number.to_string())
}

/// Every request that clients wait for, in the large repository.
async fn requests(store: &Arc<TestStore>, round: u32) {
    let here = repository("grown");
    let lookups = (1..=200).map(|number| {
        let (store, here) = (store.clone(), here.clone());
        tokio::spawn(async move {
            assert!(target(&store, &here, &format!("v{number}")).await.is_some());
            assert!(target(&store, &here, &format!("none{number}")).await.is_none());
            assert!(
                store
                    .manifest(&here, &by_digest(numbered(number)))
                    .await
                    .unwrap()
                    .is_some()
            );
            assert!(store.blob(&here, &numbered(number)).await.unwrap().is_some());
        })
    });
    for lookup in join_all(lookups).await {
        lookup.unwrap();
    }
    assert!(
        store
            .manifest_payload(&here, &numbered(7))
            .await
            .unwrap()
            .is_some()
    );
    let page = store
        .tags(&here, Some("v15".into()), 1000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.len(), 1000);
    for artifact_types in [Vec::new(), vec!["a/a".to_owned()]] {
        let query = ReferrersQuery {
            subject: "sha256:subject".into(),
            artifact_types,
            after: Some(Digest::from_hash(Algorithm::Sha256, &[9; 32]).unwrap()),
            limit: 100,
            bytes: 1 << 20,
        };
        assert_eq!(
            store.referrers(&here, &query).await.unwrap().descriptors.len(),
            100
        );
    }

    assert!(store.lease_blob(&here, &numbered(5), after(1)).await.unwrap());
    assert!(store.lease_manifest(&here, &numbered(5), after(1)).await.unwrap());
    assert!(
        store
            .mount_blob(&repository("small"), mount(numbered(9)))
            .await
            .unwrap()
    );
    assert!(
        store
            .mount_blob(&repository("small"), mount_from(numbered(9), "grown"))
            .await
            .unwrap()
    );
    assert_eq!(
        store
            .unlink_blob(&repository("small"), &numbered(9), NOW)
            .await
            .unwrap(),
        Unlinked::Done
    );
    assert!(matches!(
        store.unlink_blob(&here, &numbered(8), NOW).await.unwrap(),
        Unlinked::InUse(_)
    ));

    let blob = push_blob(store, &here, &format!("new {round}")).await;
    let image = image(&[blob, numbered(1), numbered(2), numbered(3)]).noted(&round.to_string());
    let digest = put(store, &here, image.push_as("v1077")).await;
    put(
        store,
        &here,
        index(&[digest, numbered(4)]).about(digest).push_as("index"),
    )
    .await;
    put(
        store,
        &here,
        PutManifest {
            tags: vec![tag("new"), tag("v1078")],
            ..image.push()
        },
    )
    .await;
    assert!(store.delete_tag(&here, &tag("new"), deletion()).await.unwrap());
    assert!(store.delete_manifest(&here, &digest, deletion()).await.unwrap());

    let upload = begin(store, &here).await;
    taken(store, &here, upload, take()).await;
    assert!(
        store
            .checkpoint_upload(here.tenant, upload, progress(1, 5))
            .await
            .unwrap()
    );
    assert!(store.cancel_upload(&here, upload).await.unwrap().is_some());
    assert_eq!(store.expire_uploads(Time(1_000_000), 10).await.unwrap().len(), 10);
    assert_eq!(
        store
            .due_objects(Time(1_000_000), after(1), 10)
            .await
            .unwrap()
            .len(),
        10
    );
    assert!(store.upload(&here, Uuid::new_v4()).await.unwrap().is_none());
    through_the_cache(store, &here).await;
}

/// What a request for another registry's content asks.
async fn through_the_cache(store: &TestStore, here: &Repository) {
    let shared = store.pull_through();
    assert!(shared.tag_checked(here, &tag("v49999")).await.unwrap().is_some());
    shared.note_tag_checked(here, &tag("v49999"), NOW).await.unwrap();
    let key = ClaimKey {
        repository: here.clone(),
        what: "tag:v9999".into(),
    };
    let take = TakeClaim {
        holder: Uuid::new_v4(),
        address: None,
        now: NOW,
        until: after(15),
    };
    let holder = take.holder;
    let other = TakeClaim {
        holder: Uuid::new_v4(),
        ..take.clone()
    };
    assert_eq!(
        shared.take_claim(&key, take).await.unwrap(),
        Claimed::Yours { upload: None }
    );
    assert!(matches!(
        shared.take_claim(&key, other).await.unwrap(),
        Claimed::Busy { .. }
    ));
    assert!(shared.renew_claim(&key, holder, None, after(20)).await.unwrap());
    shared.release_claim(&key, holder).await.unwrap();
    assert!(shared.names_blob(here, &numbered(9)).await.unwrap().is_some());
    assert!(
        shared
            .names_blob(here, &digest("named by none"))
            .await
            .unwrap()
            .is_none()
    );
    let forgotten = shared
        .forget_pull_through(Time(1_000_000), Time(1_000_000), 10)
        .await;
    assert_eq!(forgotten.unwrap(), 20);
    let news = CacheNews {
        hits: 1,
        ..CacheNews::default()
    };
    shared.add_cache_news(here.tenant, "hub", news).await.unwrap();
    assert!(shared.cache_figures(here.tenant, "hub").await.unwrap().hits > 0);
    shared
        .keep_cache_figures(here.tenant, &["hub".to_owned()])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_on_postgres_reads_a_large_table_from_end_to_end() {
    let mut store = TestStore::on_postgres().await;
    for statement in GROWN {
        store.execute(statement).await;
    }
    // First as right after the growth, without statistics; then with them. A statement is planned anew for
    // its parameters a few times, and once for all later on.
    for analysed in [false, true] {
        if analysed {
            store.execute("ANALYZE").await;
        }
        store.execute("SELECT pg_stat_reset()").await;
        // Sessions report what they did when they end.
        store = store.reopened().await;
        for round in 0..8 {
            requests(&store, round + if analysed { 100 } else { 0 }).await;
        }
        store = store.reopened().await;
        let reported = async {
            while store
                .count("SELECT coalesce(sum(n_tup_upd), 0)::bigint FROM pg_stat_user_tables")
                .await
                < 80
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reported)
            .await
            .expect("the sessions report");
        assert_eq!(
            store.text(SCANS).await,
            "",
            "tables read from end to end, analysed: {analysed}"
        );
    }
}
