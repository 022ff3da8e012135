//! Pods, and what becomes of them.

use serde_json::{Value, json};

use super::PATIENCE;
use super::clients::kubectl;
use crate::control_plane::ControlPlane;
use crate::wait::eventually;

/// A pod of one container, which runs a command of a shell. More goes into the pod's spec.
pub fn pod(namespace: &str, name: &str, image: &str, command: &str, more: Value) -> Value {
    let mut spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": image, "imagePullPolicy": "Always", "command": ["/bin/sh", "-c", command],
        }],
    });
    for (key, value) in more.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// Waits until a pod has this phase, and returns it.
///
/// # Panics
/// If it has not in time; the message shows what happened to it.
pub async fn in_phase(plane: &ControlPlane, namespace: &str, name: &str, phase: &str) -> Value {
    let seen = std::sync::Mutex::new(Value::Null);
    let waited = tokio::time::timeout(
        PATIENCE,
        eventually("a phase", PATIENCE * 2, async || {
            let found = plane.find("Pod", namespace, name).await?;
            *seen.lock().expect("no panic") = found["status"].clone();
            (found["status"]["phase"] == phase).then_some(found)
        }),
    );
    if let Ok(pod) = waited.await {
        return pod;
    }
    let told = events(namespace, name).await;
    let seen = seen.into_inner().expect("no panic");
    panic!("pod {namespace}/{name} is not {phase}: {seen:#}\n{told}");
}

/// What happened to a pod, as `kubectl describe` shows it to its owner.
pub async fn events(namespace: &str, name: &str) -> String {
    let field = format!("involvedObject.name={name}");
    let found = kubectl()
        .run(&[
            "get",
            "events",
            "--namespace",
            namespace,
            "--field-selector",
            &field,
        ])
        .await;
    found.text()
}

/// Waits until the events of a pod say something.
pub async fn told(namespace: &str, name: &str, what: &str) -> String {
    eventually(
        &format!("{what:?} in the events of {name}"),
        PATIENCE,
        async || {
            let told = events(namespace, name).await;
            told.contains(what).then_some(told)
        },
    )
    .await
}

/// What a pod has written.
pub async fn logs(namespace: &str, name: &str) -> String {
    kubectl()
        .run(&["logs", "--namespace", namespace, name])
        .await
        .text()
}
