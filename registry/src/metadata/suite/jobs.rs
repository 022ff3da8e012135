//! Jobs are done by one at a time; samples are taken once an hour.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use super::usage::recount;
use crate::metadata::configuration::Usage;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

fn key() -> JobKey {
    JobKey::of(JobKind::Sample)
}

on_both_stores! {
    a_job_is_done_by_one_at_a_time_and_taken_over_when_that_one_dies
    a_job_that_is_not_due_is_not_taken
    a_day_on_which_a_repository_changed_is_kept
    hours_are_summed_up_into_months_once
    a_month_is_listed_with_its_repositories_and_by_pages
    a_counter_that_is_wrong_is_found_and_corrected
    a_recount_that_finds_nothing_wrong_waits_for_no_writer
    the_tenants_that_store_the_most_are_told
    what_the_installation_stores_is_told
}

async fn a_job_is_done_by_one_at_a_time_and_taken_over_when_that_one_dies(store: Arc<TestStore>) {
    let jobs = store.lifecycle();
    assert!(
        jobs.claim_job(&key(), "a", NOW, after(60))
            .await
            .unwrap()
            .is_none(),
        "there is none"
    );
    jobs.put_job(&key(), NOW, "first".into()).await.unwrap();
    assert_eq!(
        jobs.claim_job(&key(), "a", NOW, after(60))
            .await
            .unwrap()
            .expect("due")
            .state,
        "first"
    );
    assert!(
        jobs.claim_job(&key(), "b", after(59), after(100))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        jobs.claim_job(&key(), "a", after(59), after(60))
            .await
            .unwrap()
            .is_some(),
        "its own"
    );

    assert!(
        jobs.claim_job(&key(), "b", after(60), after(120))
            .await
            .unwrap()
            .is_some()
    );
    let late = jobs
        .save_job(&key(), "a", "of a".into(), None, after(500))
        .await
        .unwrap();
    assert!(!late, "it was taken over");
    assert!(
        jobs.save_job(&key(), "b", "of b".into(), Some(after(1000)), Time(0))
            .await
            .unwrap()
    );
    let job = jobs.job(&key()).await.unwrap().expect("the job");
    assert_eq!(
        (job.state.as_str(), job.due_at, job.claimed_until),
        ("of b", after(1000), Time(0))
    );

    let listed = jobs
        .jobs(JobKind::Sample, PARKED, (-1, String::new()), 10)
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    jobs.drop_job(&key()).await.unwrap();
    assert!(jobs.job(&key()).await.unwrap().is_none());
}

async fn a_job_that_is_not_due_is_not_taken(store: Arc<TestStore>) {
    let jobs = store.lifecycle();
    jobs.put_job(&key(), after(10), String::new()).await.unwrap();
    assert!(
        jobs.claim_job(&key(), "a", after(9), after(60))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        !jobs.advance_job(&key(), after(11)).await.unwrap(),
        "that would be later"
    );
    assert!(jobs.advance_job(&key(), after(5)).await.unwrap());
    assert!(
        jobs.claim_job(&key(), "a", after(9), after(60))
            .await
            .unwrap()
            .is_some()
    );
}

/// The hour in which the tests take place, 2023-11-14 22:00.
const HOUR: i64 = NOW.0 / 3_600_000_000;

async fn sampled(store: &TestStore, from: i64, to: i64) -> bool {
    store
        .lifecycle()
        .put_job(&key(), NOW, String::new())
        .await
        .unwrap();
    assert!(
        store
            .lifecycle()
            .claim_job(&key(), "a", NOW, after(60))
            .await
            .unwrap()
            .is_some()
    );
    store
        .lifecycle()
        .sample(&key(), "a", (from, to), "done".into(), after(3600))
        .await
        .unwrap()
}

fn of_month(month: i64) -> MonthQuery {
    MonthQuery {
        month,
        tenant: None,
        repositories: true,
        after: (0, -1),
        limit: 100,
    }
}

async fn hours_are_summed_up_into_months_once(store: Arc<TestStore>) {
    store
        .execute("INSERT INTO tenant (id, name, uid, created_at) VALUES (1, 'acme', 'u', 0)")
        .await;
    let here = repository("app");
    push_blob(&store, &here, "12345").await;
    assert!(sampled(&store, HOUR, HOUR).await);
    assert!(
        !store
            .lifecycle()
            .sample(&key(), "b", (HOUR, HOUR), "x".into(), NOW)
            .await
            .unwrap(),
        "not its job"
    );
    push_blob(&store, &here, "678").await;
    // Two hours of November and three of December.
    let december = (1_701_388_800) / 3600;
    assert!(sampled(&store, december - 2, december + 2).await);

    let november = store.lifecycle().month(of_month(202_311)).await.unwrap();
    let told: Vec<_> = november
        .iter()
        .map(|row| (row.repository.as_deref(), row.byte_hours))
        .collect();
    assert_eq!(told, [(None, 5 + 2 * 8), (Some("app"), 5 + 2 * 8)]);
    let december_usage = store.lifecycle().month(of_month(202_312)).await.unwrap();
    assert_eq!(december_usage[0].byte_hours, 3 * 8);
    let samples = store.lifecycle().samples(TenantId(1), HOUR, 10).await.unwrap();
    assert_eq!(
        samples.iter().map(|sample| sample.bytes).collect::<Vec<_>>(),
        [5, 8, 8, 8, 8, 8]
    );
    assert_eq!(store.lifecycle().forget_samples(HOUR + 1, 10).await.unwrap(), 1);
}

async fn a_day_on_which_a_repository_changed_is_kept(store: Arc<TestStore>) {
    let here = repository("app");
    let today = HOUR.div_euclid(24);
    let days = async |from: i64, limit: u32| -> Vec<(i64, u64)> {
        let days = store.explore().days(&here, from, limit).await.unwrap();
        days.iter().map(|day| (day.day - today, day.bytes)).collect()
    };
    push_blob(&store, &here, "12345").await;
    assert!(sampled(&store, HOUR, HOUR).await);
    push_blob(&store, &here, "678").await;
    assert!(sampled(&store, HOUR + 1, HOUR + 1).await, "the same day");
    assert_eq!(days(today, 10).await, [(0, 8)]);
    for later in [24, 48] {
        assert!(sampled(&store, HOUR + later, HOUR + later).await);
    }
    push_blob(&store, &here, "9").await;
    push_blob(&store, &repository_of(2, "app"), "another tenant's").await;
    assert!(sampled(&store, HOUR + 72, HOUR + 72).await);
    assert_eq!(days(today, 10).await, [(0, 8), (3, 9)]);
    assert_eq!(days(today + 1, 10).await, [(0, 8), (3, 9)], "the last one before");
    assert_eq!(days(today + 3, 10).await, [(0, 8), (3, 9)]);
    assert_eq!(days(today + 4, 10).await, [(3, 9)]);
    assert_eq!(days(today, 1).await, [(3, 9)], "the newest");
    let months = store.explore().months(&here, 10).await.unwrap();
    let months: Vec<_> = months
        .iter()
        .map(|month| (month.month, month.byte_hours))
        .collect();
    assert_eq!(months, [(202_311, 5 + 8 + 8 + 8 + 9)]);

    // What is forgotten leaves the last of it.
    store.lifecycle().forget_samples(HOUR + 24, 100).await.unwrap();
    assert_eq!(days(0, 10).await, [(0, 8), (3, 9)]);
    store.lifecycle().forget_samples(HOUR + 240, 100).await.unwrap();
    assert_eq!(days(0, 10).await, [(3, 9)]);
}

async fn a_month_is_listed_with_its_repositories_and_by_pages(store: Arc<TestStore>) {
    store
        .execute("INSERT INTO tenant (id, name, uid, created_at) VALUES (1, 'acme', 'u', 0), (2, 'umbrella', 'v', 0)")
        .await;
    for number in 0..3 {
        push_blob(&store, &repository(&format!("r{number}")), "12345").await;
    }
    push_blob(&store, &repository_of(2, "other"), "123").await;
    assert!(sampled(&store, HOUR, HOUR).await);
    let all = store.lifecycle().month(of_month(202_311)).await.unwrap();
    assert_eq!(all.len(), 4 + 2);
    assert_eq!(
        (all[0].tenant_name.as_str(), all[0].byte_hours, all[0].stored),
        ("acme", 5, 15)
    );
    let mut paged = Vec::new();
    let mut query = of_month(202_311);
    query.limit = 2;
    loop {
        let page = store.lifecycle().month(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = (last.tenant.0, last.repository_id);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let one = MonthQuery {
        tenant: Some(TenantId(2)),
        repositories: false,
        ..of_month(202_311)
    };
    let one = store.lifecycle().month(one).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].tenant_name.as_str(), one[0].byte_hours), ("umbrella", 3));
    let current = store.lifecycle().month(of_month(209_901)).await.unwrap();
    assert_eq!(current.len(), 6, "what is stored now is told for any month");
    assert!(current.iter().all(|row| row.byte_hours == 0));
}

async fn a_counter_that_is_wrong_is_found_and_corrected(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "12345").await;
    put(&store, &here, image(&[layer]).push_as("v1")).await;
    assert_eq!(store.lifecycle().recount(TenantId(1)).await.unwrap(), []);
    let right = store.configuration().usage(TenantId(1)).await.unwrap();

    store
        .execute("UPDATE usage SET bytes = bytes + 7, stored = 1, tags = tags - 1")
        .await;
    let mut found = store.lifecycle().recount(TenantId(1)).await.unwrap();
    found.sort_by_key(|drift| (drift.repository.clone(), drift.counter));
    let told: Vec<_> = found
        .iter()
        .map(|drift| (drift.repository.as_str(), drift.counter))
        .collect();
    assert_eq!(
        told,
        [
            ("", "bytes"),
            ("", "stored"),
            ("", "tags"),
            ("app", "bytes"),
            ("app", "tags")
        ]
    );
    assert_eq!((found[0].counted - found[0].found, found[1].found), (7, 5));
    assert_eq!(store.configuration().usage(TenantId(1)).await.unwrap(), right);

    store.execute("DELETE FROM usage").await;
    assert!(!store.lifecycle().recount(TenantId(1)).await.unwrap().is_empty());
    assert_eq!(store.configuration().usage(TenantId(1)).await.unwrap(), right);
    recount(&store).await;
    assert_eq!(
        store.configuration().usage(TenantId(2)).await.unwrap(),
        Usage::default()
    );
}

async fn a_recount_that_finds_nothing_wrong_waits_for_no_writer(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "12345").await;
    put(&store, &here, image(&[layer]).push_as("v1")).await;
    let counted = tokio::time::timeout(Duration::from_secs(5), store.lifecycle().recount(TenantId(1)));
    let counted = store.while_nobody_writes(counted).await;
    assert_eq!(counted.expect("it does not wait").unwrap(), []);
}

async fn what_the_installation_stores_is_told(store: Arc<TestStore>) {
    let here = repository("app");
    push_blob(&store, &here, "12345").await;
    push_blob(&store, &here, "12345").await;
    let id = begin(&store, &here).await;
    let row = taken(&store, &here, id, take()).await;
    assert!(
        store
            .checkpoint_upload(TenantId(1), id, progress(row.epoch, 99))
            .await
            .unwrap()
    );
    assert_eq!(
        store.lifecycle().storage().await.unwrap(),
        Storage {
            logical: 5,
            stored: 10,
            garbage: 5,
            uploads: 99
        }
    );
}

async fn the_tenants_that_store_the_most_are_told(store: Arc<TestStore>) {
    for (tenant, content) in [(1, "1234"), (2, "123456"), (3, "12")] {
        put(&store, &repository_of(tenant, "app"), note(content).push_as("v1")).await;
        push_blob(&store, &repository_of(tenant, "app"), content).await;
    }
    let told = store.lifecycle().largest_tenants(2).await.unwrap();
    let size = |content: &str| (note(content).push().payload.len() + content.len()) as u64;
    let total = |tenant, content| TenantTotal {
        tenant: TenantId(tenant),
        bytes: size(content),
        tags: 1,
        repositories: 1,
    };
    assert_eq!(told, [total(2, "123456"), total(1, "1234")]);
}
