//! Lengths of time as Go and Kubernetes write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema;

/// Ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// A length of time like `720h`, `1h30m` or `500ms`: units h, m, s and ms, at most ten years.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    text: String,
    duration: Duration,
}

impl Span {
    /// How long it is.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no length of time: write it like 720h, 1h30m, 90s or 500ms");
        if text.is_empty() || text.len() > 32 {
            return Err(refused());
        }
        let mut duration = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
            let number: u32 = rest[..end].parse().map_err(|_| refused())?;
            rest = &rest[end..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "h" => Duration::from_secs(3600),
                "m" => Duration::from_secs(60),
                "s" => Duration::from_secs(1),
                "ms" => Duration::from_millis(1),
                _ => return Err(refused()),
            };
            rest = &rest[end..];
            duration = unit
                .checked_mul(number)
                .and_then(|part| duration.checked_add(part))
                .filter(|sum| *sum <= LONGEST)
                .ok_or_else(|| format!("{text:?} is too long: the limit is ten years"))?;
        }
        Ok(Self {
            text: text.to_owned(),
            duration,
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "pattern": "^([0-9]{1,9}(h|m|s|ms))+$",
            // What the schema admits must be readable: an object that is stored and cannot be read is stalled.
            "x-kubernetes-validations": schema::rules(&[(
                "duration(self) <= duration('87840h')",
                "the longest time is ten years (87840h)",
            )]),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_of_spans() {
        let cases = [
            ("720h", Some(720 * 3600 * 1000)),
            ("1h30m", Some(5400 * 1000)),
            ("90s", Some(90_000)),
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("5d", None),
            ("-5m", None),
            ("1.5h", None),
            ("99999999h", None),
            ("h", None),
        ];
        for (text, milliseconds) in cases {
            let read = text.parse::<Span>().ok();
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(read.map(|span| span.duration()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", spans in "([0-9]{1,12}(h|m|s|ms)){0,4}") {
            let _ = text.parse::<Span>();
            let _ = spans.parse::<Span>();
        }
    }
}
