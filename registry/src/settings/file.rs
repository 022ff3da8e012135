//! The `--config` file: a YAML mapping of settings' names to values.

use std::collections::BTreeMap;
use std::path::Path;

use serde_yaml::Value;

use super::nearest::nearest;
use super::{SettingsError, table};

/// Values by setting, as text. A key that no setting has is an error, as is one that holds a mapping.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, String>, SettingsError> {
    let bad = |reason: String| SettingsError::BadFile {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| bad(format!("cannot be read ({error}); name a readable YAML file")))?;
    let document: Value =
        serde_yaml::from_str(&text).map_err(|error| bad(format!("is not YAML: {error}")))?;
    let entries = match document {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Mapping(entries) => entries,
        _ => {
            return Err(bad(
                "is not a mapping; write one `setting: value` a line".to_owned()
            ));
        }
    };
    let mut values = BTreeMap::new();
    for (key, value) in entries {
        let key = match key {
            Value::String(key) => key,
            other => {
                return Err(bad(format!(
                    "has the key {other:?}; keys are the settings' names"
                )));
            }
        };
        let Some(setting) = table::find(&key) else {
            let near = nearest(&key, table::SETTINGS.iter().map(|setting| setting.name));
            let hint = near
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_default();
            return Err(SettingsError::UnknownKey {
                path: path.to_owned(),
                key,
                hint,
            });
        };
        if let Some(value) = text_of(value).map_err(|reason| bad(format!("`{key}` {reason}")))? {
            values.insert(setting.name, value);
        }
    }
    Ok(values)
}

/// A scalar's text, a sequence's texts joined by commas, nothing for null.
fn text_of(value: Value) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(value) => Ok(Some(value.to_string())),
        Value::String(value) => Ok(Some(value)),
        Value::Sequence(items) => {
            let texts: Vec<String> = items
                .into_iter()
                .map(text_of)
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?;
            Ok(Some(texts.join(",")))
        }
        Value::Mapping(_) | Value::Tagged(_) => Err("holds a mapping; it takes a value or a list of values"),
    }
}
