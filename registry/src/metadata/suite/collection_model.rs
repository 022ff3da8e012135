//! Collection against a naive model of what tags reach, over random repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::builders::*;
use super::collection::{LATE, collect, retire, there};
use super::fixture::TestStore;
use super::usage::recount;
use crate::domain::{Digest, attachment};
use crate::metadata::*;

/// What a manifest speaks of.
#[derive(Default)]
struct Spoken {
    children: Vec<Digest>,
    subject: Option<Digest>,
    blobs: Vec<Digest>,
}

/// What was pushed into one repository.
#[derive(Default)]
struct Model {
    manifests: BTreeMap<Digest, Spoken>,
    tags: BTreeMap<String, Digest>,
}

impl Model {
    /// The manifest of this repository, another one, for which a tag stands by its name.
    fn stands_for(&self, name: &str) -> Option<Digest> {
        let own = self.tags.get(name);
        attachment::subject(name)
            .filter(|subject| Some(subject) != own && self.manifests.contains_key(subject))
    }

    /// Everything that a tag reaches: by children, by referrers, and by names that stand for a manifest.
    fn reached(&self) -> BTreeSet<Digest> {
        let mut reached: BTreeSet<Digest> = self
            .tags
            .iter()
            .filter(|(name, _)| self.stands_for(name).is_none())
            .map(|(_, digest)| *digest)
            .collect();
        loop {
            let mut more = reached.clone();
            for (
                digest,
                Spoken {
                    children, subject, ..
                },
            ) in &self.manifests
            {
                if reached.contains(digest) {
                    more.extend(children.iter().filter(|child| self.manifests.contains_key(child)));
                }
                if subject.is_some_and(|subject| reached.contains(&subject)) {
                    more.insert(*digest);
                }
            }
            for (name, digest) in &self.tags {
                if self
                    .stands_for(name)
                    .is_some_and(|subject| reached.contains(&subject))
                {
                    more.insert(*digest);
                }
            }
            if more == reached {
                return reached;
            }
            reached = more;
        }
    }

    fn pick(&self, dice: &mut StdRng) -> Option<Digest> {
        let all: Vec<&Digest> = self.manifests.keys().collect();
        (!all.is_empty()).then(|| *all[dice.random_range(0..all.len())])
    }
}

/// One random push.
async fn push(store: &TestStore, here: &Repository, model: &mut Model, dice: &mut StdRng, number: usize) {
    let text = format!("{} {number}", here.name);
    let some: BTreeSet<Digest> = (0..dice.random_range(0..4))
        .filter_map(|_| model.pick(dice))
        .collect();
    let mut blobs = BTreeSet::new();
    let kind = dice.random_range(0..4);
    let is_index = kind == 0;
    let document = match kind {
        0 => {
            let children: Vec<Digest> = some.into_iter().collect();
            let document = index(&children).noted(&text);
            let spoken = Spoken {
                children,
                ..Spoken::default()
            };
            model.manifests.insert(document.push().digest, spoken);
            document
        }
        _ => {
            for _ in 0..dice.random_range(1..4) {
                // Few, so that repositories share them.
                blobs.insert(push_blob(store, here, &format!("blob {}", dice.random_range(0..12))).await);
            }
            let blobs: Vec<Digest> = blobs.into_iter().collect();
            let mut document = image(&blobs).noted(&text);
            let subject = (kind == 1).then(|| model.pick(dice)).flatten();
            if let Some(subject) = subject {
                document = document.about(subject);
            }
            let spoken = Spoken {
                subject,
                blobs,
                ..Spoken::default()
            };
            model.manifests.insert(document.push().digest, spoken);
            document
        }
    };
    // Only what has no children is named after another one here: an index could lie above what it stands for.
    let names = if is_index { 4..6 } else { 0..6 };
    let name = match dice.random_range(names) {
        0 => None,
        1 => model
            .pick(dice)
            .map(|subject| attachment::tags(&subject)[0].clone() + ".sig"),
        2 => model
            .pick(dice)
            .map(|subject| attachment::tags(&subject)[0].clone()),
        3 => Some(format!("{}.sig", attachment::tags(&digest("elsewhere"))[0])),
        _ => Some(format!("v{}", dice.random_range(0..6))),
    };
    match name {
        None => put(store, here, document.push()).await,
        Some(name) => {
            model.tags.insert(name.clone(), document.push().digest);
            put(store, here, document.push_as(&name)).await
        }
    };
}

/// Random pushes and deletions in some repositories that share blobs, then collection; what is left must be what the
/// model says.
async fn random(store: &TestStore, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut models = Vec::new();
    for part in 0..3 {
        let here = repository(&format!("case-{seed}/{part}"));
        let mut model = Model::default();
        for number in 0..dice.random_range(1..14) {
            push(store, &here, &mut model, &mut dice, number).await;
        }
        for name in model.tags.keys().cloned().collect::<Vec<_>>() {
            match dice.random_range(0..3) {
                0 => assert_eq!(retire(store, &here, &[&name], 10, 5).await, 1),
                1 => assert!(store.delete_tag(&here, &tag(&name), deletion()).await.unwrap()),
                _ => continue,
            }
            model.tags.remove(&name);
        }
        models.push((here, model));
    }

    collect(store, after(LATE), Some(Duration::from_secs(1))).await;

    for (here, model) in &models {
        let reached = model.reached();
        let mut used = BTreeSet::new();
        for (digest, Spoken { blobs, .. }) in &model.manifests {
            let stays = reached.contains(digest);
            assert_eq!(
                there(store, here, *digest).await,
                stays,
                "seed {seed}, {digest} in {}",
                here.name
            );
            if stays {
                used.extend(blobs.iter().copied());
            }
        }
        for number in 0..12 {
            let blob = digest(&format!("blob {number}"));
            let linked = store.blob(here, &blob).await.unwrap().is_some();
            assert_eq!(
                linked,
                used.contains(&blob),
                "seed {seed}, blob {number} in {}",
                here.name
            );
        }
        for (name, digest) in &model.tags {
            let lost = model
                .stands_for(name)
                .is_some_and(|subject| !reached.contains(&subject));
            let stays = (reached.contains(digest) && !lost).then_some(*digest);
            assert_eq!(target(store, here, name).await, stays, "seed {seed}, {name}");
        }
    }
}

async fn cases(store: &TestStore, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        random(store, seed).await;
    }
    recount(store).await;
    let drifts = store.lifecycle().recount(TenantId(1)).await.unwrap();
    assert_eq!(drifts, [], "the store counts as the test does");
    let unused = "SELECT count(*) FROM blob b WHERE NOT EXISTS (SELECT 1 FROM repository_blob l \
         WHERE l.tenant_id = b.tenant_id AND l.digest = b.digest)";
    assert_eq!(store.count(unused).await, 0);
}

on_both_stores! {
    what_is_left_after_collection_is_what_tags_reach
}

async fn what_is_left_after_collection_is_what_tags_reach(store: Arc<TestStore>) {
    cases(&store, 0..60).await;
}

mod long {
    use super::*;

    on_both_stores! {
        what_is_left_is_what_tags_reach_in_thousands_of_repositories
    }

    async fn what_is_left_is_what_tags_reach_in_thousands_of_repositories(store: Arc<TestStore>) {
        cases(&store, 1000..2000).await;
    }
}
