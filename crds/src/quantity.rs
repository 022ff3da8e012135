//! Amounts of bytes as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes: a number with an optional suffix of Kubernetes quantities (`Ki` to `Ei` in steps of 1024, `k` to `E`
/// in steps of 1000). At most 2^63 - 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quantity {
    text: String,
    bytes: u64,
}

const SUFFIXES: [(&str, u64); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// What a schema takes: as many digits as cannot be more than 2^63 - 1 with their suffix, so that whatever it admits is
/// readable.
const TEXT: &str = r"^([0-9]{1,18}(\.[0-9]{1,9})?|[0-9]{1,15}(\.[0-9]{1,9})?(Ki|k)|[0-9]{1,12}(\.[0-9]{1,9})?(Mi|M)|[0-9]{1,9}(\.[0-9]{1,9})?(Gi|G)|[0-9]{1,6}(\.[0-9]{1,9})?(Ti|T)|[0-9]{1,3}(\.[0-9]{1,9})?(Pi|P)|[0-7](\.[0-9]{1,9})?(Ei|E))$";

impl Quantity {
    /// The number of bytes, rounded up.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of bytes as a limit: `None` for 0, which sets none.
    pub fn limit(&self) -> Option<u64> {
        (self.bytes > 0).then_some(self.bytes)
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no amount of bytes: write it like 500Gi, 1.5T or 1048576");
        let too_large = || format!("{text:?} is too large: the limit is 8Ei");
        if text.len() > 32 {
            return Err(refused());
        }
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (_, unit) = SUFFIXES
            .iter()
            .find(|(known, _)| *known == suffix)
            .ok_or_else(refused)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 9 || fraction.contains('.') {
            return Err(refused());
        }
        let unit = u128::from(*unit);
        let mut bytes = whole
            .parse::<u128>()
            .map_err(|_| refused())?
            .checked_mul(unit)
            .ok_or_else(too_large)?;
        if !fraction.is_empty() {
            let digits = fraction.parse::<u128>().map_err(|_| refused())?;
            let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
            bytes += (digits * unit).div_ceil(scale);
        }
        let bytes = u64::try_from(bytes)
            .ok()
            .filter(|bytes| i64::try_from(*bytes).is_ok());
        Ok(Self {
            text: text.to_owned(),
            bytes: bytes.ok_or_else(too_large)?,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "0" } else { &self.text })
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "maxLength": 32,
            "minimum": 0,
            "maximum": 1_000_000_000_000_000_000_u64,
            "pattern": TEXT,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_quantities() {
        let cases = [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("500Gi", Some(500 << 30)),
            ("50G", Some(50_000_000_000)),
            ("1.5Ki", Some(1536)),
            ("0.1k", Some(100)),
            ("7Ei", Some(7 << 60)),
            ("8Ei", None),
            ("99999999999999999999", None),
            ("", None),
            ("-1", None),
            ("1gb", None),
            (".5Gi", None),
            ("1.2.3", None),
            ("1e3", None),
        ];
        for (text, bytes) in cases {
            let read = text.parse::<Quantity>().ok();
            assert_eq!(read.as_ref().map(Quantity::bytes), bytes, "{text}");
            if let Some(read) = read {
                assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn numbers_and_texts_are_read_alike() {
        let number: Quantity = serde_json::from_str("1024").unwrap();
        let text: Quantity = serde_json::from_str("\"1Ki\"").unwrap();
        assert_eq!((number.bytes(), text.bytes()), (1024, 1024));
        assert!(serde_json::from_str::<Quantity>("-1").is_err());
        assert_eq!(Quantity::default().limit(), None);
    }
}
