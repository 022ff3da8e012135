//! Showing the effective settings, secrets redacted.

use serde_json::{Map, Value, json};

use super::redact;
use super::resolve::{Entry, Resolved};
use super::table::Setting;

/// The settings as a YAML file that could be passed to `--config`, with the source of each as a comment.
/// A redacted password must be put back by hand.
pub fn yaml(resolved: &Resolved) -> String {
    let mut text = String::new();
    let mut group = "";
    for (setting, entry) in resolved.iter() {
        if setting.group != group {
            group = setting.group;
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# {group}\n"));
        }
        let value = shown(setting, entry).map_or_else(|| "null".to_owned(), |value| quoted(&value));
        text.push_str(&format!("{}: {value}  # {}\n", setting.name, entry.source));
    }
    text
}

/// The settings as a JSON object: `{"listen": {"value": …, "source": …}, …}`.
pub fn json(resolved: &Resolved) -> Value {
    let one = |(setting, entry): (&'static Setting, &Entry)| {
        let value = json!({ "value": shown(setting, entry), "source": entry.source.to_string() });
        (setting.name.to_owned(), value)
    };
    Value::Object(resolved.iter().map(one).collect::<Map<_, _>>())
}

fn shown(setting: &Setting, entry: &Entry) -> Option<String> {
    let value = entry.value.as_deref()?;
    Some(if setting.secret_url {
        redact::url(value)
    } else {
        value.to_owned()
    })
}

/// A YAML scalar that reads back as the same text. JSON's quoting is YAML's double quoting.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./:-_".contains(c);
    let simple = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/')
        && value.chars().all(plain)
        && !value.ends_with(':');
    // YAML would read a price back as a number, without its last zeros.
    let number = value.contains('.') && value.parse::<f64>().is_ok();
    if simple && !number {
        value.to_owned()
    } else {
        json!(value).to_string()
    }
}
