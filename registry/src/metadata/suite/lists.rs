//! Lists by key: tags and repositories.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::TagName;
use crate::metadata::*;

on_both_stores! {
    tags_are_listed_bytewise_page_by_page
    the_tags_of_an_unknown_repository_are_not_an_empty_list
    repositories_are_listed_bytewise_page_by_page
}

/// All of a list, read in pages of `limit`, each after the last name of the one before.
macro_rules! all_pages {
    ($limit:expr, |$after:ident| $page:expr) => {{
        let mut all: Vec<String> = Vec::new();
        loop {
            let $after = all.last().cloned();
            let page: Vec<String> = $page;
            assert!(page.len() <= $limit as usize);
            if page.is_empty() {
                break all;
            }
            all.extend(page);
        }
    }};
}

async fn tags_are_listed_bytewise_page_by_page(store: Arc<TestStore>) {
    let here = repository("app");
    let mut names: Vec<&str> = "1 10 2 A B Z _ _a a a-b a.b aB a_b b z v1 v1.10 v1.9 V1 v1-rc v1_rc"
        .split(' ')
        .collect();
    let tags: Vec<TagName> = names.iter().map(|name| tag(name)).collect();
    put(
        &store,
        &here,
        PutManifest {
            tags,
            ..note("n").push()
        },
    )
    .await;
    put(&store, &repository("app2"), note("n").push_as("elsewhere")).await;
    names.sort_unstable();

    for limit in [1, 2, 7, 100] {
        let all = all_pages!(limit, |after| store
            .tags(&here, after, limit)
            .await
            .unwrap()
            .unwrap());
        assert_eq!(all, names, "in pages of {limit}");
    }
    let page = async |after: &str| store.tags(&here, Some(after.into()), 2).await.unwrap().unwrap();
    assert_eq!(page("a").await, ["a-b", "a.b"]);
    assert_eq!(page("a-z, which is no tag").await, ["a.b", "aB"]);
    assert_eq!(page("").await, ["1", "10"]);
    assert_eq!(page("z").await, Vec::<String>::new());
    assert_eq!(store.tags(&here, None, 0).await.unwrap(), Some(Vec::new()));
}

async fn the_tags_of_an_unknown_repository_are_not_an_empty_list(store: Arc<TestStore>) {
    push_blob(&store, &repository("app"), "a layer, but no tag").await;

    assert_eq!(
        store.tags(&repository("app"), None, 10).await.unwrap(),
        Some(Vec::new())
    );
    assert_eq!(store.tags(&repository("app2"), None, 10).await.unwrap(), None);
    assert_eq!(
        store.tags(&repository_of(2, "app"), None, 10).await.unwrap(),
        None
    );
}

async fn repositories_are_listed_bytewise_page_by_page(store: Arc<TestStore>) {
    let mut names: Vec<&str> = "a a/b a-b a.b a_b aa b 1 a/b/c z/y a0".split(' ').collect();
    for name in &names {
        put(&store, &repository(name), note("n").push()).await;
    }
    put(&store, &repository_of(2, "elsewhere"), note("n").push()).await;
    names.sort_unstable();

    for limit in [1, 3, 100] {
        let all = all_pages!(limit, |after| store
            .repositories(TenantId(1), after, limit)
            .await
            .unwrap());
        assert_eq!(all, names, "in pages of {limit}");
    }
    assert_eq!(
        store
            .repositories(TenantId(1), Some("a-c".into()), 1)
            .await
            .unwrap(),
        ["a.b"]
    );
    assert!(
        store
            .repositories(TenantId(3), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}
