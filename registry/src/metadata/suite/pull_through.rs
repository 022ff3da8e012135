//! What replicas share about other registries: one asks, the others wait; a dead one's work is taken over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use uuid::Uuid;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::lifecycle::{EraseRepository, Erased};
use crate::metadata::pull_through::*;
use crate::metadata::*;

on_both_stores! {
    a_check_of_a_tag_is_noted_and_does_not_go_back_in_time
    a_check_in_a_repository_that_is_gone_is_not_told
    of_32_takers_of_a_claim_exactly_one_gets_it
    of_32_takers_of_a_lease_that_ended_exactly_one_gets_it
    a_claim_that_is_passed_on_is_never_held_by_two
    a_claim_that_is_held_says_where_and_until_when
    a_lease_that_ended_is_taken_over_with_the_upload_that_was_noted
    whoever_holds_a_claim_takes_it_again_and_keeps_what_was_noted
    a_claim_that_was_given_up_is_free_and_notes_nothing
    a_lease_that_was_lost_is_neither_renewed_nor_given_up
    old_claims_and_checks_are_forgotten_in_batches
    a_manifest_that_names_a_blob_is_found_in_its_repository_alone
    figures_from_many_adders_at_once_sum_up
    of_limits_and_failures_the_newest_is_kept
    a_long_failure_is_cut_between_characters
    figures_of_caches_that_are_gone_are_forgotten
    what_is_stored_below_a_prefix_is_counted_and_nothing_beside_it
    tenants_do_not_see_each_other_s_checks_claims_and_figures
    an_erased_repository_takes_its_checks_and_claims_along
    an_erased_tenant_takes_its_checks_claims_and_figures_along
}

const HERE: &str = "hub/library/alpine";

fn claim_on(repository: &Repository, what: &str) -> ClaimKey {
    ClaimKey {
        repository: repository.clone(),
        what: what.into(),
    }
}

fn claim() -> ClaimKey {
    claim_on(&repository(HERE), "tag:latest")
}

/// A wish at this many seconds after [`NOW`], for 15 seconds.
fn wish(holder: Uuid, seconds: u64) -> TakeClaim {
    TakeClaim {
        holder,
        address: Some(format!("http://{holder}:5000")),
        now: after(seconds),
        until: after(seconds + 15),
    }
}

const YOURS: Claimed = Claimed::Yours { upload: None };

/// Takes the claim as somebody new.
async fn taken_by_new(store: &TestStore, key: &ClaimKey, seconds: u64) -> Uuid {
    let holder = Uuid::new_v4();
    let claimed = store.pull_through().take_claim(key, wish(holder, seconds)).await;
    assert!(matches!(claimed.unwrap(), Claimed::Yours { .. }));
    holder
}

/// Whether the claim could be renewed up to this many seconds after [`NOW`].
async fn renewed(store: &TestStore, holder: Uuid, upload: Option<Uuid>, seconds: u64) -> bool {
    let shared = store.pull_through();
    let renewed = shared.renew_claim(&claim(), holder, upload, after(seconds)).await;
    renewed.unwrap()
}

/// What 32 takers at once are told.
async fn taken_by_32(store: &Arc<TestStore>, seconds: u64) -> Vec<Claimed> {
    let takers = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let wish = wish(Uuid::new_v4(), seconds);
            store.pull_through().take_claim(&claim(), wish).await
        })
    });
    let told = join_all(takers).await;
    told.into_iter().map(|told| told.unwrap().unwrap()).collect()
}

async fn checked(store: &TestStore, repository: &Repository, name: &str) -> Option<Time> {
    let checked = store.pull_through().tag_checked(repository, &tag(name)).await;
    checked.unwrap()
}

async fn note_checked(store: &TestStore, repository: &Repository, name: &str, at: Time) {
    let noted = store
        .pull_through()
        .note_tag_checked(repository, &tag(name), at)
        .await;
    noted.unwrap();
}

async fn figures(store: &TestStore, tenant: i64, cache: &str) -> CacheFigures {
    let figures = store.pull_through().cache_figures(TenantId(tenant), cache).await;
    figures.unwrap()
}

async fn add(store: &TestStore, tenant: i64, cache: &str, news: CacheNews) {
    let added = store
        .pull_through()
        .add_cache_news(TenantId(tenant), cache, news)
        .await;
    added.unwrap();
}

fn hits(hits: u64) -> CacheNews {
    CacheNews {
        hits,
        ..CacheNews::default()
    }
}

async fn a_check_of_a_tag_is_noted_and_does_not_go_back_in_time(store: Arc<TestStore>) {
    let here = repository(HERE);
    put(&store, &here, note("n").push_as("latest")).await;
    assert_eq!(checked(&store, &here, "latest").await, None);

    for (at, expected) in [
        (after(5), after(5)),
        (after(9), after(9)),
        (after(7), after(9)),
        (after(9), after(9)),
    ] {
        note_checked(&store, &here, "latest", at).await;
        assert_eq!(checked(&store, &here, "latest").await, Some(expected));
    }
    assert_eq!(checked(&store, &here, "other").await, None);
    assert_eq!(checked(&store, &repository("hub/other"), "latest").await, None);
}

async fn a_check_in_a_repository_that_is_gone_is_not_told(store: Arc<TestStore>) {
    note_checked(&store, &repository(HERE), "latest", NOW).await;

    assert_eq!(checked(&store, &repository(HERE), "latest").await, None);
}

async fn of_32_takers_of_a_claim_exactly_one_gets_it(store: Arc<TestStore>) {
    let told = taken_by_32(&store, 0).await;

    assert_eq!(told.iter().filter(|told| **told == YOURS).count(), 1);
    let mut busy = told.iter().filter(|told| **told != YOURS);
    let first = busy.next().unwrap();
    assert!(matches!(first, Claimed::Busy { address: Some(_), until } if *until == after(15)));
    assert!(busy.all(|told| told == first), "all are sent to the one holder");
}

async fn of_32_takers_of_a_lease_that_ended_exactly_one_gets_it(store: Arc<TestStore>) {
    let (dead, upload) = (taken_by_new(&store, &claim(), 0).await, Uuid::new_v4());
    assert!(renewed(&store, dead, Some(upload), 20).await);

    let told = taken_by_32(&store, 20).await;

    let yours = Claimed::Yours { upload: Some(upload) };
    assert_eq!(told.iter().filter(|told| **told == yours).count(), 1);
    let busy = |told: &&Claimed| matches!(told, Claimed::Busy { .. });
    assert_eq!(told.iter().filter(busy).count(), 31);
}

async fn a_claim_that_is_passed_on_is_never_held_by_two(store: Arc<TestStore>) {
    let holders = Arc::new(AtomicU32::new(0));
    let workers = (0..16).map(|_| {
        let (store, holders) = (store.clone(), holders.clone());
        tokio::spawn(async move {
            let (shared, me) = (store.pull_through(), Uuid::new_v4());
            while shared.take_claim(&claim(), wish(me, 0)).await.unwrap() != YOURS {
                tokio::task::yield_now().await;
            }
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            holders.fetch_sub(1, Ordering::SeqCst);
            shared.release_claim(&claim(), me).await.unwrap();
        })
    });

    for worker in join_all(workers).await {
        worker.unwrap();
    }
    assert_eq!(store.count("SELECT count(*) FROM upstream_claim").await, 0);
}

async fn a_claim_that_is_held_says_where_and_until_when(store: Arc<TestStore>) {
    let shared = store.pull_through();
    let holder = taken_by_new(&store, &claim(), 0).await;
    let busy = Claimed::Busy {
        address: Some(format!("http://{holder}:5000")),
        until: after(15),
    };
    let other = Uuid::new_v4();
    assert_eq!(shared.take_claim(&claim(), wish(other, 14)).await.unwrap(), busy);

    // Other work in the same repository, and the same work in another one, is free.
    taken_by_new(&store, &claim_on(&repository(HERE), "tag:3"), 0).await;
    taken_by_new(&store, &claim_on(&repository("hub/other"), "tag:latest"), 0).await;

    let unreached = TakeClaim {
        address: None,
        ..wish(other, 15)
    };
    assert_eq!(shared.take_claim(&claim(), unreached).await.unwrap(), YOURS);
    let busy = Claimed::Busy {
        address: None,
        until: after(30),
    };
    assert_eq!(shared.take_claim(&claim(), wish(holder, 15)).await.unwrap(), busy);
}

async fn a_lease_that_ended_is_taken_over_with_the_upload_that_was_noted(store: Arc<TestStore>) {
    let shared = store.pull_through();
    let (first, upload) = (taken_by_new(&store, &claim(), 0).await, Uuid::new_v4());
    assert!(renewed(&store, first, Some(upload), 20).await);
    // A renewal that has nothing to note leaves what was noted.
    assert!(renewed(&store, first, None, 40).await);
    let heir = Uuid::new_v4();
    let early = shared.take_claim(&claim(), wish(heir, 39)).await.unwrap();
    assert!(matches!(early, Claimed::Busy { until, .. } if until == after(40)));

    let found = Claimed::Yours { upload: Some(upload) };
    assert_eq!(shared.take_claim(&claim(), wish(heir, 40)).await.unwrap(), found);

    // Who dies at once hands it on, and another upload takes its place.
    let second = taken_by_new(&store, &claim(), 60).await;
    let newer = Uuid::new_v4();
    assert!(renewed(&store, second, Some(newer), 70).await);
    let found = Claimed::Yours { upload: Some(newer) };
    assert_eq!(shared.take_claim(&claim(), wish(heir, 70)).await.unwrap(), found);
}

async fn whoever_holds_a_claim_takes_it_again_and_keeps_what_was_noted(store: Arc<TestStore>) {
    let shared = store.pull_through();
    let (holder, upload) = (taken_by_new(&store, &claim(), 0).await, Uuid::new_v4());
    assert!(renewed(&store, holder, Some(upload), 15).await);

    let again = shared.take_claim(&claim(), wish(holder, 10)).await.unwrap();

    let kept = Claimed::Yours { upload: Some(upload) };
    assert_eq!(again, kept);
    let told = shared.take_claim(&claim(), wish(Uuid::new_v4(), 20)).await;
    assert!(matches!(told.unwrap(), Claimed::Busy { until, .. } if until == after(25)));
}

async fn a_claim_that_was_given_up_is_free_and_notes_nothing(store: Arc<TestStore>) {
    let shared = store.pull_through();
    let holder = taken_by_new(&store, &claim(), 0).await;
    assert!(renewed(&store, holder, Some(Uuid::new_v4()), 15).await);
    shared.release_claim(&claim(), holder).await.unwrap();

    assert!(!renewed(&store, holder, None, 15).await);
    let next = shared.take_claim(&claim(), wish(Uuid::new_v4(), 1)).await;
    assert_eq!(next.unwrap(), YOURS);
}

async fn a_lease_that_was_lost_is_neither_renewed_nor_given_up(store: Arc<TestStore>) {
    let shared = store.pull_through();
    let former = taken_by_new(&store, &claim(), 0).await;
    let heir = taken_by_new(&store, &claim(), 15).await;

    assert!(!renewed(&store, former, Some(Uuid::new_v4()), 99).await);
    shared.release_claim(&claim(), former).await.unwrap();

    let told = shared.take_claim(&claim(), wish(former, 16)).await.unwrap();
    assert!(matches!(told, Claimed::Busy { until, .. } if until == after(30)));
    assert!(renewed(&store, heir, None, 45).await);
    let next = shared.take_claim(&claim(), wish(Uuid::new_v4(), 45)).await;
    assert_eq!(next.unwrap(), YOURS, "the former holder noted nothing");
}

async fn old_claims_and_checks_are_forgotten_in_batches(store: Arc<TestStore>) {
    let (shared, here) = (store.pull_through(), repository(HERE));
    put(&store, &here, note("n").push_as("latest")).await;
    for number in 0..5 {
        taken_by_new(&store, &claim_on(&here, &format!("tag:{number}")), number).await;
        note_checked(&store, &here, &format!("v{number}"), after(number)).await;
    }
    // Leases end from 15 s on, checks are from 0 s on: the first four of each are old.
    let forget = async |limit| {
        shared
            .forget_pull_through(after(19), after(4), limit)
            .await
            .unwrap()
    };

    assert_eq!(forget(3).await, 6);
    assert_eq!(forget(3).await, 2);
    assert_eq!(forget(3).await, 0);

    assert_eq!(checked(&store, &here, "v3").await, None);
    assert_eq!(checked(&store, &here, "v4").await, Some(after(4)));
    let kept = claim_on(&here, "tag:4");
    let told = shared.take_claim(&kept, wish(Uuid::new_v4(), 0)).await.unwrap();
    assert!(matches!(told, Claimed::Busy { .. }));
    assert_eq!(store.count("SELECT count(*) FROM upstream_claim").await, 1);
}

async fn a_manifest_that_names_a_blob_is_found_in_its_repository_alone(store: Arc<TestStore>) {
    let (shared, here) = (store.pull_through(), repository(HERE));
    let absent = digest("not fetched yet");
    let sparse = PutManifest {
        sparse: Sparse::Always,
        ..image(&[digest("config"), absent]).push_as("latest")
    };
    let manifest = put(&store, &here, sparse).await;
    put(&store, &repository("hub/other"), note("n").push_as("latest")).await;

    let named = async |repository: &Repository, blob| shared.names_blob(repository, &blob).await.unwrap();
    assert_eq!(named(&here, absent).await, Some(manifest));
    assert_eq!(named(&here, digest("config")).await, Some(manifest));
    assert_eq!(named(&here, digest("layer of none")).await, None);
    assert_eq!(named(&repository("hub/other"), absent).await, None);
    assert_eq!(named(&repository("hub/none"), absent).await, None);
    assert_eq!(named(&repository_of(2, HERE), absent).await, None);

    // It can be brought back for a while, but it is not there.
    let by = Deletion {
        until: after(3600),
        ..deletion()
    };
    assert!(store.delete_manifest(&here, &manifest, by).await.unwrap());
    assert_eq!(named(&here, absent).await, None);
}

async fn figures_from_many_adders_at_once_sum_up(store: Arc<TestStore>) {
    assert_eq!(figures(&store, 1, "hub").await, CacheFigures::default());
    let adders = (1..=32).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let news = CacheNews {
                hits: number,
                misses: 1,
                bytes_saved: 1000 * number,
                bytes_fetched: 7,
                rate_limit: Some((100, 100 - number, after(number))),
                reached_at: Some(after(number)),
                failed: Some((after(number), format!("failure {number}"))),
            };
            add(&store, 1, "hub", news).await;
        })
    });
    for adder in join_all(adders).await {
        adder.unwrap();
    }

    let expected = CacheFigures {
        hits: 528,
        misses: 32,
        bytes_saved: 528_000,
        bytes_fetched: 224,
        rate_limit: Some((100, 68, after(32))),
        reached_at: Some(after(32)),
        failed: Some((after(32), "failure 32".into())),
    };
    assert_eq!(figures(&store, 1, "hub").await, expected);
}

async fn of_limits_and_failures_the_newest_is_kept(store: Arc<TestStore>) {
    let news = |limited: u64, reached: u64, failed: u64| CacheNews {
        rate_limit: Some((100, limited, after(limited))),
        reached_at: Some(after(reached)),
        failed: Some((after(failed), format!("at {failed}"))),
        ..CacheNews::default()
    };
    // What has never happened is replaced by what has, and nothing new leaves what is known.
    for next in [
        hits(1),
        news(20, 30, 10),
        hits(1),
        news(10, 40, 5),
        news(15, 20, 30),
    ] {
        add(&store, 1, "hub", next).await;
    }

    let expected = CacheFigures {
        hits: 2,
        ..news(20, 40, 30)
    };
    assert_eq!(figures(&store, 1, "hub").await, expected);
}

async fn a_long_failure_is_cut_between_characters(store: Arc<TestStore>) {
    for (why, kept) in [
        (format!("{}ä!", "x".repeat(1023)), "x".repeat(1023)),
        ("y".repeat(2000), "y".repeat(1024)),
        ("z\0z".to_owned(), "z z".to_owned()),
    ] {
        let news = CacheNews {
            failed: Some((NOW, why)),
            ..CacheNews::default()
        };
        add(&store, 1, "hub", news).await;
        assert_eq!(figures(&store, 1, "hub").await.failed, Some((NOW, kept)));
    }
}

async fn figures_of_caches_that_are_gone_are_forgotten(store: Arc<TestStore>) {
    for (tenant, cache) in [(1, "hub"), (1, "quay"), (1, "ghcr"), (2, "quay")] {
        add(&store, tenant, cache, hits(3)).await;
    }
    let keep = async |caches: &[&str]| {
        let caches: Vec<String> = caches.iter().copied().map(str::to_owned).collect();
        let kept = store.pull_through().keep_cache_figures(TenantId(1), &caches);
        kept.await.unwrap();
    };

    keep(&["hub", "ghcr", "new"]).await;
    assert_eq!(figures(&store, 1, "quay").await.hits, 0);
    assert_eq!(figures(&store, 1, "hub").await.hits, 3);
    assert_eq!(figures(&store, 1, "ghcr").await.hits, 3);

    keep(&[]).await;
    assert_eq!(store.count("SELECT count(*) FROM cache_figures").await, 1);
    assert_eq!(figures(&store, 2, "quay").await.hits, 3);
}

async fn what_is_stored_below_a_prefix_is_counted_and_nothing_beside_it(store: Arc<TestStore>) {
    let below = async |prefix| {
        let below = store.pull_through().stored_below(TenantId(1), prefix).await;
        below.unwrap()
    };
    for name in [
        "hub",
        "hub-other/x",
        "hub.io/x",
        "hub0/x",
        "hub_x",
        "hubs/x",
        "a/hub/x",
    ] {
        push_blob(&store, &repository(name), "beside").await;
    }
    push_blob(&store, &repository_of(2, "hub/a"), "another's").await;
    assert_eq!(below("hub").await, (0, 0));

    push_blob(&store, &repository("hub/a"), "0123456789").await;
    push_blob(&store, &repository("hub/library/z"), "0123456789").await;
    push_blob(&store, &repository("hub/library/z"), "01234").await;
    assert_eq!(below("hub").await, (2, 25));
    assert_eq!(below("hub/library").await, (1, 15));
    assert_eq!(below("").await, (9, 25 + 7 * 6), "all of the tenant's");

    // What is about to go has lost its name.
    store
        .execute("UPDATE repository SET name = 'hub/a~7' WHERE tenant_id = 1 AND name = 'hub/a'")
        .await;
    assert_eq!(below("hub").await, (1, 15));
    assert_eq!(below("").await, (8, 15 + 7 * 6));
}

async fn tenants_do_not_see_each_other_s_checks_claims_and_figures(store: Arc<TestStore>) {
    let (mine, other) = (repository(HERE), repository_of(2, HERE));
    for place in [&mine, &other] {
        put(&store, place, note("n").push_as("latest")).await;
    }

    note_checked(&store, &mine, "latest", NOW).await;
    assert_eq!(checked(&store, &other, "latest").await, None);

    let (mine, other) = (claim_on(&mine, "tag:latest"), claim_on(&other, "tag:latest"));
    let holder = taken_by_new(&store, &mine, 0).await;
    let renewed = store
        .pull_through()
        .renew_claim(&other, holder, None, after(99))
        .await;
    assert!(!renewed.unwrap());
    store.pull_through().release_claim(&other, holder).await.unwrap();
    taken_by_new(&store, &other, 0).await;
    let again = store.pull_through().take_claim(&mine, wish(holder, 1)).await;
    assert_eq!(again.unwrap(), YOURS);

    add(&store, 1, "hub", hits(3)).await;
    assert_eq!(figures(&store, 2, "hub").await, CacheFigures::default());
}

/// Gives a repository a tag that was checked, a claim and figures of its tenant.
async fn fill(store: &TestStore, here: &Repository) {
    put(store, here, note("n").push_as("latest")).await;
    note_checked(store, here, "latest", NOW).await;
    taken_by_new(store, &claim_on(here, "tag:latest"), 0).await;
    add(store, here.tenant.0, "hub", hits(1)).await;
}

async fn an_erased_repository_takes_its_checks_and_claims_along(store: Arc<TestStore>) {
    let here = repository(HERE);
    for place in [&here, &repository("hub/other"), &repository_of(2, HERE)] {
        fill(&store, place).await;
    }
    store
        .execute(
            "INSERT INTO config (tenant_id, kind, name, generation, spec, hash, version, changed_at) \
             VALUES (1, 1, 'ci/alpine', 0, '{\"name\":\"hub/library/alpine\"}', '', 1, 0)",
        )
        .await;
    store
        .execute("INSERT INTO claim VALUES (1, 2, 'hub/library/alpine', 1, 1, 'ci/alpine')")
        .await;
    let wish = EraseRepository {
        object: "ci/alpine".into(),
        only_of: None,
        term: None,
        now: NOW,
        announce: None,
    };
    let erased = store.lifecycle().erase_repository(&here, wish).await.unwrap();
    assert_eq!(erased, Erased::Done);

    // Who comes back under the name begins anew.
    put(&store, &here, note("new").push_as("latest")).await;
    assert_eq!(checked(&store, &here, "latest").await, None);
    taken_by_new(&store, &claim_on(&here, "tag:latest"), 1).await;
    for place in [repository("hub/other"), repository_of(2, HERE)] {
        assert_eq!(checked(&store, &place, "latest").await, Some(NOW));
    }
    assert_eq!(store.count("SELECT count(*) FROM cached_tag").await, 2);
    assert_eq!(store.count("SELECT count(*) FROM upstream_claim").await, 3);
}

async fn an_erased_tenant_takes_its_checks_claims_and_figures_along(store: Arc<TestStore>) {
    let (here, foreign) = (repository(HERE), repository_of(2, HERE));
    fill(&store, &here).await;
    fill(&store, &foreign).await;
    for number in 0..5 {
        note_checked(&store, &here, &format!("v{number}"), NOW).await;
        taken_by_new(&store, &claim_on(&here, &format!("tag:v{number}")), 0).await;
    }
    store.execute("INSERT INTO purge VALUES (1, '', 0, 0)").await;
    let due = store.lifecycle().purges(NOW, 10).await.unwrap();

    let mut steps = 0;
    while !store.lifecycle().purge(&due[0], NOW, NOW, 2).await.unwrap().done {
        steps += 1;
        assert!(steps < 100, "the purge does not end");
    }

    for table in [
        "SELECT count(*) FROM cached_tag WHERE tenant_id = 1",
        "SELECT count(*) FROM upstream_claim WHERE tenant_id = 1",
        "SELECT count(*) FROM cache_figures WHERE tenant_id = 1",
    ] {
        assert_eq!(store.count(table).await, 0, "{table}");
    }
    assert_eq!(checked(&store, &foreign, "latest").await, Some(NOW));
    assert_eq!(figures(&store, 2, "hub").await.hits, 1);
    assert_eq!(store.count("SELECT count(*) FROM upstream_claim").await, 1);
}
