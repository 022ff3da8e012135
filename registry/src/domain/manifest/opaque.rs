//! A manifest of a format that is not known: JSON, of which everything that looks like a descriptor is kept.
//!
//! Whatever has a key `digest` with a digest that can be stored names content; so no format has to be known for its content
//! to outlive a collection. `mediaType`, `artifactType`, `subject` and `annotations` mean what the image-spec says where they
//! have its shape, and nothing where they have not.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DESCRIPTOR_LIMIT, Manifest, ManifestError, check_referrer, differ, json};
use crate::domain::digest::{self, Digest};
use crate::domain::media_type::{Format, MediaType};

/// Longest text that is looked at, in bytes: that of the longest media type.
const TEXT_LIMIT: usize = 255;
/// Keys with a meaning of their own in the document itself.
const KEYS: [&str; 4] = ["mediaType", "artifactType", "subject", "annotations"];

/// What the document says.
#[derive(Default)]
pub(super) struct Document {
    pub media_type: Option<String>,
    artifact_type: Option<String>,
    subject: Option<String>,
    annotations: Option<String>,
    named: BTreeMap<Digest, Named>,
}

/// What a document says of something that it names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Named {
    /// Whether it is of a type that manifests have; else it may be anything.
    pub is_manifest: bool,
}

/// A descriptor, of which only this counts here.
#[derive(Deserialize)]
struct Subject {
    digest: String,
}

/// Reads one document; bytes after it, other than white space, are an error.
pub(super) fn read(bytes: &[u8]) -> Result<Document, ManifestError> {
    let invalid = |error: serde_json::Error| ManifestError::Invalid(error.to_string());
    json::check_nesting(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let document = deserializer.deserialize_map(DocumentVisitor).map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    Ok(document)
}

/// All that a document names.
pub fn named(bytes: &[u8]) -> Result<BTreeMap<Digest, Named>, ManifestError> {
    Ok(read(bytes)?.named)
}

impl Document {
    /// As a manifest of this format, unless the document says that it is of another one.
    pub fn into_manifest(self, format: Format) -> Result<Manifest, ManifestError> {
        if let Some(text) = self.media_type.filter(|text| !format.is(text)) {
            return Err(differ(format.as_str(), &text));
        }
        check_referrer(self.artifact_type.as_deref(), self.subject.as_deref())?;
        Ok(Manifest {
            media_type: format,
            artifact_type: self.artifact_type.filter(|text| !text.is_empty()),
            blobs: Vec::new(),
            children: self.named.into_keys().collect(),
            subject: self.subject,
            annotations: self.annotations,
        })
    }
}

/// A value that may be anything, as what it should be.
fn shaped<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a manifest object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut document = Document::default();
        let mut seen = 0;
        while let Some(key) = map.next_key::<String>()? {
            let known = json::known(&key, &KEYS, &mut seen)?;
            let raw: &RawValue = map.next_value()?;
            let text = Within(&mut document.named).walk(raw)?;
            match known {
                Some("mediaType") => document.media_type = shaped(raw),
                Some("artifactType") => document.artifact_type = shaped(raw),
                Some("subject") => {
                    let subject = shaped(raw).map(|subject: Subject| subject.digest);
                    document.subject = subject.filter(|text| digest::is_well_formed(text));
                }
                Some(_) => {
                    let texts: Option<std::collections::HashMap<String, String>> = shaped(raw);
                    document.annotations = texts.map(|_| raw.get().to_owned());
                }
                None if key == "digest" => Within(&mut document.named).insert(text, Named::default())?,
                None => {}
            }
        }
        // What it is about need not be there, and is not kept for it.
        if let Some(Ok(subject)) = document.subject.as_deref().map(str::parse) {
            document.named.remove(&subject);
        }
        Ok(document)
    }
}

/// Gathers what any value names. A text is given back, for the key that it belongs to.
struct Within<'c>(&'c mut BTreeMap<Digest, Named>);

impl Within<'_> {
    fn walk<E: serde::de::Error>(self, raw: &RawValue) -> Result<Option<String>, E> {
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        self.deserialize(&mut deserializer).map_err(E::custom)
    }

    fn insert<E: serde::de::Error>(&mut self, digest: Option<String>, named: Named) -> Result<(), E> {
        if let Some(digest) = digest.and_then(|text| text.parse().ok()) {
            self.0.insert(digest, named);
        }
        if self.0.len() > DESCRIPTOR_LIMIT {
            return Err(E::custom(format_args!(
                "more than {DESCRIPTOR_LIMIT} descriptors"
            )));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        // Longer than any digest or media type.
        Ok((text.len() <= TEXT_LIMIT).then(|| text.to_owned()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        while seq.next_element_seed(Within(&mut *self.0))?.is_some() {}
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut digest, mut media_type) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let text = map.next_value_seed(Within(&mut *self.0))?;
            match key.as_str() {
                // A key that stands twice names twice.
                "digest" => self.insert(std::mem::replace(&mut digest, text), Named::default())?,
                "mediaType" => media_type = text,
                _ => {}
            }
        }
        let is_manifest = media_type.is_some_and(|text| MediaType::parse(&text).is_some());
        self.insert(digest, Named { is_manifest })?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Algorithm;
    use crate::domain::media_type::OCI_MANIFEST;

    const BUNDLE: &str = "application/vnd.acme.bundle.v1+json";

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn any(text: &str, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::read_any(text.as_bytes(), content_type)
    }

    #[test]
    fn whatever_looks_like_a_descriptor_is_named_at_any_depth_and_the_subject_is_not() {
        let (a, b, subject) = (digest("a"), digest("b"), digest("s"));
        let text = format!(
            r#"{{"mediaType":"{BUNDLE}","blobs":[{{"digest":"{a}"}},{{"digest":"{a}","x":[{{"y":{{"digest":"{b}","size":-1.5e9}}}}]}}],
                "note":"{subject}","again":{{"digest":"{subject}"}},"digest":7,"other":{{"digest":"blake9:abc"}},"layers":null,
                "artifactType":"application/x","annotations":{{"k":"v"}},"subject":{{"digest":"{subject}"}}}}"#
        );
        let mut expected = vec![a, b];
        expected.sort_unstable();
        for said in [
            None,
            Some(BUNDLE),
            Some("Application/vnd.acme.bundle.v1+JSON; charset=utf-8"),
        ] {
            let manifest = any(&text, said).unwrap();
            assert_eq!((&manifest.children, manifest.blobs.len()), (&expected, 0));
            assert_eq!(manifest.subject, Some(subject.to_string()));
            assert_eq!(manifest.artifact_type.as_deref(), Some("application/x"));
            assert_eq!(manifest.annotations.as_deref(), Some(r#"{"k":"v"}"#));
            assert!(manifest.media_type.is(BUNDLE) && manifest.is_opaque());
        }
        assert!(matches!(
            Manifest::read(text.as_bytes(), Some(BUNDLE)),
            Err(ManifestError::Unsupported(_))
        ));
    }

    #[test]
    fn keys_of_another_shape_mean_nothing() {
        let text =
            r#"{"mediaType":7,"artifactType":[],"subject":{"digest":"no digest"},"annotations":{"k":1}}"#;
        let manifest = any(text, Some(BUNDLE)).unwrap();
        assert_eq!(manifest.children, []);
        assert_eq!(
            (manifest.subject, manifest.artifact_type, manifest.annotations),
            (None, None, None)
        );
    }

    #[test]
    fn keys_with_a_meaning_name_what_lies_in_them_too() {
        let (a, b) = (digest("a"), digest("b"));
        let text = format!(
            r#"{{"annotations":{{"x":{{"digest":"{a}"}}}},"subject":[{{"digest":"{b}"}}],"artifactType":{{"digest":"{a}"}}}}"#
        );
        let mut expected = vec![a, b];
        expected.sort_unstable();
        assert_eq!(any(&text, Some(BUNDLE)).unwrap().children, expected);
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_or_is_no_json_is_refused() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let known = format!(r#"{{"mediaType":"{OCI_MANIFEST}"}}"#);
        let many: Vec<String> = (0..=DESCRIPTOR_LIMIT)
            .map(|i| format!(r#"{{"digest":"{}"}}"#, digest(&i.to_string())))
            .collect();
        let bomb = format!(r#"{{"x":[{}]}}"#, many.join(","));
        for text in [
            "",
            "[]",
            "7",
            "{}{}",
            r#"{"a":}"#,
            r#"{"subject":null,"subject":null}"#,
            r#"{"Subject":null}"#,
            r#"{"mediaType":"application/vnd.acme.other+json"}"#,
            r#"{"artifactType":"a\nb"}"#,
            &known,
            &deep,
            &bomb,
        ] {
            assert!(
                any(text, Some(BUNDLE)).is_err(),
                "{}",
                &text[..text.len().min(60)]
            );
        }
        let schema1 = "Application/vnd.docker.distribution.manifest.v1+json";
        assert_eq!(any("{}", Some(schema1)), Err(ManifestError::Schema1));
        let said = format!(r#"{{"mediaType":" {schema1}"}}"#);
        assert_eq!(any(&said, None), Err(ManifestError::Schema1));
        assert!(matches!(
            any("{}", Some("text/plain")),
            Err(ManifestError::Unsupported(_))
        ));
    }
}
