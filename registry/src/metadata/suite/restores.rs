//! What was deleted comes back, for as long as it can.

use std::sync::Arc;

use super::builders::*;
use super::collection::{LATE, collect, retire, there};
use super::fixture::TestStore;
use super::usage::recount;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

fn restore(name: &str, now: u64) -> RestoreTag {
    RestoreTag {
        tag: tag(name),
        principal: "admin".into(),
        now: after(now),
        leased_until: after(now + 1000),
        limits: Limits::default(),
        sparse: Sparse::Never,
        announce: None,
    }
}

/// A deletion that can be undone for `window` seconds.
fn undoable(window: u64) -> Deletion {
    Deletion {
        until: deletion().now.plus(std::time::Duration::from_secs(window)),
        ..deletion()
    }
}

async fn names(store: &TestStore, here: &Repository, now: u64) -> Vec<String> {
    let tags = store
        .lifecycle()
        .deleted_tags(here, None, after(now), 100)
        .await
        .unwrap();
    tags.into_iter().map(|tag| tag.name).collect()
}

on_both_stores! {
    a_deleted_tag_can_be_brought_back_within_its_window
    an_image_deleted_by_its_digest_comes_back_with_all_its_blobs
    an_index_comes_back_with_its_children
    what_can_no_longer_be_brought_back_is_collected_with_its_signatures
    a_tag_that_exists_is_not_overwritten
    of_several_deletions_only_the_newest_comes_back
    signatures_of_what_can_come_back_stand_for_it
    signatures_of_what_cannot_come_back_go_at_once
    very_many_signatures_go_in_steps
    a_restore_over_a_quota_is_refused
    deleted_tags_are_listed_newest_first_and_by_pages
    the_history_of_a_tag_is_kept_and_forgotten_by_age
}

async fn a_deleted_tag_can_be_brought_back_within_its_window(store: Arc<TestStore>) {
    let here = repository("app");
    let manifest = put(&store, &here, note("n").push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 100).await;
    assert_eq!(names(&store, &here, 109).await, ["v1"]);
    let foreign = repository_of(2, "app");
    assert_eq!(
        store
            .lifecycle()
            .restore_tag(&foreign, restore("v1", 20))
            .await
            .unwrap(),
        Restored::Gone
    );

    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", 109))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Done(manifest));
    assert_eq!(target(&store, &here, "v1").await, Some(manifest));
    assert!(names(&store, &here, 109).await.is_empty());
    collect(&store, after(LATE), None).await;
    assert!(there(&store, &here, manifest).await);

    retire(&store, &here, &["v1"], 200, 100).await;
    assert!(names(&store, &here, 300).await.is_empty());
    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", 300))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Gone);
    recount(&store).await;
}

async fn an_image_deleted_by_its_digest_comes_back_with_all_its_blobs(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let image = put(&store, &here, image(&[layer]).push_as("v1")).await;
    assert!(
        store
            .delete_manifest(&here, &image, undoable(LATE))
            .await
            .unwrap()
    );
    assert!(!there(&store, &here, image).await);
    collect(&store, after(LATE - 1), None).await;
    assert_eq!(names(&store, &here, LATE - 1).await, ["v1"]);

    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", LATE - 1))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Done(image));
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    assert_eq!(store.count("SELECT count(*) FROM deleted_manifest").await, 0);
    collect(&store, after(3 * LATE), None).await;
    assert_eq!(target(&store, &here, "v1").await, Some(image));
    assert!(store.blob(&here, &layer).await.unwrap().is_some());
    recount(&store).await;
}

async fn an_index_comes_back_with_its_children(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push()).await;
    let parent = put(&store, &here, index(&[child]).push_as("v1")).await;
    assert!(
        store
            .delete_manifest(&here, &parent, undoable(LATE))
            .await
            .unwrap()
    );
    collect(&store, after(LATE), None).await;

    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", LATE))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Done(parent));
    collect(&store, after(2 * LATE), None).await;
    assert!(there(&store, &here, child).await);
}

async fn what_can_no_longer_be_brought_back_is_collected_with_its_signatures(store: Arc<TestStore>) {
    let here = repository("app");
    let layer = push_blob(&store, &here, "layer").await;
    let image = put(&store, &here, image(&[layer]).push_as("v1")).await;
    let [name, ..] = crate::domain::attachment::tags(&image);
    let signature = put(&store, &here, note("cosign").push_as(&format!("{name}.sig"))).await;
    let referrer = put(&store, &here, note("referrer").about(image).push()).await;
    assert!(
        store
            .delete_manifest(&here, &image, undoable(LATE))
            .await
            .unwrap()
    );
    collect(&store, after(LATE), None).await;
    assert!(there(&store, &here, signature).await && there(&store, &here, referrer).await);

    collect(&store, after(2 * LATE), None).await;
    for digest in [image, signature, referrer] {
        assert!(!there(&store, &here, digest).await);
    }
    assert!(store.blob(&here, &layer).await.unwrap().is_none());
    assert_eq!(store.count("SELECT count(*) FROM deleted_manifest").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM tag").await, 0);
    recount(&store).await;
}

async fn a_tag_that_exists_is_not_overwritten(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("old").push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 100).await;
    let new = put(&store, &here, note("new").push_as("v1")).await;
    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", 20))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Exists(new));
    assert!(names(&store, &here, 20).await.is_empty());
    assert_eq!(target(&store, &here, "v1").await, Some(new));
}

async fn a_restore_over_a_quota_is_refused(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("n").push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 100).await;
    put(&store, &here, note("n").push_as("v2")).await;
    let limited = RestoreTag {
        limits: Limits {
            tags: Some(1),
            ..Limits::default()
        },
        ..restore("v1", 20)
    };
    let outcome = store.lifecycle().restore_tag(&here, limited).await.unwrap();
    assert!(
        matches!(outcome, Restored::Refused(PutOutcome::OverQuota(_))),
        "{outcome:?}"
    );
    assert_eq!(names(&store, &here, 20).await, ["v1"], "nothing has changed");
    recount(&store).await;
}

async fn deleted_tags_are_listed_newest_first_and_by_pages(store: Arc<TestStore>) {
    let here = repository("app");
    for number in 0..9 {
        let name = format!("v{number}");
        put(&store, &here, note("n").push_as(&name)).await;
        // Three at each time.
        retire(&store, &here, &[&name], 10 + number / 3, 100).await;
    }
    let all = names(&store, &here, 50).await;
    assert_eq!(all, ["v8", "v7", "v6", "v5", "v4", "v3", "v2", "v1", "v0"]);
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .lifecycle()
            .deleted_tags(&here, before, after(50), 2)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.at, last.name.clone()));
        assert!(page.len() <= 2);
        paged.extend(page.into_iter().map(|tag| tag.name));
    }
    assert_eq!(paged, all);
}

async fn the_history_of_a_tag_is_kept_and_forgotten_by_age(store: Arc<TestStore>) {
    let here = repository("app");
    let first = put(&store, &here, note("first").push_as("v1")).await;
    let second = PutManifest {
        now: after(5),
        ..note("second").push_as("v1")
    };
    let second = put(&store, &here, second).await;
    retire(&store, &here, &["v1"], 10, 100).await;
    put(&store, &here, note("other").push_as("v2")).await;
    let all = store
        .lifecycle()
        .tag_history(&here, &tag("v1"), None, 10)
        .await
        .unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|event| (event.deleted, event.digest, event.by.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (true, second, "retention ci"),
            (false, second, "ci"),
            (false, first, "ci")
        ]
    );
    let before = Some((all[0].at, all[0].id));
    let rest = store
        .lifecycle()
        .tag_history(&here, &tag("v1"), before, 1)
        .await
        .unwrap();
    assert_eq!(rest, all[1..2]);

    assert_eq!(
        store
            .lifecycle()
            .forget_history(&here, after(6), 10)
            .await
            .unwrap(),
        3
    );
    let left = store
        .lifecycle()
        .tag_history(&here, &tag("v1"), None, 10)
        .await
        .unwrap();
    assert_eq!(left, all[..1]);
    let foreign = store
        .lifecycle()
        .tag_history(&repository_of(2, "app"), &tag("v1"), None, 10)
        .await
        .unwrap();
    assert!(foreign.is_empty());
}

async fn of_several_deletions_only_the_newest_comes_back(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("first").push_as("v1")).await;
    retire(&store, &here, &["v1"], 10, 1000).await;
    put(&store, &here, note("second").push_as("v1")).await;
    retire(&store, &here, &["v1"], 20, 0).await;
    assert!(names(&store, &here, 30).await.is_empty());
    let outcome = store
        .lifecycle()
        .restore_tag(&here, restore("v1", 30))
        .await
        .unwrap();
    assert_eq!(outcome, Restored::Gone);
}

async fn signatures_of_what_can_come_back_stand_for_it(store: Arc<TestStore>) {
    let here = repository("app");
    let image = put(&store, &here, note("image").push_as("v1")).await;
    let name = format!("{}.sig", crate::domain::attachment::tags(&image)[0]);
    put(&store, &here, note("cosign").push_as(&name)).await;
    assert!(store.delete_manifest(&here, &image, undoable(100)).await.unwrap());
    let attached = async || {
        let row = tag_row(&store, &here, &name).await;
        row.map(|row| row.attached)
    };
    assert_eq!(attached().await, Some(true));
    assert_eq!(
        store
            .lifecycle()
            .restore_tag(&here, restore("v1", 50))
            .await
            .unwrap(),
        Restored::Done(image)
    );
    assert_eq!(attached().await, Some(true));
}

async fn signatures_of_what_cannot_come_back_go_at_once(store: Arc<TestStore>) {
    let here = repository("app");
    let image = put(&store, &here, note("image").push_as("v1")).await;
    let [name, ..] = crate::domain::attachment::tags(&image);
    put(&store, &here, note("cosign").push_as(&format!("{name}.sig"))).await;
    assert!(store.delete_manifest(&here, &image, deletion()).await.unwrap());
    assert!(names(&store, &here, 10).await.is_empty());

    collect(&store, after(LATE), None).await;

    assert_eq!(store.count("SELECT count(*) FROM tag").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM manifest").await, 0);
    recount(&store).await;
}

async fn very_many_signatures_go_in_steps(store: Arc<TestStore>) {
    let here = repository("app");
    let image = put(&store, &here, note("image").push_as("v1")).await;
    let [name, ..] = crate::domain::attachment::tags(&image);
    let push = PutManifest {
        tags: (0..2500).map(|number| tag(&format!("{name}.{number}"))).collect(),
        ..note("cosign").push()
    };
    put(&store, &here, push.clone()).await;
    retire(&store, &here, &["v1"], 10, 0).await;
    collect(&store, after(LATE), None).await;
    assert_eq!(store.count("SELECT count(*) FROM manifest").await, 0);

    let image = put(&store, &here, note("image").push_as("v1")).await;
    put(&store, &here, push).await;
    assert!(store.delete_manifest(&here, &image, undoable(100)).await.unwrap());
    collect(&store, after(2 * LATE), None).await;
    assert_eq!(store.count("SELECT count(*) FROM tag").await, 0);
    assert_eq!(store.count("SELECT count(*) FROM manifest").await, 0);
    recount(&store).await;
}
