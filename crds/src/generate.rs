//! The CustomResourceDefinitions, complete: what the derive makes, and what it has no word for.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{PullThroughCache, Repository, RetentionPolicy, Tenant};

/// Why definitions could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A schema does not have the shape that is completed here.
    #[error("the definition of {kind} has no {part}")]
    Missing {
        /// Of which kind.
        kind: String,
        /// What is missing.
        part: &'static str,
    },
    /// A definition could not be written as YAML.
    #[error("the definition cannot be written: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A definition could not be written or read again.
    #[error("the definition cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The definitions of the four kinds.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, GenerateError> {
    [
        Tenant::crd(),
        Repository::crd(),
        RetentionPolicy::crd(),
        PullThroughCache::crd(),
    ]
    .into_iter()
    .map(complete)
    .collect()
}

/// Every file that is made of the definitions, by its path in the repository: one manifest for
/// `kubectl apply --server-side -f`, and the chart's, one a kind.
pub fn files() -> Result<Vec<(String, String)>, GenerateError> {
    const HEAD: &str = "# Made by crdgen from the crate berth-crds; do not edit.\n";
    let mut manifest = HEAD.to_owned();
    let mut files = Vec::new();
    for definition in definitions()? {
        let text = serde_yaml::to_string(&definition)?;
        manifest.push_str("---\n");
        manifest.push_str(&text);
        let path = format!("charts/berth/files/crds/{}.yaml", definition.spec.names.plural);
        files.push((path, format!("{HEAD}{text}")));
    }
    files.push(("crds/manifests/berth.yaml".to_owned(), manifest));
    Ok(files)
}

fn complete(definition: CustomResourceDefinition) -> Result<CustomResourceDefinition, GenerateError> {
    let kind = definition.spec.names.kind.clone();
    let namespaced = definition.spec.scope == "Namespaced";
    let mut value = serde_json::to_value(definition)?;
    let missing = |part: &'static str| GenerateError::Missing {
        kind: kind.clone(),
        part,
    };
    let schema = value
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .ok_or_else(|| missing("schema"))?;
    if !namespaced {
        // A Tenant's name is a label of its host.
        schema["x-kubernetes-validations"] = super::schema::rules(&[(
            "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            "the name is a part of the tenant's host: at most 63 letters, digits and '-', no dot",
        )]);
    }
    let status = schema
        .pointer_mut("/properties/status")
        .ok_or_else(|| missing("status"))?;
    // Until the first look an object must count as unfinished: without a status, tools that wait take it as done.
    status["default"] = json!({ "observedGeneration": -1 });
    let conditions = status
        .pointer_mut("/properties/conditions")
        .ok_or_else(|| missing("status.conditions"))?;
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    let condition = conditions
        .pointer_mut("/items/properties")
        .ok_or_else(|| missing("status.conditions[]"))?;
    // The limits of metav1.Condition, which its Rust type does not carry.
    for (field, limits) in [
        ("message", json!({ "maxLength": 32768 })),
        (
            "reason",
            json!({ "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$" }),
        ),
        ("status", json!({ "enum": ["True", "False", "Unknown"] })),
        ("type", json!({ "maxLength": 316 })),
        ("observedGeneration", json!({ "minimum": 0 })),
    ] {
        let target = condition
            .get_mut(field)
            .and_then(Value::as_object_mut)
            .ok_or_else(|| missing("status.conditions[]"))?;
        target.extend(
            limits
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    signed(&mut value);
    Ok(serde_json::from_value(value)?)
}

/// Numbers without a sign have a minimum; an API server does not know their formats and warns of them.
fn signed(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(format) = fields.get_mut("format") {
                match format.as_str() {
                    Some("uint32") => *format = json!("int32"),
                    Some("uint64") => *format = json!("int64"),
                    _ => {}
                }
            }
            fields.values_mut().for_each(signed);
        }
        Value::Array(entries) => entries.iter_mut().for_each(signed),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use kube::core::cel::Validator;
    use serde_json::{Map, Value, json};

    use super::*;

    #[test]
    fn the_files_in_the_repository_are_what_crdgen_writes() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (path, text) in files().unwrap() {
            let stored = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(
                stored == text,
                "{path} is stale: cargo run -p berth-crds --bin crdgen"
            );
        }
    }

    /// The schema of a kind, as an API server gets it.
    fn schema(kind: &str) -> Value {
        let definition = definitions()
            .unwrap()
            .into_iter()
            .find(|one| one.spec.names.kind == kind)
            .unwrap();
        let value = serde_json::to_value(definition).unwrap();
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// What an API server adds where a field is absent.
    fn fill(value: &mut Value, schema: &Value) {
        for (field, inner) in schema["properties"].as_object().unwrap_or(&Map::new()) {
            if value.is_object() && value[field].is_null() && !inner["default"].is_null() {
                value[field] = inner["default"].clone();
            }
            if value.get(field).is_some() {
                fill(&mut value[field], inner);
            }
        }
        for item in value.as_array_mut().into_iter().flatten() {
            fill(item, &schema["items"]);
        }
    }

    fn object(kind: &str, spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": { "name": "acme" }, "spec": spec,
        });
        fill(&mut object, &schema(kind));
        object
    }

    /// The first rule that is broken.
    fn broken(kind: &str, object: &Value, old: Option<&Value>) -> Option<String> {
        let checked = Validator::new().validate(&schema(kind), object, old);
        checked.err().map(|errors| format!("{errors:?}"))
    }

    #[test]
    fn every_rule_over_several_fields_refuses_what_breaks_it_and_takes_what_does_not() {
        let grants = json!([{ "repositories": ["**"], "actions": ["pull"] }]);
        let token = |every: &str, ends: &str| {
            json!({ "tokens": [{ "name": "ci", "secretRef": { "namespace": "a", "name": "b" }, "grants": grants,
                "rotateEvery": every, "expiresAfter": ends }] })
        };
        let trust = |mut rule: Value| {
            rule["grants"] = grants.clone();
            json!({ "trust": [rule] })
        };
        let accounts = json!({ "namespaces": ["a"], "names": ["*"] });
        let cases = [
            ("Tenant", json!({}), None),
            ("Tenant", json!({ "allowedNamespaces": { "from": "All" } }), None),
            (
                "Tenant",
                json!({ "allowedNamespaces": { "from": "Selector", "selector": {} } }),
                None,
            ),
            (
                "Tenant",
                json!({ "allowedNamespaces": { "from": "Selector" } }),
                Some("selector goes with"),
            ),
            (
                "Tenant",
                json!({ "allowedNamespaces": { "from": "All", "selector": {} } }),
                Some("selector goes with"),
            ),
            (
                "Tenant",
                json!({ "pullSecrets": { "namespaceSelector": {}, "rotateEvery": "60s" } }),
                None,
            ),
            (
                "Tenant",
                json!({ "pullSecrets": { "namespaceSelector": {}, "rotateEvery": "59s" } }),
                Some("too often"),
            ),
            (
                "Tenant",
                json!({ "billing": { "price": "0.2", "currency": "EUR" } }),
                None,
            ),
            ("Tenant", json!({ "billing": { "price": "0.2" } }), None),
            (
                "Tenant",
                json!({ "billing": { "currency": "EUR" } }),
                Some("currency goes with price"),
            ),
            ("Tenant", token("1h", "2h"), None),
            ("Tenant", token("2h", "120m"), Some("shorter than expiresAfter")),
            ("Tenant", token("1s", "2h"), Some("too often")),
            (
                "Tenant",
                trust(json!({ "issuer": "https://i.example", "audience": "a" })),
                None,
            ),
            ("Tenant", trust(json!({ "serviceAccounts": accounts })), None),
            ("Tenant", trust(json!({})), Some("either an issuer")),
            (
                "Tenant",
                trust(json!({ "issuer": "https://i.example" })),
                Some("name the audience"),
            ),
            (
                "Tenant",
                trust(json!({ "serviceAccounts": accounts, "when": "true" })),
                Some("goes without"),
            ),
            (
                "Tenant",
                trust(json!({ "serviceAccounts": { "names": ["*"] } })),
                Some("name namespaces"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "name": "a" }),
                None,
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "match": "a/**" }),
                None,
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" } }),
                Some("either name or match"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "name": "a", "match": "b" }),
                Some("not both"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "name": "a", "ephemeralAfter": "1h" }),
                Some("goes with lifecycle"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "name": "a", "lifecycle": "Ephemeral",
                "ephemeralAfter": "0s" }),
                Some("longer than 0"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "match": "a", "aliases": ["b"] }),
                Some("aliases go with name"),
            ),
            (
                "Repository",
                json!({ "tenantRef": { "name": "t" }, "name": "a", "aliases": ["a"] }),
                Some("own name"),
            ),
            (
                "RetentionPolicy",
                json!({ "tenantRef": { "name": "t" }, "rules": [{ "keepLast": 1 }] }),
                None,
            ),
            (
                "RetentionPolicy",
                json!({ "tenantRef": { "name": "t" }, "rules": [{ "since": "Pull" }] }),
                Some("goes with keepWithin"),
            ),
        ];
        for (kind, spec, expected) in cases {
            let object = object(kind, spec.clone());
            match (broken(kind, &object, None), expected) {
                (None, None) => {}
                (Some(said), Some(part)) => assert!(said.contains(part), "{kind} {spec}: {said}"),
                (said, expected) => panic!("{kind} {spec}: expected {expected:?}, got {said:?}"),
            }
        }
    }

    #[test]
    fn the_tenant_and_the_name_of_an_object_cannot_be_changed() {
        let spec = |tenant: &str, more: Value| {
            let mut spec = json!({ "tenantRef": { "name": tenant } });
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            spec
        };
        let upstream = json!({ "upstream": { "url": "https://a.example" }, "prefix": "a" });
        let cases = [
            (
                "Repository",
                spec("a", json!({ "name": "x" })),
                spec("b", json!({ "name": "x" })),
                false,
            ),
            (
                "Repository",
                spec("a", json!({ "name": "x" })),
                spec("a", json!({ "name": "y" })),
                false,
            ),
            (
                "Repository",
                spec("a", json!({ "name": "x" })),
                spec("a", json!({ "match": "x" })),
                false,
            ),
            (
                "Repository",
                spec("a", json!({ "match": "x" })),
                spec("a", json!({ "match": "y" })),
                true,
            ),
            (
                "RetentionPolicy",
                spec("a", json!({})),
                spec("b", json!({})),
                false,
            ),
            (
                "PullThroughCache",
                spec("a", upstream.clone()),
                spec("b", upstream.clone()),
                false,
            ),
            (
                "PullThroughCache",
                spec("a", upstream.clone()),
                spec("a", upstream),
                true,
            ),
        ];
        for (kind, old, new, allowed) in cases {
            let said = broken(kind, &object(kind, new.clone()), Some(&object(kind, old)));
            assert_eq!(said.is_none(), allowed, "{kind} {new}: {said:?}");
        }
    }

    #[test]
    fn a_tenants_name_is_a_label_and_an_unseen_object_is_unfinished() {
        let mut tenant = object("Tenant", json!({}));
        assert_eq!(broken("Tenant", &tenant, None), None);
        assert_eq!(tenant["status"]["observedGeneration"], -1);
        for name in ["a.b", &"a".repeat(64)] {
            tenant["metadata"]["name"] = json!(name);
            assert!(broken("Tenant", &tenant, None).is_some(), "{name}");
        }
    }

    #[test]
    fn columns_tell_readiness_the_fact_that_matters_the_reason_and_the_age() {
        for definition in definitions().unwrap() {
            let version = &definition.spec.versions[0];
            let columns = version.additional_printer_columns.iter().flatten();
            let shown: Vec<_> = columns.filter(|one| one.priority.unwrap_or(0) == 0).collect();
            let names: Vec<_> = shown.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names[0], "Ready");
            assert_eq!(names[names.len() - 2..], ["Reason", "Age"], "{names:?}");
            assert!(names.len() >= 4, "{names:?}");
            assert!(
                version
                    .selectable_fields
                    .as_ref()
                    .is_some_and(|fields| !fields.is_empty())
            );
            assert_eq!(
                definition.spec.names.categories.as_deref(),
                Some(&["berth".to_owned()][..])
            );
        }
    }
}
