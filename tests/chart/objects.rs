//! What is rendered, whatever the values: no Secret, no two objects of a name, everything labelled, every reference met.

use std::collections::HashSet;

use serde_json::Value;

use super::{EVERYTHING, NAMESPACE, arguments, described, find, objects, sets};

/// Kinds without a namespace.
const CLUSTER: [&str; 4] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

#[test]
fn no_values_make_a_secret_or_two_objects_of_one_name() {
    for set in sets() {
        let mut seen = HashSet::new();
        for object in objects(&arguments(&set)) {
            assert_ne!(object["kind"], "Secret", "{set:?}");
            assert!(
                seen.insert(described(&object)),
                "{} twice with {set:?}",
                described(&object)
            );
            let has_namespace = !object["metadata"]["namespace"].is_null();
            let is_cluster = CLUSTER.iter().any(|kind| object["kind"] == *kind);
            assert_ne!(has_namespace, is_cluster, "{}", described(&object));
        }
    }
}

#[test]
fn every_object_has_the_standard_labels_and_those_that_the_user_adds() {
    for object in objects(&["--set", EVERYTHING, "--set", "commonLabels.team=platform"]) {
        let labels = &object["metadata"]["labels"];
        for (label, value) in [
            ("helm.sh/chart", "berth-0.1.0"),
            ("app.kubernetes.io/name", "berth"),
            ("app.kubernetes.io/instance", "berth"),
            ("app.kubernetes.io/version", "0.1.0"),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("team", "platform"),
        ] {
            assert_eq!(labels[label], value, "{label} of {}", described(&object));
        }
        assert!(
            labels["app.kubernetes.io/component"].is_string(),
            "{}",
            described(&object)
        );
    }
}

/// Whether a selector's labels are among others.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("labels");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn services_reach_the_registry_and_nothing_else() {
    let objects = objects(&[]);
    let labels = |kind, name| &find(&objects, kind, name)["spec"]["template"]["metadata"]["labels"];
    let registry = labels("StatefulSet", "berth");
    let operator = labels("Deployment", "berth-operator");
    for name in ["berth", "berth-admin", "berth-headless"] {
        let service = &find(&objects, "Service", name)["spec"];
        assert!(selects(&service["selector"], registry), "{name}");
        assert!(!selects(&service["selector"], operator), "{name}");
        let ports = service["ports"].as_array().expect("ports");
        assert!(
            ports.iter().all(|port| port["targetPort"] != "ops"),
            "{name} offers metrics"
        );
    }
    assert_eq!(
        find(&objects, "Service", "berth-admin")["spec"]["publishNotReadyAddresses"],
        true
    );
    assert_eq!(
        find(&objects, "StatefulSet", "berth")["spec"]["serviceName"],
        "berth-headless"
    );
}

#[test]
fn a_chart_version_alone_restarts_no_pod() {
    let objects = objects(&[]);
    for (kind, name) in [("StatefulSet", "berth"), ("Deployment", "berth-operator")] {
        let labels = &find(&objects, kind, name)["spec"]["template"]["metadata"]["labels"];
        assert!(labels["helm.sh/chart"].is_null(), "{name}");
    }
}

#[test]
fn only_the_operator_reaches_the_admin_port() {
    let objects = objects(&["--set", "networkPolicy.enabled=true"]);
    let policy = &find(&objects, "NetworkPolicy", "berth")["spec"];
    let operator = &find(&objects, "Deployment", "berth-operator")["spec"]["template"]["metadata"]["labels"];
    let rules = policy["ingress"].as_array().expect("rules");
    let on = |port: &str| {
        let rule = rules.iter().find(|rule| rule["ports"][0]["port"] == port);
        rule.unwrap_or_else(|| panic!("a rule for {port}"))
    };
    let peers = on("admin")["from"].as_array().expect("peers");
    assert_eq!(peers.len(), 1);
    assert!(selects(&peers[0]["podSelector"]["matchLabels"], operator));
    assert!(
        on("http")["from"].is_null(),
        "everyone, as long as nobody is named"
    );
    assert!(!on("ops")["from"].is_null());
}

#[test]
fn routes_lie_beside_the_registry_and_cannot_be_mistaken_for_a_tenants() {
    let gateway = "exposure.mode=gateway,exposure.gateway.name=edge,exposure.gateway.namespace=infra";
    for (values, kind) in [(gateway, "HTTPRoute"), ("exposure.mode=ingress", "Ingress")] {
        let objects = objects(&[
            "--set",
            values,
            "--set",
            "exposure.perTenantRoutes=false,domain=r.example.com",
        ]);
        for (name, host) in [
            ("berth.apex", "r.example.com"),
            ("berth.tenants", "*.r.example.com"),
        ] {
            let route = find(&objects, kind, name);
            assert_eq!(route["metadata"]["namespace"], NAMESPACE);
            let hosts = [&route["spec"]["hostnames"][0], &route["spec"]["rules"][0]["host"]];
            assert!(hosts.contains(&&Value::from(host)), "{name}");
        }
        let operator = &find(&objects, "Deployment", "berth-operator")["spec"]["template"]["spec"];
        let flags = operator["containers"][0]["args"].to_string();
        assert!(flags.contains("--exposure=none"), "{flags}");
    }
}

#[test]
fn further_objects_may_hold_expressions() {
    let objects = objects(&[
        "--set-json",
        r#"extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ include \"berth.fullname\" . }}-extra"}}]"#,
    ]);
    find(&objects, "ConfigMap", "berth-extra");
}
