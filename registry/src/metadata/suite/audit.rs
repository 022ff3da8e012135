//! The audit trail.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use super::tokens::record;
use crate::metadata::configuration::*;

on_both_stores! {
    the_trail_is_read_newest_first_page_by_page
    a_tenant_s_trail_is_its_own
    old_records_are_forgotten_in_bounded_steps
}

async fn pages(store: &TestStore, tenant: Option<i64>, limit: u32) -> Vec<(i64, i64)> {
    let mut query = AuditQuery {
        tenant,
        limit,
        ..AuditQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let page = store.configuration().audit(query.clone()).await.unwrap();
        found.extend(page.iter().map(|record| (record.tenant_id, record.at.0 - NOW.0)));
        match page.last() {
            Some(last) => query.before = Some((last.at, last.id)),
            None => return found,
        }
    }
}

async fn fill(store: &TestStore) {
    // Three at the same time, which only their ids tell apart.
    let records = [(1, 5), (2, 5), (1, 5), (0, 9), (1, 1)];
    let records = records.map(|(tenant, second)| record(tenant, after(second)));
    store.configuration().record(records.to_vec()).await.unwrap();
}

async fn the_trail_is_read_newest_first_page_by_page(store: Arc<TestStore>) {
    fill(&store).await;
    for limit in [1, 2, 100] {
        let seconds: Vec<i64> = pages(&store, None, limit)
            .await
            .into_iter()
            .map(|(_, at)| at / 1_000_000)
            .collect();
        assert_eq!(seconds, [9, 5, 5, 5, 1], "pages of {limit}");
    }
    let recent = AuditQuery {
        since: Some(after(5)),
        limit: 10,
        ..AuditQuery::default()
    };
    assert_eq!(store.configuration().audit(recent).await.unwrap().len(), 4);
}

async fn a_tenant_s_trail_is_its_own(store: Arc<TestStore>) {
    fill(&store).await;
    let of_one = pages(&store, Some(1), 2).await;
    assert_eq!(
        (of_one.len(), of_one.iter().all(|(tenant, _)| *tenant == 1)),
        (3, true)
    );
}

async fn old_records_are_forgotten_in_bounded_steps(store: Arc<TestStore>) {
    fill(&store).await;
    let forget = async || store.configuration().forget_audit(after(9), 3).await.unwrap();
    assert_eq!((forget().await, forget().await, forget().await), (3, 1, 0));
    assert_eq!(pages(&store, None, 10).await.len(), 1);
}
