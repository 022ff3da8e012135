//! Previews and runs of retention over the stores: they judge alike, and as the rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_crds::admin::RetentionPolicyConfig;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::builders::*;
use super::collection::{LATE, collect};
use super::fixture::TestStore;
use super::usage::recount;
use crate::lifecycle::coverage::Coverage;
use crate::lifecycle::retention::rules::{Plan, Tag, Verdict};
use crate::lifecycle::retention::walk::{self, Mode, Stores};
use crate::metadata::lifecycle::*;
use crate::metadata::*;

fn coverage(policy: serde_json::Value, ephemeral: Option<u64>) -> Coverage {
    let config: RetentionPolicyConfig = serde_json::from_value(policy).expect("a policy");
    let immutable = vec!["keep*".parse().expect("a glob")];
    let plan = Plan::new(
        &[("ci".into(), Arc::new(config))],
        immutable.clone(),
        ephemeral.map(Duration::from_secs),
    );
    Coverage {
        plan: plan.expect("a plan"),
        window: Duration::ZERO,
        untagged_after: None,
        immutable,
        policies: vec!["ci".into()],
        announce: None,
    }
}

fn stores(store: &TestStore) -> Stores<'_> {
    Stores {
        metadata: store.inner(),
        lifecycle: store.lifecycle(),
    }
}

fn random_policy(dice: &mut StdRng) -> serde_json::Value {
    let rules: Vec<serde_json::Value> = (0..dice.random_range(0..3))
        .map(|_| {
            let mut rule = serde_json::json!({});
            if dice.random_bool(0.5) {
                let glob = ["v*", "*a*", "?1*", "1.*"][dice.random_range(0..4)];
                rule["tags"] = vec![glob].into();
            }
            if dice.random_bool(0.3) {
                let glob = ["v1*", "*b"][dice.random_range(0..2)];
                rule["not"] = vec![glob].into();
            }
            if dice.random_bool(0.5) {
                rule["keepLast"] = dice.random_range(1..5).into();
            }
            if dice.random_bool(0.4) {
                rule["keepWithin"] = format!("{}s", dice.random_range(1..30)).into();
                if dice.random_bool(0.5) {
                    rule["since"] = "Pull".into();
                }
            }
            if dice.random_bool(0.3) {
                rule["keepSemver"] =
                    serde_json::json!({"major": dice.random_range(1..3), "minor": dice.random_range(1..3)});
            }
            rule
        })
        .collect();
    serde_json::json!({ "rules": rules })
}

/// A random repository and random rules: what a preview tells is what the rules say of its tags, taken one by one, and
/// what a run deletes.
async fn random(store: &TestStore, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let here = repository(&format!("case-{seed}"));
    let mut digests = BTreeMap::new();
    for number in 0..dice.random_range(0..25) {
        let name = match dice.random_range(0..3) {
            0 => format!("v{}.{}", dice.random_range(0..4), dice.random_range(0..4)),
            1 => format!("1.{}.{}", dice.random_range(0..4), dice.random_range(0..3)),
            _ => ["a", "b", "ab", "latest", "keep", "a1"][dice.random_range(0..6)].to_owned(),
        };
        let push = PutManifest {
            // Many at one time.
            now: after(dice.random_range(0..8)),
            ..note(&format!("{seed} {}", number % 9)).push_as(&name)
        };
        digests.insert(name, put(store, &here, push).await);
    }
    for (name, digest) in &digests {
        if dice.random_bool(0.3) {
            let by_tag = dice.random_bool(0.5).then(|| tag(name));
            let pull = Pull {
                repository: here.clone(),
                tag: by_tag,
                digest: *digest,
            };
            store
                .lifecycle()
                .record_pulls(vec![pull], after(dice.random_range(8..20)))
                .await
                .unwrap();
        }
    }
    let ephemeral = dice.random_bool(0.2).then(|| dice.random_range(1..30));
    let coverage = coverage(random_policy(&mut dice), ephemeral);
    let now = after(20);

    // 1. Each tag by itself, from a list of our own.
    let mut rows = Vec::new();
    for name in digests.keys() {
        rows.extend(tag_row(store, &here, name).await);
    }
    rows.sort_by(|a, b| (b.pushed_at, &a.name).cmp(&(a.pushed_at, &b.name)));
    let mut versions = coverage.plan.versions();
    rows.iter().for_each(|row| versions.see(&row.name));
    let mut by_hand = coverage.plan.walk(now, versions);
    let mut going = BTreeSet::new();
    for row in &rows {
        let seen = Tag {
            name: &row.name,
            pushed_at: row.pushed_at,
            renewed_at: row.renewed_at,
            pulled_at: row.pulled_at,
        };
        let verdict = by_hand.judge(&seen);
        let (_, explained) = walk::judge(stores(store), &here, &coverage, &tag(&row.name), now)
            .await
            .unwrap()
            .expect("the tag");
        assert_eq!(explained, verdict, "seed {seed}, {}", row.name);
        if matches!(verdict, Verdict::Goes(_)) {
            going.insert(row.name.clone());
        }
    }

    // 2. The preview.
    let preview = walk::walk(stores(store), &here, &coverage, Mode::Preview, now)
        .await
        .unwrap();
    let told: BTreeSet<String> = preview
        .sample
        .iter()
        .map(|shown| shown.rsplit_once(':').expect("repository:tag").1.to_owned())
        .collect();
    assert_eq!(told, going, "seed {seed}");
    assert_eq!((preview.going, preview.deleted), (going.len() as u64, 0));

    // 3. The run.
    let run = walk::walk(stores(store), &here, &coverage, Mode::Run("retention ci"), now)
        .await
        .unwrap();
    assert_eq!(
        (run.deleted, run.reclaimable),
        (going.len() as u64, preview.reclaimable),
        "seed {seed}"
    );
    for (name, digest) in &digests {
        let left = (!going.contains(name)).then_some(*digest);
        assert_eq!(target(store, &here, name).await, left, "seed {seed}, {name}");
    }
    let before = store
        .configuration()
        .repository_usage(TenantId(1), &here.name)
        .await
        .unwrap()
        .unwrap_or_default();
    collect(store, after(LATE), None).await;
    let after_ = store
        .configuration()
        .repository_usage(TenantId(1), &here.name)
        .await
        .unwrap()
        .unwrap_or_default();
    assert_eq!(
        before.bytes - after_.bytes,
        run.reclaimable,
        "seed {seed}: what was told has become free"
    );
}

on_both_stores! {
    previews_runs_and_explanations_judge_alike
    what_would_become_free_is_told_exactly
    pages_go_on_where_they_ended_though_many_tags_are_of_one_time
}

async fn previews_runs_and_explanations_judge_alike(store: Arc<TestStore>) {
    for seed in 0..60 {
        random(&store, seed).await;
    }
    recount(&store).await;
}

async fn what_would_become_free_is_told_exactly(store: Arc<TestStore>) {
    let here = repository("app");
    let (own, shared) = (
        push_blob(&store, &here, "own layer").await,
        push_blob(&store, &here, "shared").await,
    );
    let child = put(&store, &here, image(&[own, shared]).push()).await;
    let inner = put(&store, &here, index(&[child]).push()).await;
    let parent = put(&store, &here, index(&[inner]).push_as("old")).await;
    put(&store, &here, note("attestation").about(child).push()).await;
    put(&store, &here, image(&[shared]).push_as("keep")).await;
    let other = put(&store, &here, note("two names").push_as("one")).await;
    put(&store, &here, note("two names").push_as("keep-two")).await;

    let usage = async || {
        store
            .configuration()
            .repository_usage(TenantId(1), &here.name)
            .await
            .unwrap()
            .unwrap()
            .bytes
    };
    let before = usage().await;
    let doomed = BTreeMap::from([(parent, 1), (other, 1)]);
    let told = store.lifecycle().reclaimable(&here, doomed).await.unwrap();
    let rules = coverage(serde_json::json!({"rules": [{"tags": ["none"]}]}), None);
    let run = walk::walk(stores(&store), &here, &rules, Mode::Run("retention ci"), after(9))
        .await
        .unwrap();
    assert_eq!((run.deleted, run.reclaimable), (2, told));
    collect(&store, after(LATE), None).await;
    assert_eq!(before - usage().await, told);
    assert!(store.blob(&here, &own).await.unwrap().is_none());
    assert!(store.blob(&here, &shared).await.unwrap().is_some());
}

async fn pages_go_on_where_they_ended_though_many_tags_are_of_one_time(store: Arc<TestStore>) {
    let here = repository("app");
    for number in 0..30 {
        let push = PutManifest {
            now: after(number / 12),
            ..note("n").push_as(&format!("t{number}"))
        };
        put(&store, &here, push).await;
    }
    let whole = TagPage {
        limit: 100,
        ..TagPage::default()
    };
    let all = store.lifecycle().tags_by_push(&here, whole).await.unwrap();
    assert_eq!(all.len(), 30);
    assert!(all.is_sorted_by_key(|row| (std::cmp::Reverse(row.pushed_at), row.name.clone())));
    let mut page = TagPage {
        limit: 7,
        ..TagPage::default()
    };
    let mut paged = Vec::new();
    loop {
        let rows = store.lifecycle().tags_by_push(&here, page.clone()).await.unwrap();
        let Some(last) = rows.last() else { break };
        page.after = Some((last.pushed_at, last.name.clone()));
        paged.extend(rows);
    }
    assert_eq!(paged, all);
    page.after = None;
    page.before = Some(after(1));
    let old = store.lifecycle().tags_by_push(&here, page).await.unwrap();
    assert!(old.len() == 7 && old.iter().all(|row| row.pushed_at == NOW));
}
