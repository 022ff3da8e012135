//! Configuration: totally ordered, all or nothing, names held by one, writers fenced.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::configuration::*;
use crate::metadata::*;

on_both_stores! {
    a_first_tenant_is_made_once_and_counts_as_built_in
    a_put_repeated_changes_nothing
    objects_are_read_in_the_order_of_their_versions
    a_deleted_object_leaves_a_trace_until_it_is_forgotten
    a_name_is_held_by_one_object_alone
    a_set_of_changes_is_made_whole_or_not_at_all
    an_older_term_is_refused
    a_deleted_tenant_comes_back_with_its_content_and_another_uid
    an_erased_tenant_gives_its_name_to_a_new_one
    what_is_meant_for_one_source_does_not_touch_anothers_object
    of_many_writers_at_once_each_gets_a_version_of_its_own
    replicas_tell_what_they_serve
    a_change_is_heard_of_where_the_store_can_tell
}

fn put(tenant: &str, kind: ObjectKind, name: &str, json: &str, claims: Vec<Claim>) -> Change {
    Change {
        tenant: tenant.parse().unwrap(),
        kind,
        name: name.to_owned(),
        only_of: None,
        wish: Wish::Put(NewSpec {
            uid: None,
            generation: 1,
            json: json.to_owned(),
            hash: json.to_owned(),
            claims,
        }),
    }
}

fn tenant(name: &str) -> Change {
    put(name, ObjectKind::Tenant, "", "{}", Vec::new())
}

fn wish(tenant: &str, kind: ObjectKind, name: &str, wish: Wish) -> Change {
    Change {
        tenant: tenant.parse().unwrap(),
        kind,
        name: name.to_owned(),
        only_of: None,
        wish,
    }
}

async fn apply(store: &TestStore, changes: Vec<Change>) -> Applied {
    apply_under(store, changes, None).await
}

async fn apply_under(store: &TestStore, changes: Vec<Change>, term: Option<i64>) -> Applied {
    let set = ChangeSet {
        changes,
        term,
        now: NOW,
        audit: Vec::new(),
    };
    store.configuration().apply(set).await.unwrap()
}

async fn done(store: &TestStore, changes: Vec<Change>) -> i64 {
    match apply(store, changes).await {
        Applied::Done { version, changed } if changed > 0 => version,
        other => panic!("{other:?}"),
    }
}

async fn all(store: &TestStore) -> Vec<Object> {
    store
        .configuration()
        .objects(ObjectCursor::default(), 100)
        .await
        .unwrap()
}

async fn a_first_tenant_is_made_once_and_counts_as_built_in(store: Arc<TestStore>) {
    let first = || FirstTenant {
        name: "default".parse().unwrap(),
        spec: "{}".into(),
        now: NOW,
    };
    store.configuration().first_tenant(first()).await.unwrap();
    let version = store.configuration().version().await.unwrap();
    store.configuration().first_tenant(first()).await.unwrap();
    assert_eq!(store.configuration().version().await.unwrap(), version);
    let objects = all(&store).await;
    assert_eq!((objects.len(), objects[0].built_in), (1, true));
    done(&store, vec![tenant("default")]).await;
    assert!(!all(&store).await[0].built_in);
    let tenants = store.count("SELECT count(*) FROM tenant").await;
    assert_eq!(tenants, 1);
}

async fn a_put_repeated_changes_nothing(store: Arc<TestStore>) {
    let version = done(&store, vec![tenant("acme")]).await;
    for _ in 0..2 {
        assert_eq!(
            apply(&store, vec![tenant("acme")]).await,
            Applied::Done { version, changed: 0 }
        );
    }
    assert_eq!(store.configuration().version().await.unwrap(), version);
    let mut newer = tenant("acme");
    if let Wish::Put(spec) = &mut newer.wish {
        spec.generation = 2;
    }
    assert_eq!(done(&store, vec![newer]).await, version + 1);
}

async fn objects_are_read_in_the_order_of_their_versions(store: Arc<TestStore>) {
    done(&store, vec![tenant("acme")]).await;
    let repository = |name: &str, json: &str| put("acme", ObjectKind::Repository, name, json, Vec::new());
    done(&store, vec![repository("a", "{}"), repository("b", "{}")]).await;
    let seen = store.configuration().version().await.unwrap();
    done(&store, vec![repository("a", "{\"x\":1}")]).await;

    let news = store
        .configuration()
        .objects(ObjectCursor::after(seen), 10)
        .await
        .unwrap();
    assert_eq!(news.len(), 1);
    assert_eq!(
        (news[0].name.as_str(), news[0].spec.as_deref()),
        ("a", Some("{\"x\":1}"))
    );
    let mut cursor = ObjectCursor::default();
    let mut names = Vec::new();
    loop {
        let page = store.configuration().objects(cursor.clone(), 1).await.unwrap();
        let Some(object) = page.first() else { break };
        cursor = ObjectCursor::behind(object);
        names.push(object.name.clone());
    }
    assert_eq!(names, ["", "b", "a"]);
}

async fn a_deleted_object_leaves_a_trace_until_it_is_forgotten(store: Arc<TestStore>) {
    done(
        &store,
        vec![
            tenant("acme"),
            put(
                "acme",
                ObjectKind::Cache,
                "hub",
                "{}",
                vec![Claim::Prefix("hub".into())],
            ),
        ],
    )
    .await;
    let seen = store.configuration().version().await.unwrap();
    let gone = || vec![wish("acme", ObjectKind::Cache, "hub", Wish::Delete)];
    done(&store, gone()).await;
    assert!(matches!(
        apply(&store, gone()).await,
        Applied::Done { changed: 0, .. }
    ));

    let news = store
        .configuration()
        .objects(ObjectCursor::after(seen), 10)
        .await
        .unwrap();
    assert_eq!((news.len(), news[0].spec.is_none()), (1, true));
    let name = "acme".parse().unwrap();
    assert!(
        store
            .configuration()
            .object(&name, ObjectKind::Cache, "hub")
            .await
            .unwrap()
            .is_none()
    );
    store.configuration().forget_deleted(after(1)).await.unwrap();
    assert_eq!(all(&store).await.len(), 1);
    done(
        &store,
        vec![put(
            "acme",
            ObjectKind::Cache,
            "other",
            "{}",
            vec![Claim::Prefix("hub".into())],
        )],
    )
    .await;
}

async fn a_name_is_held_by_one_object_alone(store: Arc<TestStore>) {
    let host = || vec![Claim::Host("registry.acme.com".into()), Claim::Apex("old".into())];
    done(&store, vec![put("acme", ObjectKind::Tenant, "", "1", host())]).await;
    let taken = apply(&store, vec![put("other", ObjectKind::Tenant, "", "1", host())]).await;
    let Applied::Taken { at: 0, claim, by } = taken else {
        panic!("{taken:?}")
    };
    assert_eq!(
        (claim, by.as_str()),
        (Claim::Host("registry.acme.com".into()), "tenant acme")
    );
    // Its own names are no obstacle, and what it gives up is free.
    done(
        &store,
        vec![put(
            "acme",
            ObjectKind::Tenant,
            "",
            "2",
            vec![Claim::Apex("old".into())],
        )],
    )
    .await;
    done(
        &store,
        vec![put(
            "other",
            ObjectKind::Tenant,
            "",
            "1",
            vec![Claim::Host("registry.acme.com".into())],
        )],
    )
    .await;
    // A name on the apex is no tenant's.
    let apex = apply(
        &store,
        vec![put(
            "acme",
            ObjectKind::Tenant,
            "",
            "3",
            vec![Claim::Apex("other".into())],
        )],
    )
    .await;
    assert!(matches!(apex, Applied::Taken { .. }), "{apex:?}");

    let repository = |tenant: &str, object: &str, claim: Claim| {
        put(tenant, ObjectKind::Repository, object, object, vec![claim])
    };
    done(
        &store,
        vec![repository("acme", "a", Claim::Repository("app".into()))],
    )
    .await;
    for claim in [Claim::Alias("app".into()), Claim::Repository("app".into())] {
        let taken = apply(&store, vec![repository("acme", "b", claim)]).await;
        let Applied::Taken { by, .. } = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(by, "repositories/a of tenant acme");
    }
    done(&store, vec![repository("other", "b", Claim::Alias("app".into()))]).await;
    // What has been pushed under a name cannot be hidden by an alias.
    let name: crate::domain::TenantName = "acme".parse().unwrap();
    let id = store
        .configuration()
        .object(&name, ObjectKind::Tenant, "")
        .await
        .unwrap()
        .unwrap()
        .tenant;
    super::builders::put(&store, &repository_of(id.0, "pushed"), note("n").push()).await;
    let taken = apply(
        &store,
        vec![repository("acme", "c", Claim::Alias("pushed".into()))],
    )
    .await;
    assert!(matches!(taken, Applied::Taken { .. }), "{taken:?}");
}

async fn a_set_of_changes_is_made_whole_or_not_at_all(store: Arc<TestStore>) {
    let bad = vec![
        tenant("acme"),
        put(
            "acme",
            ObjectKind::Repository,
            "a",
            "{}",
            vec![Claim::Repository("app".into())],
        ),
        put(
            "acme",
            ObjectKind::Repository,
            "b",
            "{}",
            vec![Claim::Repository("app".into())],
        ),
    ];
    assert!(matches!(apply(&store, bad).await, Applied::Taken { at: 2, .. }));
    let nobody = vec![
        tenant("acme"),
        put("nobody", ObjectKind::Cache, "a", "{}", Vec::new()),
    ];
    assert_eq!(apply(&store, nobody).await, Applied::NoTenant("nobody".into()));
    assert!(all(&store).await.is_empty());
    assert_eq!(store.count("SELECT count(*) FROM claim").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM tenant").await, 0);
}

async fn an_older_term_is_refused(store: Arc<TestStore>) {
    let first = store.configuration().new_term().await.unwrap();
    assert!(matches!(
        apply_under(&store, vec![tenant("a")], Some(first)).await,
        Applied::Done { .. }
    ));
    let second = store.configuration().new_term().await.unwrap();
    assert!(second > first);
    assert_eq!(
        apply_under(&store, vec![tenant("b")], Some(first)).await,
        Applied::StaleTerm { current: second }
    );
    assert!(matches!(
        apply_under(&store, vec![tenant("b")], Some(second)).await,
        Applied::Done { .. }
    ));
    assert!(matches!(
        apply(&store, vec![tenant("c")]).await,
        Applied::Done { .. }
    ));
}

async fn a_deleted_tenant_comes_back_with_its_content_and_another_uid(store: Arc<TestStore>) {
    done(
        &store,
        vec![
            tenant("acme"),
            put("acme", ObjectKind::Cache, "hub", "{}", Vec::new()),
        ],
    )
    .await;
    let before = all(&store).await.remove(0);
    let place = repository_of(before.tenant.0, "app");
    let manifest = super::builders::put(&store, &place, note("n").push_as("v1")).await;
    done(&store, vec![wish("acme", ObjectKind::Tenant, "", Wish::Delete)]).await;
    assert!(all(&store).await.iter().all(|object| object.spec.is_none()));
    let name = "acme".parse().unwrap();
    assert!(
        store
            .configuration()
            .object(&name, ObjectKind::Tenant, "")
            .await
            .unwrap()
            .is_none()
    );

    done(&store, vec![tenant("acme")]).await;
    let again = store
        .configuration()
        .object(&name, ObjectKind::Tenant, "")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.tenant, before.tenant);
    assert_ne!(again.tenant_uid, before.tenant_uid);
    assert_eq!(target(&store, &place, "v1").await, Some(manifest));
}

async fn what_is_meant_for_one_source_does_not_touch_anothers_object(store: Arc<TestStore>) {
    let of = |uid: Option<&str>, mut change: Change| {
        if let Wish::Put(spec) = &mut change.wish {
            spec.uid = uid.map(str::to_owned);
        } else {
            change.only_of = uid.map(str::to_owned);
        }
        change
    };
    let gone = || wish("acme", ObjectKind::Tenant, "", Wish::Delete);
    let absent = apply(&store, vec![of(Some("first"), gone())]).await;
    assert!(matches!(absent, Applied::Done { changed: 0, .. }), "{absent:?}");
    for (uid, meant) in [
        (Some("second"), "first"),
        (None, "first"),
        (Some("first"), "second"),
    ] {
        done(&store, vec![of(uid, tenant("acme"))]).await;
        let refused = apply(&store, vec![of(Some(meant), gone())]).await;
        assert_eq!(refused, Applied::Replaced { at: 0 }, "{uid:?} {meant}");
    }
    assert!(all(&store).await.iter().all(|object| object.spec.is_some()));
    done(&store, vec![of(Some("first"), gone())]).await;
    assert!(all(&store).await.iter().all(|object| object.spec.is_none()));
    // What is gone already is no other's.
    let again = apply(&store, vec![of(Some("other"), gone())]).await;
    assert!(matches!(again, Applied::Done { changed: 0, .. }), "{again:?}");
}

async fn an_erased_tenant_gives_its_name_to_a_new_one(store: Arc<TestStore>) {
    done(&store, vec![tenant("acme")]).await;
    let before = all(&store).await.remove(0);
    done(&store, vec![wish("acme", ObjectKind::Tenant, "", Wish::Erase)]).await;
    done(&store, vec![tenant("acme")]).await;
    let name = "acme".parse().unwrap();
    let again = store
        .configuration()
        .object(&name, ObjectKind::Tenant, "")
        .await
        .unwrap()
        .unwrap();
    assert_ne!(
        (again.tenant, &again.tenant_uid),
        (before.tenant, &before.tenant_uid)
    );
}

async fn of_many_writers_at_once_each_gets_a_version_of_its_own(store: Arc<TestStore>) {
    done(&store, vec![tenant("acme")]).await;
    let writes = (0..32).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let name = format!("o{n}");
            done(
                &store,
                vec![put("acme", ObjectKind::Repository, &name, "{}", Vec::new())],
            )
            .await
        })
    });
    let mut versions: Vec<i64> = join_all(writes)
        .await
        .into_iter()
        .map(|version| version.unwrap())
        .collect();
    versions.sort_unstable();
    let first = versions[0];
    assert!(versions.iter().copied().eq(first..first + 32), "{versions:?}");
}

async fn replicas_tell_what_they_serve(store: Arc<TestStore>) {
    let replica = |version: i64, seen: Time| Replica {
        id: uuid::Uuid::from_u128(7),
        host: "host".into(),
        started_at: NOW,
        seen_at: seen,
        version,
        keys: vec!["a".into()],
        failed: vec!["tenants/acme/".into()],
    };
    let configuration = store.configuration();
    configuration.heartbeat(replica(3, NOW)).await.unwrap();
    configuration.heartbeat(replica(4, after(5))).await.unwrap();
    let live = configuration.replicas(after(1)).await.unwrap();
    assert_eq!(
        (live.len(), live[0].version, live[0].keys.as_slice()),
        (1, 4, &["a".to_owned()][..])
    );
    assert_eq!(live[0].failed, ["tenants/acme/"]);
    assert!(configuration.replicas(after(6)).await.unwrap().is_empty());
    configuration.leave(replica(0, NOW).id).await.unwrap();
    assert!(configuration.replicas(NOW).await.unwrap().is_empty());
}

async fn a_change_is_heard_of_where_the_store_can_tell(store: Arc<TestStore>) {
    let other = store.open_again().await.unwrap();
    if store.is_sqlite() {
        // The only process that writes needs nobody to tell it.
        let told = tokio::time::timeout(Duration::from_millis(50), other.configuration.changed()).await;
        assert!(told.is_err());
        return;
    }
    // The first call says that it listens from now on.
    other.configuration.changed().await;
    done(&store, vec![tenant("acme")]).await;
    tokio::time::timeout(Duration::from_secs(20), other.configuration.changed())
        .await
        .expect("the change is heard of");
}
