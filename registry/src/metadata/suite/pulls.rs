//! When tags and manifests were last pulled, and whose life begins anew.

use std::sync::Arc;
use std::time::Duration;

use super::builders::*;
use super::collection::LATE;
use super::fixture::TestStore;
use crate::domain::Digest;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

fn pull(here: &Repository, name: Option<&str>, digest: Digest) -> Pull {
    Pull {
        repository: here.clone(),
        tag: name.map(tag),
        digest,
    }
}

async fn pulled(store: &TestStore, here: &Repository, name: &str) -> Option<Time> {
    let row = tag_row(store, here, name).await;
    row.expect("the tag").pulled_at
}

on_both_stores! {
    a_pull_by_tag_counts_for_that_tag
    a_pull_by_digest_counts_for_every_tag_that_reaches_it
    a_pull_is_noted_once_an_hour
    pulls_are_counted_by_tag_and_by_digest
    a_life_begun_anew_puts_off_an_end
    a_tag_that_says_so_itself_ends
    the_newest_push_and_pull_of_a_repository_are_told
}

async fn a_pull_by_tag_counts_for_that_tag(store: Arc<TestStore>) {
    let here = repository("app");
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    put(&store, &here, note("n").push_as("v2")).await;
    let pulls = vec![
        pull(&here, Some("v1"), digest),
        pull(&repository("none"), Some("v1"), digest),
    ];
    store.lifecycle().record_pulls(pulls, after(5)).await.unwrap();
    assert_eq!(pulled(&store, &here, "v1").await, Some(after(5)));
    assert_eq!(pulled(&store, &here, "v2").await, None);
}

async fn a_pull_by_digest_counts_for_every_tag_that_reaches_it(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push_as("amd64")).await;
    let inner = put(&store, &here, index(&[child]).push()).await;
    put(&store, &here, index(&[inner]).push_as("v1")).await;
    put(&store, &here, note("other").push_as("other")).await;
    store
        .lifecycle()
        .record_pulls(vec![pull(&here, None, child)], after(5))
        .await
        .unwrap();
    for name in ["amd64", "v1"] {
        assert_eq!(pulled(&store, &here, name).await, Some(after(5)), "{name}");
    }
    assert_eq!(pulled(&store, &here, "other").await, None);
    let page = TagPage {
        pulls: true,
        limit: 10,
        ..TagPage::default()
    };
    let rows = store.lifecycle().tags_by_push(&here, page).await.unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.pulled_at))
        .collect();
    assert_eq!(
        told,
        [("amd64", Some(after(5))), ("other", None), ("v1", Some(after(5)))]
    );
}

async fn a_pull_is_noted_once_an_hour(store: Arc<TestStore>) {
    let here = repository("app");
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    // Written five seconds late, and an hour after the request at once.
    for (seconds, noted) in [(5, 5), (3500, 5), (3600, 3600), (7100, 3600)] {
        let pulls = vec![pull(&here, Some("v1"), digest), pull(&here, None, digest)];
        store
            .lifecycle()
            .record_pulls(pulls, after(seconds))
            .await
            .unwrap();
        assert_eq!(pulled(&store, &here, "v1").await, Some(after(noted)));
    }
}

async fn pulls_are_counted_by_tag_and_by_digest(store: Arc<TestStore>) {
    let (here, foreign) = (repository("app"), repository_of(2, "app"));
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    put(&store, &here, note("n").push_as("v2")).await;
    put(&store, &foreign, note("n").push_as("v1")).await;
    let pulls = vec![
        (pull(&here, None, digest), 40),
        (pull(&repository("none"), None, digest), 7),
        (pull(&here, Some("v1"), digest), 2),
        (pull(&here, Some("gone"), digest), 7),
    ];
    for _ in 0..2 {
        store.lifecycle().count_pulls(pulls.clone()).await.unwrap();
    }
    let by_tag = async |here: &Repository, name: &str| tag_row(&store, here, name).await.unwrap().pulls;
    let by_digest = async |here: &Repository| store.explore().pulls_of(here, &digest).await.unwrap();
    assert_eq!((by_tag(&here, "v1").await, by_tag(&here, "v2").await), (4, 0));
    assert_eq!(by_digest(&here).await, 80);
    assert_eq!((by_tag(&foreign, "v1").await, by_digest(&foreign).await), (0, 0));
    // A tag that is moved is still asked for by the same name.
    put(&store, &here, note("other").push_as("v1")).await;
    assert_eq!(by_tag(&here, "v1").await, 4);
    let page = TagPage {
        pulls: true,
        limit: 10,
        ..TagPage::default()
    };
    let rows = store.lifecycle().tags_by_push(&here, page).await.unwrap();
    let told = rows.iter().map(|row| (row.name.as_str(), row.pulls));
    assert_eq!(told.collect::<Vec<_>>(), [("v1", 4), ("v2", 0)]);
}

async fn a_life_begun_anew_puts_off_an_end(store: Arc<TestStore>) {
    let here = repository("app");
    let push = PutManifest {
        lifetime: Some(Duration::from_secs(100)),
        ..note("n").push_as("v1")
    };
    let digest = put(&store, &here, push).await;
    let other = put(&store, &here, note("other").push_as("other")).await;
    let renew = async |name: &str, digest: Digest, seconds: u64| {
        store
            .lifecycle()
            .renew_tag(&here, &tag(name), &digest, after(seconds))
            .await
            .unwrap()
    };
    assert!(renew("v1", digest, 50).await && renew("other", other, 50).await);
    assert!(!renew("v1", other, 60).await, "it points elsewhere");
    assert!(!renew("none", other, 60).await);
    assert!(
        store
            .lifecycle()
            .expired_tags(Time(0), after(149), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let due = store
        .lifecycle()
        .expired_tags(Time(0), after(150), 10)
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(
        (
            due[0].repository.as_str(),
            due[0].row.name.as_str(),
            due[0].row.renewed_at
        ),
        ("app", "v1", Some(after(50)))
    );
}

async fn a_tag_that_says_so_itself_ends(store: Arc<TestStore>) {
    let here = repository("app");
    let lasting = |seconds: u64, text: &str, name: &str| PutManifest {
        lifetime: Some(Duration::from_secs(seconds)),
        ..note(text).push_as(name)
    };
    put(&store, &here, lasting(10, "one", "v1")).await;
    put(&store, &here, lasting(20, "two", "v2")).await;
    put(&store, &here, note("three").push_as("v3")).await;
    let names = async |after_: Time, now: Time| {
        let due = store.lifecycle().expired_tags(after_, now, 10).await.unwrap();
        due.into_iter().map(|due| due.row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Time(0), after(10)).await, ["v1"]);
    assert_eq!(names(Time(0), after(LATE)).await, ["v1", "v2"]);
    assert_eq!(names(after(10), after(LATE)).await, ["v2"]);
    // Moved to a manifest that says nothing, it stays.
    put(&store, &here, note("three").push_as("v1")).await;
    assert_eq!(names(Time(0), after(LATE)).await, ["v2"]);
}

async fn the_newest_push_and_pull_of_a_repository_are_told(store: Arc<TestStore>) {
    let here = repository("app");
    assert_eq!(store.lifecycle().last_times(&here).await.unwrap(), (None, None));
    let digest = put(&store, &here, note("n").push_as("v1")).await;
    let later = PutManifest {
        now: after(7),
        ..note("n").push_as("v2")
    };
    put(&store, &here, later).await;
    assert_eq!(
        store.lifecycle().last_times(&here).await.unwrap(),
        (Some(after(7)), None)
    );
    store
        .lifecycle()
        .record_pulls(vec![pull(&here, None, digest)], after(9))
        .await
        .unwrap();
    assert_eq!(
        store.lifecycle().last_times(&here).await.unwrap(),
        (Some(after(7)), Some(after(9)))
    );
}
