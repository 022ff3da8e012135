//! Secrets that are rotated while the node pulls by them.

use std::collections::BTreeMap;
use std::time::Instant;

use harness::node::{Release, in_phase, kubectl, pod};
use harness::{ControlPlane, condition};
use serde_json::{Value, json};

use super::apps::{apps, asked, denials, leave, secret_of};
use super::images::Pushing;

/// Rotations, each in the middle of as many pods' pulls.
const ROTATIONS: usize = 10;
const PODS: usize = 2;
/// Pulls of a pod: one for each container, one for each volume that is an image. The kubelet reads the Secret once for all
/// of them.
const CONTAINERS: usize = 3;
const VOLUMES: usize = 12;
const PULLS: usize = ROTATIONS * PODS * (CONTAINERS + VOLUMES);

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

/// Waits until the kubelet has read the Secret for a pod and begins to pull.
async fn begins(plane: &ControlPlane, namespace: &str, name: &str) {
    plane
        .wait("Pod", namespace, name, |pod| {
            condition(pod, "PodReadyToStartContainers").is_some_and(|found| found["status"] == "True")
        })
        .await;
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
    let mut passwords = Vec::new();
    for rotation in 0..ROTATIONS {
        let names: Vec<String> = (0..PODS)
            .map(|number| format!("pod-{rotation}-{number}"))
            .collect();
        for name in &names {
            plane.apply(greedy(&apps, name, &image)).await.expect("a pod");
        }
        begins(plane, &apps, &names[0]).await;
        let before = plane.find("Secret", &apps, &secret).await.expect("the Secret");
        kubectl()
            .run(&[
                "annotate",
                "secret",
                &secret,
                "--namespace",
                &apps,
                "berth.dev/rotate=now",
            ])
            .await;
        plane
            .wait("Secret", &apps, &secret, |found| found["data"] != before["data"])
            .await;
        passwords.push(before["data"].to_string());
        // A token lives until the rotation after the next, so that whoever has it is done before.
        for name in &names {
            let done = in_phase(plane, &apps, name, "Succeeded").await;
            let statuses = done["status"]["containerStatuses"]
                .as_array()
                .expect("containers");
            let ran = statuses
                .iter()
                .filter(|container| container["imageID"].to_string().contains(&digest));
            assert_eq!(ran.count(), CONTAINERS, "{statuses:#?}");
        }
    }
    let took = started.elapsed();
    passwords.sort_unstable();
    passwords.dedup();
    assert_eq!(passwords.len(), ROTATIONS, "every rotation makes a new token");

    let asked = asked(&acme, pushing.repository()).await;
    let mut answers = BTreeMap::new();
    for request in &asked {
        let key = (request.method.as_str(), request.object(), request.status);
        *answers.entry(key).or_insert(0_usize) += 1;
    }
    println!("{PULLS} pulls and {ROTATIONS} rotations in {took:.1?}: {answers:#?}");
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
