//! Regions, and a release that only reads.

use serde_json::{Value, json};

use super::{DISTRIBUTED, find, objects, parsed};

/// The container of the registry.
fn container(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "berth")["spec"]["template"]["spec"]["containers"][0]
}

fn flags(objects: &[Value]) -> Vec<&str> {
    let flags = container(objects)["args"].as_array().expect("arguments");
    flags.iter().filter_map(Value::as_str).collect()
}

#[test]
fn regions_are_a_file_of_the_pods_which_are_new_when_it_changes() {
    let with = |network: &str| {
        let regions = json!({
            "header": "X-Region",
            "regions": [
                { "name": "us", "zones": ["us-1a"] },
                { "name": "eu", "blobs": "s3://eu?region=eu-1", "networks": [network], "globallyReplicated": true },
            ],
        });
        let set = format!("registry.regions={regions}");
        objects(&[
            "--set",
            DISTRIBUTED,
            "--set-json",
            &set,
            "--set",
            "registry.zone=FromPod",
        ])
    };
    let (one, other) = (with("10.1.0.0/16"), with("10.2.0.0/16"));

    let file = find(&one, "ConfigMap", "berth-regions")["data"]["regions.yaml"]
        .as_str()
        .expect("a file");
    let read = &parsed(file)[0];
    assert_eq!(read["header"], "X-Region");
    assert_eq!(read["regions"][1]["blobs"], "s3://eu?region=eu-1");
    assert!(flags(&one).contains(&"--regions=/etc/berth/regions/regions.yaml"));
    let mounts = container(&one)["volumeMounts"].as_array().expect("mounts");
    assert!(
        mounts
            .iter()
            .any(|mount| mount["mountPath"] == "/etc/berth/regions")
    );
    let zone = container(&one)["env"]
        .as_array()
        .expect("variables")
        .iter()
        .find(|one| one["name"] == "BERTH_ZONE");
    let path = "metadata.labels['topology.kubernetes.io/zone']";
    assert_eq!(zone.expect("a zone")["valueFrom"]["fieldRef"]["fieldPath"], path);
    let told = |objects: &[Value]| {
        find(objects, "Deployment", "berth")["spec"]["template"]["metadata"]["annotations"]["berth.dev/regions"].clone()
    };
    assert!(told(&one).is_string());
    assert_ne!(told(&one), told(&other));
}

#[test]
fn without_regions_nothing_of_them_is_rendered() {
    let objects = objects(&["--set", DISTRIBUTED]);
    assert!(
        !objects
            .iter()
            .any(|object| object["metadata"]["name"] == "berth-regions")
    );
    for word in ["--regions", "--read-only", "--primary", "--max-lag"] {
        assert!(
            !flags(&objects).iter().any(|flag| flag.starts_with(word)),
            "{word}"
        );
    }
}

#[test]
fn a_release_that_only_reads_has_no_operator_and_the_keys_of_its_primary() {
    let reads = "registry.readOnly.enabled=true,registry.readOnly.primary=https://registry.example.com,\
                 registry.readOnly.maxLag=10s,keys.secretName=copied,registry.zone=eu-1a";
    let objects = objects(&["--set", DISTRIBUTED, "--set", reads]);
    for flag in [
        "--read-only=true",
        "--primary=https://registry.example.com",
        "--max-lag=10s",
    ] {
        assert!(flags(&objects).contains(&flag), "{flag}");
    }
    let zone = json!({ "name": "BERTH_ZONE", "value": "eu-1a" });
    assert!(
        container(&objects)["env"]
            .as_array()
            .expect("variables")
            .contains(&zone)
    );
    for kind in [
        "Deployment",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ] {
        let is_operator = |object: &&Value| {
            object["kind"] == kind
                && object["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.contains("operator"))
        };
        assert!(!objects.iter().any(|object| is_operator(&object)), "{kind}");
    }
    let volumes = &find(&objects, "Deployment", "berth")["spec"]["template"]["spec"]["volumes"];
    let keys = volumes
        .as_array()
        .expect("volumes")
        .iter()
        .find(|volume| volume["name"] == "keys");
    assert_eq!(keys.expect("keys")["secret"]["secretName"], "copied");
}
