//! The document as JSON: strict about known keys, indifferent to all others.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{DESCRIPTOR_LIMIT, ManifestError};
use crate::domain::digest;

/// Keys of manifests that some reader understands.
const MANIFEST_KEYS: [&str; 10] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "signatures",
];

/// Keys of descriptors that some reader understands.
const DESCRIPTOR_KEYS: [&str; 8] = [
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
];

/// Deepest nesting of a document.
const NESTING_LIMIT: usize = 100;

/// The known keys of a manifest document.
#[derive(Default)]
pub(super) struct Document<'a> {
    pub schema_version: Option<u64>,
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
    pub manifests: Option<Vec<Descriptor>>,
    pub subject: Option<Descriptor>,
    pub annotations: Option<&'a RawValue>,
    pub schema1: bool,
}

/// A descriptor, as far as the registry reads it.
pub(super) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub has_urls: bool,
}

/// Reads one document; bytes after it, other than white space, are an error.
pub(super) fn read(bytes: &[u8]) -> Result<Document<'_>, ManifestError> {
    let invalid = |error: serde_json::Error| ManifestError::Invalid(error.to_string());
    check_nesting(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut descriptors = 0;
    let document = deserializer
        .deserialize_map(DocumentVisitor {
            descriptors: &mut descriptors,
        })
        .map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    if let Some(annotations) = document.annotations {
        let texts: Result<std::collections::HashMap<String, String>, _> =
            serde_json::from_str(annotations.get());
        texts.map_err(|_| ManifestError::Invalid("annotations must be strings".into()))?;
    }
    Ok(document)
}

/// Refuses what nests too deeply for those who read it with recursion.
pub(super) fn check_nesting(bytes: &[u8]) -> Result<(), ManifestError> {
    if nesting(bytes) > NESTING_LIMIT {
        return Err(ManifestError::Invalid(format!(
            "it nests deeper than {NESTING_LIMIT} levels"
        )));
    }
    Ok(())
}

/// How deep brackets nest, outside of strings. The parser skips unknown values without recursion; clients
/// that read the same document may not.
fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Which known key `key` is. A key that Go's decoder, which folds case, would take for a known one is an
/// error; so is one that was there before (`seen` has a bit a key).
pub(super) fn known<E: serde::de::Error>(
    key: &str,
    keys: &[&'static str],
    seen: &mut u32,
) -> Result<Option<&'static str>, E> {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    for (bit, known) in keys.iter().enumerate() {
        if *known == key {
            if *seen & (1 << bit) != 0 {
                return Err(E::custom(format_args!("key {known} stands twice")));
            }
            *seen |= 1 << bit;
            return Ok(Some(known));
        }
        if key.chars().map(fold).eq(known.chars().map(fold)) {
            return Err(E::custom(format_args!("key {key:?} must be spelled {known}")));
        }
    }
    Ok(None)
}

struct DocumentVisitor<'c> {
    descriptors: &'c mut usize,
}

impl<'de> Visitor<'de> for DocumentVisitor<'_> {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a manifest object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut document = Document::default();
        let mut seen = 0;
        while let Some(key) = map.next_key::<String>()? {
            match known(&key, &MANIFEST_KEYS, &mut seen)? {
                Some("schemaVersion") => document.schema_version = Some(map.next_value()?),
                Some("mediaType") => document.media_type = map.next_value()?,
                Some("artifactType") => document.artifact_type = map.next_value()?,
                Some("config") => document.config = map.next_value_seed(OneDescriptor(self.descriptors))?,
                Some("layers") => document.layers = map.next_value_seed(Descriptors(self.descriptors))?,
                Some("manifests") => {
                    document.manifests = map.next_value_seed(Descriptors(self.descriptors))?
                }
                Some("subject") => document.subject = map.next_value_seed(OneDescriptor(self.descriptors))?,
                Some("annotations") => {
                    let raw: &RawValue = map.next_value()?;
                    document.annotations = Some(raw).filter(|raw| raw.get() != "null");
                }
                Some(_) => {
                    map.next_value::<IgnoredAny>()?;
                    document.schema1 = true;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(document)
    }
}

/// Reads a descriptor or null.
struct OneDescriptor<'c>(&'c mut usize);

impl<'de> DeserializeSeed<'de> for OneDescriptor<'_> {
    type Value = Option<Descriptor>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneDescriptor<'_> {
    type Value = Option<Descriptor>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a descriptor object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        *self.0 += 1;
        if *self.0 > DESCRIPTOR_LIMIT {
            return Err(M::Error::custom(format_args!(
                "more than {DESCRIPTOR_LIMIT} descriptors"
            )));
        }
        let (mut media_type, mut digest, mut size, mut has_urls) = (None, None, None, false);
        let mut seen = 0;
        while let Some(key) = map.next_key::<String>()? {
            match known(&key, &DESCRIPTOR_KEYS, &mut seen)? {
                Some("mediaType") => media_type = Some(map.next_value::<String>()?),
                Some("digest") => digest = Some(map.next_value::<String>()?),
                Some("size") => size = Some(map.next_value::<i64>()?),
                Some("urls") => {
                    has_urls = map
                        .next_value::<Option<Vec<String>>>()?
                        .is_some_and(|urls| !urls.is_empty());
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let digest = digest.ok_or_else(|| M::Error::missing_field("digest"))?;
        if !digest::is_well_formed(&digest) {
            return Err(M::Error::custom(format_args!("{digest:?} is not a digest")));
        }
        if size.ok_or_else(|| M::Error::missing_field("size"))? < 0 {
            return Err(M::Error::custom("a descriptor's size is not negative"));
        }
        Ok(Some(Descriptor {
            media_type: media_type.unwrap_or_default(),
            digest,
            has_urls,
        }))
    }
}

/// Reads a list of descriptors or null.
struct Descriptors<'c>(&'c mut usize);

impl<'de> DeserializeSeed<'de> for Descriptors<'_> {
    type Value = Option<Vec<Descriptor>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descriptors<'_> {
    type Value = Option<Vec<Descriptor>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        // Go clients write an empty list as null.
        Ok(Some(Vec::new()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut descriptors = Vec::new();
        while let Some(entry) = seq.next_element_seed(OneDescriptor(self.0))? {
            descriptors.push(entry.ok_or_else(|| S::Error::custom("a descriptor is null"))?);
        }
        Ok(Some(descriptors))
    }
}
