//! Tokens by id.

use std::sync::Arc;

use futures_util::future::join_all;

use super::builders::*;
use super::fixture::TestStore;
use crate::metadata::configuration::*;
use crate::metadata::*;

on_both_stores! {
    a_token_is_found_by_its_id_with_all_it_says
    an_id_of_another_tenant_is_not_taken_over
    a_token_gets_other_grants_and_a_revoked_one_does_not_come_back_by_them
    a_token_ends_when_it_is_told_to_and_not_later_than_before
    a_revoked_token_is_gone
    a_writer_of_an_older_term_neither_makes_nor_ends_tokens
    tokens_are_listed_of_one_tenant_by_id
    use_is_noted_and_never_goes_back
    many_tokens_are_looked_up_at_once
}

fn token(tenant: i64, id: &str) -> TokenRow {
    TokenRow {
        tenant: TenantId(tenant),
        id: id.into(),
        kind: "project".into(),
        name: "ci".into(),
        description: "builds".into(),
        hash: vec![7; 32],
        grants: "[]".into(),
        created_at: NOW,
        created_by: "admin".into(),
        expires_at: Some(after(1000)),
        last_used_at: None,
    }
}

pub(super) fn record(tenant: i64, at: Time) -> AuditRecord {
    AuditRecord {
        tenant_id: tenant,
        tenant: "acme".into(),
        id: uuid::Uuid::new_v4(),
        at,
        actor: "admin".into(),
        action: "test".into(),
        object: "object".into(),
        outcome: "done".into(),
        detail: String::new(),
        address: String::new(),
        count: 1,
    }
}

async fn put(store: &TestStore, token: TokenRow) -> bool {
    let audit = record(token.tenant.0, NOW);
    let change = store.configuration().put_token(token, None, audit).await;
    change.unwrap() == TokenChange::Done
}

async fn find(store: &TestStore, id: &str) -> Option<TokenRow> {
    store.configuration().token(id).await.unwrap()
}

async fn a_token_is_found_by_its_id_with_all_it_says(store: Arc<TestStore>) {
    assert!(put(&store, token(1, "a")).await);
    assert_eq!(find(&store, "a").await, Some(token(1, "a")));
    assert_eq!(find(&store, "A").await, None);
    let renamed = TokenRow {
        name: "other".into(),
        expires_at: None,
        ..token(1, "a")
    };
    assert!(put(&store, renamed.clone()).await);
    assert_eq!(find(&store, "a").await, Some(renamed));
    assert_eq!(store.count("SELECT count(*) FROM audit").await, 2);
}

async fn an_id_of_another_tenant_is_not_taken_over(store: Arc<TestStore>) {
    assert!(put(&store, token(1, "a")).await);
    assert!(!put(&store, token(2, "a")).await);
    assert_eq!(find(&store, "a").await.unwrap().tenant, TenantId(1));
    assert_eq!(store.count("SELECT count(*) FROM audit").await, 1);
}

async fn a_token_gets_other_grants_and_a_revoked_one_does_not_come_back_by_them(store: Arc<TestStore>) {
    put(&store, token(1, "a")).await;
    let configuration = store.configuration();
    let regrant = async |tenant: i64, id: &str, term| {
        let change =
            configuration.regrant_token(TenantId(tenant), id, "[]".into(), term, record(tenant, NOW));
        change.await.unwrap()
    };
    assert_eq!(regrant(2, "a", None).await, TokenChange::Missed);
    let current = configuration.new_term().await.unwrap();
    assert_eq!(
        regrant(1, "a", Some(current - 1)).await,
        TokenChange::StaleTerm { current }
    );
    assert_eq!(find(&store, "a").await, Some(token(1, "a")));
    assert_eq!(regrant(1, "a", Some(current)).await, TokenChange::Done);
    let changed = TokenRow {
        grants: "[]".into(),
        ..token(1, "a")
    };
    assert_eq!(find(&store, "a").await, Some(changed));
    assert_eq!(regrant(1, "b", None).await, TokenChange::Missed);
    assert_eq!(find(&store, "b").await, None);
    assert_eq!(store.count("SELECT count(*) FROM audit").await, 2);
}

async fn a_token_ends_when_it_is_told_to_and_not_later_than_before(store: Arc<TestStore>) {
    put(&store, token(1, "a")).await;
    put(
        &store,
        TokenRow {
            expires_at: None,
            ..token(1, "b")
        },
    )
    .await;
    let expire = async |tenant: i64, id: &str, at: Time| {
        let audit = record(tenant, NOW);
        store
            .configuration()
            .expire_token(TenantId(tenant), id, at, audit)
            .await
            .unwrap()
    };
    assert!(expire(1, "a", after(500)).await && expire(1, "b", after(500)).await);
    assert!(expire(1, "a", after(2000)).await);
    for id in ["a", "b"] {
        assert_eq!(
            find(&store, id).await.unwrap().expires_at,
            Some(after(500)),
            "{id}"
        );
    }
    assert!(!expire(2, "a", NOW).await && !expire(1, "c", NOW).await);
}

async fn a_writer_of_an_older_term_neither_makes_nor_ends_tokens(store: Arc<TestStore>) {
    let configuration = store.configuration();
    let old = configuration.new_term().await.unwrap();
    let put = async |id: &str, term| {
        let put = configuration.put_token(token(1, id), Some(term), record(1, NOW));
        put.await.unwrap()
    };
    assert_eq!(put("a", old).await, TokenChange::Done);
    let current = configuration.new_term().await.unwrap();
    let stale = TokenChange::StaleTerm { current };
    assert_eq!(put("b", old).await, stale);
    assert_eq!(find(&store, "b").await, None);
    let revoke = configuration.revoke_token(TenantId(1), "a", Some(old), record(1, NOW));
    assert_eq!(revoke.await.unwrap(), stale);
    assert!(find(&store, "a").await.is_some());
    assert_eq!(put("b", current).await, TokenChange::Done);
}

async fn a_revoked_token_is_gone(store: Arc<TestStore>) {
    put(&store, token(1, "a")).await;
    let revoke = async |tenant: i64| {
        let audit = record(tenant, NOW);
        store
            .configuration()
            .revoke_token(TenantId(tenant), "a", None, audit)
            .await
            .unwrap()
            == TokenChange::Done
    };
    assert!(!revoke(2).await);
    assert!(find(&store, "a").await.is_some());
    assert!(revoke(1).await);
    assert!(!revoke(1).await);
    assert_eq!(find(&store, "a").await, None);
}

async fn tokens_are_listed_of_one_tenant_by_id(store: Arc<TestStore>) {
    for id in ["c", "a", "b"] {
        put(&store, token(1, id)).await;
    }
    put(&store, token(2, "d")).await;
    let list = async |after: &str, limit: u32| -> Vec<String> {
        let page = store
            .configuration()
            .tokens(TenantId(1), after.into(), limit)
            .await
            .unwrap();
        page.into_iter().map(|token| token.id).collect()
    };
    assert_eq!(list("", 2).await, ["a", "b"]);
    assert_eq!(list("b", 2).await, ["c"]);
}

async fn use_is_noted_and_never_goes_back(store: Arc<TestStore>) {
    put(&store, token(1, "a")).await;
    for at in [after(60), after(30)] {
        store
            .configuration()
            .tokens_used(vec!["a".into(), "x".into()], at)
            .await
            .unwrap();
        assert_eq!(find(&store, "a").await.unwrap().last_used_at, Some(after(60)));
    }
}

async fn many_tokens_are_looked_up_at_once(store: Arc<TestStore>) {
    for n in 0..50 {
        put(&store, token(1, &format!("t{n}"))).await;
    }
    let asked = (0..200).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { find(&store, &format!("t{}", n % 100)).await })
    });
    for (n, found) in join_all(asked).await.into_iter().enumerate() {
        let found = found.unwrap().map(|token| token.id);
        assert_eq!(found, (n % 100 < 50).then(|| format!("t{}", n % 100)));
    }
}
