//! Every pod that any values make satisfies the Pod Security Standard `restricted`, and a little more.

use serde_json::Value;

use super::{DISTRIBUTED, arguments, described, find, objects, sets};

/// Sources of volumes that `restricted` admits.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The specs of pods in an object, however deep.
fn pods(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) if fields.contains_key("containers") => vec![value],
        Value::Object(fields) => fields.values().flat_map(pods).collect(),
        Value::Array(entries) => entries.iter().flat_map(pods).collect(),
        _ => Vec::new(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What of `restricted` a pod breaks.
pub fn broken(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        must(pod[field].is_null(), field);
    }
    for volume in list(&pod["volumes"]) {
        let mut sources = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "name");
        must(
            sources.all(|(key, _)| VOLUMES.contains(&key.as_str())),
            "a volume of another kind",
        );
    }
    let above = &pod["securityContext"];
    for container in list(&pod["containers"])
        .iter()
        .chain(list(&pod["initContainers"]))
    {
        let own = &container["securityContext"];
        let either = |pointer: &str| own.pointer(pointer).or_else(|| above.pointer(pointer));
        must(own["privileged"].is_null(), "privileged");
        must(
            own["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation",
        );
        must(
            list(&own["capabilities"]["drop"])
                .iter()
                .any(|name| name == "ALL"),
            "capabilities.drop",
        );
        must(own["capabilities"]["add"].is_null(), "capabilities.add");
        must(
            either("/runAsNonRoot") == Some(&Value::Bool(true)),
            "runAsNonRoot",
        );
        must(either("/runAsUser") != Some(&Value::from(0)), "runAsUser");
        must(
            either("/seccompProfile/type").is_some_and(|kind| kind == "RuntimeDefault"),
            "seccompProfile",
        );
        must(
            list(&container["ports"])
                .iter()
                .all(|port| port["hostPort"].is_null()),
            "hostPort",
        );
        // More than `restricted` asks for.
        must(own["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
        must(
            !container["resources"]["requests"]["memory"].is_null(),
            "resources.requests",
        );
        must(
            !container["resources"]["limits"]["memory"].is_null(),
            "resources.limits",
        );
    }
    broken
}

#[test]
fn every_pod_satisfies_the_standard_restricted() {
    for set in sets() {
        let objects = objects(&arguments(&set));
        let mut seen = 0;
        for object in &objects {
            for pod in pods(object) {
                seen += 1;
                assert_eq!(
                    broken(pod),
                    Vec::<String>::new(),
                    "{} with {set:?}",
                    described(object)
                );
            }
        }
        assert_eq!(seen, 3, "registry, operator and test with {set:?}");
    }
}

#[test]
fn only_the_operator_has_a_token_of_the_cluster() {
    let objects = objects(&[]);
    for object in &objects {
        for pod in pods(object) {
            let is_operator = object["metadata"]["name"] == "berth-operator";
            assert_eq!(
                pod["automountServiceAccountToken"],
                is_operator,
                "{}",
                described(object)
            );
        }
    }
}

#[test]
fn a_registry_drains_before_it_is_killed() {
    let objects = objects(&[]);
    let pod = &find(&objects, "StatefulSet", "berth")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["terminationGracePeriodSeconds"], 330);
    assert!(list(&container["args"]).contains(&"--drain-timeout=300s".into()));
}

#[test]
fn a_replica_waits_until_the_edge_goes_to_others_and_a_single_registry_waits_for_nothing() {
    let many = objects(&["--set", DISTRIBUTED]);
    let replica = &find(&many, "Deployment", "berth")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(replica["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    let one = objects(&[]);
    let single = &find(&one, "StatefulSet", "berth")["spec"]["template"]["spec"]["containers"][0];
    assert!(single["lifecycle"].is_null());
}

#[test]
fn no_probe_that_restarts_a_registry_asks_a_store() {
    let objects = objects(&[]);
    let container = &find(&objects, "StatefulSet", "berth")["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"], "ops", "{probe}");
    }
}

#[test]
fn a_rolling_update_of_replicas_takes_none_away() {
    let objects = objects(&["--set", DISTRIBUTED]);
    let spec = &find(&objects, "Deployment", "berth")["spec"];
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], 1);
    assert_eq!(
        find(&objects, "PodDisruptionBudget", "berth")["spec"]["maxUnavailable"],
        1
    );
    let spread = list(&spec["template"]["spec"]["topologySpreadConstraints"]);
    let keys: Vec<&Value> = spread
        .iter()
        .map(|constraint| &constraint["topologyKey"])
        .collect();
    assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]);
}

#[test]
fn an_autoscaler_alone_decides_about_replicas() {
    let objects = objects(&["--set", DISTRIBUTED, "--set", "registry.autoscaling.enabled=true"]);
    assert!(find(&objects, "Deployment", "berth")["spec"]["replicas"].is_null());
    let target = &find(&objects, "HorizontalPodAutoscaler", "berth")["spec"]["scaleTargetRef"];
    assert_eq!(
        (&target["kind"], &target["name"]),
        (&"Deployment".into(), &"berth".into())
    );
}

#[test]
fn passwords_come_from_secrets_by_reference() {
    let credentials = "registry.blobs.credentials.existingSecret=bucket";
    let objects = objects(&["--set", DISTRIBUTED, "--set", credentials]);
    let env = &find(&objects, "Deployment", "berth")["spec"]["template"]["spec"]["containers"][0]["env"];
    let of = |name: &str| {
        let found = list(env).iter().find(|entry| entry["name"] == name);
        found.map(|entry| entry["valueFrom"]["secretKeyRef"].clone())
    };
    let entry = |name: &str, key: &str| Some(serde_json::json!({ "name": name, "key": key }));
    assert_eq!(of("BERTH_METADATA"), entry("db", "uri"));
    assert_eq!(of("AWS_ACCESS_KEY_ID"), entry("bucket", "AWS_ACCESS_KEY_ID"));
    assert_eq!(
        of("AWS_SECRET_ACCESS_KEY"),
        entry("bucket", "AWS_SECRET_ACCESS_KEY")
    );
}

#[test]
fn the_standard_is_really_checked() {
    let bad = serde_json::json!({ "hostNetwork": true, "volumes": [{ "name": "a", "hostPath": {} }], "containers": [{}] });
    let broken = broken(&bad);
    for what in [
        "hostNetwork",
        "a volume of another kind",
        "allowPrivilegeEscalation",
        "runAsNonRoot",
        "seccompProfile",
    ] {
        assert!(broken.iter().any(|found| found == what), "{what} in {broken:?}");
    }
}
