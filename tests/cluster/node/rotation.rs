//! Secrets that are rotated while the node pulls by them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harness::ControlPlane;
use harness::node::{Release, in_phase, kubectl, pod};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::apps::{apps, asked, denials, leave, secret_of};
use super::images::Pushing;

/// The Secret is rotated that often, however far the pulls are.
const EVERY: Duration = Duration::from_millis(2500);
/// Rounds of pulls, and the pods that pull in each.
const ROUNDS: usize = 10;
const PODS: usize = 2;
/// Pulls of a pod: one for each container, one for each volume that is an image. The kubelet reads the Secret once for all
/// of them.
const CONTAINERS: usize = 3;
const VOLUMES: usize = 12;
const PULLS: usize = ROUNDS * PODS * (CONTAINERS + VOLUMES);

/// A pod that pulls an image many times, whether it is there or not.
fn greedy(namespace: &str, name: &str, image: &str) -> Value {
    let mut pod = pod(namespace, name, image, "true", json!({}));
    let container = pod["spec"]["containers"][0].clone();
    let containers = (0..CONTAINERS).map(|number| {
        let mut container = container.clone();
        container["name"] = json!(format!("container-{number}"));
        container
    });
    pod["spec"]["containers"] = containers.collect();
    let volumes = (0..VOLUMES).map(|number| {
        json!({
            "name": format!("volume-{number}"), "image": { "reference": image, "pullPolicy": "Always" },
        })
    });
    pod["spec"]["volumes"] = volumes.collect();
    pod
}

/// All pods pull, round after round.
async fn pull(plane: &ControlPlane, namespace: &str, image: &str, digest: &str) {
    for round in 0..ROUNDS {
        let names: Vec<String> = (0..PODS).map(|number| format!("pod-{round}-{number}")).collect();
        for name in &names {
            plane.apply(greedy(namespace, name, image)).await.expect("a pod");
        }
        for name in &names {
            let done = in_phase(plane, namespace, name, "Succeeded").await;
            let statuses = done["status"]["containerStatuses"]
                .as_array()
                .expect("containers");
            let ran = statuses
                .iter()
                .filter(|container| container["imageID"].to_string().contains(digest));
            assert_eq!(ran.count(), CONTAINERS, "{statuses:#?}");
        }
    }
}

/// Rotates a Secret on and on, and notes each content that it has had.
async fn rotate(plane: &ControlPlane, namespace: &str, name: &str, handed_over: &mut BTreeSet<String>) {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let secret = plane.find("Secret", namespace, name).await.expect("the Secret");
        handed_over.insert(secret["data"].to_string());
        clock.tick().await;
        let request = json!({ "metadata": { "annotations": { "berth.dev/rotate": "now" } } });
        plane.merge("Secret", namespace, name, request).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_pulls_meet_no_refusal_while_their_secret_is_rotated_every_few_seconds() {
    let release = Release::shared().await;
    let (plane, acme) = (&release.plane, release.new_tenant("acme", json!({})).await);
    let pushing = Pushing::to(&acme, "app");
    let draft = pushing.busybox().await;
    let digest = pushing.finish(&draft, "v1").await;
    let image = format!("{}:v1", pushing.image());
    let apps = apps(&acme, "apps").await;
    let secret = secret_of(&acme);

    let started = Instant::now();
    let mut handed_over = BTreeSet::new();
    tokio::select! {
        () = pull(plane, &apps, &image, &digest) => {}
        () = rotate(plane, &apps, &secret, &mut handed_over) => {}
    }
    let (took, rotations) = (started.elapsed(), handed_over.len() - 1);
    assert!(rotations >= ROUNDS, "{rotations} rotations in {took:.1?}");

    let asked = asked(&acme, pushing.repository()).await;
    let mut answers = BTreeMap::new();
    for request in &asked {
        let key = (request.method.as_str(), request.object(), request.status);
        *answers.entry(key).or_insert(0_usize) += 1;
    }
    println!("{PULLS} pulls and {rotations} rotations in {took:.1?}: {answers:#?}");
    let answered = |method, object, status| {
        answers
            .get(&(method, object, status))
            .copied()
            .unwrap_or_default()
    };
    let resolved = answered("HEAD", "v1", 200);
    assert!(resolved >= PULLS, "{resolved} pulls of {PULLS}");
    // A pull begins without a credential, is told where to get a token, and comes again with it. That is once for each;
    // whatever else is refused was refused with a credential.
    assert_eq!(answered("HEAD", "v1", 401), resolved, "{answers:#?}");
    let denied = denials(&acme).await;
    assert!(denied.is_empty(), "{} denials: {:#}", denied.len(), denied[0]);
    let events = kubectl()
        .run(&["get", "events", "--namespace", &apps, "--output", "wide"])
        .await
        .text();
    assert!(
        events.contains("Successfully pulled image") && !events.contains("Failed to pull image"),
        "{events}"
    );
    leave(&release, &apps).await;
}
