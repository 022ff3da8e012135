//! What the operator may do: everything that it does, and nothing besides; and what nodes may.

use serde_json::{Value, json};

use super::{find, objects};

/// Rules of a role, as (group, resource, verbs); those of named objects have the name behind the resource.
fn rules(role: &Value) -> Vec<(String, String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
        entries
            .iter()
            .map(|entry| entry.as_str().expect("a text").to_owned())
            .collect()
    };
    let mut all = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        let names = texts(&rule["resourceNames"]).join("+");
        let resources = texts(&rule["resources"])
            .into_iter()
            .chain(texts(&rule["nonResourceURLs"]));
        for resource in resources {
            let resource = if names.is_empty() {
                resource
            } else {
                format!("{resource}:{names}")
            };
            let group = texts(&rule["apiGroups"]).concat();
            all.push((group, resource, texts(&rule["verbs"])));
        }
    }
    all.sort();
    all
}

fn expected(rules: &[(&str, &str, &str)]) -> Vec<(String, String, Vec<String>)> {
    let mut all: Vec<_> = rules
        .iter()
        .map(|(group, resource, verbs)| {
            let verbs = verbs.split(' ').map(str::to_owned).collect();
            ((*group).to_owned(), (*resource).to_owned(), verbs)
        })
        .collect();
    all.sort();
    all
}

const EVERYWHERE: [(&str, &str, &str); 5] = [
    ("", "/.well-known/openid-configuration", "get"),
    ("", "/openid/v1/jwks", "get"),
    ("", "namespaces", "list watch"),
    ("berth.dev", "tenants", "get list watch patch"),
    ("berth.dev", "tenants/status", "patch"),
];
const IN_NAMESPACES: [(&str, &str, &str); 9] = [
    ("", "secrets", "get list watch create update delete"),
    ("", "serviceaccounts", "get list watch patch"),
    ("berth.dev", "pullthroughcaches", "list watch patch"),
    ("berth.dev", "pullthroughcaches/status", "patch"),
    ("berth.dev", "repositories", "list watch patch"),
    ("berth.dev", "repositories/status", "patch"),
    ("berth.dev", "retentionpolicies", "list watch patch"),
    ("berth.dev", "retentionpolicies/status", "patch"),
    ("events.k8s.io", "events", "create patch"),
];
const AT_HOME: [(&str, &str, &str); 2] = [
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases:berth-operator", "get update"),
];
/// Where the rights on Secrets are not everywhere's.
const KEYS: [(&str, &str, &str); 2] = [
    ("", "secrets", "create"),
    ("", "secrets:berth-keys", "get update"),
];

fn role<'a>(objects: &'a [Value], name: &str, namespace: &str) -> &'a Value {
    let is_it = |object: &&Value| {
        let metadata = &object["metadata"];
        object["kind"] == "Role" && metadata["name"] == name && metadata["namespace"] == namespace
    };
    objects
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("a role in {namespace}"))
}

#[test]
fn without_a_list_of_namespaces_the_operator_has_its_rights_in_all_of_them() {
    let objects = objects(&[]);
    let cluster = find(&objects, "ClusterRole", "berth-system-berth-operator");
    assert_eq!(
        rules(cluster),
        expected(&[&EVERYWHERE[..], &IN_NAMESPACES].concat())
    );
    assert_eq!(
        rules(role(&objects, "berth-operator", "berth-system")),
        expected(&AT_HOME)
    );
    let roles = objects.iter().filter(|object| object["kind"] == "Role");
    assert_eq!(roles.count(), 1);
}

#[test]
fn with_a_list_of_namespaces_it_has_none_to_secrets_elsewhere() {
    let objects = objects(&["--set", "operator.namespaces={apps,builds}"]);
    let name = "berth-system-berth-operator";
    assert_eq!(rules(find(&objects, "ClusterRole", name)), expected(&EVERYWHERE));
    for namespace in ["apps", "builds"] {
        assert_eq!(
            rules(role(&objects, name, namespace)),
            expected(&IN_NAMESPACES),
            "{namespace}"
        );
    }
    assert_eq!(
        rules(role(&objects, "berth-operator", "berth-system")),
        expected(&[&AT_HOME[..], &KEYS].concat())
    );
    // Events about Tenants.
    let events = [("events.k8s.io", "events", "create patch")];
    assert_eq!(rules(role(&objects, name, "default")), expected(&events));
    let bindings = objects.iter().filter(|object| object["kind"] == "RoleBinding");
    let subject = json!({ "kind": "ServiceAccount", "name": "berth-operator", "namespace": "berth-system" });
    let mut count = 0;
    for binding in bindings {
        count += 1;
        assert_eq!(binding["subjects"], json!([subject]));
        role(
            &objects,
            binding["roleRef"]["name"].as_str().expect("a name"),
            binding["metadata"]["namespace"].as_str().expect("a namespace"),
        );
    }
    assert_eq!(count, 4);
}

#[test]
fn routes_are_its_own_to_make_only_where_it_makes_them() {
    let gateway = "exposure.mode=gateway,exposure.gateway.name=edge";
    let route = (
        "gateway.networking.k8s.io",
        "httproutes",
        "list watch create patch delete",
    );
    let ingress = ("networking.k8s.io", "ingresses", "list watch create patch delete");
    for (values, more) in [
        (gateway, vec![route]),
        ("exposure.mode=ingress", vec![ingress]),
        ("exposure.mode=ingress,exposure.perTenantRoutes=false", vec![]),
        ("exposure.mode=none", vec![]),
    ] {
        let objects = objects(&["--set", values]);
        let found = rules(role(&objects, "berth-operator", "berth-system"));
        assert_eq!(found, expected(&[&AT_HOME[..], &more].concat()), "{values}");
    }
}

#[test]
fn editors_of_a_namespace_declare_and_only_administrators_of_the_cluster_make_tenants() {
    let objects = objects(&[]);
    for name in ["berth-system-berth-view", "berth-system-berth-edit"] {
        let role = find(&objects, "ClusterRole", name);
        let labels = &role["metadata"]["labels"];
        assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        assert!(
            rules(role).iter().all(|(_, resource, _)| resource != "tenants"),
            "{name}"
        );
    }
    let edit = &find(&objects, "ClusterRole", "berth-system-berth-edit")["metadata"]["labels"];
    assert!(edit["rbac.authorization.k8s.io/aggregate-to-view"].is_null());
}

#[test]
fn nodes_get_tokens_for_this_registry_and_only_where_that_is_wanted() {
    let is_provider = |object: &&Value| {
        let name = object["metadata"]["name"].as_str();
        name.is_some_and(|name| name.ends_with("-credential-provider"))
    };
    let without = objects(&[]);
    assert_eq!(without.iter().filter(is_provider).count(), 0);

    let values = "credentialProvider.enabled=true,domain=registry.example.com,rbac.create=false";
    let with = objects(&["--set", values]);
    assert_eq!(with.iter().filter(is_provider).count(), 2);
    let name = "berth-system-berth-credential-provider";
    let verb = "request-serviceaccounts-token-audience";
    let role = find(&with, "ClusterRole", name);
    assert_eq!(rules(role), expected(&[("", "registry.example.com", verb)]));
    let binding = find(&with, "ClusterRoleBinding", name);
    assert_eq!(binding["roleRef"]["name"], name);
    let nodes = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes" });
    assert_eq!(binding["subjects"], json!([nodes]));
}

#[test]
fn nodes_ask_for_the_audience_that_the_registry_and_the_guide_name() {
    let with = objects(&[
        "--set",
        "credentialProvider.enabled=true,domain=registry.example.com",
    ]);
    let role = find(&with, "ClusterRole", "berth-system-berth-credential-provider");
    let registry = &find(&with, "StatefulSet", "berth")["spec"]["template"]["spec"]["containers"][0];
    let audience = role["rules"][0]["resources"][0].as_str().expect("a text");
    let flag = format!("--domain={audience}");
    assert!(registry["args"].as_array().expect("flags").contains(&json!(flag)));
    let guide = super::read(&super::checkout("docs/credential-provider.md"));
    assert!(guide.contains(&format!("serviceAccountTokenAudience: {audience}")));
}
