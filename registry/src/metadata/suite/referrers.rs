//! Referrers: filtered by type and paged by count and by bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::builders::*;
use super::fixture::TestStore;
use crate::domain::Digest;
use crate::metadata::*;

on_both_stores! {
    referrers_are_listed_with_type_size_and_annotations
    referrers_are_filtered_by_any_of_several_types
    a_subject_need_not_exist
    a_subject_has_no_more_referrers_than_its_limit
    a_descriptor_larger_than_a_page_has_a_page_of_its_own
    pages_of_any_size_list_every_referrer_once
}

fn all_of(subject: &Digest) -> ReferrersQuery {
    ReferrersQuery {
        subject: subject.to_string(),
        artifact_types: Vec::new(),
        after: None,
        limit: 100,
        bytes: 1 << 20,
    }
}

async fn listed(store: &TestStore, place: &Repository, query: ReferrersQuery) -> Vec<Digest> {
    let page = store.referrers(place, &query).await.expect("the store answers");
    page.descriptors.into_iter().map(|(digest, _)| digest).collect()
}

async fn a_subject_has_no_more_referrers_than_its_limit(store: Arc<TestStore>) {
    let here = repository("app");
    let subject = put(&store, &here, note("subject").push()).await;
    let about = |text: &str| {
        let mut push = note(text).about(subject).push();
        push.limits.referrers = Some(2);
        push
    };
    for text in ["one", "two"] {
        put(&store, &here, about(text)).await;
    }

    let refused = store.put_manifest(&here, about("three")).await.unwrap();
    let over = OverQuota {
        quota: Quota::Referrers,
        usage: 2,
        limit: 2,
    };
    assert!(
        matches!(refused, PutOutcome::OverQuota(told) if told == over),
        "{refused:?}"
    );
    assert_eq!(listed(&store, &here, all_of(&subject)).await.len(), 2);
    // What refers to it already may be pushed again, and another subject has its own.
    put(&store, &here, about("two")).await;
    let other = put(&store, &here, note("other").push()).await;
    let mut push = note("three").about(other).push();
    push.limits.referrers = Some(2);
    put(&store, &here, push).await;
}

async fn referrers_are_listed_with_type_size_and_annotations(store: Arc<TestStore>) {
    let here = repository("app");
    let subject = put(&store, &here, note("subject").push()).await;
    let push = note("sbom").about(subject).of_type("application/x.sbom").push();
    put(&store, &here, push.clone()).await;

    let page = store.referrers(&here, &all_of(&subject)).await.unwrap();

    assert!(!page.more);
    let [(digest, descriptor)] = &page.descriptors[..] else {
        panic!("{page:?}")
    };
    assert_eq!(*digest, push.digest);
    let descriptor: serde_json::Value = serde_json::from_str(descriptor).unwrap();
    let expected = serde_json::json!({
        "mediaType": push.manifest.media_type.as_str(),
        "digest": push.digest,
        "size": push.payload.len(),
        "artifactType": "application/x.sbom",
        "annotations": {"note": "sbom"},
    });
    assert_eq!(descriptor, expected);
}

async fn referrers_are_filtered_by_any_of_several_types(store: Arc<TestStore>) {
    let here = repository("app");
    let subject = digest("subject");
    let mut of_type = Vec::new();
    for artifact_type in ["a/a", "b/b", "c/c"] {
        let push = note(artifact_type).about(subject).of_type(artifact_type).push();
        of_type.push(put(&store, &here, push).await);
    }
    let untyped = put(&store, &here, note("untyped").about(subject).push()).await;
    let filtered = async |types: &[&str]| {
        let artifact_types = types.iter().map(|text| (*text).to_owned()).collect();
        listed(
            &store,
            &here,
            ReferrersQuery {
                artifact_types,
                ..all_of(&subject)
            },
        )
        .await
    };
    let sorted = |digests: &[Digest]| {
        let sorted: BTreeSet<Digest> = digests.iter().copied().collect();
        sorted.into_iter().collect::<Vec<_>>()
    };

    assert_eq!(filtered(&["b/b"]).await, [of_type[1]]);
    assert_eq!(
        filtered(&["a/a", "c/c", "d/d"]).await,
        sorted(&[of_type[0], of_type[2]])
    );
    assert!(filtered(&["d/d"]).await.is_empty());
    assert!(filtered(&["A/A"]).await.is_empty());
    assert_eq!(
        filtered(&[]).await,
        sorted(&[of_type[0], of_type[1], of_type[2], untyped])
    );
}

async fn a_subject_need_not_exist(store: Arc<TestStore>) {
    let (here, there) = (repository("app"), repository("app2"));
    let referrer = put(&store, &here, note("early").about(digest("to come")).push()).await;

    assert_eq!(
        listed(&store, &here, all_of(&digest("to come"))).await,
        [referrer]
    );
    assert!(listed(&store, &here, all_of(&digest("other"))).await.is_empty());
    assert!(
        listed(&store, &there, all_of(&digest("to come")))
            .await
            .is_empty()
    );
    assert!(
        listed(&store, &repository_of(2, "app"), all_of(&digest("to come")))
            .await
            .is_empty()
    );
}

async fn a_descriptor_larger_than_a_page_has_a_page_of_its_own(store: Arc<TestStore>) {
    let here = repository("app");
    let subject = digest("subject");
    let mut digests = BTreeSet::new();
    for number in 0..3 {
        let push = note(&format!("{number}{}", "x".repeat(5000)))
            .about(subject)
            .push();
        digests.insert(put(&store, &here, push).await);
    }

    let mut query = ReferrersQuery {
        bytes: 100,
        ..all_of(&subject)
    };
    for digest in &digests {
        let page = store.referrers(&here, &query).await.unwrap();
        assert_eq!(
            page.descriptors
                .iter()
                .map(|(digest, _)| *digest)
                .collect::<Vec<_>>(),
            [*digest]
        );
        query.after = Some(*digest);
    }
    let last = store.referrers(&here, &query).await.unwrap();
    assert!(last.descriptors.is_empty() && !last.more);
}

async fn pages_of_any_size_list_every_referrer_once(store: Arc<TestStore>) {
    let sizes = prop::collection::vec((0_usize..600, 0_usize..3), 0..14);
    let mut runner = TestRunner::new(Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        runner.run(
            &(sizes, 1_u32..6, 1_u64..2500, 0_usize..3),
            |(sizes, limit, bytes, types)| runtime.block_on(every_page(&store, &sizes, limit, bytes, types)),
        )
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn every_page(
    store: &TestStore,
    sizes: &[(usize, usize)],
    limit: u32,
    bytes: u64,
    types: usize,
) -> std::result::Result<(), TestCaseError> {
    const TYPES: [&str; 3] = ["a/a", "b/b", "c/c"];
    let here = repository(&format!("app{}", row_id()));
    let subject = digest("subject");
    let mut expected = BTreeSet::new();
    for (number, (size, of_type)) in sizes.iter().enumerate() {
        let text = format!("{number}{}", "x".repeat(*size));
        let push = note(&text).about(subject).of_type(TYPES[*of_type]).push();
        let digest = put(store, &here, push).await;
        if types == 0 || *of_type < types {
            expected.insert(digest);
        }
    }

    let artifact_types = TYPES[..types].iter().map(|text| (*text).to_owned()).collect();
    let mut query = ReferrersQuery {
        artifact_types,
        limit,
        bytes,
        ..all_of(&subject)
    };
    let mut found = Vec::new();
    loop {
        let page = store.referrers(&here, &query).await.expect("the store answers");
        let length: usize = page
            .descriptors
            .iter()
            .map(|(_, descriptor)| descriptor.len())
            .sum();
        prop_assert!(page.descriptors.len() <= limit as usize);
        prop_assert!(page.descriptors.len() == 1 || length as u64 <= bytes);
        found.extend(page.descriptors.iter().map(|(digest, _)| *digest));
        if !page.more {
            break;
        }
        prop_assert!(
            !page.descriptors.is_empty(),
            "a page that others follow is not empty"
        );
        query.after = found.last().copied();
    }
    prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    Ok(())
}
