//! The table of values in the chart's README: made of the comments in values.yaml, every value and no other.

use serde_json::Value;

use harness::same_as_stored;

use super::{chart, read};

const BEGIN: &str = "<!-- values: made of values.yaml -->\n";
const END: &str = "<!-- end of values -->\n";

/// A documented value.
struct Row {
    path: String,
    description: String,
}

/// The documented keys of values.yaml, in its order: those below a comment that begins with two dashes. What lies below
/// a documented key is part of its default.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut description: Option<String> = None;
    let mut documented: Option<usize> = None;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(first) = content.strip_prefix("# -- ") {
            description = Some(first.to_owned());
        } else if let Some(more) = content.strip_prefix("# ") {
            if let Some(description) = &mut description {
                description.push(' ');
                description.push_str(more);
            }
        } else if let Some((key, _)) = content.split_once(':') {
            if documented.is_some_and(|above| indent > above) {
                continue;
            }
            documented = None;
            path.retain(|(above, _)| *above < indent);
            path.push((indent, key));
            if let Some(description) = description.take() {
                documented = Some(indent);
                let keys: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
                rows.push(Row {
                    path: keys.join("."),
                    description,
                });
            }
        }
    }
    rows
}

fn values() -> Value {
    serde_yaml::from_str(&read(&chart("values.yaml"))).expect("YAML")
}

fn at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |value, key| value.get(key))
}

fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(value, &path, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn table() -> String {
    let values = values();
    let mut table = "| Key | Type | Default | Description |\n| --- | --- | --- | --- |\n".to_owned();
    for Row { path, description } in rows(&read(&chart("values.yaml"))) {
        let value = at(&values, &path).unwrap_or_else(|| panic!("{path}"));
        let description = description.replace('|', "\\|");
        table.push_str(&format!(
            "| `{path}` | {} | `{value}` | {description} |\n",
            kind(value)
        ));
    }
    table
}

#[test]
fn every_value_is_documented_once() {
    let values = values();
    let rows = rows(&read(&chart("values.yaml")));
    let mut found = Vec::new();
    leaves(&values, "", &mut found);
    for leaf in &found {
        let covering = rows
            .iter()
            .filter(|row| leaf == &row.path || leaf.starts_with(&format!("{}.", row.path)));
        assert_eq!(covering.count(), 1, "comments above {leaf}");
    }
    for row in &rows {
        assert!(at(&values, &row.path).is_some(), "{} is no value", row.path);
    }
}

#[test]
fn the_readme_lists_every_value_with_its_default() {
    let path = chart("README.md");
    let stored = read(&path);
    let (before, rest) = stored.split_once(BEGIN).expect("the table begins");
    let (_, after) = rest.split_once(END).expect("the table ends");
    let table = table();
    same_as_stored(&path, &format!("{before}{BEGIN}\n{table}\n{END}{after}"));
}

#[test]
fn the_schema_knows_every_value() {
    let schema: Value = serde_json::from_str(&read(&chart("values.schema.json"))).expect("JSON");
    let follow = |schema: &Value, root: &Value| -> Value {
        let name = schema["$ref"]
            .as_str()
            .and_then(|name| name.strip_prefix("#/definitions/"));
        name.map_or_else(|| schema.clone(), |name| root["definitions"][name].clone())
    };
    for row in rows(&read(&chart("values.yaml"))) {
        let mut here = schema.clone();
        for key in row.path.split('.') {
            assert_eq!(here["additionalProperties"], false, "above {key} of {}", row.path);
            here = follow(&here["properties"][key], &schema);
            assert!(!here.is_null(), "{} is not in the schema", row.path);
        }
    }
}
