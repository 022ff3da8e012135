//! What differs between two manifests and their configurations. Pure.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::explorer::artifact::{Descriptor, ImageConfig};

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// In both.
    Both,
    /// In the newer alone.
    Added,
    /// In the older alone.
    Removed,
}

/// A layer of one or both.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRow {
    pub digest: String,
    pub size: u64,
    pub found: Where,
    /// The step that made it, of the newer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
}

/// A part of the configuration that is not the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

fn digests(layers: &[Descriptor]) -> HashSet<&str> {
    layers.iter().map(|layer| layer.digest.as_str()).collect()
}

/// Bytes of the layers that both have, each once.
pub fn shared(from: &[Descriptor], to: &[Descriptor]) -> u64 {
    let old = digests(from);
    let mut seen = HashSet::new();
    let both = to
        .iter()
        .filter(|layer| old.contains(layer.digest.as_str()) && seen.insert(layer.digest.as_str()));
    both.fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// The newer's layers in their order, then those that only the older has in theirs.
pub fn layers(from: &[Descriptor], to: &[Descriptor], config: Option<&ImageConfig>) -> Vec<LayerRow> {
    let (old, new) = (digests(from), digests(to));
    let steps = config.map(|config| config.history.as_slice()).unwrap_or_default();
    let made: Vec<_> = steps.iter().filter(|step| !step.empty_layer).collect();
    let fits = made.len() == to.len();
    let newer = to.iter().enumerate().map(|(at, layer)| LayerRow {
        digest: layer.digest.clone(),
        size: layer.size,
        found: match old.contains(layer.digest.as_str()) {
            true => Where::Both,
            false => Where::Added,
        },
        made_by: made
            .get(at)
            .filter(|_| fits)
            .and_then(|step| step.created_by.clone()),
    });
    let gone = from.iter().filter(|layer| !new.contains(layer.digest.as_str()));
    let gone = gone.map(|layer| LayerRow {
        digest: layer.digest.clone(),
        size: layer.size,
        found: Where::Removed,
        made_by: None,
    });
    newer.chain(gone).collect()
}

/// What is not the same, by key.
pub fn configs(from: Option<&ImageConfig>, to: Option<&ImageConfig>) -> Vec<Change> {
    let (from, to) = (
        from.map(flat).unwrap_or_default(),
        to.map(flat).unwrap_or_default(),
    );
    let keys: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let changed = keys.into_iter().filter(|key| from.get(*key) != to.get(*key));
    changed
        .map(|key| Change {
            key: key.clone(),
            from: from.get(key).cloned(),
            to: to.get(key).cloned(),
        })
        .collect()
}

/// A configuration as keys and values; when it was made is left out, since that is never the same.
fn flat(config: &ImageConfig) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            flat.insert(key.to_owned(), value);
        }
    };
    let run = &config.config;
    let list =
        |values: &[String]| (!values.is_empty()).then(|| serde_json::to_string(values).unwrap_or_default());
    put("author", config.author.clone());
    put("architecture", config.architecture.clone());
    put("os", config.os.clone());
    put("variant", config.variant.clone());
    put("user", run.user.clone());
    put("entrypoint", list(&run.entrypoint));
    put("command", list(&run.cmd));
    put("folder", run.working_dir.clone());
    put("ports", list(&run.exposed_ports));
    put("volumes", list(&run.volumes));
    put("stop signal", run.stop_signal.clone());
    for pair in &run.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        flat.insert(format!("env {name}"), value.to_owned());
    }
    for (name, value) in &run.labels {
        flat.insert(format!("label {name}"), value.clone());
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(digest: &str, size: u64) -> Descriptor {
        Descriptor {
            digest: digest.to_owned(),
            size,
            ..Descriptor::default()
        }
    }

    #[test]
    fn layers_are_told_apart_by_where_they_are() {
        let from = [layer("a", 1), layer("b", 2), layer("b", 2)];
        let to = [layer("a", 1), layer("a", 1), layer("c", 4)];
        let rows = layers(&from, &to, None);
        let told: Vec<_> = rows.iter().map(|row| (&*row.digest, row.found)).collect();
        let expected = [
            ("a", Where::Both),
            ("a", Where::Both),
            ("c", Where::Added),
            ("b", Where::Removed),
            ("b", Where::Removed),
        ];
        assert_eq!(told, expected);
        assert_eq!(shared(&from, &to), 1);
    }

    #[test]
    fn configurations_differ_by_key() {
        let read = |json: &str| serde_json::from_str::<ImageConfig>(json).unwrap();
        let from = read(r#"{"os":"linux","config":{"Env":["A=1","B=2"],"Labels":{"x":"1"},"Cmd":["a"]}}"#);
        let to = read(r#"{"os":"linux","config":{"Env":["A=1","B=3","C"],"Cmd":["a","b"],"User":"7"}}"#);
        let changes = configs(Some(&from), Some(&to));
        let told: Vec<_> = changes
            .iter()
            .map(|change| (&*change.key, change.from.as_deref(), change.to.as_deref()))
            .collect();
        let expected = [
            ("command", Some(r#"["a"]"#), Some(r#"["a","b"]"#)),
            ("env B", Some("2"), Some("3")),
            ("env C", None, Some("")),
            ("label x", Some("1"), None),
            ("user", None, Some("7")),
        ];
        assert_eq!(told, expected);
        assert!(configs(Some(&from), Some(&from)).is_empty());
        assert!(configs(None, None).is_empty());
    }
}
