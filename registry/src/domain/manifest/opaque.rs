//! A manifest of a format that is not known: JSON, of which everything that looks like a descriptor is kept.
//!
//! Whatever has a key `digest` with a digest that can be stored names content; so no format has to be known for its content
//! to outlive a collection. `mediaType`, `artifactType`, `subject` and `annotations` mean what the image-spec says where they
//! have its shape, and nothing where they have not.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DESCRIPTOR_LIMIT, Manifest, ManifestError, check_referrer, differ, json};
use crate::domain::digest::{self, Digest};
use crate::domain::media_type::Format;

/// Keys with a meaning of their own in the document itself.
const KEYS: [&str; 4] = ["mediaType", "artifactType", "subject", "annotations"];

/// What the document says.
#[derive(Default)]
pub(super) struct Document {
    pub media_type: Option<String>,
    artifact_type: Option<String>,
    subject: Option<String>,
    annotations: Option<String>,
    named: BTreeSet<Digest>,
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
            children: self.named.into_iter().collect(),
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
            let Some(known) = json::known(&key, &KEYS, &mut seen)? else {
                map.next_value_seed(Within {
                    named: &mut document.named,
                    is_digest: key == "digest",
                })?;
                continue;
            };
            let raw: &RawValue = map.next_value()?;
            match known {
                "mediaType" => document.media_type = shaped(raw),
                "artifactType" => document.artifact_type = shaped(raw),
                "subject" => {
                    let subject = shaped(raw).map(|subject: Subject| subject.digest);
                    document.subject = subject.filter(|text| digest::is_well_formed(text));
                }
                _ => {
                    let texts: Option<std::collections::HashMap<String, String>> = shaped(raw);
                    document.annotations = texts.map(|_| raw.get().to_owned());
                }
            }
        }
        Ok(document)
    }
}

/// Gathers what any value names.
struct Within<'c> {
    named: &'c mut BTreeSet<Digest>,
    /// Whether the value is that of a key `digest`.
    is_digest: bool,
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.is_digest
            && let Ok(digest) = text.parse()
        {
            self.named.insert(digest);
            if self.named.len() > DESCRIPTOR_LIMIT {
                return Err(E::custom(format_args!(
                    "more than {DESCRIPTOR_LIMIT} descriptors"
                )));
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        let named = self.named;
        while seq
            .next_element_seed(Within {
                named: &mut *named,
                is_digest: false,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let named = self.named;
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(Within {
                named: &mut *named,
                is_digest: key == "digest",
            })?;
        }
        Ok(())
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
                "note":"{subject}","digest":7,"other":{{"digest":"blake9:abc"}},"layers":null,
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
        assert_eq!(
            (manifest.subject, manifest.artifact_type, manifest.annotations),
            (None, None, None)
        );
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
        let schema1 = "application/vnd.docker.distribution.manifest.v1+json";
        assert_eq!(any("{}", Some(schema1)), Err(ManifestError::Schema1));
        assert!(matches!(
            any("{}", Some("text/plain")),
            Err(ManifestError::Unsupported(_))
        ));
    }
}
