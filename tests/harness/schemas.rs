//! Schemas of everything that an API server serves, in the form that kubeconform reads: one file a kind, strict.
//!
//! kubeconform's own come over the network; these are of the very server that the chart is installed into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

const DEFINITION: &str = "#/definitions/";

/// Writes the schemas of a server's OpenAPI document (version 2) into a folder, as `<kind>-<group>-<version>.json`.
///
/// # Panics
/// If the document is no such document.
pub fn write(openapi: &Value, folder: &Path) {
    let definitions = openapi["definitions"].as_object().expect("definitions");
    let strict: BTreeMap<&str, Value> = definitions
        .iter()
        .map(|(name, definition)| (name.as_str(), tightened(definition)))
        .collect();
    for (name, definition) in definitions {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in kinds.into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_lowercase();
            // The group's first part alone, as kubeconform names its files.
            let group = text("group").split('.').next().unwrap_or_default().to_owned();
            let parts = [text("kind"), group, text("version")];
            let file = parts
                .iter()
                .filter(|part| !part.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join("-");
            let mut needed = BTreeSet::new();
            reach(name, &strict, &mut needed);
            let reached: Map<String, Value> = needed
                .iter()
                .map(|name| ((*name).to_owned(), strict[name].clone()))
                .collect();
            let schema = json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": format!("{DEFINITION}{name}"),
                "definitions": reached,
            });
            std::fs::write(folder.join(format!("{file}.json")), schema.to_string()).expect("a schema");
        }
    }
}

/// No unknown fields, and the types that the server takes beyond what its document says.
fn tightened(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return match schema {
            Value::Array(entries) => entries.iter().map(tightened).collect(),
            other => other.clone(),
        };
    };
    if fields
        .get("format")
        .is_some_and(|format| format == "int-or-string")
        || fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
    {
        return json!({ "type": ["string", "integer"] });
    }
    let part = |(name, field): (&String, &Value)| {
        let field = match field {
            // Names of fields, which may be words of a schema. Absent fields may be written as null.
            Value::Object(properties) if name == "properties" => properties
                .iter()
                .map(|(name, field)| {
                    (
                        name.clone(),
                        json!({ "anyOf": [tightened(field), { "type": "null" }] }),
                    )
                })
                .collect(),
            field => tightened(field),
        };
        (name.clone(), field)
    };
    let mut tight: Map<String, Value> = fields.iter().map(part).collect();
    let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if fields.contains_key("properties") && !open {
        tight.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    Value::Object(tight)
}

fn reach<'a>(name: &'a str, definitions: &'a BTreeMap<&'a str, Value>, reached: &mut BTreeSet<&'a str>) {
    if reached.insert(name) {
        references(&definitions[name], definitions, reached);
    }
}

fn references<'a>(
    schema: &'a Value,
    definitions: &'a BTreeMap<&'a str, Value>,
    reached: &mut BTreeSet<&'a str>,
) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                let name = name.trim_start_matches(DEFINITION);
                let (name, _) = definitions.get_key_value(name).expect("a definition");
                reach(name, definitions, reached);
            }
            fields
                .values()
                .for_each(|field| references(field, definitions, reached));
        }
        Value::Array(entries) => entries
            .iter()
            .for_each(|entry| references(entry, definitions, reached)),
        _ => {}
    }
}
