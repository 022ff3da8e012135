//! Lists for people: in order, by keyset, never another tenant's.

use std::sync::Arc;

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::Digest;
use crate::domain::build::{BuildKey, BuildKind};
use crate::metadata::explore::*;
use crate::metadata::*;

on_both_stores! {
    repositories_are_listed_by_last_push_and_by_size
    a_place_in_an_order_goes_on_behind_it
    rows_are_told_by_name
    names_are_searched_span_by_span
    tags_and_indexes_of_a_manifest_are_found
    images_are_found_by_what_their_annotations_say
    what_lies_behind_an_image_is_read_once
    what_is_read_of_a_build_goes_with_its_manifest
    the_same_tag_is_found_in_all_repositories
    what_is_due_of_repositories_that_are_gone_is_forgotten
}

async fn listed(store: &TestStore, order: RepositoryOrder) -> Vec<String> {
    let rows = store
        .explore()
        .repositories_in(TenantId(1), order, None, 100)
        .await;
    rows.unwrap().into_iter().map(|row| row.name).collect()
}

/// Pushes a note of a repository at a time.
async fn push_at(store: &TestStore, name: &str, text: &str, at: Time) -> Digest {
    let push = PutManifest {
        now: at,
        ..note(text).push_as("v1")
    };
    put(store, &repository(name), push).await
}

async fn repositories_are_listed_by_last_push_and_by_size(store: Arc<TestStore>) {
    push_at(&store, "a", "first", after(10)).await;
    push_at(&store, "b", "a text that is longer than the others", after(20)).await;
    push_at(&store, "c", "second", after(5)).await;
    put(&store, &repository_of(2, "other"), note("other").push_as("v1")).await;
    assert_eq!(listed(&store, RepositoryOrder::Pushed).await, ["b", "a", "c"]);
    assert_eq!(listed(&store, RepositoryOrder::Size).await, ["b", "c", "a"]);

    // The same manifest again changes no counter, and is a push all the same; one that comes late changes nothing.
    push_at(&store, "c", "second", after(30)).await;
    push_at(&store, "c", "second", after(7)).await;
    assert_eq!(listed(&store, RepositoryOrder::Pushed).await, ["c", "b", "a"]);
    let here = repository("c");
    let (pushed, _) = store.lifecycle().last_times(&here).await.unwrap();
    assert_eq!(pushed, Some(after(30)));

    // What was only uploaded was never pushed.
    push_blob(
        &store,
        &repository("blobs"),
        "a blob that is longer than all the manifests here together, by far, by very far",
    )
    .await;
    assert_eq!(
        listed(&store, RepositoryOrder::Pushed).await.last().unwrap(),
        "blobs"
    );
    let rows = store
        .explore()
        .repository_rows(TenantId(1), vec!["blobs".parse().unwrap()])
        .await;
    assert_eq!(rows.unwrap()[0].pushed_at, None);
}

async fn a_place_in_an_order_goes_on_behind_it(store: Arc<TestStore>) {
    for number in 0..7_u64 {
        // Several at one time: the place must not skip or repeat any.
        let name = format!("r{number}");
        push_at(&store, &name, "n", after(number / 3)).await;
    }
    for order in [RepositoryOrder::Pushed, RepositoryOrder::Size] {
        let all = listed(&store, order).await;
        assert_eq!(all.len(), 7);
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .explore()
                .repositories_in(TenantId(1), order, after, 2)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.place(order));
            paged.extend(page.into_iter().map(|row| row.name));
        }
        assert_eq!(paged, all, "{order:?}");
    }
}

async fn rows_are_told_by_name(store: Arc<TestStore>) {
    push_at(&store, "app", "n", after(1)).await;
    let names = ["app", "none"].map(|name| name.parse().unwrap()).to_vec();
    let rows = store
        .explore()
        .repository_rows(TenantId(1), names.clone())
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].tags, rows[0].pushed_at), (1, Some(after(1))));
    assert!(rows[0].bytes > 0);
    assert!(
        store
            .explore()
            .repository_rows(TenantId(2), names)
            .await
            .unwrap()
            .is_empty()
    );

    let tags = vec![tag("v1"), tag("v2")];
    let found = store
        .explore()
        .tag_rows(&repository("app"), tags.clone())
        .await
        .unwrap();
    assert_eq!(found.iter().map(|row| &*row.name).collect::<Vec<_>>(), ["v1"]);
    assert_eq!(
        Some(&found[0]),
        tag_row(&store, &repository("app"), "v1").await.as_ref()
    );
    assert!(
        store
            .explore()
            .tag_rows(&repository("none"), tags)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn tags_and_indexes_of_a_manifest_are_found(store: Arc<TestStore>) {
    let here = repository("app");
    let child = put(&store, &here, note("child").push_as("v1")).await;
    put(&store, &here, note("child").push_as("latest")).await;
    put(&store, &repository("other"), note("child").push_as("elsewhere")).await;
    let parent = put(&store, &here, index(&[child]).push_as("all")).await;
    let tags = store.explore().tags_of(&here, &child, 10).await.unwrap();
    assert_eq!(tags, ["latest", "v1"]);
    assert_eq!(
        store.explore().tags_of(&here, &child, 1).await.unwrap(),
        ["latest"]
    );
    assert_eq!(
        store.explore().indexes_of(&here, &child, 10).await.unwrap(),
        [parent]
    );
    assert!(
        store
            .explore()
            .indexes_of(&here, &parent, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn found(store: &TestStore, value: &str) -> Vec<(BuildKind, String, Digest)> {
    let rows = store
        .explore()
        .builds(TenantId(1), value.to_owned(), 10)
        .await
        .unwrap();
    rows.into_iter()
        .map(|row| (row.kind, row.repository, row.digest))
        .collect()
}

async fn images_are_found_by_what_their_annotations_say(store: Arc<TestStore>) {
    let document = note("n")
        .annotated("berth.dev/build-id", "b-1")
        .annotated("org.opencontainers.image.revision", "0a1b");
    let digest = put(&store, &repository("app"), document.push_as("v1")).await;
    put(&store, &repository_of(2, "app"), document.push_as("v1")).await;
    assert_eq!(
        found(&store, "b-1").await,
        [(BuildKind::Build, "app".to_owned(), digest)]
    );
    assert_eq!(
        found(&store, "0a1b").await,
        [(BuildKind::Commit, "app".to_owned(), digest)]
    );
    assert!(found(&store, "b-").await.is_empty());
    // It is said again, and found once.
    put(&store, &repository("app"), document.push_as("v2")).await;
    assert_eq!(found(&store, "b-1").await.len(), 1);
}

const IN_TOTO: &str = "application/vnd.in-toto+json";

async fn what_lies_behind_an_image_is_read_once(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("of no build").push_as("v0")).await;
    let digest = put(&store, &here, note("n").of_type(IN_TOTO).push_as("v1")).await;
    let due = store.explore().due_builds(after(1), after(60), 10).await.unwrap();
    let [due] = &due.builds[..] else { panic!("{due:?}") };
    assert_eq!((&due.repository, due.digest), (&here, digest));
    // Whoever reads it may die: it comes back then.
    assert!(
        store
            .explore()
            .due_builds(after(59), after(90), 10)
            .await
            .unwrap()
            .builds
            .is_empty()
    );
    assert_eq!(
        store
            .explore()
            .due_builds(after(60), after(90), 10)
            .await
            .unwrap()
            .builds
            .len(),
        1
    );
    let keys = vec![
        BuildKey::new(BuildKind::Build, "https://ci.test/7").unwrap(),
        BuildKey::new(BuildKind::Ref, "refs/heads/main").unwrap(),
    ];
    store.explore().note_build(due, keys).await.unwrap();
    assert!(
        store
            .explore()
            .due_builds(after(9999), after(9999), 10)
            .await
            .unwrap()
            .builds
            .is_empty()
    );
    assert_eq!(
        found(&store, "https://ci.test/7").await,
        [(BuildKind::Build, "app".to_owned(), digest)]
    );
    assert_eq!(found(&store, "refs/heads/main").await.len(), 1);
    // The same bytes once more say nothing new.
    put(&store, &here, note("n").of_type(IN_TOTO).push_as("v2")).await;
    assert!(
        store
            .explore()
            .due_builds(after(9999), after(9999), 10)
            .await
            .unwrap()
            .builds
            .is_empty()
    );
}

async fn what_is_read_of_a_build_goes_with_its_manifest(store: Arc<TestStore>) {
    let here = repository("app");
    let document = note("n").of_type(IN_TOTO).annotated("berth.dev/build-id", "b-1");
    let digest = put(&store, &here, document.push_as("v1")).await;
    let due = store.explore().due_builds(after(1), after(60), 10).await.unwrap();
    let by = Deletion {
        until: after(9),
        principal: "ci".into(),
        now: after(2),
        review_at: after(9),
        immutable: Vec::new(),
        announce: None,
    };
    assert!(store.delete_manifest(&here, &digest, by).await.unwrap());
    assert!(found(&store, "b-1").await.is_empty());
    // What is read meanwhile is of nothing.
    let key = BuildKey::new(BuildKind::Build, "b-2").unwrap();
    store
        .explore()
        .note_build(&due.builds[0], vec![key])
        .await
        .unwrap();
    for table in ["SELECT count(*) FROM build_key", "SELECT count(*) FROM build_due"] {
        assert_eq!(store.count(table).await, 0, "{table}");
    }
}

async fn what_is_due_of_repositories_that_are_gone_is_forgotten(store: Arc<TestStore>) {
    let here = repository("app");
    put(&store, &here, note("n").of_type(IN_TOTO).push_as("v1")).await;
    store.execute("UPDATE build_due SET repository_id = 99").await;
    let due = store.explore().due_builds(after(1), after(60), 10).await.unwrap();
    assert_eq!((due.seen, due.builds.len()), (1, 0));
    assert_eq!(store.count("SELECT count(*) FROM build_due").await, 0);
}

async fn the_same_tag_is_found_in_all_repositories(store: Arc<TestStore>) {
    for (name, tag) in [
        ("web", "b1-app"),
        ("api", "b1"),
        ("api", "b1-db"),
        ("api", "b10"),
        ("api", "b1.2"),
    ] {
        put(&store, &repository(name), note(tag).push_as(tag)).await;
    }
    put(&store, &repository_of(2, "api"), note("n").push_as("b1")).await;
    let named = async |name: &str, limit| {
        let tags = store
            .explore()
            .tags_named(TenantId(1), name.to_owned(), limit)
            .await
            .unwrap();
        tags.into_iter()
            .map(|tag| format!("{}:{}", tag.repository, tag.tag))
            .collect::<Vec<_>>()
    };
    assert_eq!(named("b1", 10).await, ["api:b1", "web:b1-app", "api:b1-db"]);
    assert_eq!(named("b1", 2).await, ["api:b1", "web:b1-app"]);
    assert_eq!(named("b1-", 10).await, Vec::<String>::new());
}

async fn names_are_searched_span_by_span(store: Arc<TestStore>) {
    for name in ["a/web", "b/api", "b/web-site", "b_1", "web"] {
        push_blob(&store, &repository(name), "x").await;
    }
    push_blob(&store, &repository_of(2, "webs"), "x").await;
    let search = async |part: &str, after: &str, end: Option<&str>, rows| {
        let span = (after.to_owned(), end.map(str::to_owned));
        store
            .explore()
            .names_with(TenantId(1), part.to_owned(), span, rows)
            .await
            .unwrap()
    };
    let found = search("web", "", None, 100).await;
    assert_eq!(found.names, ["a/web", "b/web-site", "web"]);
    assert_eq!((found.looked, found.last.as_deref()), (5, Some("web")));
    let found = search("web", "a/web", Some("c"), 2).await;
    assert_eq!(found.names, ["b/web-site"]);
    assert_eq!((found.looked, found.last.as_deref()), (2, Some("b/web-site")));
    assert_eq!(search("web", "x", None, 100).await, FoundNames::default());
    // What stands for others in patterns stands for itself.
    assert_eq!(search("b_", "", None, 100).await.names, ["b_1"]);
    for part in ["%", "b%", "!", "\\", "~"] {
        assert_eq!(search(part, "", None, 100).await.names, [] as [&str; 0], "{part}");
    }
}
