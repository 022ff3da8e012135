//! Collection beside pushes that rely on what is being collected: either the push is refused before it is acknowledged,
//! or what it relies on is there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::builders::*;
use super::collection::{LATE, judgement, retire, there};
use super::fixture::TestStore;
use super::usage::recount;
use crate::domain::Digest;
use crate::metadata::lifecycle::*;
use crate::metadata::*;

/// Races at once.
const AT_ONCE: usize = 6;

/// How often either came first.
#[derive(Default)]
struct Score {
    collected: AtomicUsize,
    survived: AtomicUsize,
}

impl Score {
    fn count(&self, survived: bool) {
        let counter = if survived { &self.survived } else { &self.collected };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Both must have come about, or nothing was raced.
    fn check(&self) {
        let (collected, survived) = (
            self.collected.load(Ordering::Relaxed),
            self.survived.load(Ordering::Relaxed),
        );
        assert!(
            collected > 0 && survived > 0,
            "collected {collected}, survived {survived}"
        );
    }
}

/// Lets the other side go ahead now and then.
async fn stagger(longest: Duration) {
    if rand::random() {
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
    }
}

/// Before a look.
async fn look_later() {
    stagger(Duration::from_micros(800)).await;
}

/// Before a request. Where requests go first, they must come later to be the second.
async fn ask_later() {
    stagger(Duration::from_millis(10)).await;
}

fn now() -> Time {
    after(LATE)
}

async fn collect_blob(store: &TestStore, digest: Digest) -> Collected {
    look_later().await;
    let among = store
        .lifecycle()
        .unused_links(TenantId(1), &digest, 10)
        .await
        .unwrap();
    let blob = CollectBlob {
        tenant: TenantId(1),
        digest,
        among,
        now: now(),
        claimed: PARKED,
        object_due: now(),
    };
    store.lifecycle().collect_blob(blob).await.unwrap()
}

async fn collect_manifest(store: &TestStore, here: &Repository, digest: Digest) -> Collected {
    look_later().await;
    store
        .lifecycle()
        .collect_manifest(here, &digest, judgement(now()))
        .await
        .unwrap()
}

/// A push long after the first leases have ended.
fn late(push: PutManifest) -> PutManifest {
    PutManifest {
        now: now(),
        leased_until: now().plus(Duration::from_secs(3600)),
        ..push
    }
}

/// One race of a kind, by its number.
async fn race(store: &TestStore, number: usize, scores: &[Score; 6]) {
    let here = repository(&format!("race/{}", number % 7));
    let text = format!("content {number}");
    match number % 6 {
        0 => blob_and_manifest(store, &here, &text, &scores[0]).await,
        1 => blob_and_mount(store, &here, &text, &scores[1]).await,
        2 => blob_and_head(store, &here, &text, &scores[2]).await,
        3 => blob_and_upload(store, &here, &text, &scores[3]).await,
        4 => manifest_and_index(store, &here, &text, &scores[4]).await,
        _ => manifest_and_tag(store, &here, &text, &scores[5]).await,
    }
}

async fn blob_and_manifest(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let blob = push_blob(store, here, text).await;
    let push = async {
        ask_later().await;
        store
            .put_manifest(here, late(image(&[blob]).push_as(&format!("t-{}", &text[8..]))))
            .await
            .unwrap()
    };
    let (outcome, _) = tokio::join!(push, collect_blob(store, blob));
    let stored = matches!(outcome, PutOutcome::Stored(_));
    assert!(
        stored || outcome == PutOutcome::Missing(vec![blob]),
        "{outcome:?}"
    );
    assert_eq!(store.blob(here, &blob).await.unwrap().is_some(), stored, "{text}");
    score.count(stored);
}

async fn blob_and_mount(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let blob = push_blob(store, here, text).await;
    let into = repository("race/into");
    let wish = MountBlob {
        leased_until: now().plus(Duration::from_secs(3600)),
        now: now(),
        ..mount(blob)
    };
    let mounting = async {
        ask_later().await;
        store.mount_blob(&into, wish).await.unwrap()
    };
    let (mounted, _) = tokio::join!(mounting, collect_blob(store, blob));
    assert_eq!(
        store.blob(&into, &blob).await.unwrap().is_some(),
        mounted,
        "{text}"
    );
    score.count(mounted);
}

async fn blob_and_head(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let blob = push_blob(store, here, text).await;
    let until = now().plus(Duration::from_secs(3600));
    let heading = async {
        ask_later().await;
        store.lease_blob(here, &blob, until).await.unwrap()
    };
    let (leased, _) = tokio::join!(heading, collect_blob(store, blob));
    // What the client was told must hold for its push, whatever is collected before it.
    collect_blob(store, blob).await;
    assert_eq!(store.blob(here, &blob).await.unwrap().is_some(), leased, "{text}");
    score.count(leased);
}

async fn blob_and_upload(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let blob = push_blob(store, here, text).await;
    let id = begin(store, here).await;
    taken(store, here, id, closing(blob)).await;
    let wish = CommitUpload {
        now: now(),
        leased_until: now().plus(Duration::from_secs(3600)),
        ..commit(id, blob, text.len() as u64)
    };
    let committing = async {
        ask_later().await;
        store.commit_upload(here, wish).await.unwrap()
    };
    let (committed, collected) = tokio::join!(committing, collect_blob(store, blob));
    assert!(committed);
    let row = store
        .blob(here, &blob)
        .await
        .unwrap()
        .expect("an acknowledged upload");
    // The object that the row names is not one that is about to be deleted.
    let due = store
        .due_objects(after(2 * LATE), after(3 * LATE), 100_000)
        .await
        .unwrap();
    assert!(due.iter().all(|(_, key)| *key != row.key), "{text}");
    score.count(collected != Collected::Done(text.len() as u64));
}

async fn manifest_and_index(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let child = put(store, here, note(text).push_as(&format!("c-{}", &text[8..]))).await;
    retire(store, here, &[&format!("c-{}", &text[8..])], 10, 0).await;
    let push = async {
        ask_later().await;
        store
            .put_manifest(here, late(index(&[child]).push_as(&format!("i-{}", &text[8..]))))
            .await
            .unwrap()
    };
    let (outcome, _) = tokio::join!(push, collect_manifest(store, here, child));
    let stored = matches!(outcome, PutOutcome::Stored(_));
    assert!(
        stored || outcome == PutOutcome::Missing(vec![child]),
        "{outcome:?}"
    );
    assert_eq!(there(store, here, child).await, stored, "{text}");
    score.count(stored);
}

async fn manifest_and_tag(store: &TestStore, here: &Repository, text: &str, score: &Score) {
    let name = format!("t-{}", &text[8..]);
    let manifest = put(store, here, note(text).push_as(&name)).await;
    retire(store, here, &[&name], 10, 0).await;
    let push = async {
        ask_later().await;
        store
            .put_manifest(here, late(note(text).push_as(&name)))
            .await
            .unwrap()
    };
    let (outcome, collected) = tokio::join!(push, collect_manifest(store, here, manifest));
    assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
    assert_eq!(target(store, here, &name).await, Some(manifest), "{text}");
    assert!(store.manifest_payload(here, &manifest).await.unwrap().is_some());
    score.count(!matches!(collected, Collected::Done(_)));
}

async fn races(store: Arc<TestStore>, count: usize) {
    let scores: Arc<[Score; 6]> = Arc::default();
    let next = Arc::new(AtomicUsize::new(0));
    let runners = (0..AT_ONCE).map(|_| {
        let (store, scores, next) = (store.clone(), scores.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                race(&store, number, &scores).await;
            }
        })
    });
    for runner in join_all(runners).await {
        runner.unwrap();
    }
    for score in scores.iter() {
        score.check();
    }
    recount(&store).await;
}

on_both_stores! {
    what_a_push_relies_on_is_refused_or_survives
}

async fn what_a_push_relies_on_is_refused_or_survives(store: Arc<TestStore>) {
    races(store, 1200).await;
}

mod long {
    use super::*;

    on_both_stores! {
        what_a_push_relies_on_survives_ten_thousand_races_of_each_kind
    }

    async fn what_a_push_relies_on_survives_ten_thousand_races_of_each_kind(store: Arc<TestStore>) {
        races(store, 60_000).await;
    }
}
