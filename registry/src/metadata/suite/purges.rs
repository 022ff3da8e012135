//! What goes as a whole goes in steps, and takes nothing else along.

use std::sync::Arc;

use super::builders::*;
use super::collection::{LATE, collect, there};
use super::fixture::TestStore;
use super::usage::recount;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

async fn all_steps(store: &TestStore, purge: &Purge, now: Time) -> u64 {
    let mut uploads = 0;
    for _ in 0..1000 {
        let step = store.lifecycle().purge(purge, now, now, 2).await.unwrap();
        uploads += step.uploads.len() as u64;
        if step.done {
            return uploads;
        }
        if step.deleted == 0 {
            collect(store, now, None).await;
            for (tenant, key) in store.due_objects(now, now, 100).await.unwrap() {
                store.forget_object(tenant, &key).await.unwrap();
            }
        }
    }
    panic!("the purge does not end");
}

async fn fill(store: &TestStore, here: &Repository) {
    for number in 0..5 {
        let own = push_blob(store, here, &format!("{} {number}", here.name)).await;
        let shared = push_blob(store, here, "shared").await;
        let child = put(store, here, image(&[own, shared]).push_as(&format!("c{number}"))).await;
        put(
            store,
            here,
            index(&[child]).about(child).push_as(&format!("v{number}")),
        )
        .await;
    }
    store.delete_tag(here, &tag("c0"), deletion()).await.unwrap();
    begin(store, here).await;
}

on_both_stores! {
    a_purged_repository_vanishes_at_once_and_leaves_nothing
    an_erased_tenant_leaves_nothing_but_its_bill
}

async fn a_purged_repository_vanishes_at_once_and_leaves_nothing(store: Arc<TestStore>) {
    let (here, other) = (repository("app"), repository("other"));
    fill(&store, &here).await;
    fill(&store, &other).await;
    store
        .execute(
            "INSERT INTO config (tenant_id, kind, name, uid, generation, spec, hash, version, changed_at) \
             VALUES (1, 1, 'ci/app', 'second', 0, '{\"name\":\"app\"}', '', 1, 0)",
        )
        .await;
    store
        .execute("INSERT INTO claim VALUES (1, 2, 'app', 1, 1, 'ci/app')")
        .await;
    let erase_of = async |place: &Repository, object: &str, uid: Option<&str>, term: i64| {
        let wish = EraseRepository {
            object: object.into(),
            only_of: uid.map(str::to_owned),
            term: Some(term),
            now: NOW,
            announce: None,
        };
        store.lifecycle().erase_repository(place, wish).await.unwrap()
    };
    let erase = async |place: &Repository, object: &str, term: i64| erase_of(place, object, None, term).await;
    let term = store.configuration().new_term().await.unwrap();
    let first = erase_of(&here, "ci/app", Some("first"), term).await;
    assert_eq!(
        first,
        Erased::Replaced,
        "an object of the name that was made again"
    );
    assert!(matches!(
        erase(&here, "ci/app", term - 1).await,
        Erased::StaleTerm { .. }
    ));
    assert_eq!(erase(&other, "ci/app", term).await, Erased::NotDeclared);
    assert_eq!(erase(&here, "ci/other", term).await, Erased::NotDeclared);
    assert_eq!(
        erase(&repository_of(2, "app"), "ci/app", term).await,
        Erased::NotDeclared
    );
    assert!(target(&store, &here, "v1").await.is_some());

    let second = erase_of(&here, "ci/app", Some("second"), term).await;
    assert_eq!(second, Erased::Done);
    assert_eq!(target(&store, &here, "v1").await, None);
    let due = store.lifecycle().purges(NOW, 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert!(
        store.lifecycle().purges(NOW, 10).await.unwrap().is_empty(),
        "one replica has it"
    );
    let retired = due[0].repository.clone();
    assert_eq!(
        store.repositories(TenantId(1), None, 10).await.unwrap(),
        ["other"]
    );
    // The name is free, and what is pushed under it now stays.
    let new = put(&store, &here, note("new").push_as("v1")).await;
    assert!(
        store
            .lifecycle()
            .pending_purges((0, String::new()), 10)
            .await
            .unwrap()[0]
            .repository
            == retired
    );

    let purge = Purge {
        repository: retired,
        ..due[0].clone()
    };
    all_steps(&store, &purge, after(LATE)).await;

    assert!(there(&store, &here, new).await);
    assert!(target(&store, &other, "v1").await.is_some());
    assert!(store.blob(&other, &digest("shared")).await.unwrap().is_some());
    assert_eq!(store.count("SELECT count(*) FROM repository").await, 2);
    assert_eq!(store.count("SELECT count(*) FROM purge").await, 0);
    recount(&store).await;
    let orphans = "SELECT count(*) FROM tag_history h WHERE NOT EXISTS (SELECT 1 FROM repository r \
         WHERE r.tenant_id = h.tenant_id AND r.id = h.repository_id)";
    assert_eq!(store.count(orphans).await, 0);
}

async fn an_erased_tenant_leaves_nothing_but_its_bill(store: Arc<TestStore>) {
    let (here, foreign) = (repository("app"), repository_of(2, "app"));
    store
        .execute("INSERT INTO tenant (id, name, uid, created_at, deleted_at) VALUES (1, 'acme~1', 'u', 0, 0)")
        .await;
    fill(&store, &here).await;
    fill(&store, &foreign).await;
    store
        .execute("INSERT INTO usage_monthly VALUES (1, 202311, 0, 77)")
        .await;
    store
        .execute("INSERT INTO usage_daily VALUES (1, 1, 19675, 77)")
        .await;
    store.execute("INSERT INTO purge VALUES (1, '', 0, 0)").await;
    let due = store.lifecycle().purges(NOW, 10).await.unwrap();
    assert_eq!(
        (due[0].tenant_name.as_str(), due[0].repository.as_str()),
        ("acme~1", "")
    );

    assert_eq!(
        all_steps(&store, &due[0], after(LATE)).await,
        1,
        "its open upload"
    );

    for table in [
        "SELECT count(*) FROM tag WHERE tenant_id = 1",
        "SELECT count(*) FROM manifest WHERE tenant_id = 1",
        "SELECT count(*) FROM manifest_blob WHERE tenant_id = 1",
        "SELECT count(*) FROM manifest_child WHERE tenant_id = 1",
        "SELECT count(*) FROM referrer WHERE tenant_id = 1",
        "SELECT count(*) FROM blob WHERE tenant_id = 1",
        "SELECT count(*) FROM repository_blob WHERE tenant_id = 1",
        "SELECT count(*) FROM repository WHERE tenant_id = 1",
        "SELECT count(*) FROM upload WHERE tenant_id = 1",
        "SELECT count(*) FROM tag_history WHERE tenant_id = 1",
        "SELECT count(*) FROM review_blob WHERE tenant_id = 1",
        "SELECT count(*) FROM review_manifest WHERE tenant_id = 1",
        "SELECT count(*) FROM object_deletion WHERE tenant_id = 1",
        "SELECT count(*) FROM usage WHERE tenant_id = 1",
        "SELECT count(*) FROM purge",
    ] {
        assert_eq!(store.count(table).await, 0, "{table}");
    }
    assert!(target(&store, &foreign, "v1").await.is_some());
    assert!(store.blob(&foreign, &digest("shared")).await.unwrap().is_some());
    let month = MonthQuery {
        month: 202_311,
        tenant: None,
        repositories: false,
        after: (0, -1),
        limit: 10,
    };
    let billed = store.lifecycle().month(month).await.unwrap();
    assert_eq!(
        (billed[0].tenant_name.as_str(), billed[0].byte_hours),
        ("acme~1", 77)
    );
    recount(&store).await;
}
